#!/usr/bin/env bash
# Runs tests by `cargo test`, and what failed once more, alone: what passes then is FLAKY, and more than three of those are a failure.
# (Suites with masters, machines or clouds in common do so themselves, by lab::harness.)
# usage: again.sh CARGO-ARGUMENT...     as for cargo test
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Nothing takes so long, and a test that hangs is named by what was said before.
timeout --kill-after=30 1200 cargo test --workspace --locked --no-fail-fast "$@" 2>&1 | tee "$log"
code=${PIPESTATUS[0]}
if [ "$code" = 0 ]; then exit 0; fi
if [ "$code" = 124 ]; then
    echo "again.sh: no end after 20 minutes"
    exit 1
fi

mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | sort -u)
# It was not a test that failed.
if [ ${#failed[@]} = 0 ]; then exit "$code"; fi
flaky=() broken=()
for name in "${failed[@]}"; do
    echo "once more, alone: $name"
    # The name of a test in documentation ends with the number of its line.
    if timeout --kill-after=30 600 cargo test --workspace --locked --no-fail-fast "$@" -- --exact "${name%% (line *}" --test-threads 1; then
        flaky+=("$name")
    else
        broken+=("$name")
    fi
done
for name in "${flaky[@]}"; do echo "FLAKY $name"; done
for name in "${broken[@]}"; do echo "FAILED $name"; done
if [ ${#broken[@]} != 0 ] || [ ${#flaky[@]} -gt 3 ]; then exit 1; fi
