#!/usr/bin/env bash
# Makes a release of this tree, or says everything that is against it: what is published, in one directory.
#
# usage: release.sh [--dry]   --dry: of a tree that is not ready too; says what a release would be refused for
# env:   BUILT    where cargo builds (default: target); the release goes to BUILT/release-VERSION
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

# section HEADING: its text in the changelog.
section() {
    awk -v want="## $1" '/^## /{inside = $0 == want || index($0, want " ") == 1; next} inside' CHANGELOG.md | sed '/./,$!d'
}

against=()
[ -z "$(git status --porcelain)" ] || against+=("the tree has changes that are not committed")
if git rev-parse --quiet --verify "refs/tags/v$version" >/dev/null; then
    against+=("there is a tag v$version already: raise the version in Cargo.toml and Cargo.lock")
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

# All of it is dated by the commit, so that it can be made again byte for byte.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
for target in "${targets[@]}"; do make check-static TARGET="$target"; done
make sbom
rm -rf "$out"
mkdir -p "$out"
for target in "${targets[@]}"; do
    program=$name-$version-${target%%-*}-linux
    install -m 755 "$built/$target/release/$name" "$out/$program"
    (cd "$out" && sha256sum "$program" >"$program.sha256")
done
cp "$built/$name.cdx.json" "$out/$name-$version.cdx.json"
printf '%s\n' "$text" >"$out/CHANGELOG-$version.md"
if [ ${#goals[@]} -gt 0 ]; then
    for goal in "${goals[@]}"; do
        case $goal in
        rpm | deb) for target in "${targets[@]}"; do make "$goal" TARGET="$target"; done ;;
        *) make "$goal" ;;
        esac
    done
    # Those of other versions may lie beside them.
    cp "$built"/packages/*"$version"* "$out/"
fi
sums=$(cd "$out" && find . -type f ! -name '*.sha256' -printf '%P\n' | sort | xargs -d '\n' sha256sum)
printf '%s\n' "$sums" >"$out/SHA256SUMS"

ls -l "$out"
if [ -z "$suffix" ]; then
    echo "Now try what lies there; then: git tag --annotate v$version --file $out/CHANGELOG-$version.md"
fi
