# Sourced by the scripts beside it: the repository's root, a place for words, the Rust toolchain.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# A fresh rustup installation is in the PATH of the next login only.
if ! command -v cargo >/dev/null && [ -e "${CARGO_HOME:-$HOME/.cargo}/env" ]; then
    . "${CARGO_HOME:-$HOME/.cargo}/env"
fi
command -v cargo >/dev/null || die "no cargo: install Rust from https://rustup.rs first"

musl=x86_64-unknown-linux-musl
gnu=x86_64-unknown-linux-gnu
# Whether Rust's standard library for a target is there.
has_target() { ls "$(rustc --print target-libdir --target "$1")"/libstd-*.rlib >/dev/null 2>&1; }
# Where cargo puts things.
target_dir=${CARGO_TARGET_DIR:-$PWD/target}
# Adds up the results in a log of tests: N passed, N failed, N skipped. cargo prints one summary for each test binary; a test that leaves
# itself out prints SKIPPED, and cargo counts it as passed. Python prints how many ran, and how many of these failed. `totals LOG STATUS` counts
# one failure where the commands failed (STATUS is not 0) and no test did: code that does not compile runs no test.
totals() {
    awk -v status="${2:-0}" '
        /^test result: / { for (n = 1; n <= NF; n++) { if ($n == "passed;") passed += $(n - 1); if ($n == "failed;") failed += $(n - 1); if ($n == "ignored;") skipped += $(n - 1) } }
        /^Ran [0-9]+ tests? in / { passed += $2 }
        /^(OK|FAILED) \(.*skipped=[0-9]+/ { match($0, /skipped=[0-9]+/); split(substr($0, RSTART, RLENGTH), word, "="); skipped += word[2]; passed -= word[2] }
        /^FAILED \(.*\)$/ { while (match($0, /(failures|errors)=[0-9]+/)) { split(substr($0, RSTART, RLENGTH), word, "="); failed += word[2]; passed -= word[2]; $0 = substr($0, RSTART + RLENGTH) } }
        /SKIPPED: / { passed -= 1; skipped += 1 }
        END { if (status != 0 && failed == 0) failed = 1; printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$1"
}
