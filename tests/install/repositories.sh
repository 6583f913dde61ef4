#!/usr/bin/env bash
# Builds, once, signed repositories with a salt-minion package, and prints the directory: deb/, rpm/ and key.asc, other-key.asc.
#
# The package's programs run the real Salt of an environment, if it can be seen where they are installed, and otherwise a
# stand-in that does nothing but have a pid: most cases are about package managers and need no more.
#
# usage: repositories.sh SALT-3006 SALT-3008   the directories of the environments
# env:   HSB_CACHE  where they are kept (default: ~/.cache/heat-salt-bootstrap)
set -euo pipefail

cache=${HSB_CACHE:-$HOME/.cache/heat-salt-bootstrap}
declare -A salt=([3006]=$1 [3008]=$2)
all=$cache/repositories-$({ cat "${BASH_SOURCE[0]}"; echo "$@"; } | sha256sum | cut -c1-12)
mkdir -p "$cache"
exec 9>"$all.lock"
flock 9
if [ -e "$all" ]; then
    echo "$all"
    exit
fi
new=$all.new
rm -rf "$new"
mkdir -p "$new"/{deb,rpm,parts}
exec 3>&1 >&2
echo "repositories.sh: building $all"

# make_key NAME: a key pair, and NAME.asc.
make_key() {
    gpg --batch --quiet --passphrase '' --quick-generate-key "$1 <$1@example.org>" rsa2048 sign never
    gpg --armor --export "$1" >"$new/$1.asc"
}
export GNUPGHOME=$new/parts/gnupg
mkdir -m 700 "$GNUPGHOME"
trap 'gpgconf --kill all' EXIT
make_key key
make_key other-key

# program VERSION: what /usr/bin/salt-minion is.
program() {
    local environment=${salt[${1%%.*}]}
    cat <<EOT
#!/bin/sh
if [ -x $environment/bin/salt-minion ]; then
    exec $environment/bin/\${0##*/} "\$@"
fi
case "\$1" in
--version) echo "salt-minion $1 (stand-in)" ;;
--stay)
    echo \$\$ >/var/run/salt-minion.pid
    while sleep 1; do :; done
    ;;
