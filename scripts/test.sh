#!/bin/sh
# Runs every check and test of the project, after installing what they need: scripts/test.sh. What shows most in the least
# time, for the desk: scripts/test.sh quick.
set -eu
cd "$(dirname "$0")/.."
if [ "${1-}" = quick ]; then
    scripts/setup.sh
    cargo fmt --check
    cargo clippy --quiet --all-targets -- -D warnings
    cargo test --quiet --lib
    exec cargo test --quiet --test bus --test hub --test ledger --test operator -- tidy:: decisions:: on_disk:: config:: \
        modbus_rtu:: modbus_tcp:: serial:: read_back:: session_rules::
fi
scripts/setup.sh tests
cargo fmt --check
cargo clippy --quiet --all-targets -- -D warnings
cargo clippy --quiet --no-default-features -- -D warnings
cargo clippy --quiet --all-targets --features proof -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps
cargo test --quiet --no-run
# The tests that mostly wait run beside the others.
cargo test --no-fail-fast --test faults >target/waiting.log 2>&1 &
waiting=$!
cargo test --no-fail-fast --lib --bins --test bus --test hub --test ledger --test operator
wait "$waiting" || { cat target/waiting.log && exit 1; }
# It mostly waits as well, for a minute and a half.
cargo test --features proof --test faults watchdog:: -- --nocapture &
watchdog=$!
# The released build takes minutes (make lint-deb); how it is packed, and how it lives on a booted system, does not depend
# on it.
packaging/test-deb.sh target/debug/fieldbridge
cargo test --features proof --test ledger -- life:: migration::
cargo test --features proof --test crash_points -- --nocapture --test-threads=1
# This program can be made to stick, so that systemd is seen to start it again.
packaging/boot-test.sh "$(packaging/pack.sh "$(dpkg --print-architecture)" target/debug/fieldbridge target/deb-debug)" || {
    [ $? = 77 ] && echo "!! LEFT OUT: no Debian can be booted here; make boot-test says why" >&2
}
wait "$watchdog"
# The same schedules each time, so that a change is judged by itself. New ones are looked for by hand.
scripts/simulate.sh 5000 1
scripts/fuzz.sh
