#!/usr/bin/env bash
# Makes the disk image that the benchmark writes, in the formats asked for. What is there already is kept.
#
#   make-images.sh FOLDER MIB FORMAT...      raw qcow2 qcow2-zlib qcow2-zstd gz zst xz
#
# A GPT disk of MIB mebibytes with an ESP and an ext4 root full of Debian packages, unpacked and not configured: it is
# there to be written, not to boot. Two fifths of the disk are data, the rest was never written, as in a freshly installed
# image: a larger disk holds the same tree more than once, too far apart for any of the compressors to notice.
# Each image has its SHA-256 beside it.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

folder=$1 mib=$2
shift 2
root_start_mib=128
packages=linux-image-amd64,systemd-sysv,openssh-server,cloud-init,netplan.io,ca-certificates,curl,sudo,vim,man-db
packages+=,locales,unattended-upgrades,python3,perl

say() { printf 'image: %s\n' "$*" >&2; }

mkdir -p "$folder"
cd "$folder"
exec 9>.lock
flock 9
work=$(mktemp -d "$PWD/.building.XXXXXX")
trap 'rm -rf "$work"' EXIT

make_raw() {
    local suite=bookworm tree=$work/tree root=$work/root.ext4
    . /etc/os-release
    [ "${ID:-}" != debian ] || suite=${VERSION_CODENAME:-$suite}
    say "unpacking Debian $suite packages (a minute or two)"
    local sources=/etc/apt/sources.list.d/debian.sources
    [ -e "$sources" ] || sources=/etc/apt/sources.list
    mmdebstrap --quiet --variant=extract --mode=root --include="$packages" --aptopt='APT::Install-Recommends "false"' \
        "$suite" "$work/tree.tar" "$sources" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
    mkdir "$tree"
    tar -C "$tree" --exclude './dev/*' -xf "$work/tree.tar"
    rm "$work/tree.tar"
    local tree_mib copies n
    tree_mib=$(du -sm "$tree" | cut -f1)
    copies=$((mib * 2 / 5 / tree_mib))
    for ((n = 2; n <= copies; n++)); do
        mkdir -p "$tree/srv/$n"
        tar -C "$tree" --exclude ./srv -c . | tar -C "$tree/srv/$n" -x
    done
    say "a tree of $tree_mib MiB, $((copies > 1 ? copies : 1)) time(s), on a disk of $mib MiB"
    truncate -s "${mib}M" "$work/disk"
    sgdisk -n 1:2048:+100M -t 1:ef00 -n "2:$((root_start_mib * 2048)):0" -t 2:8300 "$work/disk" >/dev/null
    truncate -s "$((mib - root_start_mib - 1))M" "$root"
    mke2fs -q -t ext4 -F -L root -d "$tree" "$root"
    dd if="$root" of="$work/disk" bs=1M seek=$root_start_mib conv=notrunc,sparse status=none
    rm -rf "$tree" "$root"
}

make() { # FORMAT
    local from=disk.raw to=$work/disk
    case $1 in
        raw) make_raw ;;
        qcow2) qemu-img convert -O qcow2 "$from" "$to" ;;
        qcow2-zlib) qemu-img convert -O qcow2 -c -m 8 "$from" "$to" ;;
        qcow2-zstd) qemu-img convert -O qcow2 -c -m 8 -o compression_type=zstd "$from" "$to" ;;
        gz) pigz -6 -c "$from" >"$to" ;;
        zst) zstd -q -T0 -9 -c "$from" >"$to" ;;
        xz) xz -6 -T0 -c "$from" >"$to" ;;
        *) say "unknown format $1" && exit 2 ;;
    esac
}

for format in raw "$@"; do
    name=disk.$format
    [ ! -e "$name.sha256" ] || continue
    [ "$format" = raw ] || say "making $name"
    make "$format"
    mv "$work/disk" "$name"
    sha256sum "$name" | cut -d' ' -f1 >"$work/sum"
    mv "$work/sum" "$name.sha256"
done
