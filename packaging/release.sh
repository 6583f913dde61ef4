#!/usr/bin/env bash
# Makes a release of this tree, or says everything that is against it: what is published, in one directory.
#
# usage: release.sh [--dry]   --dry: of a tree that is not ready too; says what a release would be refused for
# env:   BUILT      where cargo builds (default: target); the release goes to BUILT/release-VERSION
#        VERSION    the version that is meant, if it is said: no other one is released
#        SIGN_WITH  the OpenPGP key that signs the RPMs and the list of checksums; without one nothing is signed
#        URL        the directory in which all of it will lie, by https: the templates then know where to fetch the program
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
'') suffix='' ;;
--dry) suffix=-dry ;;
*) echo "usage: release.sh [--dry]" >&2 && exit 2 ;;
esac
name=heat-salt-bootstrap
built=${BUILT:-target}
# For each machine a program, an RPM and a deb; of everything else there is one.
targets=(x86_64-unknown-linux-musl aarch64-unknown-linux-musl)
version=$(sed -n '/^version = "/{s/^version = "\(.*\)"$/\1/p;q}' Cargo.toml)
out=$built/release-$version$suffix
key=${SIGN_WITH:-} url=${URL:-}
url=${url%/}
# All of it is dated by the commit, signatures too, so that it can be made again byte for byte.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
at_commit=(--batch --faked-system-time "$SOURCE_DATE_EPOCH!")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# section HEADING: its text in the changelog.
section() {
    awk -v want="## $1" '/^## /{inside = $0 == want || index($0, want " ") == 1; next} inside' CHANGELOG.md | sed '/./,$!d'
}

