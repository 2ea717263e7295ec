#!/usr/bin/env bash
# Builds the disk image that the demo and the VM tests deploy: a real Debian, as a whole disk.
#
#   build-debian-image.sh [--cache DIR]        (default: .cache in the repository)
#
# The last line, and the only one on stdout, is the folder that holds the result:
#   disk.raw  disk.qcow2  disk-zlib.qcow2  disk-zstd.qcow2  disk-4kn.qcow2  root.qcow2  SHA256SUMS  SHA512SUMS
#
# The disk: GPT with a BIOS boot partition (grub core image), an ESP (Debian's signed shim and
# grub) and an ext4 root; it boots on BIOS and on UEFI, from virtio-blk, virtio-scsi and NVMe.
# disk-4kn.qcow2 is the same for disks with sectors of 4096 bytes, for UEFI alone (BIOS knows no such disks).
# root.qcow2 is the root file system alone, as a partition image: it has grub's programs for both firmwares, and no boot loader.
# At each start it reads its config drive and prints one FERRIC-DEPLOYED line on ttyS0
# (ferric-deployed.sh). The packages come from the sources that this machine itself uses; where
# it is no Debian, from FERRIC_DEBIAN_MIRROR.
#
# Nothing is mounted, no loop device is used, and root is not needed (user namespaces are). The
# result is kept under the hash of everything that went in and appears there in one step, so an
# interrupted run leaves nothing that a later one would take for an image.
set -euo pipefail
exec 3>&1 >&2 # stdout is for the answer alone

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$here/../../.cache
mirror=${FERRIC_DEBIAN_MIRROR:-http://deb.debian.org/debian}
kernel=linux-image-cloud-amd64

root_uuid=5f0e9c1e-1ab0-4a11-9d37-fe221c000001
esp_mib=16
# Room in the root file system, for the boot loader that a partition image installs besides.
slack_mib=64

packages=(
    "$kernel" initramfs-tools zstd kmod udev systemd-sysv e2fsprogs mount login passwd
    grub-efi-amd64-signed shim-signed grub-pc-bin mdadm
)
# What the initramfs carries: the disks of virtual machines, a mirror below the root, and the root's file system.
initramfs_modules=(virtio_pci virtio_blk virtio_scsi sd_mod nvme raid1 ext4)

say() { printf 'image: %s\n' "$*"; }
die() {
    printf 'image: error: %s\n' "$*"
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --cache)
            [ $# -ge 2 ] || die "--cache needs a folder"
            cache=$2
            shift 2
            ;;
        *) die "unknown argument $1 (usage: build-debian-image.sh [--cache DIR])" ;;
    esac
done

# A normal user's PATH on Debian has no sbin, where half of these live.
PATH=$PATH:/usr/sbin:/sbin
missing=()
need() { command -v "$1" >/dev/null || missing+=("$1 (package $2)"); }
need mmdebstrap mmdebstrap
need sgdisk gdisk
need mkfs.vfat dosfstools
need mcopy mtools
need mke2fs e2fsprogs
need grub-mkimage grub-common
need python3 python3
need qemu-img qemu-utils
need unshare util-linux
[ "$(id -u)" = 0 ] || need newuidmap uidmap
[ -e /usr/lib/grub/i386-pc/boot.img ] || missing+=("/usr/lib/grub/i386-pc (package grub-pc-bin)")
[ ${#missing[@]} = 0 ] || die "missing: $(IFS=,; printf '%s' "${missing[*]}"); run \`make setup\`"

# Where the packages come from.
. /etc/os-release
if [ "${ID:-}" = debian ] && [ -n "${VERSION_CODENAME:-}" ]; then
    suite=$VERSION_CODENAME
    sources=(/etc/apt/sources.list.d/debian.sources)
    [ -e "${sources[0]}" ] || sources=(/etc/apt/sources.list)
    [ -e "${sources[0]}" ] || die "no apt sources in /etc/apt/sources.list or sources.list.d/debian.sources"
    source_text=$(cat "${sources[@]}")
else
    suite=bookworm
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$keyring" ] || die "missing: $keyring (package debian-archive-keyring); run \`make setup\`"
    source_text="deb [signed-by=$keyring] $mirror $suite main"
    sources=("$source_text")
fi
if [ -z "${http_proxy:-}" ]; then
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    [ -z "${proxy:-}" ] || export http_proxy=$proxy
fi

key=$(cat "${BASH_SOURCE[0]}" "$here/ferric-deployed.sh" "$here/ferric-deployed.service" "$here/gpt-4kn.py" \
    <(printf '%s\n%s\n' "$suite" "$source_text") | sha256sum | cut -c1-16)
mkdir -p "$cache/images"
cache=$(cd "$cache" && pwd)
result=$cache/images/debian-$suite-$key

# One build at a time; whoever waited finds the other's result.
exec 9>"$cache/images/.lock"
flock -n 9 || { say "another build is running, waiting for it"; flock 9; }
if [ -e "$result/SHA512SUMS" ]; then
    say "Debian $suite image: already built"
    printf '%s\n' "$result" >&3
    exit 0
fi

work=$(mktemp -d "$cache/images/.building.XXXXXX")
# Without root the tree is owned by subordinate ids: only the namespace that made it can remove it.
as_root=()
[ "$(id -u)" = 0 ] || as_root=(unshare --map-auto --map-root-user --)
trap '"${as_root[@]}" rm -rf "$work"' EXIT
begin=$SECONDS
phase() { say "$(printf '%3ds  %s' $((SECONDS - begin)) "$*")"; }

# ---- packages -> root.tar
phase "installing Debian $suite from its packages (about a minute)"
cat >"$work/before-packages" <<'HOOK'
#!/bin/sh
set -e
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=9\nRESUME=none\n' >"$1/etc/initramfs-tools/conf.d/ferric"
printf '%s\n' $INITRAMFS_MODULES >"$1/etc/initramfs-tools/modules"
HOOK
cat >"$work/after-packages" <<'HOOK'
#!/bin/sh
set -e
root=$1
install -m 755 "$HERE/ferric-deployed.sh" "$root/usr/local/sbin/ferric-deployed"
install -m 644 "$HERE/ferric-deployed.service" "$root/etc/systemd/system/ferric-deployed.service"
chroot "$root" systemctl --quiet enable ferric-deployed.service serial-getty@ttyS0.service
# Timers and the first-boot tour only make a short-lived machine slower.
chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer getty@tty1.service systemd-firstboot.service
echo unconfigured >"$root/etc/hostname"
: >"$root/etc/machine-id"
printf 'UUID=%s / ext4 errors=remount-ro 0 1\n' "$ROOT_UUID" >"$root/etc/fstab"
vmlinuz=$(basename "$root"/boot/vmlinuz-*)
mkdir -p "$root/boot/grub" "$root/boot/efi"
cat >"$root/boot/grub/grub.cfg" <<GRUB
serial --unit=0 --speed=115200
terminal_output serial console
set timeout=0
search --no-floppy --fs-uuid --set=root $ROOT_UUID
linux /boot/$vmlinuz root=UUID=$ROOT_UUID ro console=tty0 console=ttyS0,115200 quiet
initrd /boot/initrd.img-${vmlinuz#vmlinuz-}
boot
GRUB
# What the system's own grub-mkconfig makes its menu of.
cat >"$root/etc/default/grub" <<GRUB
GRUB_TIMEOUT=0
GRUB_TERMINAL="serial console"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200 quiet"
GRUB
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/log/*.log \
    "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/* \
    "$root"/usr/share/i18n/* "$root"/usr/share/info/* "$root"/usr/lib/x86_64-linux-gnu/gconv
HOOK
chmod +x "$work"/{before,after}-packages
# A deployed cloud guest never has these devices; a third of the image would be their drivers.
excluded=(
    '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/locale/*' '/usr/share/info/*'
    '/usr/share/lintian/*' '/usr/share/zoneinfo/*' '/usr/share/i18n/*'
    '/boot/System.map-*'
    '/lib/modules/*/kernel/drivers/infiniband/*' '/lib/modules/*/kernel/drivers/gpu/*'
    '/lib/modules/*/kernel/drivers/net/ethernet/*' '/lib/modules/*/kernel/drivers/media/*'
    '/lib/modules/*/kernel/drivers/target/*' '/lib/modules/*/kernel/drivers/usb/*'
    '/lib/modules/*/kernel/sound/*' '/lib/modules/*/kernel/fs/ceph/*'
    '/lib/modules/*/kernel/fs/btrfs/*' '/lib/modules/*/kernel/fs/nfs*' '/lib/modules/*/kernel/fs/ocfs2/*'
    '/lib/modules/*/kernel/fs/gfs2/*' '/lib/modules/*/kernel/fs/smb/*' '/lib/modules/*/kernel/fs/f2fs/*'
    '/lib/modules/*/kernel/net/netfilter/*' '/lib/modules/*/kernel/net/sched/*' '/lib/modules/*/kernel/net/sunrpc/*'
)
export HERE=$here ROOT_UUID=$root_uuid INITRAMFS_MODULES="${initramfs_modules[*]}"
# The clean-up at the end needs the mark of its own folder; mmdebstrap must get into it.
chmod 755 "$work"
mmdebstrap --quiet --variant=essential --format=tar \
    --include="$(IFS=,; printf '%s' "${packages[*]}")" \
    "${excluded[@]/#/--dpkgopt=path-exclude=}" \
    --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
    --essential-hook="$work/before-packages \"\$1\"" \
    --customize-hook="$work/after-packages \"\$1\"" \
    "$suite" - "${sources[@]}" >"$work/root.tar" 2>"$work/mmdebstrap.log" ||
    { tail -n 30 "$work/mmdebstrap.log"; die "mmdebstrap failed, its last words are above"; }

# ---- root.tar -> ext4, ESP
phase "making the root file system"
# The device nodes can not be made in a user namespace, and devtmpfs covers them anyway.
"${as_root[@]}" sh -c 'mkdir "$1/root" && tar -C "$1/root" --numeric-owner --exclude "./dev/*" -xf "$1/root.tar"' sh "$work"
used_mib=$("${as_root[@]}" du -sm --apparent-size "$work/root" | cut -f1)
root_mib=$((used_mib * 107 / 100 + slack_mib))
# With a journal: an image that was killed once would otherwise check itself and reboot. Smaller blocks than 4096 bytes can not
# be mounted from a disk with sectors of that size.
"${as_root[@]}" mke2fs -q -F -t ext4 -b 4096 -J size=4 -m 0 -L ferric-root -U "$root_uuid" \
    -d "$work/root" "$work/root.ext4" "${root_mib}M"

phase "making the ESP and the grub core image"
export MTOOLS_SKIP_CHECK=1
cat >"$work/esp.cfg" <<GRUB
search --no-floppy --fs-uuid --set=root $root_uuid
set prefix=(\$root)/boot/grub
configfile \$prefix/grub.cfg
GRUB
# The boot entry that the deploy agent is to make: UTF-16LE with a byte order mark.
{ printf '\xff\xfe'; printf 'shimx64.efi,debian,,This is the boot entry for debian\n' | iconv -t UTF-16LE; } >"$work/BOOTX64.CSV"
shim=$work/root/usr/lib/shim
grub=$work/root/usr/lib/grub/x86_64-efi-signed
# No fbx64.efi beside BOOTX64.EFI: shim would start it, and it makes an entry and resets.
make_esp() { # FILE SECTOR-SIZE
    truncate -s "${esp_mib}M" "$1"
    mkfs.vfat -n ESP -i FE221C01 -S "$2" "$1" >/dev/null
    mmd -i "$1" ::/EFI ::/EFI/BOOT ::/EFI/debian
    mcopy -i "$1" "$shim/shimx64.efi.signed" ::/EFI/BOOT/BOOTX64.EFI
    mcopy -i "$1" "$grub/grubx64.efi.signed" ::/EFI/BOOT/grubx64.efi
    mcopy -i "$1" "$shim/shimx64.efi.signed" ::/EFI/debian/shimx64.efi
    mcopy -i "$1" "$grub/grubx64.efi.signed" ::/EFI/debian/grubx64.efi
    mcopy -i "$1" "$work/esp.cfg" ::/EFI/debian/grub.cfg
    mcopy -i "$1" "$work/BOOTX64.CSV" ::/EFI/debian/BOOTX64.CSV
}
make_esp "$work/esp" 512
make_esp "$work/esp-4kn" 4096
cat >"$work/core.cfg" <<GRUB
search.fs_uuid $root_uuid root
set prefix=(\$root)/boot/grub
GRUB
grub-mkimage -d /usr/lib/grub/i386-pc -O i386-pc -c "$work/core.cfg" -p /boot/grub -o "$work/core.img" \
    biosdisk part_gpt ext2 search_fs_uuid search serial terminal linux normal configfile echo boot

# ---- the disk
phase "putting the disk together"
disk=$work/out/disk.raw
mkdir "$work/out"
truncate -s "$((1 + 1 + esp_mib + root_mib + 1))M" "$disk"
esp_lba=$((2 * 2048))
root_lba=$(((2 + esp_mib) * 2048))
sgdisk --set-alignment=2048 --disk-guid=FE221C00-0000-4000-8000-000000000000 \
    --new=1:2048:+1M --typecode=1:ef02 --change-name=1:bios-boot \
    --new="2:$esp_lba:+${esp_mib}M" --typecode=2:ef00 --change-name=2:esp \
    --new="3:$root_lba:+${root_mib}M" --typecode=3:8304 --change-name=3:root "$disk" >/dev/null
# sgdisk exits 0 on much that it did not do.
sgdisk --verify "$disk" | grep -q 'No problems found' || die "the partition table of $disk is not sound"
[ "$(sgdisk --print "$disk" | grep -c '^ *[123] ')" = 3 ] || die "$disk does not have its three partitions"
place() { dd if="$1" of="$disk" bs=1M seek="$2" conv=notrunc,sparse status=none; }
place "$work/esp" 2
place "$work/root.ext4" $((2 + esp_mib))
# The same places, in sectors of 4096 bytes. No boot code: what follows is for BIOS.
disk_4kn=$work/disk-4kn
cp --sparse=always "$disk" "$disk_4kn"
python3 "$here/gpt-4kn.py" "$disk_4kn"
dd if="$work/esp-4kn" of="$disk_4kn" bs=1M seek=2 conv=notrunc status=none

# grub on BIOS without grub-install: boot.img in the first 440 bytes of the disk, the core image
# in the BIOS boot partition, and three fields that say where the next piece lies.
little_endian() { # VALUE BYTES
    local value=$1 n
    for ((n = 0; n < $2; n++)); do printf '%b' "\\x$(printf %02x $(((value >> (8 * n)) & 255)))"; done
}
poke() { dd of="$1" bs=1 seek="$2" conv=notrunc status=none; } # FILE OFFSET < bytes
core_lba=2048
core_sectors=$((($(stat -c %s "$work/core.img") + 511) / 512))
[ "$core_sectors" -le 2048 ] || die "the grub core image has $core_sectors sectors, more than its partition"
cp /usr/lib/grub/i386-pc/boot.img "$work/boot.img"
little_endian $core_lba 8 | poke "$work/boot.img" $((0x5c)) # first sector of the core image
printf '\x90\x90' | poke "$work/boot.img" $((0x66))           # hard disk: believe the BIOS's drive number
{ little_endian $((core_lba + 1)) 8; little_endian $((core_sectors - 1)) 2; little_endian $((0x820)) 2; } |
    poke "$work/core.img" $((0x1f4)) # block list: the rest of the core image, loaded at 0x8200
head -c 440 "$work/boot.img" | poke "$disk" 0
place "$work/core.img" 1

phase "converting to qcow2: plain, zlib, zstd"
qemu-img convert -O qcow2 "$disk" "$work/out/disk.qcow2"
qemu-img convert -O qcow2 -c "$disk" "$work/out/disk-zlib.qcow2"
qemu-img convert -O qcow2 -c -o compression_type=zstd "$disk" "$work/out/disk-zstd.qcow2"
qemu-img convert -O qcow2 -c -o compression_type=zstd "$disk_4kn" "$work/out/disk-4kn.qcow2"
qemu-img convert -O qcow2 -c -o compression_type=zstd "$work/root.ext4" "$work/out/root.qcow2"

phase "checksums"
(
    cd "$work/out"
    sha256sum disk* root* >SHA256SUMS
    sha512sum disk* root* >SHA512SUMS
)
# Images of older inputs go: each is more than a gigabyte.
rm -rf "$cache/images/debian-"*
mv "$work/out" "$result"
phase "done: $(stat -c %s "$result/disk.raw" | numfmt --to=iec-i)B raw, $(stat -c %s "$result/disk.qcow2" | numfmt --to=iec-i)B qcow2"
printf '%s\n' "$result" >&3
