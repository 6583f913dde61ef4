#!/usr/bin/env bash
# The packages, as those meet them who build, sign, check, install, upgrade and remove them.
#
# usage: run.sh
# env:   STATIC, PAGES, SOURCE_DATE_EPOCH   as of packaging/build.sh
#        HSB_CACHE                          where the roots are kept
set -euo pipefail
cd "$(dirname "$0")/../.."
top=$PWD
name=heat-salt-bootstrap
version=$(sed -n '/^version = "/{s/^version = "\(.*\)"$/\1/p;q}' Cargo.toml)
rpm=$name-$version-1.$(rpm --eval '%{_target_cpu}').rpm
deb=${name}_$version-1_$(dpkg --print-architecture).deb

work=$(mktemp -d)
up=()
# Run by the trap.
# shellcheck disable=SC2317
clean_up() {
    local code=$? dir
    for dir in "${up[@]}"; do "$top/tests/install/vm.sh" down "$dir"; done
    GNUPGHOME=$work/gnupg gpgconf --kill all
    rm -rf "$work"
    exit "$code"
}
trap clean_up EXIT

# check WHAT COMMAND...: it has to succeed; what it says is shown if it does not.
check() {
    local what=$1 begun=$SECONDS code
    shift
    # As a condition it would go on after a command that fails.
    set +e
    (
        set -e
        "$@"
    ) >"$work/said" 2>&1
    code=$?
    set -e
    if [ $code != 0 ]; then
        echo "FAILED  $what" >&2
        cat "$work/said" >&2
        exit 1
    fi
    echo "ok      $what ($((SECONDS - begun)) s)"
}

fail() {
    echo "$1"
    return 1
}

# --- building

versions_agree() {
    grep -Fxq "Version:        $version" packaging/$name.spec || fail "the spec has another version than Cargo.toml, $version"
    [ "$("$STATIC" --version)" = "$name $version" ] || fail "$STATIC is of another version"
}

# Only the program itself is not built twice: what is compared is all that is packed with it, and how.
build_twice() {
    packaging/build.sh "$1" "$work/one"
    (umask 077 && TZ=Pacific/Auckland LC_ALL=C.UTF-8 TMPDIR=$work packaging/build.sh "$1" "$work/two")
    cmp "$work/one/$2" "$work/two/$2"
}

