#!/usr/bin/env bash
# A release that is signed, as its readers check it. The packages are those that are given; what else a release has is played.
#
# usage: release.sh DIR    with the RPMs of this version
set -euo pipefail
packages=$(realpath "$1")
cd "$(dirname "$0")/../.."
name=heat-salt-bootstrap
version=$(sed -n '/^version = "/{s/^version = "\(.*\)"$/\1/p;q}' Cargo.toml)
work=$(mktemp -d)
export GNUPGHOME=$work/gnupg
trap 'gpgconf --kill all; rm -rf "$work"' EXIT

fail() {
    echo "release.sh: $*" >&2
    exit 1
}

tree=$work/tree
mkdir -p "$tree/packaging"
cp packaging/{release.sh,$name.spec} "$tree/packaging/"
cp -r cloud-init Cargo.toml salt-extension "$tree/"
printf '## %s\n\n- This is new.\n' "$version" >"$tree/CHANGELOG.md"
echo target >"$tree/.gitignore"
cat >"$tree/Makefile" <<EOT
check-static:
	mkdir -p target/\$(TARGET)/release && echo \$(TARGET) >target/\$(TARGET)/release/$name
sbom:
	echo {} >target/$name.cdx.json
deb srpm wheel:
rpm:
	mkdir -p \$(PACKAGES) && cp $packages/*-$version-1.*rpm \$(PACKAGES)/
EOT
export GIT_CONFIG_GLOBAL=/dev/null
git -C "$tree" init --quiet
git -C "$tree" add --all
# A key is older than what it signs.
committed=$(($(date +%s) - 86400))
GIT_COMMITTER_DATE="@$committed +0000" git -C "$tree" -c user.name=test -c user.email=test@example.org commit --quiet --message x
mkdir -m 700 "$GNUPGHOME"
# made SECONDS NAME: a throw-away key that was made so long before the commit; RSA, which every RPM can read.
made() {
    gpg --batch --quiet --faked-system-time "$((committed - $1))" --passphrase '' --quick-generate-key "$2 <$2@example.org>" rsa2048 sign never
}
made 3600 releases
made -3600 younger

out=$tree/target/release-$version
release() { BUILT=target SIGN_WITH=$1 URL='' VERSION=$version "$tree/packaging/release.sh"; }

# Its signatures would be missing, and rpmsign would not say so.
if release younger >"$work/said" 2>&1; then fail "signed by a key that did not exist yet"; fi
grep -q 'younger does not sign by the time of the commit' "$work/said" || fail "$(cat "$work/said")"

release releases >"$work/said" || fail "$(cat "$work/said")"
grep -q '^Signed by releases: ' "$work/said" || fail "it does not say by whom it is signed"
mv "$out" "$work/first"
release releases >/dev/null
diff -r "$work/first" "$out" || fail "the same source and key give other bytes"

# What docs/security.md tells readers to do, by readers who have nothing but the directory.
cd "$out"
key=$name-$version-key.asc
export GNUPGHOME=$work/reader
mkdir -m 700 "$GNUPGHOME"
gpg --quiet --import "$key"
verified() { gpg --status-fd 1 --verify SHA256SUMS.asc SHA256SUMS 2>/dev/null | grep '^\[GNUPG:\] GOODSIG .* releases <releases@example.org>$'; }
verified || fail "the list of checksums is not signed by the key beside it"
gpg --status-fd 1 --verify SHA256SUMS.asc SHA256SUMS 2>/dev/null | grep "^\[GNUPG:\] VALIDSIG .* $committed " >/dev/null || fail "it is not dated by the commit"
sha256sum --check --quiet --strict SHA256SUMS
listed=$(wc -l <SHA256SUMS) there=$(find . -type f ! -name 'SHA256SUMS*' ! -name '*.sha256' | wc -l)
[ "$listed" = "$there" ] || fail "of $there files $listed are in the list"
if gpg --list-packets "$key" | grep secret; then fail "a secret key is published"; fi
echo x >>SHA256SUMS
if verified; then fail "a list with another line is believed"; fi

mkdir "$work/db" "$work/strangers"
rpmkeys --dbpath "$work/db" --import "$key"
rpms=(*.rpm)
[ ${#rpms[@]} -ge 3 ] || fail "only ${rpms[*]}"
rpmkeys --dbpath "$work/db" --checksig "${rpms[@]}" | tee "$work/judged"
[ "$(grep -c ': digests signatures OK$' "$work/judged")" = ${#rpms[@]} ] || fail "not every RPM is signed"
if rpmkeys --dbpath "$work/strangers" --checksig "${rpms[@]}" >/dev/null; then fail "believed without the key"; fi
