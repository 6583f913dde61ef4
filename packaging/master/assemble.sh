#!/bin/sh
# Puts together, without a network, what the package for masters has for Python: the extension, and the libraries that it needs.
#
# usage: assemble.sh WHEELS DIR   WHEELS: those of libraries.txt, and nothing else
#        makes DIR/python, and DIR/THIRD-PARTY-LICENSES with the licences of the libraries
# env:   PYTHON  one that has setuptools (default: python3)
set -eu
umask 022
cd "$(dirname "$0")/../.."
wheels=$1 dir=$2
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# They are those of libraries.txt, to the last byte.
sed -n 's/.*--hash=sha256://p' packaging/master/libraries.txt | sort >"$work/wanted"
sha256sum "$wheels"/*.whl | cut -d ' ' -f 1 | sort >"$work/there"
cmp "$work/wanted" "$work/there"

# setuptools builds in the tree that it is given.
cp -r salt-extension "$work/source"
mkdir "$work/wheel"
build='import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])'
(cd "$work/source" && "$python" -c "$build" "$work/wheel") >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

rm -rf "$dir"
mkdir -p "$dir/python"
for wheel in "$wheels"/*.whl "$work"/wheel/*.whl; do "$python" -m zipfile -e "$wheel" "$dir/python"; done
# Only then are they the same on every machine.
if find "$dir/python" -name '*.so' | grep .; then
    echo "assemble.sh: that is compiled code" >&2
    exit 1
fi
chmod -R u=rwX,go=rX "$dir/python"

{
    echo "heat-salt-bootstrap-master has these libraries of others in it, each under its own licence."
    find "$dir/python" -path '*.dist-info/licenses/*' ! -path '*/saltext_heat_bootstrap-*' -type f | LC_ALL=C sort |
        while read -r licence; do
            info=${licence%%.dist-info/*}
            printf '\n--- %s: %s\n\n' "${info##*/}" "${licence##*/licenses/}"
            cat "$licence"
        done
} >"$dir/THIRD-PARTY-LICENSES"
