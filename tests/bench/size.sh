#!/usr/bin/env bash
# What the program that ships consists of, and how long it takes to say its version.
# usage: size.sh TARGET PROGRAM
set -euo pipefail
target=$1 program=$2
cd "$(dirname "$0")/../.."

echo "size: $(stat --format %s "$program") bytes, $(xz -9e --stdout "$program" | wc -c) as xz, with the $(packaging/static.sh --std) standard library"
size --format=sysv "$program" | awk '/^\./ && $2 > 4096 { printf "size: %9d %s\n", $2, $1 }'

# The same with names: by crate, as far as a name tells.
CARGO_PROFILE_RELEASE_STRIP=false CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/with-names packaging/static.sh "$target" >&2
nm --demangle --size-sort --print-size "${CARGO_TARGET_DIR:-target}/with-names/$target/release/heat-salt-bootstrap" |
    sed -E 's/^[0-9a-f]+ ([0-9a-f]+) . (.*)/\1 \2/' |
    awk '{
        bytes = strtonum("0x" $1); name = $0; sub(/^[^ ]+ /, "", name)
        if (name ~ /^(ring_core|ecp_|aes|sha|bn_|p256|x25519|chacha|poly|mul|LIMBS)/) crate = "ring (C and assembler)"
        else if (match(name, /[a-z_0-9]+::/)) crate = substr(name, RSTART, RLENGTH - 2)
        else crate = "C"
        all[crate] += bytes
    } END { for (crate in all) printf "size: %9d %s\n", all[crate], crate }' | sort --key 2,2nr | head -15

python3 - "$program" <<'PYTHON'
import os, sys, time
program, quiet = sys.argv[1], [(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
def spent(words):
    begun = time.perf_counter()
    os.waitpid(os.posix_spawn(words[0], words, {}, file_actions=quiet), 0)
    return time.perf_counter() - begun
ours, nothing = (min(spent(words) for _ in range(300)) * 1e3 for words in ([program, "--version"], ["/bin/true"]))
print(f"--version: {ours:.2f} ms, as fast as /bin/true times {ours / nothing:.2f}")
PYTHON
