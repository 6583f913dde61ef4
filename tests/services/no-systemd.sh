# shellcheck shell=bash
# Sourced by sysv.sh and sysv-boots.sh: no systemd runs in $tree, and there is an init script for salt-minion, as older distributions and
# their packages have it. `boot ARGUMENT SECONDS` runs the story; expects $minion and $out.

: "${tree:?}" "${minion:?}" "${out:?}"
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
boot() {
  timeout -k 10 "$2" unshare --mount --pid --fork --kill-child --mount-proc="$tree/proc" chroot "$tree" /opt/hsb/story "$1" \
    </dev/null >>"$out/console" 2>&1
}
