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
