#!/usr/bin/env bash
# Builds packages of this tree. The same source gives the same bytes, whenever and wherever: times are those of the last commit.
#
# usage: build.sh rpm|srpm|deb|wheel OUT-DIR    rpm, deb: of the agent, and of the Salt extension for masters
#                                               wheel: the Salt extension, as wheel and as source distribution
# env:   STATIC            the program that ships, as `make static` leaves it (rpm, deb); the package is for the same machine
#        PAGES             what `make pages` made (rpm, deb)
#        SOURCE_DATE_EPOCH the time of the source
#        RELEASE           the release of the package, for tests of upgrades (default: 1): packed in no time, as nobody keeps it
set -euo pipefail
cd "$(dirname "$0")/.."
format=$1
mkdir -p "$2"
out=$(realpath "$2")
name=heat-salt-bootstrap
version=$(sed -n '/^version = "/{s/^version = "\(.*\)"$/\1/p;q}' Cargo.toml)
release=${RELEASE:-1}
if [ -n "${RELEASE:-}" ]; then payload=w1.gzdio compression=-Zgzip; else payload=w9.xzdio compression=-Zxz; fi
: "${SOURCE_DATE_EPOCH:?names the time of the source}"
export SOURCE_DATE_EPOCH
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Which machine the program is for, as the kernel, RPM and Debian call it.
if [ "$format" = rpm ] || [ "$format" = deb ]; then
    case $(readelf --file-header "$STATIC" | sed -n 's/^ *Machine: *//p') in
    *X86-64) machine=x86_64 architecture=amd64 ;;
    AArch64) machine=aarch64 architecture=arm64 ;;
    *) echo "build.sh: $STATIC is for none of the machines that packages are made for" >&2 && exit 1 ;;
    esac
fi

# pack FILE DIR NAME...: a tar file without anything of this machine.
pack() {
    local file=$1 dir=$2
    shift 2
    tar --directory "$dir" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu -c "$@" |
        xz --threads=1 -6 >"$file"
}

# What git knows of in its present form, changes that are not committed included. The mode is the one that git keeps.
source_tree() {
    local top=$work/source/$name-$version
    mkdir -p "$top"
    while IFS= read -r -d '' file; do
        # One that was removed and whose removal is not committed.
        if [ ! -e "$file" ]; then continue; fi
        if [ -x "$file" ]; then mode=755; else mode=644; fi
        install -D -m $mode "$file" "$top/$file"
    done < <(git -c safe.directory='*' ls-files -z --cached --others --exclude-standard)
    find "$top" -type d -exec chmod 755 {} +
}

# The crates. Those that no build for Linux needs are there by name only: cargo wants to see everything that Cargo.lock names.
vendored_crates() {
    local wanted=$work/wanted crate name_version
    mkdir -p "$work/vendored"
    cargo vendor --quiet --locked --versioned-dirs "$work/vendored/vendor" >/dev/null
    for target in x86_64-unknown-linux-{gnu,musl} aarch64-unknown-linux-{gnu,musl}; do
        cargo tree --locked --package "$name" --package pages --target "$target" --edges normal,build,dev --prefix none --format '{p}'
    done | awk 'NF > 1 {sub(/^v/, "", $2); print $1 "-" $2}' | sort -u >"$wanted"
    for crate in "$work"/vendored/vendor/*; do
        name_version=${crate##*/}
        if ! grep -Fqx "$name_version" "$wanted"; then
            find "$crate" -mindepth 1 ! -name Cargo.toml ! -name .cargo-checksum.json -delete
            mkdir "$crate/src"
            : >"$crate/src/lib.rs"
            sed -i 's/"files":{[^}]*}/"files":{}/' "$crate/.cargo-checksum.json"
        fi
    done
    find "$work/vendored" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

# What the package for masters has for Python, in $work/extension.
extension() {
    PYTHON=$(tests/lab/venv.sh tools)/bin/python packaging/master/assemble.sh "$(packaging/master/libraries.sh)" "$work/extension"
}

# build_rpm TOP SOURCES OPTION...
build_rpm() {
    local top_dir=$1 sources=$2
    shift 2
    # The source package has their times in it.
    cp "packaging/$name.spec" "$work/"
    find "$work" -maxdepth 1 -type f -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
    (cd "$work" && rpmbuild --quiet --define "_topdir $top_dir" --define "_sourcedir $sources" --define "_rpmdir $out" \
        --define "_srcrpmdir $out" --define '_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' \
        --define "release_number $release" --define 'dist %{nil}' --define '_buildhost localhost' \
        --define 'use_source_date_epoch_as_buildtime 1' --define 'clamp_mtime_to_source_date_epoch 1' \
        --define 'source_date_epoch_from_changelog 0' --define "_binary_payload $payload" --define '_source_payload w6.gzdio' \
        --define '_docdir /usr/share/doc' --nodeps "$@" "$name.spec")
}

