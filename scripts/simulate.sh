#!/bin/sh
# Runs simulated schedules: scripts/simulate.sh [SCHEDULES [SEED]]. One schedule tells its story. Without arguments: 5,000 from
# a seed of its own choice, which is printed first. The long run: scripts/simulate.sh 1000000
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh
[ $# -lt 1 ] || export FIELDBRIDGE_ROUNDS="$1"
[ $# -lt 2 ] || export FIELDBRIDGE_SEED="$2"
tests="--test simulation"
# A week of a bad hub and a bad line, beside the schedules.
[ "${1-}" = 1 ] || tests="$tests --test quiet"
# shellcheck disable=SC2086
exec scripts/proof.sh test --quiet $tests -- --nocapture
