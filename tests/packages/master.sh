# shellcheck shell=sh
# What happens in a root to the package for masters; /opt has it as master-0, master-1 and master-2, and a Salt of a few empty
# files, which stands for Salt's own packages, as salt-1 and, with another Python, salt-2.
#
# usage: sh -eu master.sh rpm|deb life        installed, upgraded, downgraded, removed; Salt comes, changes and goes meanwhile
#        sh -eu master.sh rpm|deb work USER   installed, if it is not, with a real Salt that is there, whose master runs as USER
#        sh -eu master.sh rpm|deb leave       removed from there
kind=$1
# shellcheck source=tests/packages/common.sh
. /opt/common.sh
name=heat-salt-bootstrap-master
conf=/etc/salt/master.d/heat-salt-bootstrap.conf
pth=heat-salt-bootstrap-master.pth
onedir=/opt/saltstack/salt

# found PLACE: the extension would be found from there.
found() {
    [ "$(cat "$1/$pth")" = /usr/lib/$name/python ] || fail "the Python of $1 does not find the extension"
    [ -d /usr/lib/$name/python ] || fail "and there is none"
}

# salt install|upgrade RELEASE, salt remove
salt() {
    if [ "$kind" = rpm ]; then
        case $1 in
        remove) rpm --erase salt ;;
        *) rpm --upgrade --nosignature "/opt/salt-$2.rpm" ;;
        esac
    else
        case $1 in
        remove) dpkg --purge salt ;;
        *) dpkg --install "/opt/salt-$2.deb" ;;
        esac
    fi
}

# What an operator does: his own certificate.
configure() {
    sed -i 's|^  ssl_crt: .*|  ssl_crt: /etc/salt/service.crt|; s|^  ssl_key: .*|  ssl_key: /etc/salt/service.key|' $conf
}

kept() {
    grep -q /etc/salt/service.crt $conf || fail "the configuration is not kept"
    [ -z "$(find /etc/salt -name '*.rpmnew' -o -name '*.dpkg-*')" ] || fail "the configuration lies there twice"
}

# remove: and it is as if it had never been there, but for the configuration and tokens.
remove() {
    if [ "$kind" = rpm ]; then
        dnf --quiet --assumeyes --disablerepo='*' remove $name
        grep -q /etc/salt/service.crt $conf.rpmsave
        rm $conf.rpmsave
        rmdir --ignore-fail-on-non-empty /etc/salt/master.d /etc/salt
    else
        apt-get --quiet --quiet --assume-yes remove $name
        grep -q /etc/salt/service.crt $conf || fail "the configuration is not kept"
    fi
    if [ -e /usr/lib/$name ]; then fail "of /usr/lib/$name something is left"; fi
}

purge() {
    if [ "$kind" = deb ]; then apt-get --quiet --quiet --assume-yes purge $name; fi
}

life() {
    mkdir -p /opt/saltstack
    everything >/opt/before
    put install master-1 >/opt/said 2>&1
    [ "$(release)" = 1 ]
    is /usr/bin/heat-bootstrap 755
    is /usr/lib/$name/python 755
    is $conf 644
    [ -z "$(find /usr/lib/$name -perm /022 -o -name '*.pyc')" ] || fail "something is anybody's to write, or is compiled"
    if heat-bootstrap --version 2>/opt/version.err; then fail "without a Salt it has a Python"; fi
    grep -q 'no Salt' /opt/version.err || fail "heat-bootstrap says: $(cat /opt/version.err)"
    if [ "$kind" = deb ]; then grep -q 'no Salt here yet' /opt/said || fail "nobody is told: $(cat /opt/said)"; fi

    salt install 1 >/opt/said
    grep -q 'systemctl restart salt-api' /opt/said || fail "nobody is told to restart salt-api: $(cat /opt/said)"
    found $onedir/lib/python3.98/site-packages
    found "$system"
    configure
    put upgrade master-2
    [ "$(release)" = 2 ]
    kept
    found $onedir/lib/python3.98/site-packages
    salt upgrade 2
    found $onedir/lib/python3.99/site-packages
    if [ -e $onedir/lib/python3.98 ]; then fail "something is left of Salt's old Python"; fi
    if [ "$kind" = rpm ]; then put downgrade master-0; else put install master-0; fi
    [ "$(release)" = 0 ]
    kept
    found $onedir/lib/python3.99/site-packages
    # It comes back beside a Salt that is there.
    remove
    for place in $onedir/lib/python3.99/site-packages "$system"; do
        if [ -e "$place/$pth" ]; then fail "the Python of $place looks for what is gone"; fi
    done
    put install master-1
    found $onedir/lib/python3.99/site-packages
    salt remove
    if [ -e $onedir ]; then fail "something keeps Salt's directory: $(find $onedir)"; fi
    configure
    remove
    purge
    everything >/opt/after
    diff /opt/before /opt/after || fail "something is left behind, or missing"
}

