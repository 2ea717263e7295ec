#!/usr/bin/env bash
# Runs every test: first those without virtual machines, side by side, then the end-to-end ones, one after the other (a
# machine without KVM keeps a whole core busy). Ends with one line: N passed, N failed, N skipped.
. "$(dirname "$0")/lib.sh"
scripts/setup.sh check

mkdir -p .cache
log=.cache/test.log
status=0
run() {
    say "test: $*"
    "$@" 2>&1 | tee -a "$log" || status=1
}
: >"$log"
start=$SECONDS
run python3 -B -m unittest discover -t scripts -s scripts/tests
run python3 -B -m unittest discover -t tests/ironic/compare -s tests/ironic/compare/tests
run cargo test --no-fail-fast --workspace --exclude e2e
if tests/images/build-debian-image.sh >/dev/null; then
    run cargo test --no-fail-fast -p e2e -- --test-threads=1
else
    say "error: the disk image for the tests could not be built; the reason is above"
    status=1
fi

totals=$(totals "$log" $status)
say "test: took $((SECONDS - start)) s; the whole output is in $log"
case $totals in
    "0 passed, 0 failed,"*)
        say "test: no test ran"
        totals=$(totals "$log" 1)
        status=1
        ;;
    *", 0 failed,"*) ;;
    *) status=1 ;;
esac
printf '%s\n' "$totals"
exit $status
