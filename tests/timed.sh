#!/usr/bin/env bash
# Runs a part of the tests and says how long it took, and how busy all cores together were meanwhile, with whatever else ran beside it; the
# last line of one that failed begins with FAILED.
# usage: timed.sh NAME COMMAND...
set -uo pipefail
name=$1
shift

# Hundredths of a second that all cores have had so far, and those in which they did something (proc(5), /proc/stat).
cores() {
    local user nice system idle waited irq softirq stolen rest
    read -r _ user nice system idle waited irq softirq stolen rest </proc/stat
    local busy=$((user + nice + system + irq + softirq + stolen))
    echo $((busy + idle + waited)) $busy
}

echo "=== $name: $*"
read -r all_before busy_before < <(cores)
"$@"
code=$?
read -r all busy < <(cores)
# A part that was over at once saw no tick.
share=$((100 * (busy - busy_before) / (all > all_before ? all - all_before : 1)))
if [ "$code" = 0 ]; then
    echo "=== $name: ok, $SECONDS s, cores busy $share %"
else
    echo "=== $name: exit code $code, $SECONDS s, cores busy $share %"
    echo "FAILED $name"
fi
exit "$code"
