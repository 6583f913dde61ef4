#!/usr/bin/env bash
# Checks the program that ships: static, so that it runs on any distribution, able to start, and small enough to be
# fetched on every boot.
# usage: static.sh PROGRAM MOST_BYTES
set -euo pipefail
program=$1 most=$2

fail() {
    echo "$program: $*" >&2
    exit 1
}

# A static program names no interpreter and needs no library.
if readelf --wide --program-headers "$program" | grep -q INTERP; then fail "names a dynamic linker"; fi
if readelf --wide --dynamic "$program" | grep NEEDED; then fail "needs libraries"; fi
# Not even this machine's root file system is needed but the program itself.
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
cp "$program" "$empty/agent"
if [ "$(id -u)" = 0 ]; then
    chroot "$empty" /agent --version
else
    env -i "$program" --version
fi
bytes=$(stat --format %s "$program")
echo "$program: static, $bytes bytes of $most"
if [ "$bytes" -gt "$most" ]; then fail "is $((bytes - most)) bytes too large"; fi
