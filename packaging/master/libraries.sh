#!/usr/bin/env bash
# Fetches, once, the libraries that the package for masters brings along, and prints the directory: wheels, as libraries.txt pins
# them.
#
# usage: libraries.sh
# env:   as of tests/lab/venv.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
pins=packaging/master/libraries.txt
cache=${HSB_CACHE:-$HOME/.cache/heat-salt-bootstrap}
dir=$cache/libraries-$(sha256sum $pins | cut -c1-12)
python=$(tests/lab/venv.sh tools)/bin/python

exec 9>"$dir.lock"
flock 9
if [ ! -e "$dir" ]; then
    rm -rf "$dir.new"
    echo "libraries.sh: fetching them into $dir" >&2
    # Those without compiled code, whatever this machine is; that they are for old Pythons as well is asked here.
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: --platform any \
        --implementation py --abi none --python-version 3.9 --requirement $pins --dest "$dir.new" >&2 9>&-
    mv "$dir.new" "$dir"
fi
printf '%s\n' "$dir"
