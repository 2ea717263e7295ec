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

# Builds packages for release, static. Every script that builds for release does it by this function: other flags would compile all
# of it again. Sets `release_dir`, the folder of the programs.
build_release() {
    local package target name extra home=${CARGO_HOME:-$HOME/.cargo} packages=() flags=()
    for package in "$@"; do packages+=(-p "$package"); done
    # The folders of this machine do not belong into a program: two checkouts give equal bytes, and no user's name gets out.
    flags+=("--remap-path-prefix=$PWD=/ferric" "--remap-path-prefix=$home=/cargo")
    flags+=("--remap-path-prefix=$(rustc --print sysroot)=/rust" "--remap-path-prefix=$target_dir=/target")
    if has_target $musl && command -v musl-gcc >/dev/null; then
        target=$musl
        say "build: static binaries for $target"
    else
        target=$gnu
        flags+=(-C target-feature=+crt-static)
        say "build: static binaries for $target with +crt-static, as $musl is not installed (\`make setup\` tries to)"
    fi
    # The same for C. Its flags are split at blanks, so a folder with one stays in.
    if [[ $home$PWD != *" "* ]]; then
        name=CFLAGS_${target//-/_}
        export "$name=${!name:-${CFLAGS:-}} -ffile-prefix-map=$home=/cargo -ffile-prefix-map=$PWD=/ferric"
    fi
    # With --target these are for the target alone: build scripts and macros are built for the host and stay dynamic. The encoded
    # form lets a folder have a space; it replaces RUSTFLAGS, which is therefore added.
    read -ra extra <<<"${RUSTFLAGS:-}"
    flags+=("${extra[@]}")
    # C code that prints when it was built prints the same time in every build.
    SOURCE_DATE_EPOCH=0 CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf '%s' "${flags[*]}") cargo build --release --target $target "${packages[@]}"
    release_dir=$target_dir/$target/release
}

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
