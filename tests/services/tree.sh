# shellcheck shell=bash
# Sourced by systemd.sh and sysv.sh: a throw-away copy of this machine's own tree, on an overlay, in which the agent runs
# with / as its root. Sets $tree; expects $agent and $config.

: "${agent:?}" "${config:?}"
work=$(mktemp -d "${TMPDIR:-/tmp}/hsb-tree-XXXXXX")
tree=$work/tree
cleanup() {
  # What is still mounted must not be removed: below the tree lies this machine's own.
  if mountpoint -q "$tree"; then umount --recursive "$tree"; fi
  if mountpoint -q "$work/apart"; then umount "$work/apart"; fi
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT

# An overlay's upper directory may not lie inside its lower one, and / holds everything: a tmpfs is apart.
mkdir -p "$work/apart" "$tree"
mount -t tmpfs tmpfs "$work/apart"
mkdir "$work/apart/upper" "$work/apart/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/apart/upper,workdir=$work/apart/work" "$tree"

# Nothing of what this machine has of Salt or of us may be seen.
rm -rf "$tree"/etc/salt "$tree"/var/{cache,log}/salt "$tree"/var/lib/heat-salt-bootstrap "$tree"/etc/heat-salt-bootstrap \
  "$tree"/etc/tmpfiles.d/heat-salt-bootstrap.conf "$tree"/etc/systemd/system/{,multi-user.target.wants/}salt-minion.service \
  "$tree"/etc/init.d/salt-minion
: >"$tree/etc/machine-id"
mkdir -p "$tree/opt/hsb" "$tree/etc/heat-salt-bootstrap"
install -m 755 "$agent" "$tree/opt/hsb/heat-salt-bootstrap"
install -m 600 "$config" "$tree/etc/heat-salt-bootstrap/config.json"

# The story: a first run, a second one, one with a changed configuration. After each, `look` (given by whoever sources this)
# says what the service manager thinks of the minion, and the report is kept.
cat >"$tree/opt/hsb/story" <<'EOT'
#!/bin/bash
cd /opt/hsb
. ./manager
turn() {
  ./heat-salt-bootstrap run >"$1.out" 2>&1
  echo $? >"$1.code"
  look >"$1.service" 2>&1
  cp /var/lib/heat-salt-bootstrap/report.json "$1.report"
}
./heat-salt-bootstrap plan >plan.out 2>&1
turn first
turn second
mkdir -p /etc/heat-salt-bootstrap/config.d
echo '{"minion": {"grains": {"role": "web"}}}' >/etc/heat-salt-bootstrap/config.d/role.json
if [ -e third.json ]; then cp third.json /etc/heat-salt-bootstrap/config.d/; fi
turn third
finish
EOT
chmod 755 "$tree/opt/hsb/story"
