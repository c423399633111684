# shellcheck shell=sh
# Sourced. architecture NAME sets what the other scripts need to know of one of Debian's architectures.

architecture() { # amd64 | arm64 | armhf
    case "$1" in
    amd64) rust_target=x86_64-unknown-linux-gnu gnu_target=x86_64-linux-gnu ;;
    arm64) rust_target=aarch64-unknown-linux-gnu gnu_target=aarch64-linux-gnu ;;
    # ARMv7 with VFPv3: Raspberry Pi 2 and later.
    armhf) rust_target=armv7-unknown-linux-gnueabihf gnu_target=arm-linux-gnueabihf ;;
    *) echo "ARCH is one of amd64, arm64, armhf, and not $1" >&2; exit 2 ;;
    esac
    ARCH=$1
    # The scripts that source this read them.
    : "$ARCH" "$rust_target" "$gnu_target"
}
