# shellcheck shell=sh
# What the stories of the packages have in common. They say in $kind whether it is about rpm or deb, and in $name about which
# package.
# shellcheck disable=SC2154

fail() {
    echo "$1" >&2
    exit 1
}

# is PATH MODE [OWNER]: it is there, and root's own or somebody else's.
is() {
    set -- "$1" "$2" "${3:-root}"
    [ "$(stat --format '%a %U:%G' "$1")" = "$2 $3:$3" ] || fail "$1 is $(stat --format '%a %U:%G' "$1"), not $2 $3:$3"
}

# All that could be left behind, but for what the package managers keep of their own work. /usr/share/licenses is a distribution's
# own.
everything() {
    logs='dnf|hawkey|apt|dpkg|alternatives' states='dnf|rpm|apt|dpkg|systemd/deb-systemd'
    find /etc /usr /var /opt/saltstack -xdev 2>/dev/null |
        grep -Ev "^/usr/share/licenses$|^/var/(cache|log/($logs)|lib/($states))" | sort
}

# put install|upgrade|downgrade FILE
put() {
    if [ "$kind" = rpm ]; then
        dnf --quiet --assumeyes --disablerepo='*' --setopt=localpkg_gpgcheck=1 "$1" "/opt/$2.rpm"
    else
        DEBIAN_FRONTEND=noninteractive apt-get --quiet --quiet --assume-yes --no-install-recommends --allow-downgrades \
            install "/opt/$2.deb"
    fi
}

release() {
    if [ "$kind" = rpm ]; then
        rpm --query --queryformat '%{RELEASE}' "$name"
    else
        dpkg-query --show --showformat '${Version}' "$name" | sed 's/.*-//'
    fi
}
