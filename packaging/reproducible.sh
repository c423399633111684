#!/bin/sh
# Builds the package of an architecture here and, from nothing, out of a copy of this folder elsewhere, and compares the
# bytes. Prints their hash.
# Usage: packaging/reproducible.sh amd64|arm64|armhf
set -eu
cd "$(dirname "$0")/.."
here=$PWD
# The copy is not under git.
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH-$(packaging/epoch.sh)}"
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

program=$(packaging/build.sh "$1")
one=$(packaging/pack.sh "$1" "$program" "$work/one")

copy=$work/another/place
mkdir -p "$copy"
tar --create --exclude=./target --exclude=./.cache --exclude=./.git --directory="$here" . | tar --extract --directory="$copy"
program=$(TARGET="$work/elsewhere" "$copy/packaging/build.sh" "$1")
two=$("$copy/packaging/pack.sh" "$1" "$program" "$work/two")

cmp "$one" "$two"
sha256sum "$one" | sed 's|  .*/|  |'
