#!/bin/sh
# Builds the package of an architecture twice, from two folders and into two others, and compares the bytes.
# Usage: packaging/reproducible.sh amd64|arm64|armhf
set -eu
cd "$(dirname "$0")/.."
here=$PWD
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH-$(packaging/epoch.sh)}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build() { # folder of the checkout, target folder; prints the package
    mkdir -p "$1" "$2"
    tar --create --exclude=./target --exclude=./.cache --exclude=./.git --directory="$here" . | tar --extract --directory="$1"
    program=$(TARGET="$2" "$1/packaging/build.sh" "$3")
    "$1/packaging/pack.sh" "$3" "$program" "$2/deb"
}
one=$(build "$work/a" "$work/a/target" "$1")
two=$(build "$work/another/place" "$work/elsewhere" "$1")
cmp "$one" "$two"
sha256sum "$one" | sed "s|  .*/|  |"
