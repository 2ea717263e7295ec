#!/usr/bin/env bash
# Holds what Ferric reads against other readers: tests/oracles. Its libraries stay out of the release, so it is built apart.
. "$(dirname "$0")/lib.sh"

scripts/setup.sh
export CARGO_TARGET_DIR=$target_dir/oracles
exec cargo test --manifest-path tests/oracles/Cargo.toml -- --nocapture
