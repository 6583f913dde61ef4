#!/usr/bin/env bash
# Says plainly, before anything starts, what this machine lacks; in brackets the Debian package that has it.
#
# usage: preflight.sh [--ci] PART...   the parts: build, static, static-debian, quick, fuzz, salt, extension, services, install, rpm, deb, packages, heat, vm,
#        size, bench, aarch64, advisories, release, signing
#        --ci: what is only skipped elsewhere has to be there
set -euo pipefail
cd "$(dirname "$0")/.."

lacking=()
lack() { lacking+=("$1"); }
need() { command -v "$1" >/dev/null || lack "$1, $2"; }

build() {
    need cargo "the Rust tool chain [rustup]"
    need cc "a C compiler and linker [gcc libc6-dev]"
}

quick() {
    build
    cargo fmt --version >/dev/null 2>&1 || lack "cargo fmt: rustup component add rustfmt"
    cargo clippy --version >/dev/null 2>&1 || lack "cargo clippy: rustup component add clippy"
    need curl "the client of another make that the stand-ins are tested with [curl]"
    need strace "by which a test kills at each system call [strace]"
    need tmux "a terminal that a test can look at [tmux]"
    need mkfifo "which makes named pipes [coreutils]"
    need pgrep "which shows what a test left running [procps]"
    need git "which a release asks what is committed [git]"
    need python3 "which makes the bill of materials [python3]"
    if ! command -v shellcheck >/dev/null; then
        if [ "$ci" = yes ]; then
            lack "shellcheck, the checker of the scripts [shellcheck]"
        else
            echo "preflight: no shellcheck here: the scripts go unchecked [shellcheck]" >&2
        fi
    fi
}

# A real Salt on this machine.
salt() {
    build
    local problem
    problem=$(tests/lab/python.sh 2>&1 >/dev/null) || lack "${problem#python.sh: }"
    need unshare "which gives a test a network and mounts of its own [util-linux]"
    need ip "which makes such a network good or bad [iproute2]"
    need flock "which keeps two builds of Salt apart [util-linux]"
    [ "$(id -u)" = 0 ] || lack "root: salt-minion runs as root on a VM, and here"
}

# Users for logins through PAM; machines to boot.
services() {
    salt
    need useradd "which makes the user that logs in through PAM [passwd]"
    need chpasswd "which gives that user a password [passwd]"
    need systemd-nspawn "which boots a copy of this machine [systemd-container]"
    [ -x /lib/systemd/systemd ] || lack "systemd, to be booted in that copy [systemd]"
    [ -x /sbin/init ] || lack "/sbin/init, by which systemd-nspawn finds it [systemd-sysv]"
    need service "which runs init scripts [init-system-helpers]"
    command -v update-rc.d >/dev/null || need chkconfig "or update-rc.d [init-system-helpers]"
}

# Roots of distributions, and repositories to install from.
install() {
    services
    need mmdebstrap "which builds roots of Debian's releases [mmdebstrap]"
    need rpmbuild "which makes packages [rpm]"
    need createrepo_c "which makes repositories of them [createrepo-c]"
    need apt-ftparchive "which makes repositories of Debian's packages [apt-utils]"
    need gpg "which signs them [gnupg]"
    need nft "which makes a firewall [nftables]"
    need iptables "which makes one, too [iptables]"
    need ip "which makes networks [iproute2]"
}

rpm() {
    wheel
    build
    need rpmbuild "which makes packages [rpm]"
    need git "which knows what belongs to the source [git]"
    need xz "which packs it [xz-utils]"
    need readelf "which says for which machine a program is [binutils]"
}

deb() {
    wheel
    build
    need dpkg-deb "which makes Debian's packages [dpkg]"
    need readelf "which says for which machine a program is [binutils]"
    need xz "which packs them [xz-utils]"
}

# What people install, and what reads it.
packages() {
    rpm
    deb
    install
    need rpmlint "which knows what is wrong with a package [rpmlint]"
    need lintian "which knows what is wrong with one of Debian's [lintian]"
    signing
    need cpio "which takes them apart [cpio]"
    need unshare "which takes the network away from a build [util-linux]"
    need systemd-analyze "which looks at units [systemd]"
    need mandoc "which reads manual pages [mandoc]"
    need groff "which reads them too [groff]"
    need bash "for its completions [bash]"
    need zsh "for its completions [zsh]"
    need fish "for its completions [fish]"
}

# The Salt extension, packed.
wheel() {
    need git "which knows what belongs to the source [git]"
    need flock "which keeps two builds of the tools for it apart [util-linux]"
    need "${PYTHON:-python3}" "which packs it [python3 python3-venv]"
}

