#!/usr/bin/env bash
# Checks the program that ships: static, so that it runs on any distribution, able to start, small enough to be fetched on every
# boot, and silent about who built it.
# usage: static.sh PROGRAM MOST_BYTES MOST_XZ
set -euo pipefail
program=$1 most=$2 most_xz=$3

fail() {
    echo "$program: $*" >&2
    exit 1
}

case $(readelf --file-header "$program" | sed -n 's/^ *Machine: *//p') in
*X86-64) machine=x86_64 ;;
AArch64) machine=aarch64 ;;
*) fail "is for none of the machines that it ships for" ;;
esac
# A static program names no interpreter and needs no library.
if readelf --wide --program-headers "$program" | grep -q INTERP; then fail "names a dynamic linker"; fi
if readelf --wide --dynamic "$program" | grep NEEDED; then fail "needs libraries"; fi
for path in "$HOME/." "$PWD/"; do
    if grep --text --quiet --fixed-strings -- "$path" "$program"; then fail "holds the path $path"; fi
done
# Not even this machine's root file system is needed but the program itself. What emulates another machine needs it.
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
cp "$program" "$empty/agent"
if [ "$machine" != "$(uname -m)" ]; then
    emulator=$(command -v "qemu-$machine") || fail "wants qemu-$machine to be started"
    env -i "$emulator" "$program" --version
elif [ "$(id -u)" = 0 ]; then
    chroot "$empty" /agent --version
else
    env -i "$program" --version
fi
bytes=$(stat --format %s "$program") xz=$(xz -9e --stdout "$program" | wc -c)
echo "$program: static, $bytes bytes of $most, $xz as xz of $most_xz"
if [ "$bytes" -gt "$most" ]; then fail "is $((bytes - most)) bytes too large"; fi
if [ "$xz" -gt "$most_xz" ]; then fail "is $((xz - most_xz)) bytes too large as xz"; fi
