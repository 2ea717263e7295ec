#!/usr/bin/env bash
# Fuzzes the readers of outside data: each target of fuzz/ in turn, then makes its corpus small. What was found is told at the end.
#
#   MINUTES     for each target (default: 1)
#   TARGETS     which (default: all, see fuzz/targets/src/lib.rs)
#   SANITIZER   none (default: the code is safe Rust, and several times as fast without) or address
#
# Compiles with the pinned stable compiler, whose coverage passes RUSTC_BOOTSTRAP=1 opens: no nightly is needed. Keeps a log of the
# processor time in fuzz/cpu-seconds.log.
. "$(dirname "$0")/lib.sh"

command -v cargo-fuzz >/dev/null || die "cargo-fuzz is missing: cargo install cargo-fuzz --locked"
export RUSTC_BOOTSTRAP=1 ASAN_OPTIONS=detect_odr_violation=0
[ -w /dev/shm ] && export TMPDIR=/dev/shm
fuzz=(--fuzz-dir . --sanitizer "${SANITIZER:-none}")
limits=(-timeout=25 -rss_limit_mb=1500 -malloc_limit_mb=300 -max_len=65536)
cd fuzz

TIMEFORMAT='%U %S'
spent=$(mktemp)
trap 'rm -f "$spent"' EXIT
found=()
for target in ${TARGETS:-$(sed -n 's/^name = "\([a-z0-9_]*\)"$/\1/p' Cargo.toml)}; do
    say "fuzz: $target for ${MINUTES:-1} min"
    cargo fuzz build "${fuzz[@]}" "$target"
    mkdir -p "corpus/$target"
    # Processor time of the run with all its children; what it says itself goes where it always goes.
    { time cargo fuzz run "${fuzz[@]}" "$target" -- -max_total_time=$((${MINUTES:-1} * 60)) "${limits[@]}" 2>&3 || found+=("$target"); } \
        3>&2 2>"$spent"
    awk -v target="$target" '{ printf "%s %.0f\n", target, $1 + $2 }' "$spent" >>cpu-seconds.log
    cargo fuzz cmin "${fuzz[@]}" "$target" -- "${limits[@]}" >/dev/null 2>&1 || say "fuzz: the corpus of $target could not be made smaller"
done
awk '{ sum += $2 } END { printf "fuzz: %.1f CPU-hours in all, by fuzz/cpu-seconds.log\n", sum / 3600 }' cpu-seconds.log >&2
if [ ${#found[@]} != 0 ]; then
    say "fuzz: found something: ${found[*]}"
    die "see fuzz/artifacts/TARGET; move what is mended to fuzz/regressions/TARGET, where make test replays it"
fi
say "fuzz: nothing found"
