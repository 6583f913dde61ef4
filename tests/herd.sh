#!/usr/bin/env bash
# Runs a program of the extension's load tests in a real Salt of one line.
#
# usage: herd.sh 3006|3008 herd.py|master_cost.py [ARGUMENTS]
# env:   as of tests/lab/venv.sh; AGENT: the agent, for real minions
set -euo pipefail
cd "$(dirname "$0")/../salt-extension"
line=$1 program=$2
shift 2
overlay=$(../tests/lab/extension.sh "$line")
venv=$(../tests/lab/venv.sh "$line")
# Compiled files beside the sources would be kept for no one. Each VM has a few connections.
ulimit -n "$(ulimit -H -n)"
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$overlay exec "$venv/bin/python" "tests/$program" "$@"
