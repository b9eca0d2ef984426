#!/usr/bin/env bash
# Builds this commit twice, in two directories with nothing in common, and compares the binaries. Called by `make
# reproducible`. PROFILE=dev is faster, and proves less.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${PROFILE:-release}
folder=$profile
[ "$profile" = dev ] && folder=debug
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

for place in "$scratch/one" "$scratch/and/another"; do
    mkdir -p "$place"
    git archive HEAD | tar -x -C "$place"
    (
        cd "$place"
        export SOURCE_DATE_EPOCH=0 CARGO_INCREMENTAL=0 BUILD_REVISION=reproducible
        export RUSTFLAGS="--remap-path-prefix=$place=/weir --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$sysroot=/rust"
        export CFLAGS="-ffile-prefix-map=$place=/weir -ffile-prefix-map=$cargo_home=/cargo"
        cargo build --locked --bin weir --profile "$profile"
    )
done

sha256sum "$scratch/one/target/$folder/weir" "$scratch/and/another/target/$folder/weir"
if cmp "$scratch/one/target/$folder/weir" "$scratch/and/another/target/$folder/weir"; then
    echo "reproducible: the same bytes"
else
    echo "reproducible: the two differ" >&2
    exit 1
fi
