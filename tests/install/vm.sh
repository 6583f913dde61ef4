#!/usr/bin/env bash
# A throw-away machine: an overlay on a root. Loopback is shared with this machine; processes, mounts and files are not.
#
# usage: vm.sh up ROOT DIR         mounts DIR/tree
#        vm.sh run DIR SCRIPT      runs a piece of shell in it, without any init; what it leaves running ends with it
#        vm.sh boot DIR BIND...    boots it under systemd; /opt/story runs, and then it powers off
#        vm.sh cloud DIR BIND...   boots it under systemd with cloud-init; /opt/story runs when that has ended, and then it powers off
#        vm.sh qemu DIR COPY...    makes a disk of it, with a copy of these directories, and boots that in an emulated computer with a
#                                  kernel of its own; the directory config-drive is its config drive; otherwise like cloud
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
boot | cloud | qemu)
    dir=$2
    shift 2
    tree=$dir/tree
    units=$tree/etc/systemd/system
    # Both are there at its first boot only.
    if mountpoint -q "$tree/dev"; then
        umount "$tree/dev"
        : >"$tree/etc/machine-id"
    fi
    cat >"$units/story.service" <<'EOT'
[Unit]
Description=What is to happen
After=cloud-final.service
[Service]
Type=oneshot
ExecStart=/bin/sh /opt/story
ExecStopPost=/bin/sh -c 'systemctl list-jobs >/opt/story-ended'
ExecStopPost=/bin/systemctl --no-block poweroff
TimeoutStartSec=240
EOT
    masked="systemd-timesyncd.service systemd-resolved.service console-getty.service e2scrub_reap.service timers.target machines.target"
    # An emulated computer has devices and a network of its own.
    if [ "$verb" != qemu ]; then
        masked="$masked systemd-networkd.service systemd-udevd.service systemd-udev-trigger.service sockets.target"
    fi
    for unit in $masked; do
        ln -sf /dev/null "$units/$unit"
    done
    if [ "$verb" = boot ]; then
        target=story.target
        cat >"$units/story.target" <<'EOT'
[Unit]
Description=Only what the story needs
Requires=basic.target story.service
After=basic.target
AllowIsolate=yes
EOT
    else
        target=multi-user.target
        mkdir -p "$units/cloud-init.target.wants"
        ln -sf ../story.service "$units/cloud-init.target.wants/story.service"
        # What it is given lies in the seed directory. The stock lists of modules take 10 s longer, for things that are no concern here.
        echo 'datasource: ConfigDrive' >"$tree/etc/cloud/ds-identify.cfg"
        cat >"$tree/etc/cloud/cloud.cfg.d/99_lab.cfg" <<'EOT'
datasource_list: [ConfigDrive]
network: {config: disabled}
cloud_init_modules: [bootcmd, write-files]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-user]
EOT
    fi
    if [ "$verb" = qemu ]; then
        for copy; do
            mkdir -p "$tree$(dirname "$copy")"
            cp -a "$copy" "$tree$copy"
        done
        # The emulated network has this machine's loopback at 10.0.2.2. Everything outside is told to be at 127.0.0.1.
        printf '[Match]\nType=ether\n[Network]\nDHCP=ipv4\n' >"$tree/etc/systemd/network/lab.network"
        mkdir -p "$units/multi-user.target.wants" "$units/sysinit.target.wants"
        ln -sf /lib/systemd/system/systemd-networkd.service "$units/multi-user.target.wants/"
        ln -sf /lib/systemd/system/nftables.service "$units/sysinit.target.wants/"
        echo 'net.ipv4.conf.all.route_localnet = 1' >"$tree/etc/sysctl.d/lab.conf"
        cat >"$tree/etc/nftables.conf" <<'EOT'
table ip lab {
    chain there { type nat hook output priority -100; ip daddr 127.0.0.1 tcp dport 20000-65535 dnat to 10.0.2.2; }
    chain back { type nat hook postrouting priority 100; oifname != "lo" masquerade; }
}
EOT
        printf '/dev/vda / ext4 defaults 0 1\n' >"$tree/etc/fstab"
        mkfs.ext4 -q -F -d "$tree" "$dir/disk" 4G
        xorriso -as mkisofs -quiet -V config-2 -r -J -o "$dir/drive" "$dir/config-drive"
        timeout -k 10 1500 qemu-system-x86_64 -machine pc -accel tcg -smp 1 -m 2048 -display none -no-reboot -serial "file:$dir/console" \
            -kernel "$(echo "$tree"/boot/vmlinuz-*)" -initrd "$(echo "$tree"/boot/initrd.img-*)" \
            -append 'root=/dev/vda rw console=ttyS0 systemd.journald.forward_to_console=0' \
            -drive "file=$dir/disk,format=raw,if=virtio,cache=unsafe" -drive "file=$dir/drive,format=raw,if=virtio,readonly=on" \
            -netdev user,id=net -device virtio-net-pci,netdev=net </dev/null
        exit
    fi
    rm -f "$tree/opt/story-ended"
    # Machines that run side by side would share the control groups of their services, and a service of one would wait for the processes of
    # another's to end: three times 90 s.
    groups=()
    for hierarchy in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
        if [ -e $hierarchy/cgroup.procs ] && mkdir $hierarchy/hsb-$$ 2>/dev/null; then groups+=("$hierarchy/hsb-$$"); fi
    done
    (
        for group in "${groups[@]}"; do echo $BASHPID >"$group/cgroup.procs"; done
        exec timeout -k 10 280 systemd-nspawn --quiet --boot --register=no --keep-unit --machine="hsb-$$" "${@/#/--bind-ro=}" \
            --directory="$tree" --console=pipe systemd.unit=$target </dev/null >"$dir/console" 2>&1
    ) &
    machine=$! ended=
    # Now and then one does not power off, whatever keeps it: what counts is what the story wrote.
    while kill -0 $machine 2>/dev/null; do
        sleep 0.2
        if [ -z "$ended" ] && [ -e "$tree/opt/story-ended" ]; then ended=$SECONDS; fi
        if [ -n "$ended" ] && [ $((SECONDS - ended)) -gt 60 ]; then
            echo "vm.sh: not powered off a minute after its story had ended: killed. Jobs were:" | tee -a "$dir/console" >&2
            tee -a "$dir/console" <"$tree/opt/story-ended" >&2
            tail -n 30 "$dir/console" >&2
            kill -KILL $machine 2>/dev/null || :
            pkill -KILL --parent $machine || :
        fi
    done
    # It is the status with which the machine ended.
    wait $machine || :
    for group in "${groups[@]}"; do find "$group" -depth -type d -exec rmdir {} + || :; done
    if [ $SECONDS -gt 150 ]; then
        echo "vm.sh: booting, the story and powering off took $SECONDS s; the story ended after ${ended:-more} s. The console's end:" >&2
        tail -n 40 "$dir/console" >&2
    fi
    ;;
down)
    for mounted in "$dir/tree/dev" "$dir/tree" "$dir"; do
        if mountpoint -q "$mounted"; then umount "$mounted"; fi
    done
    rmdir "$dir"
    ;;
esac
