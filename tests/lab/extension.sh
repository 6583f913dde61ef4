#!/usr/bin/env bash
# Installs, once, the Salt extension of this tree with what it needs, for a Salt of one line, and prints the directory: given in
# PYTHONPATH, Salt finds it there as it finds what `salt-pip install` has brought. The environment of that Salt stays as it is.
#
# usage: extension.sh 3006|3007|3008
# env:   as of venv.sh
set -euo pipefail

say() { printf 'extension.sh: %s\n' "$*" >&2; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$(cd "$here/../../salt-extension" && pwd)
venv=$("$here/venv.sh" "${1:-}")
cache=${HSB_CACHE:-$HOME/.cache/heat-salt-bootstrap}
requirements=$here/requirements-extension.txt

# What pip and Python leave beside the sources is none of them.
hash=$({
    echo "$venv"
    cat "$requirements"
    cd "$source" && find . -type f \( -path './src/*.py' -o -name pyproject.toml \) -print0 | sort -z | xargs -0 sha256sum
} | sha256sum | cut -c1-12)
dir=$cache/extension$1-$hash

exec 9>"$dir.lock"
flock --nonblock 9 || { say "waiting for another build of the same"; flock 9; }

if [ ! -e "$dir/.complete" ]; then
    rm -rf "$dir" "$dir.new"
    say "installing the extension for Salt $1 in $dir"
    {
        pip=("$venv/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps --target "$dir.new")
        # setuptools builds in the tree that it is given.
        copy=$(mktemp -d)
        trap 'rm -rf "$copy"' EXIT
        cp -r "$source" "$copy/extension"
        "${pip[@]}" --no-build-isolation "$copy/extension"
        # Of two that bring a bin directory pip takes the first one's: that is the command's.
        "${pip[@]}" --requirement "$requirements"
        touch "$dir.new/.complete"
        mv "$dir.new" "$dir"
    } >&2 9>&-
fi
printf '%s\n' "$dir"
