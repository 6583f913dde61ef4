#!/usr/bin/env bash
# Runs a part of the tests and says how long it took; the last line of one that failed begins with FAILED.
# usage: timed.sh NAME COMMAND...
set -uo pipefail
name=$1
shift
echo "=== $name: $*"
"$@"
code=$?
if [ "$code" = 0 ]; then
    echo "=== $name: ok, $SECONDS s"
else
    echo "=== $name: exit code $code, $SECONDS s"
    echo "FAILED $name"
fi
exit "$code"
