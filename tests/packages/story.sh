# shellcheck shell=sh
# What happens to the packages in a root; /opt has them as 0, 1 and 2 and, of RPMs, one that is not signed.
#
# usage: sh -eu story.sh rpm|deb
kind=$1
config=/etc/heat-salt-bootstrap/config.json
state=/var/lib/heat-salt-bootstrap

# shellcheck source=tests/packages/common.sh
. /opt/common.sh
name=heat-salt-bootstrap

# What a run leaves, and an instance: here one that has no master to speak to.
run() {
    mkdir -p /var/lib/cloud/instances/i-1
    ln -sfn instances/i-1 /var/lib/cloud/instance
    printf '{"minion": {"id": "web-1", "master": "127.0.0.1"}, "accept": "none", "deadline": "5s", "install": {"source": "preinstalled"}}\n' >$config
    for _ in 1 2; do
        code=0
        heat-salt-bootstrap run 2>/opt/run.err || code=$?
        { [ $code -ge 10 ] && [ $code -lt 90 ]; } || fail "run ended with $code: $(cat /opt/run.err)"
        sleep 1
    done
    : >/var/lib/cloud/instance/heat-salt-bootstrap.done
    systemctl enable --quiet heat-salt-bootstrap.service
    { [ -n "$(ls $state/reports)" ] && [ -s /var/log/heat-salt-bootstrap.log ]; } || fail "the run has left nothing"
}

# That what a run and a person have made is still there.
kept() {
    grep -q web-1 $config || fail "the configuration is not kept"
    [ -z "$(find /etc/heat-salt-bootstrap -name '*.rpmnew' -o -name '*.dpkg-*')" ] || fail "the configuration lies there twice"
    { [ -n "$(ls $state/reports)" ] && [ -e /var/lib/cloud/instance/heat-salt-bootstrap.done ]; } || fail "the state is not kept"
    [ "$(systemctl is-enabled heat-salt-bootstrap.service)" = enabled ] || fail "the unit is not enabled any more"
}

if [ "$kind" = rpm ]; then
    rpm --import /opt/key.asc
    rpm --install --nosignature /opt/base.rpm
    if put install unsigned 2>/opt/unsigned.err; then fail "dnf has installed what is not signed"; fi
    grep -qi 'not signed' /opt/unsigned.err || fail "dnf refused it for another reason: $(cat /opt/unsigned.err)"
fi
mkdir -p /var/lib/cloud/instances/i-1
everything >/opt/before

put install 1
[ "$(release)" = 1 ]
is /usr/bin/heat-salt-bootstrap 755
is /etc/heat-salt-bootstrap 700
is /etc/heat-salt-bootstrap/config.d 700
is $config 600
is $state 700
[ ! -s $config ] || fail "something is configured"
[ "$(systemctl is-enabled heat-salt-bootstrap.service || :)" = disabled ] || fail "the unit is enabled without anybody's will"
heat-salt-bootstrap explain 42 | grep -q key-conflict
code=0
heat-salt-bootstrap plan 2>/opt/plan.err || code=$?
{ [ $code = 10 ] && grep -q 'no such file, or it is empty' /opt/plan.err; } || fail "plan ended with $code: $(cat /opt/plan.err)"
# Of all files none lies where only root would look, and none is the world's to write.
systemd-analyze verify --man=no heat-salt-bootstrap.service heat-salt-bootstrap-signal.service \
    heat-salt-bootstrap-deregister.service heat-salt-bootstrap-renew.service heat-salt-bootstrap-renew.timer 2>/opt/verify.err || fail "systemd-analyze verify: $(cat /opt/verify.err)"
if grep heat-salt-bootstrap /opt/verify.err; then fail "systemd-analyze has something to say"; fi
# As low as installing packages lets it be, rpm's plugins and AppArmor included; whoever loosens it has to raise these.
for one in 'heat-salt-bootstrap 68' 'heat-salt-bootstrap-signal 25' 'heat-salt-bootstrap-renew 25'; do
    # shellcheck disable=SC2086  # a unit and its limit
    set -- $one
    systemd-analyze security --offline=true --no-pager --threshold="$2" "$1.service" >/opt/exposure 2>&1 || fail "$1: $(cat /opt/exposure)"
    echo "exposure of $1: $(grep -o 'level for.*' /opt/exposure)"
done

run
put upgrade 2
[ "$(release)" = 2 ]
kept
if [ "$kind" = rpm ]; then put downgrade 0; else put install 0; fi
[ "$(release)" = 0 ]
kept

if [ "$kind" = rpm ]; then
    dnf --quiet --assumeyes --disablerepo='*' remove heat-salt-bootstrap
    is $config.rpmsave 600
    grep -q web-1 $config.rpmsave
    rm $config.rpmsave
    rmdir /etc/heat-salt-bootstrap
else
    apt-get --quiet --quiet --assume-yes remove heat-salt-bootstrap
    is $config 600
    grep -q web-1 $config || fail "the configuration is not kept"
    apt-get --quiet --quiet --assume-yes purge heat-salt-bootstrap
fi
rm /var/lib/cloud/instance
everything >/opt/after
diff /opt/before /opt/after || fail "something is left behind, or missing"
