#!/usr/bin/env bash
# Builds, once, a Python environment with a real Salt of one LTS line, or a real Heat, from PyPI and prints its path.
#
# Salt ships as a source package and takes minutes to build, so the environment lives in a cache outside the
# tree, where neither `cargo clean` nor a fresh clone loses it.
#
# usage: venv.sh 3006|3007|3008|heat|tools    tools: what looks at Python sources
# env:   HSB_CACHE  where the environments are kept (default: ~/.cache/heat-salt-bootstrap)
#        PYTHON     the interpreter to build with (see python.sh)
set -euo pipefail

say() { printf 'venv.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Asked for its version, a program shows that what it needs is there.
case ${1:-} in
3006 | 3007 | 3008) name=salt-$1 title="Salt $1" list=requirements-$1.txt program=salt-minion ;;
heat) name=heat title=Heat list=heat/requirements.txt program=heat-engine ;;
tools) name=tools title="the tools for Python" list=requirements-tools.txt program=ruff ;;
*) die "usage: venv.sh 3006|3007|3008|heat|tools" ;;
esac

lab=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=$lab/$list
command -v flock >/dev/null || die "flock is missing; install util-linux"
python=$("$lab/python.sh")

cache=${HSB_CACHE:-$HOME/.cache/heat-salt-bootstrap}
# What was installed for one interpreter is of no use to another.
interpreter=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2], sys.base_prefix)')
hash=$({ cat "$requirements"; echo "$interpreter"; } | sha256sum | cut -c1-12)
dir=$cache/$name-$hash

# Test programs run side by side: the second caller waits here and then finds the work done.
mkdir -p "$cache"
exec 9>"$dir.lock"
flock --nonblock 9 || { say "waiting for another build of the same"; flock 9; }

if [ "$(cat "$dir/.complete" 2>/dev/null)" != "$dir" ]; then
    # A virtual environment names its own path in its scripts and cannot be moved, so it is built where it stays,
    # and one that was cut off half way, or moved, is thrown away.
    rm -rf "$dir"
    say "building $title in $dir (takes some minutes)"
    {
        "$python" -m venv "$dir"
        # Some of the dependencies have only a setup.py, which setuptools 81 no longer builds.
        "$dir/bin/python" -m pip install --disable-pip-version-check --quiet 'setuptools<81' wheel
        # --no-deps: Salt pins a certifi newer than the index may offer; the list is complete without the resolver.
        "$dir/bin/python" -m pip install --disable-pip-version-check --no-deps --requirement "$requirements"
        "$dir/bin/$program" --version
    } >&2 9>&-
    printf '%s\n' "$dir" >"$dir/.complete"
    say "built $dir"
fi
printf '%s\n' "$dir"
