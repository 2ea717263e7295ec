#!/usr/bin/env bash
# Builds everything twice, in two folders and with two homes of cargo, and compares what a user takes away byte by byte. Both builds
# compile everything: with two cores that takes half an hour.
. "$(dirname "$0")/lib.sh"

scripts/setup.sh build
work=$(mktemp -d "${TMPDIR:-/var/tmp}/ferric-reproducible.XXXXXX")
trap 'rm -rf "$work"' EXIT
cargo_home=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$work/first" "$work/somewhere/else/second" "$work/cargo" .cache/packages
packages=$PWD/.cache/packages
# Another name for what is downloaded already.
for name in registry git config.toml config; do
    [ ! -e "$cargo_home/$name" ] || ln -s "$cargo_home/$name" "$work/cargo/$name"
done
for folder in "$work/first" "$work/somewhere/else/second"; do
    git ls-files -z | xargs -0 tar -c | tar -x -C "$folder"
    mkdir -p "$folder/.cache"
    ln -s "$packages" "$folder/.cache/packages"
done
say "reproducible: the first build"
(unset CARGO_TARGET_DIR && cd "$work/first" && scripts/build.sh)
say "reproducible: the second build"
(unset CARGO_TARGET_DIR && cd "$work/somewhere/else/second" && CARGO_HOME=$work/cargo scripts/build.sh)
different=()
for file in ferric-agent ferric-image ferric THIRD-PARTY-LICENSES.txt ramdisk/kernel ramdisk/initramfs ramdisk/manifest.json; do
    cmp "$work/first/dist/$file" "$work/somewhere/else/second/dist/$file" >&2 || different+=("$file")
done
[ ${#different[@]} = 0 ] || die "two builds of the same sources differ in: ${different[*]}"
say "reproducible: both builds gave the same bytes"
