#!/usr/bin/env bash
# What the program that ships consists of: its size, its sections, and the crates in them.
# usage: size.sh TARGET PROGRAM
set -euo pipefail
target=$1 program=$2
cd "$(dirname "$0")/../.."

echo "$target: $(stat --format %s "$program") bytes, $(xz -9e --stdout "$program" | wc -c) as xz, with the $(packaging/static.sh --std) standard library"
echo
echo "    bytes  section"
size --format=sysv --radix=10 "$program" | awk '/^\./ && $2 > 4096 { printf "%9d  %s\n", $2, $1 }'

# The same once more, but with names.
CARGO_PROFILE_RELEASE_STRIP=false CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/with-names packaging/static.sh "$target" >&2
echo
echo "     code      data  crate"
tests/bench/by_crate.sh "${CARGO_TARGET_DIR:-target}/with-names/$target/release/heat-salt-bootstrap"
