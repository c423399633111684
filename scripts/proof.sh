#!/bin/sh
# Cargo with the one configuration that all tests are built with, so that nothing is built twice. One module of them:
# scripts/proof.sh test --test bus serial::, and with -- --nocapture what it prints. The profile is optimised as much as
# simulated schedules want, and keeps every assertion.
set -eu
cd "$(dirname "$0")/.."
# Only so can tokio be told in which order it looks at what is ready.
export RUSTFLAGS="--cfg tokio_unstable"
command=$1
shift
exec cargo "$command" --profile proof --features proof "$@"
