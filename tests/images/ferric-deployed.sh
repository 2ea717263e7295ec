#!/bin/sh
# Runs once at every start of the test image: takes on what the config drive says, then prints
# one line on the serial console. Whoever waits for that line knows that the disk was written
# right, that its boot loader and kernel came up, and that the config drive was found and read.
set -u

metadata=
udevadm settle --timeout=20
# As cloud-init does: a label of FAT is in capitals.
drive=/dev/disk/by-label/config-2
[ -e "$drive" ] || drive=/dev/disk/by-label/CONFIG-2
if [ -e "$drive" ] && mkdir -p /run/config-drive && mount -o ro "$drive" /run/config-drive; then
    metadata=$(tr -d '\n' </run/config-drive/openstack/latest/meta_data.json)
fi

# Takes a string field out of the metadata. No JSON parser in an image that has to stay small;
# keys are looked up at any depth and the first one wins.
field() {
    printf '%s' "$metadata" | grep -o "\"$1\"[[:space:]]*:[[:space:]]*\"[^\"]*\"" | head -n 1 |
        sed 's/^"[^"]*"[[:space:]]*:[[:space:]]*"//; s/"$//'
}

hostname=$(field hostname)
if [ -n "$hostname" ]; then
    printf '%s\n' "$hostname" >/etc/hostname 2>/dev/null
    hostname "$hostname" 2>/dev/null || printf '%s' "$hostname" >/proc/sys/kernel/hostname
fi
password=$(field admin_pass)
[ -z "$password" ] || printf 'root:%s\n' "$password" | chpasswd

instance=$(field uuid)
[ -n "$instance" ] || instance=$(field name)
message=$(field message)
firmware=bios
[ ! -d /sys/firmware/efi ] || firmware=uefi
read -r uptime _ </proc/uptime

# The name of the firmware's boot entry that this system was started by.
boot_entry() {
    global=8be4df61-93ca-11d2-aa0d-00e098032b8c
    cd /sys/firmware/efi/efivars 2>/dev/null && [ -e "BootCurrent-$global" ] || return
    number=$(od -An -v -tx2 -j4 "BootCurrent-$global" | tr -d ' \n' | tr a-f A-F)
    for unit in $(od -An -v -tu2 -w2 -j10 "Boot$number-$global"); do
        [ "$unit" != 0 ] || return
        printf '%b' "\\0$(printf %o "$unit")"
    done
}
entry=$(boot_entry)

printf '\r\nFERRIC-DEPLOYED hostname=%s firmware=%s root=%s kernel=%s uptime=%s entry="%s" config-drive=%s%s\r\n' \
    "$(cat /proc/sys/kernel/hostname)" "$firmware" "$(findmnt -n -o SOURCE /)" "$(uname -r)" \
    "$uptime" "$entry" "${instance:-none}" "${message:+ message=\"$message\"}" >/dev/ttyS0
