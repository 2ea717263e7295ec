#!/bin/sh -e
# Makes the golden vectors beside it with the program minisign: two keys without a password, and signatures by them.
cd "$(dirname "$0")"
keys=$(mktemp -d)
trap 'rm -r "$keys"' EXIT
printf 'not an operating system\n' >image
minisign -G -W -f -p key.pub -s "$keys/key" >/dev/null
minisign -G -W -f -p other.pub -s "$keys/other" >/dev/null
minisign -S -H -s "$keys/key" -m image -x image.minisig -t 'made for a test' >/dev/null
minisign -S -l -s "$keys/key" -m image -x legacy.minisig -t 'made for a test' >/dev/null
minisign -S -H -s "$keys/other" -m image -x other.minisig -t 'made for a test' >/dev/null