# Both install without a network and without each other, and are the tree's modules.
wheel_and_source() {
    local python pip wheel=saltext_heat_bootstrap-$version-py3-none-any.whl source=saltext_heat_bootstrap-$version.tar.gz
    cmp "$work/one/$source" "$work/two/$source"
    python=$("$top/tests/lab/venv.sh" tools)/bin/python
    pip=(unshare --net "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --no-compile)
    "${pip[@]}" --target "$work/of-wheel" "$work/one/$wheel"
    "${pip[@]}" --target "$work/of-source" "$work/one/$source"
    diff -r "$work/of-wheel/saltext" "$work/of-source/saltext"
    diff -r --exclude=__pycache__ "$top/salt-extension/src/saltext" "$work/of-wheel/saltext"
    grep -Fxq '[salt.loader]' "$work"/of-wheel/*.dist-info/entry_points.txt || fail "Salt would not find it"
    [ -x "$work/of-wheel/bin/heat-bootstrap" ] || fail "there is no command"
}

builds_of_other_releases() {
    RELEASE=0 packaging/build.sh "$1" "$work/one" && RELEASE=2 packaging/build.sh "$1" "$work/one"
}

# The program of both packages is the one that was built.
holds_the_program() {
    rpm2cpio "$work/one/$rpm" | cpio --quiet --extract --to-stdout ./usr/bin/$name | cmp - "$STATIC"
    dpkg-deb --fsys-tarfile "$work/one/$deb" | tar --extract --to-stdout ./usr/bin/$name | cmp - "$STATIC"
}

# Everything that the source package wants lies in it: cargo resolves, compiles the library and makes the pages, licences included, without a
# network and without what this user has fetched. An optimised program takes minutes; it is made of the same.
source_package() {
    rpmbuild -bp --quiet --nodeps --define "_topdir $work/topdir" --define "_sourcedir $work/unpacked" --define "_specdir $work/unpacked" \
        --define "_builddir $work/unpacked" "$work/unpacked/$name.spec"
    cd "$work/unpacked/$name-$version"
    CARGO_HOME=$work/cargo CARGO_TARGET_DIR=$work/compiled unshare --net cargo run --quiet --locked --package pages -- "$work/pages"
    cmp "$work/pages/THIRD-PARTY-LICENSES" "$PAGES/THIRD-PARTY-LICENSES"
}

unpack_source() {
    mkdir "$work/unpacked"
    rpm2cpio "$work/one/$name-$version-1.src.rpm" | (cd "$work/unpacked" && cpio --quiet --extract)
}

# --- signatures

signatures() {
    local signed=$work/signed db=$work/rpmdb strangers=$work/strangers
    mkdir -m 700 "$GNUPGHOME"
    gpg --batch --quiet --passphrase '' --quick-generate-key 'test <test@example.org>' rsa2048 sign never
    gpg --armor --export test >"$work/key.asc"
    cp -r "$work/one" "$signed"
    rpmsign --define '_gpg_name test' --define '__gpg /usr/bin/gpg' --addsign "$signed"/*.rpm
    mkdir "$db" "$strangers"
    rpmkeys --dbpath "$db" --import "$work/key.asc"
    rpmkeys --dbpath "$db" --checksig "$signed"/*.rpm | tee "$work/judged"
    [ "$(grep -c ': digests signatures OK$' "$work/judged")" = 4 ] || fail "not every signature is good"
    if rpmkeys --dbpath "$strangers" --checksig "$signed/$rpm"; then fail "believed without the key"; fi
    cp "$signed/$rpm" "$work/forged.rpm"
    printf x | dd of="$work/forged.rpm" bs=1 seek=500000 conv=notrunc status=none
    if rpmkeys --dbpath "$db" --checksig "$work/forged.rpm"; then fail "a forged package is believed"; fi
}

# --- checkers

rpm_is_clean() {
    rpmlint --config packaging/rpmlint.toml "$work/one/$rpm" "$work/one/$name-$version-1.src.rpm" packaging/$name.spec | tee "$work/lint"
    grep -q ' 0 errors, 0 warnings' "$work/lint" || fail "rpmlint has something to say"
}

deb_is_clean() {
    lintian --allow-root --tag-display-limit 0 --fail-on warning,error "$work/one/$deb" | tee "$work/lint"
    [ ! -s "$work/lint" ] || fail "lintian has something to say"
}

# --- roots

# root NAME: a throw-away machine; its directory is in $vm.
root() {
    vm=$work/$1
    mkdir "$vm"
    "$top/tests/install/vm.sh" up "$("$top/tests/install/roots.sh" "$1")" "$vm"
    up+=("$vm")
    cp "$top/tests/packages/story.sh" "$vm/tree/opt/"
}

in_el() {
    local one
    mkdir "$work/base"
    # That root's own files belong to no package: this stands for what has the shell.
    cat >"$work/base.spec" <<'EOT'
Name: base
Version: 1
Release: 1
Summary: For a test
License: Apache-2.0
BuildArch: noarch
Provides: /bin/sh
%description
For a test.
%files
EOT
    rpmbuild -bb --quiet --define "_topdir $work/topdir" --define "_rpmdir $work/base" "$work/base.spec"
    cp "$work"/base/noarch/*.rpm "$vm/tree/opt/base.rpm"
    for one in 0 1 2; do cp "$work/signed/$name-$version-$one.${rpm##*-1.}" "$vm/tree/opt/$one.rpm"; done
    cp "$work/one/$rpm" "$vm/tree/opt/unsigned.rpm"
    cp "$work/key.asc" "$vm/tree/opt/"
    "$top/tests/install/vm.sh" run "$vm" 'exec sh -eu /opt/story.sh rpm'
}

in_bookworm() {
    local one
    for one in 0 1 2; do cp "$work/one/${name}_$version-${one}_${deb##*_}" "$vm/tree/opt/$one.deb"; done
    "$top/tests/install/vm.sh" run "$vm" 'exec sh -eu /opt/story.sh deb'
}

# The units among those of cloud-init: what user_data starts must not wait for what waits for it.
in_cloud() {
    cp "$work/one/$deb" "$vm/tree/opt/package.deb"
    "$top/tests/install/vm.sh" run "$vm" '
        set -eu
        dpkg --install /opt/package.deb
        systemctl enable heat-salt-bootstrap
        systemctl is-enabled cloud-init cloud-config cloud-final
        systemd-analyze verify --man=no multi-user.target cloud-init.target heat-salt-bootstrap.service'
    if grep -Ei 'cycle|heat-salt-bootstrap.*(ignor|unknown|fail)' "$work/said"; then fail "systemd has something to say"; fi
}

begun=$SECONDS
export GNUPGHOME=$work/gnupg
check 'the versions agree' versions_agree
check 'the same source gives the same RPM' build_twice rpm "$rpm"
check 'the same source gives the same deb' build_twice deb "$deb"
check 'both hold the program as it was built' holds_the_program
check 'an older and a newer RPM' builds_of_other_releases rpm
check 'an older and a newer deb' builds_of_other_releases deb
check 'the same source gives the same wheel' build_twice wheel "saltext_heat_bootstrap-$version-py3-none-any.whl"
check 'wheel and source distribution of the extension' wheel_and_source
check 'the same source gives the same source package' build_twice srpm "$name-$version-1.src.rpm"
check 'the source package can be unpacked' unpack_source
check 'signatures' signatures
check 'rpmlint finds nothing' rpm_is_clean
check 'lintian finds nothing' deb_is_clean
check 'the source package compiles without a network' source_package
root el
check 'dnf installs, upgrades, downgrades and removes it' in_el
grep '^exposure' "$work/said"
root bookworm
check 'apt installs, upgrades, downgrades, removes and purges it' in_bookworm
root cloud
check 'its units and those of cloud-init fit together' in_cloud
echo "packages: $((SECONDS - begun)) s"
