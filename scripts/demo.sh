#!/usr/bin/env bash
# The demo: see tests/src/bin/demo.rs, which does it. Here: build it, and whatever happens, leave no machine running.
. "$(dirname "$0")/lib.sh"
scripts/setup.sh check

cargo build --quiet -p e2e --bin demo
demo=$target_dir/debug/demo
trap '"$demo" --stop' EXIT
"$demo"
