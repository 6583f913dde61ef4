#!/bin/bash
# A run in a throw-away copy of this machine's tree that has no systemd running is cut off by a reboot, goes on at the next boot, where the
# power fails, and at the one after that. What the real `update-rc.d` has linked into the run level is started there, by nobody else.
# usage: sysv-boots.sh AGENT CONFIG MINION OUT     OUT gets what the test looks at; it says `refuses` there when Heat refuses
set -euo pipefail
agent=$(realpath "$1") config=$(realpath "$2") minion=$3 out=$(realpath "$4")
# shellcheck source=tests/services/tree.sh
. "$(dirname "$0")/tree.sh"
# shellcheck source=tests/services/no-systemd.sh
. "$(dirname "$0")/no-systemd.sh"

cat >"$tree/opt/hsb/story" <<'EOT'
#!/bin/bash
cd /opt/hsb
state=/var/lib/heat-salt-bootstrap
# Another boot.
cat /proc/sys/kernel/random/uuid >boot-id
mount --bind boot-id /proc/sys/kernel/random/boot_id
rm -f /run/*.pid
# Should-Start puts the minion first.
starts() { for script in /etc/rc2.d/S??{salt-minion,heat-salt-bootstrap,heat-salt-bootstrap-signal}; do
  if [ -e "$script" ]; then "$script" start >>boots.out 2>&1; fi
done; }
at_states() { until grep -q '"step":"states"' $state/progress 2>/dev/null && [ "$(cat /runs.out 2>/dev/null | wc -l)" = "$1" ]; do sleep 0.1; done; }
scripts() { ls /etc/init.d /etc/rc?.d | grep heat-salt-bootstrap; }
case $1 in
first)
  rm -f /etc/rc2.d/S*
  ./heat-salt-bootstrap run >first.out 2>&1 &
  at_states 1
  scripts >during.service
  # As init(8) does: it notes the run level, RUN_LVL in utmp(5), and tells all to end.
  python3 -c 'import struct; open("/run/utmp", "wb").write(struct.pack("<hxxi", 1, ord("6") | ord("2") << 8) + bytes(376))'
  pkill -TERM -x heat-salt-boots
  wait $!
  echo $? >first.code
  cp $state/report.json first.report
  ;;
second)
  rm /run/utmp
  starts
  at_states 2
  ;;
third)
  : >/go
  starts
  while [ -e /etc/init.d/heat-salt-bootstrap ]; do sleep 0.1; done
  scripts >third.service
  while pgrep -x heat-salt-boots >/dev/null; do sleep 0.1; done
  cp $state/report.json third.report
  ;;
fourth)
  starts
  while [ -e /etc/init.d/heat-salt-bootstrap-signal ]; do sleep 0.1; done
  while pgrep -x heat-salt-boots >/dev/null; do sleep 0.1; done
  scripts >fourth.service
  cp /var/log/heat-salt-bootstrap.log log.out
  ;;
esac
EOT
for turn in first second third fourth; do
  if [ $turn = third ]; then
    : >"$out/asks"
    until [ -e "$out/refuses" ]; do sleep 0.1; done
  fi
  boot $turn 120 || { cat "$out/console" "$tree"/opt/hsb/*.out "$tree/var/log/heat-salt-bootstrap.log" >&2; : >"$out/asks"; exit 1; }
done
cp "$tree"/opt/hsb/*.{out,code,service,report} "$out/"
