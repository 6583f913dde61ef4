#!/usr/bin/env bash
# The packages, as those meet them who build, sign, check, install, upgrade and remove them.
#
# usage: run.sh
# env:   STATIC, PAGES, SOURCE_DATE_EPOCH   as of packaging/build.sh
#        HSB_CACHE                          where the roots are kept
#        HSB_ALL                            1 to build by Fedora's macros too
set -euo pipefail
cd "$(dirname "$0")/../.."
top=$PWD
name=heat-salt-bootstrap
version=$(sed -n '/^version = "/{s/^version = "\(.*\)"$/\1/p;q}' Cargo.toml)
rpm=$name-$version-1.$(rpm --eval '%{_target_cpu}').rpm
deb=${name}_$version-1_$(dpkg --print-architecture).deb
master_rpm=$name-master-$version-1.noarch.rpm
master_deb=$name-master_$version-1_all.deb

work=$(mktemp -d)
mkdir "$work/base"
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
    # Those that are shipped are those that are tested, and those that the RPM says it has.
    sed -n 's/ --hash.*//p' packaging/master/libraries.txt | while IFS= read -r pin; do
        grep -Fxq "$pin" tests/lab/requirements-extension.txt || fail "the extension is not tested with $pin"
        wanted=$(echo "$pin" | tr 'A-Z_' 'a-z-' | sed 's/\(.*\)==\(.*\)/Provides:       bundled(python3dist(\1)) = \2/')
        grep -Fxq "$wanted" packaging/$name.spec || fail "the spec lacks '$wanted'"
    done
}

# build_twice FORMAT FILE...
# Only the program itself is not built twice: what is compared is all that is packed with it, and how.
build_twice() {
    local file first
    packaging/build.sh "$1" "$work/one" &
    first=$!
    (umask 077 && TZ=Pacific/Auckland LC_ALL=C.UTF-8 TMPDIR=$work packaging/build.sh "$1" "$work/two")
    wait $first
    for file in "${@:2}"; do cmp "$work/one/$file" "$work/two/$file"; done
}

