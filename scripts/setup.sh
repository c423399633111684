#!/bin/sh
# Installs what a build (and with "tests" the test suite) needs on Debian 12 with Rust. Does nothing that was done before.
# Usage: scripts/setup.sh [tests]
set -eu
cd "$(dirname "$0")/.."

missing=""
need() { # command, package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need cc gcc
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
if [ "${1-}" = tests ]; then
    need mosquitto mosquitto
    need strace strace
    need python3 python3
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
    need node nodejs
    need npm npm
    need mount mount
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
    need setpriv util-linux
    need g++ g++
fi
if [ -n "$missing" ]; then
    root=""
    [ "$(id -u)" = 0 ] || root=sudo
    echo "installing$missing" >&2
    # Mosquitto is only wanted as a program: Debian would start it as a service on the MQTT port.
    $root apt-get update -q >&2
    # shellcheck disable=SC2086
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >&2
fi
if ! command -v cargo >/dev/null 2>&1; then
    # shellcheck disable=SC1091
    [ -e "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    command -v cargo >/dev/null 2>&1 || { echo "cargo is not on the PATH; install Rust 1.89 or newer first" >&2; exit 1; }
fi
if [ "${1-}" = tests ]; then
    tests/peers/setup.sh
fi
