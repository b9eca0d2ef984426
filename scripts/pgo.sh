#!/usr/bin/env bash
# Builds weir as it ships, target/shipped/weir, by profile-guided optimization: first with counters in it, then with what these
# counted while the demo ran, so that what every call goes through lies together and what is rare lies apart. Called by `make
# release` and by the Dockerfile. Needs rustup, for the compiler's own llvm-profdata.
#
# With a target as its argument it builds for that one; what does not run here is built without a profile. PGO_BUILD is Cargo's
# command for the last build (build). PGO_PROFILE names a profile to take, such as that of a release, and nothing is counted: the
# same source, compiler and profile give the same bytes.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
target=${1:-$host}
profile=${PGO_PROFILE:-}

build() {
    RUSTFLAGS="${RUSTFLAGS:-} $1" cargo "$3" --release --locked --bin weir --target "$target" --target-dir "$2"
}

if [ -z "$profile" ] && [ "${target%%-*}" != "${host%%-*}" ]; then
    echo "release: no profile: what is built for $target does not run on $host"
elif [ -z "$profile" ]; then
    if ! rustup component add llvm-tools; then
        echo "release: rustup could not install llvm-tools, which reads what was counted" >&2
        exit 1
    fi
    profile=target/pgo/$target.profdata counts=$PWD/target/pgo/counts
    build "-Cprofile-generate=$counts" target/pgo/counting build
    weir=target/pgo/counting/$target/release/weir
    if [ "$weir" -nt "$profile" ]; then
        rm -rf "$counts"
        # Whoever stops reading too early would end it before its counters are written.
        "$weir" demo --rate 1000 --duration 20s >target/pgo/demo
        grep '^books ' target/pgo/demo
        "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" merge --sparse --output="$profile" "$counts"
    fi
fi

guide=
if [ -n "$profile" ]; then
    # Named after what is in it: Cargo builds again when flags change, not when a file does that they name.
    guide=$PWD/target/pgo/$(sha256sum "$profile" | cut --characters=1-16).profdata
    install -D --mode=644 "$profile" "$guide"
fi
build "${guide:+-Cprofile-use=$guide}" target/pgo/guided "${PGO_BUILD:-build}"
install -D "target/pgo/guided/$target/release/weir" target/shipped/weir
echo "release: target/shipped/weir: $(stat --format=%s target/shipped/weir | awk '{ printf "%.1f", $1 / 1e6 }') MB"
