#!/bin/sh
# Sets up what the tests use as peers: device SDKs and protocol libraries that others wrote. Run it again at will: what
# is already there, in the pinned version, stays.
#
#   tests/peers/setup.sh            into $FIELDBRIDGE_PEERS, or else into .cache/peers of the checkout
#
# Debian needs: apt-get install python3-venv nodejs npm
set -eu

here=$(cd "$(dirname "$0")" && pwd)
peers=${FIELDBRIDGE_PEERS:-$(cd "$here/../.." && pwd)/.cache/peers}

for tool in python3 node npm; do
    command -v "$tool" >/dev/null || {
        echo "setup.sh: $tool is missing; on Debian: apt-get install python3-venv nodejs npm" >&2
        exit 1
    }
done

mkdir -p "$peers/node"
[ -x "$peers/python/bin/python" ] || python3 -m venv "$peers/python"
"$peers/python/bin/python" -m pip install --quiet --disable-pip-version-check \
    -r "$here/requirements.txt" -r "$here/../../examples/backend/python/requirements.txt"

# No lock file: it would record where the packages came from. The versions are pinned exactly.
cp "$here/package.json" "$peers/node/package.json"
npm install --prefix "$peers/node" --no-package-lock --no-audit --no-fund --loglevel error

echo "peers are ready in $peers"
