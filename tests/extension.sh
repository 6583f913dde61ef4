#!/usr/bin/env bash
# Looks at the Salt extension's sources by ruff and mypy, and runs its own tests in a Salt of each line.
#
# usage: extension.sh [PYTEST ARGUMENTS]
# env:   as of tests/lab/venv.sh
#        HSB_ALL    1 for Salt 3007 too, which is under no long-term support and costs CI minutes, and for every test on every line
set -euo pipefail
cd "$(dirname "$0")/../salt-extension"
lab=../tests/lab

tools=$("$lab/venv.sh" tools)
"$tools/bin/ruff" check --quiet --no-cache .
"$tools/bin/ruff" format --quiet --no-cache --check .
"$tools/bin/mypy" --cache-dir=/dev/null

lines=(3006 3008)
if [ -n "${HSB_ALL:-}" ]; then lines+=(3007); else echo "Salt 3007: only in the whole matrix (HSB_ALL=1)"; fi
for line in "${lines[@]}"; do
    echo "=== Salt $line"
    chosen=()
    if [ "$line" = 3006 ] && [ -z "${HSB_ALL:-}" ]; then
        echo "what Salt has no part in (MariaDB, a browser): on 3008; on each line in the whole matrix (HSB_ALL=1)"
        chosen=(-m "not without_salt")
    fi
    # Compiled files beside the sources would be kept for no one.
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$("$lab/extension.sh" "$line") "$("$lab/venv.sh" "$line")/bin/python" -m pytest "${chosen[@]}" "$@" tests
done
