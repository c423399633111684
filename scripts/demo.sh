#!/bin/sh
# Builds fieldbridge and runs its demo: no cloud, no hardware.
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh
cargo build --release --quiet
exec target/release/fieldbridge demo "$@"
