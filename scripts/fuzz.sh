#!/usr/bin/env bash
# Runs every fuzz target, FUZZ_JOBS at a time (2 without), for FUZZ_SECONDS each (60 without), from the fixtures and from
# what was kept as seeds. What breaks a target is kept in fuzz/artifacts. FUZZ_SEED makes every run of the same code look at
# the same inputs in the same order, as far as the time goes. Needs a nightly compiler and cargo-fuzz; without them it says so
# and skips itself. With names as arguments, it runs those targets only.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "skipped: cargo-fuzz is not installed; get it with: cargo install --locked cargo-fuzz"
    exit 0
fi
if ! rustc +nightly --version >/dev/null 2>&1; then
    echo "skipped: there is no nightly compiler; get it with: rustup toolchain install nightly"
    exit 0
fi

python3 scripts/fuzz_seeds.py fuzz/corpus
# What is fuzzed is built of what ships.
cp Cargo.lock fuzz/Cargo.lock
cargo +nightly fuzz build --dev any
mkdir -p fuzz/logs

# The last lines of a target's log: how much was run, or what broke it.
run() {
    local target=$1 log=fuzz/logs/$1.log kept=fuzz/corpus-kept/$1
    mkdir -p "fuzz/artifacts/$target"
    [ -d "$kept" ] || kept=
    # shellcheck disable=SC2086 # no folder is no argument
    if FUZZ_TARGET=$target cargo +nightly fuzz run --dev any "fuzz/corpus/$target" $kept -- \
        -max_total_time="${FUZZ_SECONDS:-60}" -seed="${FUZZ_SEED:-0}" -rss_limit_mb=2048 -timeout=60 \
        -artifact_prefix="fuzz/artifacts/$target/" >"$log" 2>&1; then
        echo "ok      $target: $(grep -E '^Done ' "$log" || tail -1 "$log")"
    else
        echo "BROKEN  $target: see $log"
        touch "$broken/$target"
    fi
}
broken=$(mktemp -d)
trap 'rm -rf "$broken"' EXIT
export -f run
export broken
if [ $# -eq 0 ]; then
    # Each has seeds, which tests/fuzz.rs makes sure of.
    mapfile -t targets < <(ls fuzz/corpus)
else
    targets=("$@")
fi
printf '%s\n' "${targets[@]}" | xargs -P "${FUZZ_JOBS:-2}" -I{} bash -c 'run {}'

# What broke each, last, where it is looked for.
shopt -s nullglob
marks=("$broken"/*)
for mark in "${marks[@]}"; do
    log=fuzz/logs/$(basename "$mark").log
    printf '\nthe end of %s:\n' "$log"
    tail -n 30 "$log"
done
echo
echo "fuzz:   ${#targets[@]} targets, ${#marks[@]} broken"
[ ${#marks[@]} -eq 0 ]
