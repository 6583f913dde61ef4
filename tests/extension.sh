#!/usr/bin/env bash
# Looks at the Salt extension's sources by ruff and mypy, and runs its own tests in a Salt of each line.
#
# usage: extension.sh [PYTEST ARGUMENTS]
# env:   as of tests/lab/venv.sh
set -euo pipefail
cd "$(dirname "$0")/../salt-extension"
lab=../tests/lab

tools=$("$lab/venv.sh" tools)
"$tools/bin/ruff" check --quiet --no-cache .
"$tools/bin/ruff" format --quiet --no-cache --check .
"$tools/bin/mypy" --cache-dir=/dev/null

for line in 3006 3008; do
    echo "=== Salt $line"
    # Compiled files beside the sources would be kept for no one.
    PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$("$lab/extension.sh" "$line") "$("$lab/venv.sh" "$line")/bin/python" -m pytest "$@" tests
done