# build_deb NAME ARCHITECTURE TREE CONTROL: of the files in TREE, with what CONTROL has for dpkg.
build_deb() {
    local package=$1 architecture=$2 tree=$3 control=$4 one size
    # As dpkg's own tools count. How much a directory takes is the file system's affair, and its past.
    size=$(find "$tree" -type f -printf '%s\n' -o -printf '1\n' | awk '{kib += int(($1 + 1023) / 1024)} END {print kib}')
    sed "s/@VERSION@/$version-$release/; s/@ARCHITECTURE@/$architecture/; s/@SIZE@/$size/" \
        "$control/control" | install -D -m 644 /dev/stdin "$tree/DEBIAN/control"
    {
        printf '%s (%s-%s) unstable; urgency=medium\n\n' "$package" "$version" "$release"
        printf '  * What changes is told in changelog.gz.\n\n -- The %s authors <nobody@example.org>  ' "$name"
        LC_ALL=C date --utc --rfc-email --date "@$SOURCE_DATE_EPOCH"
    } | gzip -9n >"$tree/usr/share/doc/$package/changelog.Debian.gz"
    install -m 644 "$control/conffiles" "$tree/DEBIAN/"
    if [ -e "$control/triggers" ]; then install -m 644 "$control/triggers" "$tree/DEBIAN/"; fi
    for one in postinst prerm postrm; do install -m 755 "$control/$one" "$tree/DEBIAN/"; done
    (
        cd "$tree"
        find . -type f ! -path './DEBIAN/*' ! -path './etc/*' -printf '%P\0' | sort -z | xargs -0 md5sum
    ) >"$work/md5sums"
    install -m 644 "$work/md5sums" "$tree/DEBIAN/md5sums"
    dpkg-deb $compression --root-owner-group --build "$tree" "$out/${package}_$version-${release}_$architecture.deb" >/dev/null
}

case $format in
rpm)
    source_tree
    pack "$work/$name-$version.tar.xz" "$work/source" "$name-$version"
    STATIC=$(realpath "$STATIC") PAGES=$(realpath "$PAGES")
    extension
    # The spec asks the program for its version.
    emulator=()
    if [ "$machine" != "$(uname -m)" ]; then emulator=(--define "emulator qemu-$machine"); fi
    build_rpm "$work/rpm" "$work" -bb --target "$machine-linux" --with prebuilt --define "program $STATIC" \
        --define "pages $PAGES" --define "extension $work/extension" "${emulator[@]}"
    ;;
srpm)
    source_tree
    pack "$work/$name-$version.tar.xz" "$work/source" "$name-$version"
    vendored_crates
    pack "$work/$name-$version-vendor.tar.xz" "$work/vendored" vendor
    mkdir -p "$work/libraries"
    cp -r "$(packaging/master/libraries.sh)" "$work/libraries/wheels"
    chmod -R u=rwX,go=rX "$work/libraries"
    pack "$work/$name-$version-wheels.tar.xz" "$work/libraries" wheels
    # It holds the spec with all macros expanded: no path in them may be of this machine.
    build_rpm rpm . -bs
    ;;
deb)
    PROGRAM=$(realpath "$STATIC") PAGES=$(realpath "$PAGES") packaging/stage.sh deb "$work/deb"
    build_deb "$name" "$architecture" "$work/deb" packaging/deb
    extension
    EXTENSION=$work/extension packaging/master/stage.sh deb "$work/deb-master"
    build_deb "$name-master" all "$work/deb-master" packaging/master/deb
    ;;
wheel)
    python=$(tests/lab/venv.sh tools)/bin/python
    source_tree
    extension=$work/source/$name-$version/salt-extension
    find "$extension" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
    (
        cd "$extension"
        "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$out" .
        "$python" -c 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])' "$work/sdist" >/dev/null
    ) >&2
    # setuptools dates what it packs by the moment.
    for packed in "$work"/sdist/*.tar.gz; do
        mkdir "$work/unpacked"
        tar --directory "$work/unpacked" -xzf "$packed"
        tar --directory "$work/unpacked" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
            --format=gnu -c "$(basename "$packed" .tar.gz)" | gzip -9n >"$out/${packed##*/}"
    done
    ;;
*) echo "usage: build.sh rpm|srpm|deb|wheel OUT-DIR" >&2 && exit 2 ;;
esac
