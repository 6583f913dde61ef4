#!/usr/bin/env bash
# Stops what up.sh started in DIR, or some of its services, and nothing else: every process of it bears the mark of DIR in
# its environment. What lies in DIR stays.
#
# usage: down.sh DIR [mariadb|epmd|rabbitmq|keystone|heat-engine|heat-api|heat-api-cfn]...
set -euo pipefail

# It must not find itself, whoever calls it.
[ -z "${HSB_HEAT_LAB:-}" ] || exec env -u HSB_HEAT_LAB "$0" "$@"

say() { printf 'down.sh: %s\n' "$*" >&2; }
[ $# -ge 1 ] || { say "usage: down.sh DIR [SERVICE]..."; exit 1; }
dir=$(cd "$1" 2>/dev/null && pwd -P) || exit 0
shift

marked() { # [SESSION]...: the processes that bear the mark; with sessions, those in them
    local pid session
    for pid in $(grep -lszxF "HSB_HEAT_LAB=$dir" /proc/[0-9]*/environ | tr -dc '0-9\n'); do
        [ "$pid" != $$ ] || continue
        if [ $# -gt 0 ]; then
            session=$(ps -o sid= -p "$pid" | tr -d ' ')
            [[ " $* " == *" $session "* ]] || continue
        fi
        echo "$pid"
    done
}

sessions=()
for name in "$@"; do
    [ -s "$dir/run/$name.pid" ] || { say "$name was never started here"; exit 1; }
    sessions+=("$(cat "$dir/run/$name.pid")")
done
signal=TERM
for try in {1..100}; do
    mapfile -t pids < <(marked "${sessions[@]}")
    [ ${#pids[@]} -gt 0 ] || exit 0
    # The whole of it is thrown away: nothing is gained by asking for long.
    if [ "$try" -ge 80 ] || { [ ${#sessions[@]} = 0 ] && [ "$try" -ge 20 ]; }; then signal=KILL; fi
    # Asked once only: a second TERM hurries some of them into leaving children behind.
    if [ "$try" = 1 ] || [ $signal = KILL ]; then kill -$signal "${pids[@]}" 2>/dev/null || true; fi
    sleep 0.1
done
say "still there: ${pids[*]}"
exit 1
