#!/bin/bash
# Runs the agent in a throw-away copy of this machine's tree that has no systemd running, but an init script for salt-minion, as
# older distributions and their packages have it. Real `service` and `update-rc.d` (or chkconfig) serve it.
# usage: sysv.sh AGENT CONFIG MINION OUT     OUT gets what the tests look at
set -euo pipefail
agent=$(realpath "$1") config=$(realpath "$2") minion=$3 out=$(realpath "$4")
# shellcheck source=tests/services/tree.sh
. "$(dirname "$0")/tree.sh"

cat >"$tree/etc/init.d/salt-minion" <<EOT
#!/bin/sh
### BEGIN INIT INFO
# Provides:          salt-minion
# Required-Start:    \$remote_fs \$network
# Required-Stop:     \$remote_fs \$network
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: The Salt minion
### END INIT INFO
pidfile=/var/run/salt-minion.pid
case "\$1" in
  start) "$minion" -d ;;
  stop)
    pid=\$(cat \$pidfile) || exit 0
    kill "\$pid"
    while kill -0 "\$pid" 2>/dev/null; do sleep 0.1; done
    ;;
  restart) "\$0" stop; "\$0" start ;;
  status) kill -0 "\$(cat \$pidfile)" ;;
esac
EOT
chmod 755 "$tree/etc/init.d/salt-minion"
cat >"$tree/opt/hsb/manager" <<'EOT'
look() { ls /etc/rc2.d | grep -o '^S..salt-minion' | sed 's/^S../S/'; service salt-minion status && echo active; cat /var/run/salt-minion.pid; }
finish() { service salt-minion stop; }
EOT
# sd_booted(3): without this directory there is no systemd.
rm -rf "$tree/run/systemd"
# Nothing else names this machine: it has no firmware and no network card of its own.
mkdir -p "$tree/var/lib/cloud/data"
echo i-sysv >"$tree/var/lib/cloud/data/instance-id"
environment=$(dirname "$(dirname "$minion")")
mkdir -p "$tree$environment"
mount --bind "$environment" "$tree$environment"
mount --rbind --make-private /dev "$tree/dev"

# A pid namespace of its own: whatever the story leaves running ends with it.
timeout -k 10 280 unshare --mount --pid --fork --kill-child --mount-proc="$tree/proc" chroot "$tree" /opt/hsb/story </dev/null >"$out/console" 2>&1
cp "$tree"/opt/hsb/*.{out,code,service,report} "$out/" || { cat "$out/console"; exit 1; }