# Both install without a network and without each other, and are the tree's modules.
wheel_and_source() {
    local pip wheel=saltext_heat_bootstrap-$version-py3-none-any.whl source=saltext_heat_bootstrap-$version.tar.gz
    cmp "$work/one/$source" "$work/two/$source"
    pip=(unshare --net "$tools" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --no-compile)
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

# Where a macro is not defined it stays as text, which would be run or shipped.
no_macro_is_left() {
    local way sections='description|package|prep|build|install|check|post|preun|postun|filetriggerin|filetriggerpostun|files|changelog'
    rpmspec --parse packaging/$name.spec >"$work/expanded-plain"
    rpmspec --parse --with prebuilt --define "pages $PAGES" packaging/$name.spec >"$work/expanded-prebuilt"
    rpmspec --parse "${by_macros[@]}" packaging/$name.spec >"$work/expanded-macros"
    for way in plain prebuilt macros; do
        if grep -nE '%[A-Za-z_{?!(*]' "$work/expanded-$way" |
            grep -vE "^[0-9]+:%($sections|dir|config|ghost|attr|license|doc)\>|stat -c %Y"; then fail "$way: left as text"; fi
    done
    [ "$(grep -c -- '--profile rpm' "$work/expanded-macros")" = 3 ] || fail "Fedora's macros are not taken where they are"
    if grep -- '--profile rpm' "$work/expanded-plain"; then fail "one is taken where there are none"; fi
}

# Everything that the source package wants lies in it: a distribution builds it without a network and without what this user has fetched, by
# Fedora's macros (of which tests/packages/fedora.macros has stand-ins) and, as Debian's rpmbuild does, without any. An optimised program
# takes minutes; it is made of the same.
#
# rebuilt WAY OPTION...: does so, in $work/WAY. The unit tests want a loopback, as every build of a distribution has one.
rebuilt() {
    local way=$1
    shift
    # shellcheck disable=SC2016  # it has its own arguments
    env -u CARGO_TARGET_DIR CARGO_HOME="$work/cargo-$way" CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=false \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 unshare --net sh -c 'ip link set lo up; exec "$@"' - \
        rpmbuild -bb --quiet --nodeps --define "_topdir $work/$way" \
        --define "_sourcedir $work/unpacked" --define "python $tools" --define '_docdir /usr/share/doc' \
        --define 'source_date_epoch_from_changelog 0' \
        --define '_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' "$@" "$work/unpacked/$name.spec"
    mkdir "$work/$way/tree"
    for package in "$rpm" "$master_rpm"; do
        rpm2cpio "$work/$way/RPMS/$package" | (cd "$work/$way/tree" && cpio --quiet --extract --make-directories)
        rpm --query --package --queryformat '[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME} %{FILEFLAGS:fflags}\n]' \
            "$work/$way/RPMS/$package"
    done >"$work/$way/files"
}

# What RPM itself does after %install is a distribution's own affair.
rebuilt_by_macros() {
    rebuilt macros "${by_macros[@]}" --define '__os_install_post %{nil}' --define 'debug_package %{nil}' --define '_build_id_links none'
}

rebuilt_without() {
    rebuilt plain "${checking[@]}"
}

# Each way that was taken, and the way of `make rpm`.
packages_are_alike() {
    local way licences=usr/share/licenses/$name
    mkdir -p "$work/prebuilt/RPMS" "$work/prebuilt/tree"
    cp "$work/one/$rpm" "$work/one/$master_rpm" "$work/prebuilt/RPMS/"
    for package in "$rpm" "$master_rpm"; do
        rpm2cpio "$work/one/$package" | (cd "$work/prebuilt/tree" && cpio --quiet --extract --make-directories)
        rpm --query --package --queryformat '[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME} %{FILEFLAGS:fflags}\n]' "$work/one/$package"
    done >"$work/prebuilt/files"
    for way in "${ways[@]}"; do
        diff "$work/prebuilt/files" "$work/$way/files"
        diff -r --exclude=$name --exclude=LICENSE.dependencies --exclude=cargo-vendor.txt "$work/prebuilt/tree/usr" "$work/$way/tree/usr"
    done
    for list in LICENSE.dependencies cargo-vendor.txt; do
        cmp "$work/prebuilt/tree/$licences/$list" "$work/plain/tree/$licences/$list"
        [ ${#ways[@]} = 2 ] || continue
        # Fedora's lists are of the workspace, for all systems: those of what is linked here lie within them, line by line.
        LC_ALL=C comm -23 "$work/prebuilt/tree/$licences/$list" "$work/macros/tree/$licences/$list" >"$work/beside"
        [ ! -s "$work/beside" ] || fail "Fedora's $list has other lines than $(cat "$work/beside")"
        if grep -F "$work" "$work/macros/tree/$licences/$list"; then fail "$list names the directory of a build"; fi
    done
    if grep -sE ': (lab|pages) v| OR tmp OR ' "$work/macros/tree/$licences/LICENSE.dependencies"; then fail "that is not in the program"; fi
    # What RPM makes of such a list, where it has Fedora's generator.
    "$tools" -m cargo2rpm --path "$work/prebuilt/tree/$licences/cargo-vendor.txt" parse-vendor-manifest | sed '/^$/d' | sort >"$work/generated"
    [ "$(wc -l <"$work/generated")" -gt 30 ] || fail "$(wc -l <"$work/generated") crates are bundled"
    rpm --query --package --provides "$work/one/$rpm" | grep '^bundled(crate(' | sort | diff "$work/generated" -
}

unpack_source() {
    mkdir "$work/unpacked"
    rpm2cpio "$work/one/$name-$version-1.src.rpm" | (cd "$work/unpacked" && cpio --quiet --extract)
}

# all_at_once DIR OPTION...: binary packages and the source package by one `rpmbuild -ba`, of what the source package holds. Paths of the build
# stand in a source package, so that it is the same only if it is made at a place of the same name: in a mount namespace any is.
all_at_once() {
    local dir=$1
    shift
    mkdir -p "$dir/SOURCES" "$work/topdir-ba"
    rpm2cpio "$work/one/$name-$version-1.src.rpm" | (cd "$dir/SOURCES" && cpio --quiet --extract --preserve-modification-time)
    # shellcheck disable=SC2016  # it has its own arguments
    env -u CARGO_TARGET_DIR CARGO_HOME="$dir/cargo" CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=false \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 unshare --mount --net bash -euc '
            mount --bind "$1" "$2"
            cd "$2"
            exec rpmbuild -ba --quiet --nodeps --define "_topdir $2" "${@:3}" SOURCES/*.spec' - "$dir" "$work/topdir-ba" \
        --define "python $tools" --define '_docdir /usr/share/doc' --define '_buildhost localhost' --define 'source_date_epoch_from_changelog 0' \
        --define 'use_source_date_epoch_as_buildtime 1' --define 'clamp_mtime_to_source_date_epoch 1' "$@"
}

# all_twice WAY OPTION...
all_twice() {
    local way=$1 first=$work/$1-first second=$work/$1-second
    shift
    all_at_once "$first" "$@"
    (umask 077 && TZ=Pacific/Auckland LC_ALL=C.UTF-8 all_at_once "$second" "$@")
    [ "$(cd "$first" && find . -name '*.rpm' | wc -l)" = 3 ] || fail "there are $(find "$first" -name '*.rpm')"
    diff -r "$first/RPMS" "$second/RPMS" && diff -r "$first/SRPMS" "$second/SRPMS"
}

# Of the program as it ships.
packed_at_once() {
    PYTHON=$tools packaging/master/assemble.sh "$(packaging/master/libraries.sh)" "$work/extension"
    all_twice packed --with prebuilt --define "program $STATIC" --define "pages $PAGES" --define "extension $work/extension" \
        --define '_binary_payload w1.gzdio' --define '_source_payload w1.gzdio'
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
    [ "$(grep -c ': digests signatures OK$' "$work/judged")" = 7 ] || fail "not every signature is good"
    if rpmkeys --dbpath "$strangers" --checksig "$signed/$rpm"; then fail "believed without the key"; fi
    cp "$signed/$rpm" "$work/forged.rpm"
    printf x | dd of="$work/forged.rpm" bs=1 seek=500000 conv=notrunc status=none
    if rpmkeys --dbpath "$db" --checksig "$work/forged.rpm"; then fail "a forged package is believed"; fi
}

# --- checkers

rpm_is_clean() {
    local packages=("$work/one/$rpm" "$work/one/$master_rpm" "$work/one/$name-$version-1.src.rpm")
    rpmlint --config packaging/rpmlint.toml "${packages[@]}" packaging/$name.spec | tee "$work/lint"
    grep -q ' 0 errors, 0 warnings' "$work/lint" || fail "rpmlint has something to say"
}

deb_is_clean() {
    lintian --allow-root --tag-display-limit 0 --fail-on warning,error "$work/one/$deb" "$work/one/$master_deb" | tee "$work/lint"
    [ ! -s "$work/lint" ] || fail "lintian has something to say"
}

# By the schema itself: whoever reads bills reads them by that.
bill_of_materials() {
    python3 packaging/sbom.py x86_64-unknown-linux-musl aarch64-unknown-linux-musl >"$work/bill"
    sed 's/"bomFormat"/"format"/' "$work/bill" >"$work/no-bill"
    "$tools" -c 'import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
good, bad = (JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(name).read()) for name in sys.argv[1:])
sys.exit(f"{good}" if good else None if bad else "and anything is valid")' "$work/bill" "$work/no-bill"
}

# --- roots

# root NAME: a throw-away machine; its directory is in $vm.
root() {
    vm=$work/$1
    mkdir "$vm"
    "$top/tests/install/vm.sh" up "$("$top/tests/install/roots.sh" "$1")" "$vm"
    up+=("$vm")
    cp "$top"/tests/packages/{common,story,master}.sh "$vm/tree/opt/"
}

in_el() {
    local one
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
    cp "$work"/base/noarch/base-*.rpm "$vm/tree/opt/base.rpm"
    for one in 0 1 2; do cp "$work/signed/$name-$version-$one.${rpm##*-1.}" "$vm/tree/opt/$one.rpm"; done
    cp "$work/one/$rpm" "$vm/tree/opt/unsigned.rpm"
    for one in 0 1 2; do cp "$work/signed/$name-master-$version-$one.noarch.rpm" "$vm/tree/opt/master-$one.rpm"; done
    for one in 1 2; do cp "$work/base/noarch/salt-$one-1.noarch.rpm" "$vm/tree/opt/salt-$one.rpm"; done
    cp "$work/key.asc" "$vm/tree/opt/"
    "$top/tests/install/vm.sh" run "$vm" 'exec sh -eu /opt/story.sh rpm'
}

in_bookworm() {
    local one
    for one in 0 1 2; do
        cp "$work/one/${name}_$version-${one}_${deb##*_}" "$vm/tree/opt/$one.deb"
        cp "$work/one/$name-master_$version-${one}_all.deb" "$vm/tree/opt/master-$one.deb"
    done
    cp "$work"/base/salt-?.deb "$vm/tree/opt/"
    "$top/tests/install/vm.sh" run "$vm" 'exec sh -eu /opt/story.sh deb'
}

# Salt's own packages, as far as files and directories go; the second one has another Python. And a Salt of the distribution.
stand_ins() {
    local one dir python
    for one in 1 2; do
        dir=$work/salt-$one
        for python in opt/saltstack/salt/bin/python3.9$((one + 7)) usr/bin/python3.98; do
            install -D -m 755 /dev/stdin "$dir/$python" <<<'#!/bin/sh'
        done
        for python in opt/saltstack/salt/lib/python3.9$((one + 7))/site usr/lib/python3.98/site usr/lib/python3/dist; do
            install -D -m 644 /dev/null "$dir/$python-packages/salt/version.py"
        done
        cat >"$work/salt.spec" <<EOT
Name: salt
Version: $one
Release: 1
Summary: For a test
License: Apache-2.0
BuildArch: noarch
AutoReqProv: no
%description
For a test.
%install
cp -r $dir/opt $dir/usr %{buildroot}
%files
/opt/saltstack/salt
/usr/bin/python3.98
/usr/lib/python3.98
/usr/lib/python3/dist-packages/salt
EOT
        rpmbuild -bb --quiet --define "_topdir $work/topdir" --define "_rpmdir $work/base" --define '__os_install_post %{nil}' \
            "$work/salt.spec"
        install -D -m 644 /dev/stdin "$dir/DEBIAN/control" <<EOT
Package: salt
Version: $one
Architecture: all
Maintainer: test <test@example.org>
Description: for a test
EOT
        dpkg-deb --root-owner-group --build "$dir" "$work/base/salt-$one.deb" >/dev/null
    done
}

# The package for masters, while Salt comes, changes and goes.
master_in_el() {
    "$top/tests/install/vm.sh" run "$vm" 'exec sh -eu /opt/master.sh rpm life'
}

master_in_bookworm() {
    "$top/tests/install/vm.sh" run "$vm" 'exec sh -eu /opt/master.sh deb life'
}

# with_salt LAYOUT LINE ARGUMENTS: what master.sh does with them in the root, where a real Salt of that line lies as Salt's own
# packages have it (onedir) or as pip installs it for the system's Python (system). Neither is to be had as a package here, so
# this stands in for where its files lie, and for nothing else. The network is this script's own.
with_salt() {
    local layout=$1 line=$2 script=$3 venv base tree=$vm/tree of place lower program
    venv=$("$top/tests/lab/venv.sh" "$line")
    base=$("$venv/bin/python" -c 'import sys; print(sys.base_prefix)')
    of=$("$venv/bin/python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    mkdir -p "$vm/salt-upper" "$vm/salt-work"
    case $layout in
    onedir) place=opt/saltstack/salt lower=$venv python=/opt/saltstack/salt/bin/python3 programs=$vm/salt-upper ;;
    system)
        place=usr/local/lib/$of/dist-packages lower=$venv/lib/$of/site-packages python=/usr/bin/$of programs=$tree/usr/bin
        [ -x "$tree/usr/bin/$of" ] || fail "the lab's Salt is for $of, and the root's own Python is another one"
        ;;
    esac
    mkdir -p "$tree/$place"
    for program in salt-master salt-api salt-run; do
        install -m 755 /dev/stdin "$programs/$program" <<EOT
#!$python
import sys
from salt.scripts import ${program/-/_}
sys.exit(${program/-/_}())
EOT
        if [ "$layout" = onedir ]; then ln -sf "/$place/$program" "$tree/usr/bin/$program"; fi
    done
    # The other user has to get at this machine's Python, wherever it lies.
    chmod 755 "$tree/root"
    # shellcheck disable=SC2016  # it has its own arguments
    unshare --mount --net bash -eu -c '
        ip link set lo up
        mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/salt-upper,workdir=$2/salt-work" "$2/tree/$3"
        # For semaphores of a user other than root; the root has a /dev without what is mounted on it.
        mount -t tmpfs -o mode=1777 tmpfs "$2/tree/dev/shm"
        if [ "$4" != /usr ]; then
            mkdir -p "$2/tree$4"
            mount --bind -o ro "$4" "$2/tree$4"
        fi
        exec "$5" run "$2" "$6"' - "$lower" "$vm" "$place" "$base" "$top/tests/install/vm.sh" "exec sh -eu /opt/master.sh $script"
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

# Shared with what builds packages: it is there by now, or built once.
tools=$("$top/tests/lab/venv.sh" tools)/bin/python
# Cargo and compiler themselves, as cargo2rpm clears the environment that rustup's stand-ins for them want.
tool_chain=$(rustc --print sysroot)/bin
by_macros=(--load "$top/tests/packages/fedora.macros" --define "__cargo $tool_chain/cargo" --define "__rustc $tool_chain/rustc" --define "python $tools")

begun=$SECONDS
export GNUPGHOME=$work/gnupg
check 'the versions agree' versions_agree
check 'no macro is left as text in the spec' no_macro_is_left
check 'the same source gives the same RPM' build_twice rpm "$rpm" "$master_rpm"
check 'the same source gives the same deb' build_twice deb "$deb" "$master_deb"
check 'both hold the program as it was built' holds_the_program
check 'an older and a newer RPM' builds_of_other_releases rpm
check 'an older and a newer deb' builds_of_other_releases deb
check 'the same source gives the same wheel' build_twice wheel "saltext_heat_bootstrap-$version-py3-none-any.whl"
check 'wheel and source distribution of the extension' wheel_and_source
check 'the same source gives the same source package' build_twice srpm "$name-$version-1.src.rpm"
check 'the source package can be unpacked' unpack_source
check 'binary and source packages at once are the same twice' packed_at_once
check 'signatures' signatures
check 'a release is signed, and its readers can tell' "$top/tests/packages/release.sh" "$work/one"
check 'rpmlint finds nothing' rpm_is_clean
check 'lintian finds nothing' deb_is_clean
check 'the bill of materials is valid' bill_of_materials
ways=(plain) checking=()
if [ -z "${HSB_ALL:-}" ]; then checking=(--without check); fi
check 'the source package is built without a network' rebuilt_without
if [ -n "${HSB_ALL:-}" ]; then
    ways+=(macros)
    check "and by Fedora's macros" rebuilt_by_macros
    check 'built twice in one place, all packages are the same' all_twice compiled --without check
else
    echo "Fedora's macros: expanded here, and built by in the whole matrix only (HSB_ALL=1), where %check runs the unit tests too, and all is compiled twice and compared"
fi
check 'each way makes the same packages' packages_are_alike
check 'stand-ins for packages of Salt' stand_ins
root el
check 'dnf installs, upgrades, downgrades and removes it' in_el
grep '^exposure' "$work/said"
check 'and the package for masters, while Salt comes, changes and goes' master_in_el
check "with Salt's own Python it works as root" with_salt onedir 3008 'rpm work root'
grep ' works with ' "$work/said"
check 'and as another user' with_salt onedir 3008 'rpm work salt'
grep ' works with ' "$work/said"
check 'and dnf removes it from there' with_salt onedir 3008 'rpm leave'
root bookworm
check 'apt installs, upgrades, downgrades, removes and purges it' in_bookworm
check 'and the package for masters, while Salt comes, changes and goes' master_in_bookworm
check "with the system's Python it works as another user" with_salt system 3006 'deb work salt'
grep ' works with ' "$work/said"
check 'and apt removes it from there' with_salt system 3006 'deb leave'
root cloud
check 'its units and those of cloud-init fit together' in_cloud
echo "packages: $((SECONDS - begun)) s"
