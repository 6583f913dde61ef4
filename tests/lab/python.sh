#!/usr/bin/env bash
# Prints the Python that the environments with Salt and Heat are built with, or says what is against the one that there is.
#
# usage: python.sh
# env:   PYTHON  the interpreter (default: /usr/bin/python3 if it fits, else python3)
set -euo pipefail

# against PROGRAM: what is against it, if anything is.
against() {
    local version=
    if ! command -v "$1" >/dev/null; then
        echo "$1 is missing; install Python 3.10, 3.11 or 3.12 (Debian: python3 python3-venv)"
        return
    fi
    # What fails here is no Python, whatever it has printed.
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=
    case $version in
    3.10 | 3.11 | 3.12) ;;
    '') echo "$1 is no Python that runs; name another one in PYTHON" && return ;;
    *) echo "Python 3.10, 3.11 or 3.12 is wanted, and $1 is $version; name another one in PYTHON" && return ;;
    esac
    "$1" -c 'import venv, ensurepip' 2>/dev/null || echo "$1 lacks venv or ensurepip; install them (Debian: python3-venv)"
}

# A distribution's Python is optimised by profiles. One that somebody built beside it (pyenv's, say) seldom is, and then Salt takes
# up to twice as long for everything.
python=${PYTHON:-/usr/bin/python3}
problem=$(against "$python")
if [ -n "$problem" ] && [ -z "${PYTHON:-}" ]; then
    python=python3
    problem=$(against "$python")
fi
if [ -n "$problem" ]; then
    echo "python.sh: $problem" >&2
    exit 1
fi
printf '%s\n' "$python"
