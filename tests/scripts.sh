#!/usr/bin/env bash
# Checks every script of the source tree: shells by shellcheck, where there is one, Python by compiling it.
#
# usage: scripts.sh [--list]   --list: only says which
set -euo pipefail
cd "$(dirname "$0")/.."

shells=() pythons=()
while IFS= read -r -d '' file; do
    first=
    # A binary file has no line worth reading.
    { IFS= read -r first || :; } 2>/dev/null <"$file"
    case $file:$first in
    *.py:* | *:'#!'*python*) pythons+=("${file#./}") ;;
    *.sh:* | *:'#!'*sh | *:'#!'*'sh '*) shells+=("${file#./}") ;;
    esac
done < <(find . \( -name .git -o -path ./target -o -name __pycache__ \) -prune -o -type f -print0 | sort -z)

if [ "${1:-}" = --list ]; then
    printf '%s\n' "${shells[@]}" "${pythons[@]}"
    exit
fi
if command -v shellcheck >/dev/null; then
    shellcheck --external-sources "${shells[@]}"
fi
python3 -c 'import sys; [compile(open(name, encoding="utf-8").read(), name, "exec") for name in sys.argv[1:]]' "${pythons[@]}"
echo "${#shells[@]} shell scripts, ${#pythons[@]} of Python"
