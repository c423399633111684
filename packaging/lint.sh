#!/bin/sh
# Lets lintian judge the package of an architecture. What it is told to overlook stands in packaging/lintian-overrides,
# with the reason.
# Usage: packaging/lint.sh amd64|arm64|armhf
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh lint
for deb in target/deb/fieldbridge_*_"$1".deb; do
    echo "lintian: $deb" >&2
    lintian --fail-on error,warning "$deb"
done
