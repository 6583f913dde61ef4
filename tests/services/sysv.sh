#!/bin/bash
# Runs the agent in a throw-away copy of this machine's tree that has no systemd running, but an init script for salt-minion, as
# older distributions and their packages have it. Real `service` and `update-rc.d` (or chkconfig) serve it.
# usage: sysv.sh AGENT CONFIG MINION OUT     OUT gets what the tests look at
set -euo pipefail
agent=$(realpath "$1") config=$(realpath "$2") minion=$3 out=$(realpath "$4")
# shellcheck source=tests/services/tree.sh
. "$(dirname "$0")/tree.sh"

# shellcheck source=tests/services/no-systemd.sh
. "$(dirname "$0")/no-systemd.sh"

cat >"$tree/opt/hsb/manager" <<'EOT'
look() { ls /etc/rc2.d | grep -o '^S..salt-minion' | sed 's/^S../S/'; service salt-minion status && echo active; cat /var/run/salt-minion.pid; }
finish() { service salt-minion stop; }
EOT
boot all 280
cp "$tree"/opt/hsb/*.{out,code,service,report} "$out/" || { cat "$out/console"; exit 1; }
