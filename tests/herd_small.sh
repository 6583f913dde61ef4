#!/usr/bin/env bash
# A small herd, as `make herd` has large ones: all that is wrong with one of 1,000 is wrong here too, but for what only a crowd does.
#
# usage: herd_small.sh
# env:   as of tests/lab/venv.sh
#        HSB_ALL    1 for Salt 3006 too
set -euo pipefail
cd "$(dirname "$0")"

lines=(3008)
if [ -n "${HSB_ALL:-}" ]; then lines+=(3006); else echo "Salt 3006: only in the whole matrix (HSB_ALL=1)"; fi
for line in "${lines[@]}"; do
    ./herd.sh "$line" herd.py --count 50 --spread 2
done
