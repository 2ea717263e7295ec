#!/usr/bin/env bash
# Measures Ferric beside its peers: the same image, server and device, in turns. Prints the tables of docs/performance.md.
#
#   AGENT       the program (default: a release build of this repository)
#   FORMATS     raw qcow2 qcow2-zlib qcow2-zstd gz zst xz (default: all but xz)
#   ROUNDS      runs of each (default: 3)
#   SIZE        MiB of the disk image (default: 2048); three times that much memory is needed
#   COMMANDS    parts of the names of those to run, for example "Ferric agent hash" (default: all)
#   COREOS      1 also builds and measures coreos-installer, from crates.io
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || die "the benchmark makes a loop device and a tmpfs: run it as root (sudo make bench)"
scripts/setup.sh bench
agent=${AGENT:-}
if [ -z "$agent" ]; then
    has_target $musl || die "the benchmark measures the static build; add Rust's $musl target, or name a program in AGENT"
    build_release ferric-agent
    agent=$release_dir/ferric-agent
fi
if [ "${COREOS:-}" = 1 ] && [ ! -x .cache/bench/coreos/bin/coreos-installer ]; then
    say "bench: building coreos-installer (it needs libssl-dev, libzstd-dev and pkg-config)"
    cargo install --quiet coreos-installer --root .cache/bench/coreos || say "bench: it could not be built; measuring without it"
fi
export PATH=$PWD/.cache/bench/coreos/bin:$PATH:/usr/sbin:/sbin
exec python3 -B tests/bench --agent "$agent" --formats "${FORMATS:-raw,qcow2,qcow2-zlib,qcow2-zstd,gz,zst}" \
    --rounds "${ROUNDS:-3}" --size "${SIZE:-2048}" --commands "${COMMANDS:-}"
