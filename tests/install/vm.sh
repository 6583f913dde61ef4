#!/usr/bin/env bash
# A throw-away machine: an overlay on a root. Loopback is shared with this machine; processes, mounts and files are not.
#
# usage: vm.sh up ROOT DIR         mounts DIR/tree
#        vm.sh run DIR SCRIPT      runs a piece of shell in it, without any init; what it leaves running ends with it
#        vm.sh boot DIR BIND...    boots it under systemd; /opt/story runs, and then it powers off
#        vm.sh down DIR            unmounts everything and removes it
set -euo pipefail
verb=$1 dir=${!#}
case $verb in
up)
    root=$2
    # An overlay's upper directory may not lie on an overlay, and /tmp may be one.
    mount -t tmpfs tmpfs "$dir"
    mkdir "$dir"/{upper,work,tree}
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" "$dir/tree"
    mount --bind --make-private /dev "$dir/tree/dev"
    # Names resolve there as here.
    cp -L /etc/resolv.conf /etc/hosts "$dir/tree/etc/"
    ;;
run)
    dir=$2
    exec unshare --mount --pid --fork --kill-child --mount-proc="$dir/tree/proc" chroot "$dir/tree" /bin/sh -c "$3"
    ;;
boot)
    dir=$2
    shift 2
    tree=$dir/tree
    umount "$tree/dev"
    : >"$tree/etc/machine-id"
    cat >"$tree/etc/systemd/system/story.service" <<'EOT'
[Unit]
Description=The agent's story
[Service]
Type=oneshot
ExecStart=/bin/sh /opt/story
ExecStopPost=/bin/systemctl --no-block poweroff
TimeoutStartSec=240
EOT
    cat >"$tree/etc/systemd/system/story.target" <<'EOT'
[Unit]
Description=Only what the story needs
Requires=basic.target story.service
After=basic.target
AllowIsolate=yes
EOT
    for unit in systemd-{timesyncd,networkd,resolved,udevd,udev-trigger}.service console-getty.service e2scrub_reap.service \
        timers.target sockets.target machines.target; do
        ln -sf /dev/null "$tree/etc/systemd/system/$unit"
    done
    # nspawn says with which status the machine ended; what counts is what the story wrote.
    timeout -k 10 280 systemd-nspawn --quiet --boot --register=no --keep-unit --machine="hsb-$$" "${@/#/--bind-ro=}" \
        --directory="$tree" --console=pipe systemd.unit=story.target </dev/null >"$dir/console" 2>&1 || true
    ;;
down)
    for mounted in "$dir/tree/dev" "$dir/tree" "$dir"; do
        if mountpoint -q "$mounted"; then umount "$mounted"; fi
    done
    rmdir "$dir"
    ;;
esac
