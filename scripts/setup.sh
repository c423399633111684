#!/bin/sh
# Installs what a build (and with "tests" the test suite) needs on Debian 12 with Rust. Does nothing that was done before.
# Usage: scripts/setup.sh [quick | tests | package [amd64|arm64|armhf] | foreign amd64|arm64|armhf | boot | vm [amd64|arm64|armhf] | lint | repo | browser]
#   quick     what scripts/test.sh quick needs
#   tests     what the test suite needs
#   package   what building the package for an architecture needs; this machine's if none is named
#   foreign   what running the package's program for another architecture needs, too
#   boot      what booting a Debian to try the package on needs
#   vm        the same for booting it with a kernel of its own, of an architecture; this machine's if none is named
#   lint      what judging a package and its manual pages needs
#   repo      what making and signing a repository of packages needs
#   browser   a real browser for the test of the page, which is done without otherwise: some 400 MB
set -eu
cd "$(dirname "$0")/.."

missing=""
need() { # command, package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need_packages() { # packages; for what has no command of its own
    for package; do
        case "$(dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null)" in
        "install ok installed") ;;
        *) missing="$missing $package" ;;
        esac
    done
}
need cc gcc
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
if [ "${1-}" = tests ] || [ "${1-}" = quick ]; then
    need patch patch
fi
if [ "${1-}" = tests ]; then
    need mosquitto mosquitto
    need_packages squid tinyproxy
    # Modbus as others have it: a slave's library, a master, a serial line's server, and a reader of captures.
    need_packages libmodbus-dev
    need mbpoll mbpoll
    need socat socat
    need tshark tshark
    need strace strace
    # Only its promtool, for the rules of alerts.
    need promtool prometheus
    need python3 python3
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
    need node nodejs
    need npm npm
    need mount mount
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
    need setpriv util-linux
    need g++ g++
    # Shells whose completion of the command line is tried, and what judges the manual pages.
    need zsh zsh
    need fish fish
    need_packages bash-completion
fi
if [ "${1-}" = tests ] || [ "${1-}" = lint ]; then
    need lintian lintian
    need man man-db
    need mandoc mandoc
fi
if [ "${1-}" = browser ]; then
    need chromium chromium
fi
if [ "${1-}" = boot ]; then
    need debootstrap debootstrap
    need systemd-nspawn systemd-container
    need nsenter util-linux
    need python3 python3
fi
if [ "${1-}" = boot ] || [ "${1-}" = repo ]; then
    need apt-ftparchive apt-utils
    need gpg gpg
    need gpgv gpgv
    need gpg-agent gpg-agent
    need xz xz-utils
    need python3 python3
fi
if [ "${1-}" = vm ]; then
    need debootstrap debootstrap
    case "${2-amd64}" in
    amd64) need qemu-system-x86_64 qemu-system-x86 ;;
    *) need qemu-system-aarch64 qemu-system-arm ;;
    esac
    [ "${2-amd64}" = "$(dpkg --print-architecture)" ] || need qemu-aarch64-static qemu-user-static
    need mke2fs e2fsprogs
    need python3 python3
fi
if [ "${1-}" = foreign ]; then
    need qemu-aarch64-static qemu-user-static
    need file file
fi
if [ "${1-}" = package ] || [ "${1-}" = foreign ]; then
    need make make
    [ ! -e .git ] || need git git
    need objdump binutils
    # Debian's own Rust, beside whatever there is: with it everybody builds the same bytes.
    need_packages rustc-web cargo-web
    arch=$(dpkg --print-architecture)
    if [ "${2-$arch}" != "$arch" ]; then
        need_packages rust-web-src
        case "$2" in
        amd64) need_packages gcc-x86-64-linux-gnu libc6-dev-amd64-cross ;;
        arm64) need_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross ;;
        armhf) need_packages gcc-arm-linux-gnueabihf libc6-dev-armhf-cross ;;
        *) echo "there is no package for $2; there are amd64, arm64 and armhf" >&2; exit 2 ;;
        esac
    fi
fi
if [ -n "$missing" ]; then
    root=""
    [ "$(id -u)" = 0 ] || root=sudo
    echo "installing$missing" >&2
    # Mosquitto is only wanted as a program: Debian would start it as a service on the MQTT port.
    $root apt-get update -q >&2
    # shellcheck disable=SC2086
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --no-remove $missing >&2
fi
if ! command -v cargo >/dev/null 2>&1; then
    # shellcheck disable=SC1091
    [ -e "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    command -v cargo >/dev/null 2>&1 || { echo "cargo is not on the PATH; install Rust 1.89 or newer first" >&2; exit 1; }
fi
if [ "${1-}" = tests ]; then
    tests/peers/setup.sh
fi
