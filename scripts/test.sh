#!/bin/sh
# Runs every check and test of the project, after installing what they need: scripts/test.sh. What shows most in the least
# time, for the desk: scripts/test.sh quick. How long each stage took stands at the end.
set -eu
cd "$(dirname "$0")/.."
if [ "${1-}" = quick ]; then
    scripts/setup.sh quick
    cargo fmt --check
    cargo clippy --quiet --all-targets -- -D warnings
    cargo test --quiet --lib
    exec cargo test --quiet --test bus --test hub --test ledger --test operator -- tidy:: decisions:: on_disk:: config:: \
        modbus_line:: modbus_rtu:: modbus_ascii:: modbus_tcp:: serial:: read_back:: session_rules::
fi

# As scripts/proof.sh has it: with other flags everything would be built again.
export RUSTFLAGS="--cfg tokio_unstable"
logs=target/test-logs
rm -rf "$logs" && mkdir -p "$logs"
began=$(date +%s)
beside=""

# One stage: its name, its command.
stage() {
    echo "== $1" >&2
    stage=$1
    since=$(date +%s)
    shift
    "$@"
    echo "$(($(date +%s) - since)) s  $stage" >>"$logs/times"
}

# A stage that mostly waits runs beside those that compute. It has a session of its own, so that all of it can be ended.
beside() {
    # shellcheck disable=SC2016
    setsid sh -c 'since=$(date +%s) status=0 stage=$1
        shift
        "$@" >"$0/$stage.log" 2>&1 || status=$?
        echo "$(($(date +%s) - since)) s  $stage, beside the others" >>"$0/times"
        exit "$status"' "$logs" "$@" &
    beside="$beside $!:$1"
}

# A stage that computes, in the processor time that the others leave. Where the kernel groups processes by their session,
# being nice counts for nothing beyond the group, which has a niceness of its own.
in_spare_time() {
    name=$1
    shift
    # shellcheck disable=SC2016
    beside "$name" sh -c '{ echo 19 >/proc/self/autogroup; } 2>/dev/null || true
        exec nice -n 19 "$0" "$@"' "$@"
}

# Waits for what runs beside, or for the one that is named, and shows it where it failed or left something out.
join() {
    left=""
    for one in $beside; do
        if [ "${1-${one#*:}}" != "${one#*:}" ]; then
            left="$left $one"
            continue
        fi
        status=0
        wait "${one%%:*}" || status=$?
        [ "$status" = 0 ] || { cat "$logs/${one#*:}.log" && echo "== ${one#*:} FAILED" >&2 && exit 1; }
        grep '^!! ' "$logs/${one#*:}.log" >&2 || true
    done
    beside=$left
}

# Nothing is left running, whatever the end.
end() {
    status=$?
    trap - EXIT INT TERM
    for one in $beside; do
        kill -- "-${one%%:*}" 2>/dev/null || true
        wait "${one%%:*}" 2>/dev/null || true
    done
    [ ! -e "$logs/times" ] || sort -rn "$logs/times"
    echo "$(($(date +%s) - began)) s  altogether; exit status $status"
    exit "$status"
}
trap end EXIT
trap 'exit 130' INT TERM

lint() {
    cargo fmt --check
    # As the tests are built, so that what both need is built once.
    scripts/proof.sh clippy --quiet --all-targets -- -D warnings
    cargo clippy --quiet --profile proof --all-targets -- -D warnings
    cargo clippy --quiet --profile proof --no-default-features --lib --bins --tests -- -D warnings
    # With an example, so that the dependencies are those of the checks before.
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --profile proof --no-deps --lib --examples
}

# The program without `proof`, as it is released but for the optimisation, which takes minutes (make lint-deb): how it is
# packed does not depend on that. Its dependencies are those of the tests: only beside an example cargo takes their features.
plain_program() {
    cargo build --quiet --profile proof --config profile.proof.package.fieldbridge.opt-level=0 --bin fieldbridge --example hub
    mkdir -p target/plain
    cp target/proof/fieldbridge target/plain/fieldbridge
}

# More threads than processors: most tests wait most of the time.
export RUST_TEST_THREADS=4
stage setup scripts/setup.sh tests
# In a folder of its own, so that it can be built while the others are.
in_spare_time fuzz-targets scripts/fuzz.sh build
stage lint lint
stage "plain program" plain_program
stage build scripts/proof.sh test --quiet --no-run --lib --bins --tests
# The same schedules each time, so that a change is judged by itself. New ones are looked for by hand.
in_spare_time simulation scripts/simulate.sh 3000 1
# It waits even more than the others.
beside faults env RUST_TEST_THREADS=8 scripts/proof.sh test --no-fail-fast --test faults
# This program can be made to stick, so that systemd is seen to start it again.
deb=$(packaging/pack.sh "$(dpkg --print-architecture)" target/proof/fieldbridge target/deb-proof)
# shellcheck disable=SC2016
beside boot sh -c 'status=0
    packaging/boot-test.sh "$0" || status=$?
    [ "$status" = 77 ] || exit "$status"
    echo "!! LEFT OUT: no Debian can be booted here; make boot-test says why"' "$deb"
stage tests scripts/proof.sh test --no-fail-fast --lib --bins --test bus --test hub --test ledger --test operator
# Not beside the tests: so many daemons at once take their time, and some of them have peers that wait for little of it.
beside crash-points env RUST_TEST_THREADS=8 scripts/proof.sh test --test crash_points -- --nocapture
stage package packaging/test-deb.sh target/plain/fieldbridge
stage repository packaging/test-repo.sh "$deb"
join fuzz-targets
stage fuzz scripts/fuzz.sh
stage "waiting for the others" join
