#!/usr/bin/env bash
# Installs what is missing on a Debian or Ubuntu machine, after saying what and why.
#
#   setup.sh          everything: building, virtual machines, the Debian image
#   setup.sh build    only what building needs
#   setup.sh ironic   what building and the tests against a real Ironic need
#   setup.sh bench    what building and `make bench` need
#   setup.sh oracles  what building and `make test-oracles` need
#
# Says nothing and does nothing where all is there. Without root it goes through sudo.
. "$(dirname "$0")/lib.sh"

build=(
    "gcc libc6-dev make:to compile and link the C parts of SQLite, zstd, xz"
    "musl-tools:a C compiler for the static binaries"
    "ca-certificates:to know HTTPS servers"
)
everything=(
    "qemu-system-x86 qemu-utils:virtual machines, disk images"
    "ovmf ipxe-qemu:UEFI firmware and network boot for the virtual machines"
    "mmdebstrap:to install a Debian into a folder"
    "gdisk dosfstools mtools e2fsprogs:partitions and file systems of the disk image"
    "grub-common grub-pc-bin:the BIOS boot loader of the disk image"
    "dnsmasq-base iproute2:servers and cables for networks in namespaces"
    "parted xfsprogs btrfs-progs cryptsetup-bin:file systems and tables to recognise as others do"
    "zstd xz-utils bzip2 kmod fdisk cpio genisoimage:second opinions on what was built"
    "minisign:to sign images"
    "strace:to have a system call of a process fail"
)
ironic=(
    "python3-venv:virtual environments for the releases of Ironic"
    "iproute2 openssl:the network between Ironic and the machine, and a certificate for it"
    "gdisk fdisk e2fsprogs qemu-utils genisoimage busybox-static:the images that Ironic deploys, and looking into the disk"
    "parted dosfstools lshw hdparm nvme-cli mdadm pciutils psmisc:programs that ironic-python-agent calls"
)
bench=(
    "nginx-light:the image server (where no other server has it, the package starts a web server on port 80, too)"
    "mmdebstrap gdisk e2fsprogs qemu-utils zstd pigz xz-utils:to make the images"
    "curl openssl qemu-block-extra isal:what Ferric is measured beside, and the machine's limits"
    "python3-venv parted psmisc:ironic-python-agent in a virtual environment, and programs that it calls"
)
oracles=(
    "qemu-utils fdisk gdisk:other readers of images and partition tables"
    "e2fsprogs xfsprogs btrfs-progs dosfstools ntfs-3g cryptsetup-bin lvm2 genisoimage squashfs-tools:makers of what blkid recognises"
)
wanted=("${build[@]}")
case ${1:-} in
    "") wanted+=("${everything[@]}" "${ironic[@]}") ;;
    ironic) wanted+=("${ironic[@]}") ;;
    bench) wanted+=("${bench[@]}") ;;
    oracles) wanted+=("${oracles[@]}") ;;
    build) ;;
    *) die "setup.sh knows no set named $1" ;;
esac
[ "$(id -u)" = 0 ] || [ "${1:-}" = build ] || wanted+=("uidmap:so that mmdebstrap needs no root")
. /etc/os-release
[ "${ID:-}" = debian ] || [ "${1:-}" = build ] ||
    wanted+=("debian-archive-keyring:to check Debian's signatures, as this is not Debian itself")

missing=()
for entry in "${wanted[@]}"; do
    packages=()
    for package in ${entry%%:*}; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || packages+=("$package")
    done
    [ ${#packages[@]} = 0 ] && continue
    [ ${#missing[@]} != 0 ] || say "setup: Debian packages that are missing:"
    say "  ${packages[*]} - ${entry#*:}"
    missing+=("${packages[@]}")
done

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif [ "${CI:-}" = true ]; then
        sudo -n "$@"
    else
        sudo "$@"
    fi
}
if [ ${#missing[@]} != 0 ]; then
    command -v apt-get >/dev/null || die "no apt-get here; install by your own means: ${missing[*]}"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "no sudo; run as root: apt-get install --no-install-recommends ${missing[*]}"
        say "setup: sudo is asked for apt-get, and for nothing else"
    fi
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -q
    as_root apt-get install -q -y --no-install-recommends "${missing[@]}"
# The kernel of the ramdisk is downloaded by apt, which must have heard of it.
elif [ -z "$(apt-cache show linux-image-amd64 linux-image-generic 2>/dev/null | head -n 1)" ]; then
    say "setup: apt has no package lists yet"
    as_root apt-get update -q
fi

# The static target. Not having it is no failure: scripts/build.sh knows another way and says so.
if ! has_target $musl && command -v rustup >/dev/null; then
    say "setup: adding Rust's $musl target"
    rustup target add $musl || say "setup: could not add it; the build will use $gnu with a static glibc"
fi