# templates DIR: those that Heat reads, with the checksum of the x86_64 program as the default, and an environment for each machine.
# Placeholders of fetch.sh are filled in by the templates.
templates() {
    local dir=$1 file target
    cp -r cloud-init "$dir"
    for file in "$dir"/*.yaml; do
        # As text: a checksum may look like a number.
        SUM=$(sum_for "${targets[0]}") AT=$(url_for "${targets[0]}") awk '
            {print}
            /^  agent_(url|sha256):$/ {of = $1}
            /^    type: string$/ {
                if (of == "agent_sha256:") print "    default: \047" ENVIRON["SUM"] "\047"
                if (of == "agent_url:" && ENVIRON["AT"] != "") print "    default: \047" ENVIRON["AT"] "\047"
                of = ""
            }' "$file" >"$work/filled"
        cp "$work/filled" "$file"
    done
    for target in "${targets[@]}"; do
        {
            echo parameter_defaults:
            if [ -n "$url" ]; then echo "  agent_url: '$(url_for "$target")'"; fi
            echo "  agent_sha256: '$(sum_for "$target")'"
        } >"$dir/${target%%-*}.yaml"
    done
    find "$dir" -type d -exec chmod 755 {} +
    find "$dir" -type f -exec chmod 644 {} +
}

program_for() { echo "$name-$version-${1%%-*}-linux"; }
sum_for() { cut -d ' ' -f 1 "$out/$(program_for "$1").sha256"; }
url_for() { if [ -n "$url" ]; then echo "$url/$(program_for "$1")"; fi; }

# sign_rpms: as dnf expects it, in the package. rpmsign succeeds also where gpg does not, so the result is looked at.
sign_rpms() {
    local packages=("$out"/*.rpm)
    [ -e "${packages[0]}" ] || return 0
    rpmsign --define "_gpg_name $key" --define "__gpg $(command -v gpg)" --define "_gpg_sign_cmd_extra_args ${at_commit[*]}" \
        --addsign "${packages[@]}" >/dev/null
    mkdir "$work/db"
    rpmkeys --dbpath "$work/db" --import "$out/$name-$version-key.asc"
    # It succeeds as well for a package without a signature, so the lines are judged too, and shown if it fails or there are too few.
    {
        rpmkeys --dbpath "$work/db" --checksig "${packages[@]}" >"$work/judged" &&
            [ "$(grep -c ': digests signatures OK$' "$work/judged")" = ${#packages[@]} ]
    } || {
        echo "release.sh: not every RPM is signed by $key:" >&2
        cat "$work/judged" >&2
        exit 1
    }
}

against=()
[ -z "$(git status --porcelain)" ] || against+=("the tree has changes that are not committed")
if git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null; then
    against+=("there is a tag v$version already: raise the version in Cargo.toml and Cargo.lock")
fi
[ -z "${VERSION:-}" ] || [ "$VERSION" = "$version" ] || against+=("this is version $version, and not $VERSION: Cargo.toml says so")
# Each says it for itself, and a package of another version would be left out without a word.
while read -r file says; do
    grep -Fwq -- "$says" "$file" || against+=("$file has another version than Cargo.toml, $version")
done <<EOT
packaging/$name.spec Version:        $version
salt-extension/pyproject.toml version = "$version"
salt-extension/src/saltext/heat_bootstrap/__init__.py __version__ = "$version"
salt-extension/heat-bootstrap.8 "saltext-heat-bootstrap $version"
EOT
[[ $url =~ ^(https://[^[:space:]\'\"]+)?$ ]] || against+=("URL is no https URL: $url")
# Tried before minutes are spent: a key that is younger than the commit cannot sign by its time.
if [ -n "$key" ] && ! gpg "${at_commit[@]}" --local-user "$key" --detach-sign </dev/null >/dev/null 2>"$work/said"; then
    against+=("the key $key does not sign by the time of the commit: $(tr '\n' ' ' <"$work/said")")
fi
text=$(section "$version")
[ -n "$text" ] || against+=("CHANGELOG.md has nothing below '## $version': what is below Unreleased goes there on this day")
goals=()
for goal in rpm srpm deb wheel; do
    if grep -Eq "^([a-z ]* )?$goal( [a-z ]*)?:" Makefile; then
        goals+=("$goal")
    else
        against+=("there is no 'make $goal'")
    fi
done
if [ ${#against[@]} -gt 0 ]; then
    printf 'release.sh: %s\n' "${against[@]}" >&2
    [ -n "$suffix" ] || exit 1
    echo "release.sh: for these reasons there would be no release; a dry one goes on" >&2
    [ -n "$text" ] || text=$(section Unreleased)
fi

for target in "${targets[@]}"; do make check-static TARGET="$target"; done
make sbom
rm -rf "$out"
mkdir -p "$out"
for target in "${targets[@]}"; do
    program=$(program_for "$target")
    install -m 755 "$built/$target/release/$name" "$out/$program"
    (cd "$out" && sha256sum "$program" >"$program.sha256")
done
cp "$built/$name.cdx.json" "$out/$name-$version.cdx.json"
printf '%s\n' "$text" >"$out/CHANGELOG-$version.md"
if [ ${#goals[@]} -gt 0 ]; then
    # In a directory of their own: what other builds have left among the packages is no part of it.
    packed=$work/packages
    for goal in "${goals[@]}"; do
        case $goal in
        rpm | deb) for target in "${targets[@]}"; do make "$goal" TARGET="$target" PACKAGES="$packed"; done ;;
        *) make "$goal" PACKAGES="$packed" ;;
        esac
    done
    cp "$packed"/* "$out/"
fi
bundle=$name-$version-templates
templates "$work/$bundle"
tar --directory "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu -c "$bundle" |
    gzip -9n >"$out/$bundle.tar.gz"
if [ -n "$key" ]; then
    gpg --batch --armor --export-options export-minimal --export "$key" >"$out/$name-$version-key.asc"
    sign_rpms
fi
sums=$(cd "$out" && find . -type f ! -name '*.sha256' -printf '%P\n' | sort | xargs -d '\n' sha256sum)
printf '%s\n' "$sums" >"$out/SHA256SUMS"
if [ -n "$key" ]; then
    gpg "${at_commit[@]}" --local-user "$key" --armor --output "$out/SHA256SUMS.asc" --detach-sign "$out/SHA256SUMS"
    gpg --batch --quiet --verify "$out/SHA256SUMS.asc" "$out/SHA256SUMS"
fi

ls -l "$out"
if [ -n "$key" ]; then
    echo "Signed by $key: the RPMs, and SHA256SUMS, which has all the other files."
else
    echo "NOTHING IS SIGNED: SIGN_WITH=KEY names the OpenPGP key that is to sign the RPMs and SHA256SUMS."
fi
if [ -z "$url" ]; then
    echo "The templates do not say where the program is: URL=https://... would, or whoever uses them gives agent_url."
fi
if [ -z "$suffix" ]; then
    echo "Now try what lies there; then: git tag --annotate v$version --file $out/CHANGELOG-$version.md"
fi
