#!/usr/bin/env bash
# Builds the static program where there is no rustup: in a root of Debian's, with the compiler and the standard library's source that
# its security updates bring (rustc-web). Takes some five minutes, so no other test does it. Root, and a network for the crates.
#
# usage: static-debian.sh CACHE     CACHE: where the root is kept
set -euo pipefail
cd "$(dirname "$0")/.."
packages=cargo-web,rustc-web,rust-web-src,musl-tools,gcc,libc6-dev,make,binutils,xz-utils,ca-certificates
root=$1/static-debian-$(sha256sum <<<"$packages" | cut -c1-12)
if [ ! -d "$root" ]; then
    mkdir -p "$1"
    # The mirrors of this machine, for security updates as well; the names of its suites are Debian's.
    lists=$(mktemp --suffix=.list)
    trap 'rm -rf "$lists" "$root.new"' EXIT
    # shellcheck disable=SC2016  # apt-get's own placeholders
    apt-get indextargets --format 'deb $(REPO_URI) $(CODENAME) main' 'Created-By: Packages' 'Component: main' | grep bookworm |
        sort --unique >"$lists"
    rm -rf "$root.new"
    mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$root.new" "$lists"
    mv "$root.new" "$root"
fi

# What a way out of this machine may want.
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
mkdir -p "$root/build/source"
# shellcheck disable=SC2016  # for the shell within
unshare --mount sh -euc '
    mount --bind "$PWD" "$1/build/source"
    mount -t proc proc "$1/proc"
    mount --rbind /dev "$1/dev"
    exec chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root CARGO_TARGET_DIR=/build/target make -C /build/source check-static
' -- "$root"
