#!/usr/bin/env bash
# Builds weir as it ships, target/shipped/weir, by profile-guided optimization: first with counters in it, then with what these
# counted while it was trained (scripts/pgo-train.sh). What every call goes through is built for speed and lies
# together, in the order in which it is first needed; what is never run is built to be small and lies apart. Called by `make release`
# and by the Dockerfile. Needs rustup, for the compiler's own llvm-profdata.
#
# With a target as its argument it builds for that one; what does not run here is built without a profile, by cargo-zigbuild.
# PGO_PROFILE names a profile to take, such as that of a release, and nothing is counted: the same source, compiler and profile
# give the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
target=${1:-$host}
profile=${PGO_PROFILE:-}
tools=$(rustc --print sysroot)/lib/rustlib/$host/bin

build() {
    RUSTFLAGS="${RUSTFLAGS:-} $1" cargo "${3:-build}" --release --locked --bin weir --target "$target" --target-dir "$2"
}

if [ "${target%%-*}" != "${host%%-*}" ]; then
    echo "release: no profile${profile:+, not $profile either}: what is built for $target does not run on $host"
    build '' target/pgo/guided zigbuild
else
    if ! rustup component add llvm-tools; then
        echo "release: rustup could not install llvm-tools, which reads what was counted" >&2
        exit 1
    fi
    if [ -z "$profile" ]; then
        profile=target/pgo/$target.profdata counts=target/pgo/counts
        # Not only how often a function is run, but when first.
        build "-Cprofile-generate -Cllvm-args=-pgo-temporal-instrumentation" target/pgo/counting
        weir=target/pgo/counting/$target/release/weir
        if [ "$weir" -nt "$profile" ]; then
            rm -rf "$counts" && mkdir "$counts"
            scripts/pgo-train.sh "$weir" "$counts"
            # First comes what lies first.
            "$tools/llvm-profdata" merge --num-threads=1 --output="$profile" \
                "$counts"/run-all.profraw "$counts"/run-off.profraw "$counts"/[0-9]*.profraw
        fi
    fi
    # Named after what is in it: Cargo builds again when flags change, not when a file does that they name.
    guide=$PWD/target/pgo/$(sha256sum "$profile" | cut --characters=1-16)
    install -D --mode=644 "$profile" "$guide.profdata"
    "$tools/llvm-profdata" show --temporal-profile-traces "$profile" | awk '
        /Temporal Profile Trace / { is_first = / 0 / }
        is_first && /^    / { sub(/.*;/, ""); print $1; print $1 ".cold" }' >"$guide.order"
    flags=(
        "-Cprofile-use=$guide.profdata"
        # What is never run is built for size, however little of the program is run often.
        -Cllvm-args=-pgso-lwss-only=false
        # What is never run of a function that is goes elsewhere, as its `.cold`.
        -Cllvm-args=-enable-split-machine-functions -Cllvm-args=-mfs-psi-cutoff=0
        # The compiler's own linker, on every machine.
        "-Clink-arg=-B$tools/gcc-ld" -Clink-arg=-fuse-ld=lld
        -Clink-arg=-Wl,-z,keep-text-section-prefix
        "-Clink-arg=-Wl,--symbol-ordering-file=$guide.order" -Clink-arg=-Wl,--no-warn-symbol-ordering
        # What the loader has to put right, in a hundredth of the room.
        -Clink-arg=-Wl,-z,pack-relative-relocs
    )
    build "${flags[*]}" target/pgo/guided
fi
install -D "target/pgo/guided/$target/release/weir" target/shipped/weir
echo "release: target/shipped/weir: $(stat --format=%s target/shipped/weir | awk '{ printf "%.1f", $1 / 1e6 }') MB"
