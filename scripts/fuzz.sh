#!/bin/sh
# Builds every fuzz target with the ordinary toolchain and runs each for some seconds, two at a time, beginning with its
# corpus. What a run finds interesting is kept in target/fuzz/corpus for the next one; an input that breaks a property
# is left in fuzz/artifacts, and belongs into fuzz/corpus once it is understood: then every `cargo test` runs it.
# FIELDBRIDGE_SEED repeats a run.
# Usage: scripts/fuzz.sh [build | SECONDS [TARGET...]]
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-5}
[ $# -gt 0 ] && shift
targets=${*:-$(ls fuzz/corpus)}
seed=${FIELDBRIDGE_SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
triple=$(rustc -vV | sed -n 's/^host: //p')
# The daemon's own versions of everything; cargo adds the fuzzer's.
cp Cargo.lock fuzz/Cargo.lock
# What cargo-fuzz sets, but for the address sanitizer: it needs a nightly compiler, and nothing here is unsafe.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing" \
    CARGO_TARGET_DIR=target/fuzz \
    cargo build --quiet --release --manifest-path fuzz/Cargo.toml --target "$triple"
[ "$seconds" != build ] || exit 0
echo "fuzzing each target for $seconds s, seed $seed"

fuzz() { # target
    found=target/fuzz/corpus/$1
    log=target/fuzz/$1.log
    mkdir -p "$found" "fuzz/artifacts/$1"
    if "target/fuzz/$triple/release/$1" "$found" "fuzz/corpus/$1" -seed="$seed" -max_total_time="$seconds" -max_len=4096 \
        -timeout=20 -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$1/" >"$log" 2>&1; then
        executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        # A target that went no further than its corpus proves nothing new.
        [ "${executions:-0}" -gt "$(ls "fuzz/corpus/$1" | wc -l)" ] || { echo "$1: only ${executions:-0} executions"; return 1; }
        echo "$1: $executions executions, $(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1) edges"
    else
        echo "$1: FAILED, see $log"
        grep -E 'panicked|ERROR|Test unit written|assertion|left|right' "$log" | head -n 8
        return 1
    fi
}

failed=0
# shellcheck disable=SC2086
set -- $targets
while [ $# -gt 0 ]; do
    fuzz "$1" & first=$!
    shift
    if [ $# -gt 0 ]; then
        fuzz "$1" & second=$!
        shift
        wait "$second" || failed=1
    fi
    wait "$first" || failed=1
done
exit "$failed"