# The Salt extension's own tests.
extension() {
    salt
    if ! command -v mariadbd >/dev/null; then
        if [ "$ci" = yes ]; then
            lack "mariadbd, the database that several masters share [mariadb-server]"
        else
            echo "preflight: no mariadbd here: the extension is tested with SQLite alone [mariadb-server]" >&2
        fi
    fi
    if ! command -v chromium >/dev/null; then
        if [ "$ci" = yes ]; then
            lack "chromium, in which the page of the fleet is looked at [chromium]"
        else
            echo "preflight: no chromium here: nobody looks at the page of the fleet [chromium]" >&2
        fi
    fi
}

# Heat itself and Keystone come from PyPI.
heat() {
    install
    need mariadbd "the program of Heat's database [mariadb-server]; its service is not needed"
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] ||
        lack "the program of Heat's message broker [rabbitmq-server]; its service is not needed: a /usr/sbin/policy-rc.d that exits with 101 keeps both from being started"
}

vm() {
    heat
    need qemu-system-x86_64 "which emulates a computer [qemu-system-x86]"
    need xorriso "which makes its config drive [xorriso]"
    need mkfs.ext4 "which makes its disk [e2fsprogs]"
}

# libFuzzer is C++.
fuzz() {
    build
    need g++ "which compiles libFuzzer [g++]"
}

advisories() {
    build
    need cargo-deny "which knows the advisory database: cargo install --locked cargo-deny"
}

size() {
    need nm "which knows the names in a program [binutils]"
    need xz "by which it is seen how large a download is [xz-utils]"
}

bench() {
    salt
    need python3 "which measures how fast the program starts [python3]"
    need curl "for the script that the agent is compared with [curl]"
    need jq "for the script that the agent is compared with [jq]"
}

# The program for another machine, run by emulation.
aarch64() {
    TARGET=aarch64-unknown-linux-musl static
    rpm
    deb
    need unshare "which gives a test mounts of its own, and a network [util-linux]"
    need ip "which brings that network up [iproute2]"
    need cpio "which takes packages apart [cpio]"
    need cmp "which compares programs [diffutils]"
    [ "$(id -u)" = 0 ] || lack "root: what is emulated gets mounts of its own"
}

# Whatever its goals ask for when it is their turn, said before the first of them.
release() {
    static
    TARGET=aarch64-unknown-linux-musl static
    rpm
    deb
    need git "which knows what is committed [git]"
    need python3 "which makes the bill of materials [python3]"
}

signing() {
    need gpg "which signs [gnupg]"
    need rpmsign "which signs packages [rpm]"
    need rpmkeys "which checks their signatures [rpm]"
}

# The target's libraries come with rustup; ring has parts in C.
static() {
    build
    need readelf "which shows what a program is linked with [binutils]"
    need xz "by which it is seen how large a download is [xz-utils]"
    local sysroot machine=${TARGET%%-*} cc
    sysroot=$(rustc --print sysroot 2>/dev/null) || return 0
    if [ "$machine" != "$(uname -m)" ]; then
        cc=$machine-linux-gnu-gcc
        "$cc" -fsyntax-only -include assert.h -x c /dev/null 2>/dev/null ||
            lack "$cc with headers, which compiles ring's C for $machine [gcc-${machine/_/-}-linux-gnu, with what it recommends]"
        need "qemu-$machine" "which runs a program for $machine here [qemu-user]"
        [ -d "$sysroot/lib/rustlib/$TARGET/lib" ] || command -v rustup >/dev/null ||
            lack "Rust's libraries for $TARGET: rustup target add $TARGET"
    elif [ ! -d "$sysroot/lib/rustlib/$TARGET/lib" ]; then
        # Where the standard library can be built, it need not be there.
        if [ ! -f "$sysroot/lib/rustlib/src/rust/library/Cargo.lock" ] || ! command -v musl-gcc >/dev/null; then
            lack "Rust's libraries for $TARGET: rustup target add $TARGET; or, where rustup cannot, their source and musl [rust-web-src musl-tools]"
        fi
    fi
}

static-debian() {
    need mmdebstrap "which makes the root to build in [mmdebstrap]"
    need apt-get "whose mirrors it takes [apt]"
    need unshare "which mounts what is built [util-linux]"
    [ "$(id -u)" = 0 ] || lack "root, for another root"
}

ci=no
for part; do
    case $part in
    --ci) ci=yes ;;
    build | quick | fuzz | salt | extension | services | install | rpm | deb | wheel | packages | heat | vm | size | bench | static | static-debian | aarch64 | advisories | release | signing) "$part" ;;
    *)
        echo "usage: preflight.sh [--ci] build|static|static-debian|quick|fuzz|salt|extension|services|install|rpm|deb|wheel|packages|heat|vm|size|bench|aarch64|advisories|release|signing..." >&2
        exit 2
        ;;
    esac
done
if [ ${#lacking[@]} -gt 0 ]; then
    echo "This machine lacks:" >&2
    printf '%s\n' "${lacking[@]}" | sort -u | sed 's/^/  /' >&2
    exit 1
fi
