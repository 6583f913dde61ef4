#!/usr/bin/env bash
# The packages of a program for another machine than this one: for that machine, and with that program.
#
# usage: other.sh RPM-MACHINE DEB-MACHINE
# env:   STATIC, PAGES, SOURCE_DATE_EPOCH   as of packaging/build.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
name=heat-salt-bootstrap
version=$(sed -n '/^version = "/{s/^version = "\(.*\)"$/\1/p;q}' Cargo.toml)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "other.sh: $*" >&2
    exit 1
}

rpm=$work/$name-$version-1.$1.rpm deb=$work/${name}_$version-1_$2.deb

for format in rpm deb; do packaging/build.sh $format "$work"; done
is_for=$(rpm --query --package --queryformat '%{OS} %{ARCH}' "$rpm")
[ "$is_for" = "linux $1" ] || fail "the RPM is for $is_for"
is_for=$(dpkg-deb --field "$deb" Architecture)
[ "$is_for" = "$2" ] || fail "the deb is for $is_for"
rpm2cpio "$rpm" | cpio --quiet --extract --to-stdout ./usr/bin/$name | cmp - "$STATIC"
dpkg-deb --fsys-tarfile "$deb" | tar --extract --to-stdout ./usr/bin/$name | cmp - "$STATIC"
# What they hold besides is the same on all machines.
for unit in {"$name","$name"-{signal,deregister,renew}}.service "$name"-renew.timer; do
    rpm --query --package --list "$rpm" | grep -Fx "/usr/lib/systemd/system/$unit" >/dev/null || fail "the RPM has no $unit"
    dpkg-deb --contents "$deb" | grep -F "./usr/lib/systemd/system/$unit" >/dev/null || fail "the deb has no $unit"
done
(cd "$work" && sha256sum ./*.rpm ./*.deb)
