# Sourced by setup.sh: which Debian packages each set of work needs, and which programs and files it needs from them.
# A package that is installed proves nothing about its programs: another installation can have removed what a program needs,
# so `missing_needs` looks for the programs themselves.

# "packages:why"
build_packages=(
    "gcc libc6-dev make:to compile and link the C parts of SQLite, zstd, xz"
    "musl-tools:a C compiler for the static binaries"
    "ca-certificates:to know HTTPS servers"
    "python3:to collect the licences of what is linked in"
)
everything_packages=(
    "qemu-system-x86 qemu-utils:virtual machines, disk images"
    "ovmf ipxe-qemu:UEFI firmware and network boot for the virtual machines"
    "mmdebstrap:to install a Debian into a folder"
    "gdisk dosfstools mtools e2fsprogs:partitions and file systems of the disk image"
    "grub-common grub-pc-bin:the BIOS boot loader of the disk image"
    "dnsmasq-base iproute2:servers and cables for networks in namespaces"
    "parted xfsprogs btrfs-progs cryptsetup-bin:file systems and tables to recognise as others do"
    "zstd xz-utils bzip2 kmod fdisk cpio genisoimage:second opinions on what was built"
    "pigz tabix lbzip2 pbzip2 lzop lzip ncompress:other programs that compress images"
    "minisign:to sign images"
    "strace:to have a system call of a process fail"
)
ironic_packages=(
    "python3-venv:virtual environments for the releases of Ironic"
    "iproute2 openssl:the network between Ironic and the machine, and a certificate for it"
    "gdisk fdisk e2fsprogs qemu-utils genisoimage busybox-static:the images that Ironic deploys, and looking into the disk"
    "parted dosfstools lshw hdparm nvme-cli mdadm pciutils psmisc:programs that ironic-python-agent calls"
)
bench_packages=(
    "nginx-light:the image server (where no other server has it, the package starts a web server on port 80, too)"
    "mmdebstrap gdisk e2fsprogs qemu-utils zstd pigz xz-utils:to make the images"
    "curl openssl qemu-block-extra isal:what Ferric is measured beside, and the machine's limits"
    "python3-venv parted psmisc:ironic-python-agent in a virtual environment, and programs that it calls"
)
oracles_packages=(
    "qemu-utils fdisk gdisk:other readers of images and partition tables"
    "e2fsprogs xfsprogs btrfs-progs dosfstools ntfs-3g cryptsetup-bin lvm2 genisoimage squashfs-tools:makers of what blkid recognises"
)

