#!/bin/bash
# Boots a throw-away copy of this machine's tree under a real systemd (in systemd-nspawn) and runs the agent there as on a VM:
# salt-minion is a unit that is installed, and neither enabled nor running. The network is shared: the master is on loopback.
# usage: systemd.sh AGENT CONFIG MINION OUT     OUT gets what the tests look at
set -euo pipefail
agent=$(realpath "$1") config=$(realpath "$2") minion=$3 out=$(realpath "$4")
# shellcheck source=tests/services/tree.sh
. "$(dirname "$0")/tree.sh"

# As Salt's packages ship it (pkg/common/salt-minion.service), with the path of the program that is here.
cat >"$tree/etc/systemd/system/salt-minion.service" <<EOT
[Unit]
Description=The Salt Minion
[Service]
KillMode=mixed
Type=notify
NotifyAccess=all
LimitNOFILE=8192
ExecStart=$minion
[Install]
WantedBy=multi-user.target
EOT
# With the third run's configuration it leaves when it is switched off, and not when it is gone.
echo '{"deregister": "at-shutdown"}' >"$tree/opt/hsb/third.json"
cat >"$tree/opt/hsb/manager" <<'EOT'
units="heat-salt-bootstrap-renew.service heat-salt-bootstrap-renew.timer heat-salt-bootstrap-deregister.service"
look() {
  systemctl is-enabled salt-minion; systemctl is-active salt-minion
  for unit in $units; do
    enabled=$(systemctl is-enabled "$unit" 2>/dev/null)
    # Older ones say nothing of what is not there.
    echo "$unit ${enabled:-not-found} $(systemctl is-active "$unit")"
  done
  systemctl show -p MainPID --value salt-minion
}
# The unit that takes the key off the master stops the minion as well.
finish() { systemctl is-active heat-salt-bootstrap-deregister >leaver.service; systemctl --no-block poweroff; }
EOT
cat >"$tree/etc/systemd/system/story.service" <<'EOT'
[Unit]
Description=The agent's story
[Service]
Type=oneshot
ExecStart=/opt/hsb/story
TimeoutStartSec=240
EOT
cat >"$tree/etc/systemd/system/story.target" <<'EOT'
[Unit]
Description=Only what the story needs
Requires=basic.target story.service
After=basic.target
AllowIsolate=yes
EOT
cat >"$tree/opt/hsb/back" <<'EOT'
#!/bin/bash
# Not by the deregistering unit, which is not started in this boot.
systemctl show -p Result,ExecMainStatus heat-salt-bootstrap-renew.service >/opt/hsb/back.service
systemctl --force poweroff
EOT
chmod 755 "$tree/opt/hsb/back"
cat >"$tree/etc/systemd/system/back.service" <<'EOT'
[Unit]
Description=The next boot
After=heat-salt-bootstrap-renew.service
[Service]
Type=oneshot
ExecStart=/opt/hsb/back
EOT
cat >"$tree/etc/systemd/system/back.target" <<'EOT'
[Unit]
Description=Only what the next boot is about
Requires=basic.target back.service
Wants=heat-salt-bootstrap-renew.service
After=basic.target
AllowIsolate=yes
EOT
# Of this machine's own services none may start.
for unit in systemd-{timesyncd,networkd,resolved,udevd,udev-trigger}.service console-getty.service e2scrub_reap.service \
  timers.target sockets.target machines.target; do
  ln -sf /dev/null "$tree/etc/systemd/system/$unit"
done

# The minion's environment is bound: nspawn hides the tree's /tmp and the like behind fresh ones.
environment=$(dirname "$(dirname "$minion")")
boot() {
  local code=0
  timeout -k 10 "$2" systemd-nspawn --quiet --boot --register=no --keep-unit --machine=hsb-systemd --bind-ro="$environment" \
    --directory="$tree" --console=pipe "systemd.unit=$1.target" </dev/null >>"$out/console" 2>&1 || code=$?
  echo "systemd-nspawn ended with $code" >>"$out/console"
}
boot story 180
# Switched on again
boot back 90
cp "$tree"/opt/hsb/*.{out,code,service,report} "$out/" || { cat "$out/console"; exit 1; }
