#!/usr/bin/env bash
# Tests a static program that is for another machine than this one, by emulation. The tests are ordinary ones: each is started
# where that program lies in the place of the one that cargo has built for it, and where the kernel runs such programs by qemu.
# Both is so for that test alone.
#
# usage: emulated.sh PROGRAM TEST...                    the tests by name, as of cargo test --test
#        emulated.sh --within PROGRAM EXECUTABLE...     one of them, as cargo has it started
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "emulated.sh: $*" >&2
    exit 1
}

if [ "$1" != --within ]; then
    program=$(realpath "$1")
    shift
    runner="['$PWD/tests/emulated.sh', '--within', '$program']"
    exec tests/again.sh --config "target.'cfg(all())'.runner = $runner" "${@/#/--test=}"
fi

program=$2 executable=$3
case $(readelf --file-header "$program" | sed -n 's/^ *Machine: *//p') in
*X86-64) machine=x86_64 number='\x3e' ;;
AArch64) machine=aarch64 number='\xb7' ;;
*) fail "$program is for none of the machines that it ships for" ;;
esac
place=$(dirname "$executable")/../heat-salt-bootstrap
handlers=/proc/sys/fs/binfmt_misc

# With a user namespace of its own a test has handlers of its own, from Linux 6.7 on. Before, they are this machine's.
if [ -z "${HSB_SPACE:-}" ]; then
    space=(--mount)
    if unshare --user --map-root-user --mount mount -t binfmt_misc none $handlers 2>/dev/null; then
        space+=(--user --map-root-user)
    fi
    export HSB_SPACE="${space[*]}"
    exec unshare "${space[@]}" tests/emulated.sh "$@"
fi

mount --bind "$program" "$place"
handler=
if [ "$machine" != "$(uname -m)" ]; then
    HSB_EMULATOR=$(realpath "$(command -v "qemu-$machine")") || fail "there is no qemu-$machine"
    export HSB_EMULATOR
    mount -t binfmt_misc none $handlers 2>/dev/null || [ -w $handlers/register ] ||
        fail "this kernel runs no programs by others (binfmt_misc)"
    handler=$handlers/heat-salt-bootstrap-$$
    # Programs for that machine, known by their first bytes (elf(5)), of whatever system; P: with the name that they are called by.
    printf '%s' ":${handler##*/}:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00$number\x00:" \
        '\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:' "$HSB_EMULATOR:P" >$handlers/register
    trap 'echo -1 >"$handler"' EXIT
fi
shift 2
code=0
"$@" || code=$?
# Whoever links it anew meanwhile takes this one from its place.
cmp "$program" "$place" || fail "another program was in the place of $program"
exit "$code"