# "need:package". A need is a program, the path of a file (a pattern where distributions disagree), or `NAME()`: a check below.
build_needs=(
    gcc:gcc "linking_c():libc6-dev" make:make musl-gcc:musl-tools /etc/ssl/certs/ca-certificates.crt:ca-certificates
    python3:python3
)
everything_needs=(
    qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils qemu-io:qemu-utils
    /usr/share/OVMF/OVMF_CODE_4M.fd:ovmf /usr/share/OVMF/OVMF_VARS_4M.fd:ovmf
    /usr/lib/ipxe/qemu/efi-virtio.rom:ipxe-qemu
    mmdebstrap:mmdebstrap unshare:util-linux
    sgdisk:gdisk mkfs.vfat:dosfstools mcopy:mtools mmd:mtools mdel:mtools
    mke2fs:e2fsprogs mkfs.ext4:e2fsprogs debugfs:e2fsprogs
    grub-mkimage:grub-common /usr/lib/grub/i386-pc/boot.img:grub-pc-bin
    dnsmasq:dnsmasq-base ip:iproute2
    parted:parted mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs cryptsetup:cryptsetup-bin
    blkid:util-linux losetup:util-linux mkswap:util-linux
    zstd:zstd xz:xz-utils bzip2:bzip2 depmod:kmod modinfo:kmod sfdisk:fdisk cpio:cpio genisoimage:genisoimage
    pigz:pigz bgzip:tabix lbzip2:lbzip2 pbzip2:pbzip2 lzop:lzop lzip:lzip compress:ncompress
    minisign:minisign strace:strace
)
ironic_needs=(
    "making_venvs():python3-venv" ip:iproute2 openssl:openssl
    sgdisk:gdisk sfdisk:fdisk mkfs.ext4:e2fsprogs debugfs:e2fsprogs qemu-img:qemu-utils mkisofs:genisoimage busybox:busybox-static
    losetup:util-linux partx:util-linux blkdiscard:util-linux blkid:util-linux unshare:util-linux
    parted:parted partprobe:parted mkfs.vfat:dosfstools lshw:lshw hdparm:hdparm nvme:nvme-cli mdadm:mdadm lspci:pciutils fuser:psmisc
)
bench_needs=(
    nginx:nginx-light mmdebstrap:mmdebstrap sgdisk:gdisk mke2fs:e2fsprogs qemu-img:qemu-utils zstd:zstd pigz:pigz xz:xz-utils
    curl:curl openssl:openssl "/usr/lib/*/qemu/block-curl.so:qemu-block-extra" igzip:isal
    "making_venvs():python3-venv" partprobe:parted fuser:psmisc
)
oracles_needs=(
    qemu-img:qemu-utils qemu-io:qemu-utils sfdisk:fdisk sgdisk:gdisk blkid:util-linux mkswap:util-linux
    mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs mkfs.vfat:dosfstools mkfs.ntfs:ntfs-3g
    cryptsetup:cryptsetup-bin pvcreate:lvm2 genisoimage:genisoimage mksquashfs:squashfs-tools
)

# gcc answers with the bare name where the C library's files for linking are missing.
linking_c() { ! command -v gcc >/dev/null || [ "$(gcc -print-file-name=crt1.o 2>/dev/null)" != crt1.o ]; }
# Debian's python3 has the module venv without python3-venv, but not what it installs pip with.
making_venvs() { command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null; }

# Fills `packages` ("packages:why") and `needs` ("need:package") for a set: everything, build, ironic, bench or oracles.
choose_set() {
    packages=("${build_packages[@]}")
    needs=("${build_needs[@]}")
    case $1 in
        build) return ;;
        everything)
            packages+=("${everything_packages[@]}" "${ironic_packages[@]}")
            needs+=("${everything_needs[@]}" "${ironic_needs[@]}")
            ;;
        ironic)
            packages+=("${ironic_packages[@]}")
            needs+=("${ironic_needs[@]}")
            ;;
        bench)
            packages+=("${bench_packages[@]}")
            needs+=("${bench_needs[@]}")
            ;;
        oracles)
            packages+=("${oracles_packages[@]}")
            needs+=("${oracles_needs[@]}")
            ;;
        *) die "setup.sh has no set named \`$1\`; use build, ironic, bench or oracles, or no name for everything" ;;
    esac
    if [ "$(id -u)" != 0 ]; then
        packages+=("uidmap:so that mmdebstrap needs no root")
        needs+=(newuidmap:uidmap)
    fi
    if ! grep -q '^ID=debian$' /etc/os-release 2>/dev/null; then
        packages+=("debian-archive-keyring:to check Debian's signatures, as this is not Debian itself")
        needs+=(/usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring)
    fi
}

# Prints "need:package" for each entry of `needs` that is not there, once each.
missing_needs() {
    local entry need seen=" "
    for entry in "${needs[@]}"; do
        need=${entry%:*}
        [[ $seen != *" $need "* ]] || continue
        seen+="$need "
        case $need in
            *"()") "${need%"()"}" ;;
            /*) compgen -G "$need" >/dev/null ;;
            # A normal user's PATH on Debian has no sbin, where half of these are.
            *) PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v "$need" >/dev/null ;;
        esac || printf '%s\n' "$entry"
    done
}
