#!/usr/bin/env bash
# Builds, once, a root of a distribution to install into, and prints its path.
#
# usage: roots.sh bookworm|bullseye|trixie|el|cloud|qemu
#        el: what Enterprise Linux looks like to an installer: dnf, zypper, rpm and Rocky's os-release on a Debian tree without
#        apt and dpkg. It has no SELinux and no packages of its own.
#        cloud: a bookworm with cloud-init, curl, wget and busybox, as the images of a cloud are.
#        qemu: the same with a kernel, and what makes its loopback this machine's.
# env:   HSB_CACHE  where roots are kept (default: ~/.cache/heat-salt-bootstrap)
set -euo pipefail

name=${1:?usage: roots.sh bookworm|bullseye|trixie|el|cloud|qemu}
cache=${HSB_CACHE:-$HOME/.cache/heat-salt-bootstrap}
root=$cache/root-$name-$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-12)
mkdir -p "$cache"
exec 9>"$root.lock"
flock 9
if [ -e "$root" ]; then
    echo "$root"
    exit
fi

# The mirror that this machine itself uses, whatever its release.
# shellcheck disable=SC2016  # apt-get's own placeholder
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -v security | head -1 || true)
suite=$name
# python3 brings the libraries that a real Salt, bound into the root, is linked with.
packages=systemd,systemd-sysv,dbus,procps,ca-certificates,python3
# What a static glibc would die of: modules that it loads to look up a name. Their packages write them into nsswitch.conf.
modules=libnss-myhostname,libnss-resolve,libnss-systemd,libnss-sss
case $name in
bookworm | bullseye | trixie | el) packages=$packages,$modules ;;
esac
case $name in
el) suite=bookworm packages=$packages,dnf,zypper,rpm ;;
cloud) suite=bookworm packages=$packages,cloud-init,curl,wget,busybox ;;
qemu) suite=bookworm packages=$packages,cloud-init,curl,udev,linux-image-cloud-amd64,initramfs-tools,nftables,iproute2 ;;
bullseye | trixie) packages=${packages/,python3/} ;;
esac

rm -rf "$root.new"
echo "roots.sh: building $root" >&2
mmdebstrap --quiet --aptopt='Acquire::Retries "5"' --variant=minbase --include="$packages" "$suite" "$root.new" ${mirror:+"$mirror"} >&2 9>&-

# What was said to apt for this, it would say for ever.
rm -f "$root.new/etc/apt/apt.conf.d/99mmdebstrap"

# systemd-resolved has made it a link to what it would write.
rm -f "$root.new/etc/resolv.conf"

# Nothing is installed but from the tests' own repositories.
rm -rf "$root.new/etc/apt/sources.list" "$root.new"/etc/apt/sources.list.d/*

if [ "$name" = el ]; then
    # An agent that called one of these by mistake has to fail.
    rm -f "$root.new"/usr/bin/{apt,apt-get,apt-cache,apt-key,dpkg,dpkg-query,dpkg-deb}
    rm -f "$root.new/etc/os-release" "$root.new/usr/lib/os-release" "$root.new/etc/debian_version"
    cat >"$root.new/usr/lib/os-release" <<'EOT'
NAME="Rocky Linux"
ID="rocky"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.5"
PRETTY_NAME="Rocky Linux 9.5 (Blue Onyx)"
EOT
    ln -s ../usr/lib/os-release "$root.new/etc/os-release"
    # Debian's rpm keeps its database in the home directory.
    mkdir -p "$root.new/etc/rpm"
    echo '%_dbpath /var/lib/rpm' >"$root.new/etc/rpm/macros"
    mkdir -p "$root.new/etc/dnf"
    printf '[main]\ngpgcheck=1\nbest=True\nskip_if_unavailable=False\n' >"$root.new/etc/dnf/dnf.conf"
    chroot "$root.new" rpm --initdb
fi
mv "$root.new" "$root"
echo "$root"
