#!/bin/sh
# Plants each fault of tests/mutants in a copy of the source and lets the simulation look for it, or the test that the
# patch names after "Found by:": scripts/mutants.sh [NAME...]. Exit status 1 if one is not found, or does not apply. A
# minute or so each.
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh tests
# A folder of their own: cargo would take a faulty build for the sound one.
target="$PWD/target/mutants-build"
tree="$PWD/target/mutants"
patches="$PWD/tests/mutants"
schedules=${FIELDBRIDGE_ROUNDS:-3000}
export FIELDBRIDGE_ROUNDS="$schedules" FIELDBRIDGE_SEED="${FIELDBRIDGE_SEED:-1}"
[ $# -gt 0 ] || set -- $(cd "$patches" && for patch in *.patch; do echo "${patch%.patch}"; done)
missed=0
useless=
for name in "$@"; do
    rm -rf "$tree" && mkdir -p "$tree"
    git ls-files -z | xargs -0 cp --parents -t "$tree"
    # tests/operator/tidy.rs tries the same.
    if ! patch -s -f -p1 -d "$tree" -i "$patches/$name.patch"; then
        printf '%-22s DOES NOT APPLY\n' "$name"
        useless="${useless:+$useless }$name"
        continue
    fi
    test=$(sed -n 's/^Found by: //p' "$patches/$name.patch")
    case $test in
        "lib "*) target_and_test="--lib ${test#lib }" ;;
        *) target_and_test="--test ${test:-simulation no_schedule}" ;;
    esac
    found=0
    # shellcheck disable=SC2086
    "$tree/scripts/proof.sh" test --quiet --target-dir "$target" $target_and_test -- --nocapture >"$tree/log" 2>&1 || found=1
    if [ "$found" = 1 ] && [ -n "$test" ] && grep -q '^test result: FAILED. 0 passed; [1-9][0-9]* failed' "$tree/log"; then
        printf '%-22s found by %s\n' "$name" "$test"
    elif [ "$found" = 1 ] && verdict=$(grep -E '^[0-9]+ of [0-9]+ schedules violated' "$tree/log"); then
        what=$(grep -A1 -m1 '^scripts/simulate.sh 1 ' "$tree/log" | tail -1 | cut -c1-90)
        printf '%-22s found: %s, as %s\n' "$name" "${verdict%% violated*}" "$what"
    else
        printf '%-22s NOT FOUND\n' "$name"
        tail -5 "$tree/log"
        missed=1
    fi
done
if [ -n "$useless" ]; then
    echo "These do not apply any more, and were not tried: $useless"
    missed=1
fi
exit "$missed"