*)
    # Who is configured by now is what counts.
    grep -h '"id"' /etc/salt/minion.d/*.conf >>/var/log/started-as 2>/dev/null || echo nobody >>/var/log/started-as
    setsid "\$0" --stay </dev/null >/dev/null 2>&1 &
    ;;
esac
EOT
}

# As Salt's packages ship it (pkg/common/salt-minion.service).
unit() {
    cat <<'EOT'
[Unit]
Description=The Salt Minion
[Service]
KillMode=mixed
Type=notify
NotifyAccess=all
LimitNOFILE=8192
ExecStart=/usr/bin/salt-minion
[Install]
WantedBy=multi-user.target
EOT
}

# payload VERSION DIR: what both formats hold.
payload() {
    mkdir -p "$2"/usr/bin "$2/etc/salt"
    program "$1" >"$2/usr/bin/salt-minion"
    cp "$2/usr/bin/salt-minion" "$2/usr/bin/salt-call"
    chmod 755 "$2"/usr/bin/*
    echo '# Nothing is configured here.' >"$2/etc/salt/minion"
}

versions='3006.26 3006.27 3008.4 3008.5'

# --- Debian

# control NAME VERSION DEPENDS
control() {
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: for a test\n' "$1" "$2"
    if [ -n "$3" ]; then printf 'Depends: %s\n' "$3"; fi
}

# deb VERSION DEPENDS OUT
deb() {
    local tree=$new/parts/deb-$1
    rm -rf "$tree"
    payload "$1" "$tree"
    mkdir -p "$tree/DEBIAN" "$tree/lib/systemd/system"
    unit >"$tree/lib/systemd/system/salt-minion.service"
    control salt-minion "$1" "$2" >"$tree/DEBIAN/control"
    echo /etc/salt/minion >"$tree/DEBIAN/conffiles"
    # Salt's own packages start the minion as soon as they are unpacked, with or without systemd.
    # While there is a file /hold the package is half installed; /held says that it is.
    cat >"$tree/DEBIAN/postinst" <<'EOT'
#!/bin/sh
set -e
if [ -e /hold ]; then
    : >/held
    while [ -e /hold ]; do sleep 0.1; done
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable --quiet salt-minion
    systemctl restart salt-minion
else
    /usr/bin/salt-minion -d
fi
EOT
    chmod 755 "$tree/DEBIAN/postinst"
    dpkg-deb -Zgzip --root-owner-group --build "$tree" "$3" >/dev/null
}

# deb_repository DIR KEY|-: indices and signatures of what lies in DIR/pool.
deb_repository() (
    cd "$1"
    mkdir -p dists/stable/main/binary-{all,amd64,arm64}
    apt-ftparchive packages pool >"$new/parts/Packages"
    for arch in all amd64 arm64; do cp "$new/parts/Packages" "dists/stable/main/binary-$arch/Packages"; done
    apt-ftparchive -o APT::FTPArchive::Release::Suite=stable -o APT::FTPArchive::Release::Components=main \
        -o APT::FTPArchive::Release::Architectures='all amd64 arm64' release dists/stable >"$new/parts/Release"
    mv "$new/parts/Release" dists/stable/Release
    if [ "$2" != - ]; then
        gpg --batch --quiet --local-user "$2" --clearsign --output dists/stable/InRelease dists/stable/Release
        gpg --batch --quiet --local-user "$2" --armor --detach-sign --output dists/stable/Release.gpg dists/stable/Release
    fi
)

good=$new/deb/good
mkdir -p "$good/pool" "$new/deb/single"
for version in $versions; do
    deb "$version" "salt-common (= $version)" "$good/pool/salt-minion_${version}_all.deb"
    mkdir -p "$new/parts/common/DEBIAN"
    control salt-common "$version" '' >"$new/parts/common/DEBIAN/control"
    dpkg-deb -Zgzip --root-owner-group --build "$new/parts/common" "$good/pool/salt-common_${version}_all.deb" >/dev/null
done
deb 3006.27 '' "$new/deb/single/salt-minion_3006.27_all.deb"
for kind in other-key unsigned bad-hash; do cp -a "$good" "$new/deb/$kind"; done
deb_repository "$good" key
deb_repository "$new/deb/other-key" other-key
deb_repository "$new/deb/unsigned" -
deb_repository "$new/deb/bad-hash" key
for file in "$new"/deb/bad-hash/pool/salt-minion_*.deb; do printf 'x' | dd of="$file" bs=1 seek=200 conv=notrunc status=none; done

# --- RPM

# rpm_package NAME VERSION REQUIRES DIR
rpm_package() {
    local tree=$new/parts/rpm-$2 spec=$new/parts/$1.spec
    rm -rf "$tree"
    payload "$2" "$tree"
    mkdir -p "$tree/usr/lib/systemd/system"
    unit >"$tree/usr/lib/systemd/system/salt-minion.service"
    {
        printf 'Name: %s\nVersion: %s\nRelease: 0\nSummary: For a test\nLicense: Apache-2.0\nBuildArch: noarch\nAutoReqProv: no\n' "$1" "$2"
        if [ -n "$3" ]; then printf 'Requires: %s\n' "$3"; fi
        printf '%%description\nFor a test.\n'
        if [ "$1" = salt-minion ]; then
            # By rpm's own interpreter: these roots hold no package that has a shell.
            printf '%%post -p <lua>\nif posix.stat("/hold") then\nio.open("/held", "w"):close()\n'
            printf 'while posix.stat("/hold") do posix.sleep(1) end\nend\n%%install\ncp -a %s/. %%{buildroot}/\n%%files\n/usr/bin/*\n/usr/lib/systemd/system/*\n%%config(noreplace) /etc/salt/minion\n' "$tree"
        else
            printf '%%install\nmkdir -p %%{buildroot}\n%%files\n'
        fi
    } >"$spec"
    rpmbuild -bb --quiet --define "_topdir $new/parts/rpmbuild" --define "_rpmdir $4" --define '_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm' \
        --define '__os_install_post %{nil}' --define '_build_id_links none' "$spec" >"$new/parts/rpmbuild.log" 2>&1 || { cat "$new/parts/rpmbuild.log"; return 1; }
}

# sign KEY FILE...
sign() {
    local key=$1
    shift
    rpmsign --define "_gpg_name $key" --define '__gpg /usr/bin/gpg' --addsign "$@" >/dev/null 2>&1
    # Without a passphrase agent it leaves files unsigned and says nothing.
    [ "$(rpm --query --package --queryformat '%{RSAHEADER:pgpsig}' "$1" 2>/dev/null)" != '(none)' ]
}

# rpm_repository DIR KEY|-
rpm_repository() {
    createrepo_c --quiet "$1"
    if [ "$2" != - ]; then gpg --batch --quiet --local-user "$2" --armor --detach-sign "$1/repodata/repomd.xml"; fi
}

good=$new/rpm/good
mkdir -p "$good" "$new/rpm/single"
for version in $versions; do
    rpm_package salt "$version" '' "$good"
    rpm_package salt-minion "$version" "salt = $version" "$good"
done
rpm_package salt-minion 3006.27 '' "$new/rpm/single"
for kind in unsigned-packages other-key-packages other-key-metadata unsigned-metadata; do cp -a "$good" "$new/rpm/$kind"; done
for kind in good other-key-metadata unsigned-metadata; do sign key "$new/rpm/$kind"/*.rpm; done
sign other-key "$new"/rpm/other-key-packages/*.rpm
for kind in good unsigned-packages other-key-packages; do rpm_repository "$new/rpm/$kind" key; done
rpm_repository "$new/rpm/other-key-metadata" other-key
rpm_repository "$new/rpm/unsigned-metadata" -

gpgconf --kill all
rm -rf "$new/parts"
mv "$new" "$all"
echo "$all" >&3