# Where it lies, and what a stranger may do there, as Salt's packages have it.
master() {
    rm -rf /etc/salt/pki /var/cache/salt /var/run/salt /var/log/salt
    install -d /etc/salt/master.d /var/log/salt
    if ! id salt >/dev/null 2>&1; then
        groupadd --system salt
        useradd --system --no-create-home --home-dir $onedir --shell /usr/sbin/nologin --gid salt salt
    fi
    install -d -m 750 -o "$1" -g "$1" /etc/salt/pki/master /var/cache/salt/master
    printf 'user: %s\ninterface: 127.0.0.1\nworker_threads: 2\n' "$1" >/etc/salt/master
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=master \
        -addext subjectAltName=DNS:master -keyout /etc/salt/service.key -out /etc/salt/service.crt 2>/dev/null
    chgrp "$1" /etc/salt/service.key
    chmod 640 /etc/salt/service.key
}

all_but_salt() {
    everything | grep -Ev '^/(etc|var/log|var/run)/salt'
}

work() {
    master "$1"
    if [ ! -e /usr/bin/heat-bootstrap ]; then
        find "$site" ! -path '*__pycache__*' | sort >/opt/site
        all_but_salt >/opt/before
        put install master-1
        configure
    fi
    found "$site"
    heat-bootstrap token create 'web-*' --states ok >/opt/token 2>/opt/token.err || fail "no token: $(cat /opt/token.err)"
    salt-master >/opt/salt-master.out 2>&1 &
    salt-api >/opt/salt-api.out 2>&1 &
    # doctor waits seconds for each who does not answer; so only those are asked who listen.
    for port in 119A 1F4A; do
        for _ in $(seq 600); do
            if grep -q ":$port 00000000:0000 0A" /proc/net/tcp; then break; fi
            sleep 0.1
        done
    done
    for _ in $(seq 60); do
        if heat-bootstrap doctor >/opt/doctor 2>&1; then break; fi
    done
    grep -q ' 0 WRONG' /opt/doctor ||
        fail "doctor: $(cat /opt/doctor /opt/salt-master.out /opt/salt-api.out; tail -n 20 /var/log/salt/*)"
    grep '^ok.*answers on 127.0.0.1 port 8010' /opt/doctor
    heat-bootstrap token list | grep 'good.*0/1.*web-\*.*ok'
    is /etc/salt/pki/master/heat-bootstrap 700 "$1"
    is /etc/salt/pki/master/heat-bootstrap/heat-bootstrap.sqlite 600 "$1"
    echo "$1's master of Salt $(salt-master --version | cut -d ' ' -f 2) works with $(/usr/lib/$name/pythons salt)"
}

leave() {
    remove
    [ -e /etc/salt/pki/master/heat-bootstrap/heat-bootstrap.sqlite ] || fail "the tokens are gone"
    purge
    if [ "$kind" = deb ] && [ -e /etc/salt/pki/master/heat-bootstrap ]; then fail "the tokens stay after purging"; fi
    find "$site" ! -path '*__pycache__*' | sort | diff /opt/site - || fail "something is left beside Salt"
    all_but_salt >/opt/after
    diff /opt/before /opt/after || fail "something is left behind, or missing"
}

case $kind in
rpm) system=/usr/lib/python3.98/site-packages ;;
deb) system=/usr/lib/python3/dist-packages ;;
esac
# Where the real Salt is.
for site in "$onedir"/lib/python3*/site-packages /usr/local/lib/python3*/dist-packages; do
    if [ -e "$site/salt/version.py" ]; then break; fi
done
shift
"$@"
