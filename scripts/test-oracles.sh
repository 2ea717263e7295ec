#!/usr/bin/env bash
# Holds what Ferric reads against other readers: tests/oracles. Its libraries stay out of the release, so it is built apart. Ends
# with one line: N passed, N failed, N skipped.
. "$(dirname "$0")/lib.sh"

scripts/setup.sh oracles
mkdir -p .cache
log=.cache/test-oracles.log
export CARGO_TARGET_DIR=$target_dir/oracles
oracles=(cargo test --manifest-path tests/oracles/Cargo.toml)
status=0
"${oracles[@]}" --no-run || status=1
start=$SECONDS
: >"$log"
[ $status != 0 ] || "${oracles[@]}" --no-fail-fast 2>&1 | tee "$log" || status=1

totals=$(totals "$log" $status)
say "test-oracles: took $((SECONDS - start)) s without compiling; the whole output is in $log"
case $totals in
    "0 passed, 0 failed,"*)
        say "test-oracles: no test ran"
        totals=$(totals "$log" 1)
        status=1
        ;;
esac
printf '%s\n' "$totals"
exit $status
