#!/usr/bin/env bash
# Builds the static binary of the image for this machine's architecture, and says how large it is and what it takes when idle.
# Called by `make static`. Needs rustup, for the standard library of musl, and Debian's musl-tools for the code in C; without
# either it says so and does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "static: skipped: $1"
    exit 0
}

command -v rustup >/dev/null || skip "there is no rustup to install the standard library of musl with"
if ! command -v musl-gcc >/dev/null; then
    command -v apt-get >/dev/null || skip "there is no musl-gcc, and no apt-get to install it with"
    [ "$(id -u)" -eq 0 ] || skip "there is no musl-gcc; install it with: sudo apt-get install musl-tools"
    apt-get update -qq </dev/null || skip "apt-get update failed"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends musl-tools </dev/null >/dev/null ||
        skip "apt-get could not install musl-tools"
fi

target=$(uname -m)-unknown-linux-musl
rustup target add "$target" 2>/dev/null || skip "rustup has no $target"
cargo build --release --locked --bin weir --target "$target"
weir=target/$target/release/weir

if ldd "$weir" 2>&1 | grep -q '=>'; then
    echo "static: $weir asks for libraries:" >&2
    ldd "$weir" >&2
    exit 1
fi

# It runs: the demo ends with its books.
"$weir" demo --duration 3s | grep --max-count=1 '^books '

log=$(mktemp)
trap 'rm -f "$log"' EXIT
env -u HOME -u WEIR_CONFIG MIMALLOC_ARENA_EAGER_COMMIT=0 "$weir" run --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 2>"$log" &
process=$!
trap 'kill "$process" 2>/dev/null; rm -f "$log"' EXIT
for _ in $(seq 100); do
    [ "$(grep -c listening "$log")" -ge 2 ] && break
    sleep 0.1
done
# What start needed and does not need any more is given back by then. The variable is the image's.
sleep 2
resident=$(awk '/^VmRSS:/ { printf "%.1f", $2 / 1024 }' "/proc/$process/status")
bytes=$(stat --format=%s "$weir")
echo "static: $weir: $(awk "BEGIN { printf \"%.1f\", $bytes / 1048576 }") MiB," \
    "$(gzip --stdout "$weir" | wc --bytes | awk '{ printf "%.1f", $1 / 1048576 }') MiB compressed; $resident MiB resident when idle"
