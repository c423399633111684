#!/bin/sh
# Builds the released program for an architecture of Debian, and prints the path of it.
# Usage: packaging/build.sh amd64|arm64|armhf
#
# It is built by the Rust of Debian (rustc-web), so that everybody who builds a version gets the same bytes, and so that a
# foreign architecture needs nothing that Debian does not have. TARGET is the folder to build in; by default one for each
# architecture in target/package: what runs in the build differs between them.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=packaging/architecture.sh
. packaging/architecture.sh
architecture "$1"

export CARGO_TARGET_DIR="${TARGET:-$PWD/target/package/$ARCH}"
mkdir -p "$CARGO_TARGET_DIR"
CARGO_TARGET_DIR=$(cd "$CARGO_TARGET_DIR" && pwd)
export RUSTC=/usr/bin/rustc RUSTC_WRAPPER="" CARGO_INCREMENTAL=0 SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH-$(packaging/epoch.sh)}"

# The job server of make is not for cargo, and flags of somebody's own would change the bytes.
unset MAKEFLAGS MFLAGS RUSTFLAGS

set -- build --quiet --locked --release --target "$rust_target"
if [ "$ARCH" != "$(dpkg --print-architecture)" ]; then
    # Debian has no std of a foreign architecture that installs by itself; cargo builds it from Debian's sources.
    set -- "$@" -Zbuild-std=std,panic_abort
    export RUSTC_BOOTSTRAP=1
    name=$(echo "$rust_target" | tr a-z- A-Z_)
    export "CARGO_TARGET_${name}_LINKER=$gnu_target-gcc"
fi

# A build says nothing of where it was made: neither of this folder nor of the one in which cargo keeps the sources of the
# dependencies, whose name depends on where they were downloaded from.
/usr/bin/cargo fetch --quiet --locked --target "$rust_target" >&2
home=${CARGO_HOME:-$HOME/.cargo}
separator=$(printf '\037')
flags="--remap-path-prefix=$CARGO_TARGET_DIR=/build${separator}--remap-path-prefix=$PWD=/fieldbridge"
maps="-ffile-prefix-map=$CARGO_TARGET_DIR=/build -ffile-prefix-map=$PWD=/fieldbridge"
for sources in "$home"/registry/src/*; do
    flags="$flags${separator}--remap-path-prefix=$sources=/crates"
    maps="$maps -ffile-prefix-map=$sources=/crates"
done
export CARGO_ENCODED_RUSTFLAGS="$flags"
name=$(echo "$rust_target" | tr - _)
export "CFLAGS_$name=$maps" "CC_$name=$gnu_target-gcc" "AR_$name=$gnu_target-ar"
/usr/bin/cargo "$@" >&2
echo "$CARGO_TARGET_DIR/$rust_target/release/fieldbridge"
