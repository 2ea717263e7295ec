#!/usr/bin/env bash
# Builds what a user takes away: dist/ferric-agent, ferric-image, ferric, THIRD-PARTY-LICENSES.txt, ramdisk/kernel, ramdisk/initramfs.
# What has not changed is not built again.
. "$(dirname "$0")/lib.sh"
scripts/setup.sh check build

build_release ferric-agent ferric-image ferric

mkdir -p dist/ramdisk
for program in ferric-agent ferric-image ferric; do
    built=$release_dir/$program
    # A new file only where it differs, by rename: a running program keeps the one it started from.
    if ! cmp -s "$built" "dist/$program"; then
        cp "$built" "dist/.$program.new"
        mv "dist/.$program.new" "dist/$program"
    fi
done
file_is_static() { ! LC_ALL=C ldd "$1" 2>/dev/null | grep -q '=>'; }
file_is_static dist/ferric-agent || die "dist/ferric-agent is not static: it would not start in the ramdisk"

scripts/licences.py notices dist/THIRD-PARTY-LICENSES.txt

# The ramdisk depends on these two alone, and on the kernel package: a new one is taken by `make clean` or by removing
# dist/ramdisk.
inputs=$(cat dist/ferric-agent dist/ferric-image | sha256sum | cut -d' ' -f1)
if [ "$(cat dist/ramdisk/.inputs 2>/dev/null)" = "$inputs" ] && [ -e dist/ramdisk/kernel ] && [ -e dist/ramdisk/initramfs ]; then
    say "build: the ramdisk is up to date"
else
    rm -f dist/ramdisk/.inputs
    dist/ferric-image build --agent dist/ferric-agent --output dist/ramdisk --cache .cache/packages >dist/ramdisk/.report ||
        die "the ramdisk could not be built; the reason is above"
    cat dist/ramdisk/.report >&2
    printf '%s\n' "$inputs" >dist/ramdisk/.inputs
fi
say "build: $(stat -c '%n %s bytes' dist/ferric-agent dist/ferric-image dist/ferric dist/ramdisk/kernel dist/ramdisk/initramfs | paste -sd, | sed 's/,/, /g')"
