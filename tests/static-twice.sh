#!/usr/bin/env bash
# Builds the program that ships once more, of the same source in a directory of another name: it has to be the same, byte for byte.
# usage: static-twice.sh TARGET PROGRAM
set -euo pipefail
target=$1
program=$(realpath "$2")
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

other=$work/a-directory-of-another-name
mkdir "$other"
git -c safe.directory='*' ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read --files-from=- -c |
    tar --directory "$other" -x
env -u CARGO_TARGET_DIR "$other/packaging/static.sh" "$target"
cmp "$program" "$other/target/$target/release/heat-salt-bootstrap"
sha256sum "$program"
