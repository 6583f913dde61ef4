#!/bin/sh
# Plays a VM whose user_data is fetch.sh with CLOSE_METADATA, in networks of its own: one is the VM's, a second one has the metadata service, a
# third one is a container's. Says who gets an answer before, after, and after the next boot.
# Wants to be run by `unshare --net --mount`, as root.
#
# usage: metadata.sh FETCH.SH [HIDDEN...]   HIDDEN: programs that are there and fail
set -eu
fetch=$1
shift
# /run is nobody else's, and what is written into /etc goes with it.
mount -t tmpfs tmpfs /run
mkdir /run/upper /run/work /run/bin /run/systemd
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
rm -rf /etc/heat-salt-bootstrap
for program in "$@"; do mount --bind /bin/false "$(command -v "$program")"; done

ip link set lo up
# beside NAME NUMBER: a network that this one leads to.
beside() {
    ip netns add "$1"
    ip link add "$1" type veth peer name eth0 netns "$1"
    ip addr add "10.$2.0.1/24" dev "$1"
    ip link set "$1" up
    ip -n "$1" addr add "10.$2.0.2/24" dev eth0
    ip -n "$1" link set eth0 up
    ip -n "$1" route add default via "10.$2.0.1"
}
beside metadata 1
beside container 2
echo 1 >/proc/sys/net/ipv4/ip_forward
ip -n metadata addr add 169.254.169.254/32 dev eth0
ip route add 169.254.169.254/32 via 10.1.0.2
ip netns exec metadata python3 -m http.server 80 --directory /run/work --bind 169.254.169.254 >/dev/null 2>&1 &
server=$!
trap 'kill "$server"' EXIT

answered() { "$@" curl --silent --output /dev/null --max-time 20 http://169.254.169.254/ && echo yes || echo "no ($?)"; }
# The server may take its time to start.
tries=0
until [ "$(answered)" = yes ]; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || exit 1
    sleep 0.1
done
who() {
    echo "$1: root $(answered), another user $(answered setpriv --reuid=65534 --regid=65534 --clear-groups), a container $(answered ip netns exec container)"
}

who before
cp /bin/true /run/bin/heat-salt-bootstrap
code=0
PATH=/run/bin:$PATH sh "$fetch" || code=$?
echo "fetch.sh: $code"
who after
unit=/etc/systemd/system/heat-salt-bootstrap-metadata.service
[ -e $unit ] || exit 0
systemd-analyze verify $unit
ls /etc/systemd/system/*.wants/${unit##*/}
# A boot begins with no rules, and a restart of the unit with those that are there.
closer=$(sed -n 's/^ExecStart=//p' $unit)
"$closer" && "$closer"
for tool in iptables ip6tables; do echo "$tool: $($tool --list-rules | grep -c REJECT)"; done
# It is not there, or nft is one of those that fail, where iptables was taken.
if nft list table inet heat-salt-bootstrap >/dev/null 2>&1; then nft delete table inet heat-salt-bootstrap; fi
for tool in iptables ip6tables; do $tool --flush; done
who 'without rules'
"$closer"
who 'after a boot'
