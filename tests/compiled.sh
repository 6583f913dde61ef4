#!/usr/bin/env bash
# Keeps what cargo has compiled of other people's crates, and of the standard library, in the cache: a clean checkout then compiles only
# what is ours.
#
# usage: compiled.sh fetch    into a directory of builds that is not there yet
#        compiled.sh keep     from one that is complete, unless it is kept already
# env:   HSB_CACHE            where it is kept (default: ~/.cache/heat-salt-bootstrap)
#        CARGO_TARGET_DIR     as for cargo: a directory of somebody's own, to which nothing is done
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${CARGO_TARGET_DIR:-}" ]; then exit 0; fi

cache=${HSB_CACHE:-$HOME/.cache/heat-salt-bootstrap}
# Cargo itself sees to it that nothing is taken that does not fit: a key that says too little costs time, and nothing else.
key=$({ rustc --version --verbose && cat Cargo.lock Cargo.toml fuzz/Cargo.lock packaging/static.sh; } | sha256sum | cut -c1-12)
kept=$cache/compiled-$key

# What is ours is compiled anew in each checkout: cargo goes by the times of files, by which what another one has made could pass for this one's.
ours=(fuzz heat-salt-bootstrap lab pages)

mkdir -p "$cache"
exec 9>"$kept.lock"
flock 9
case ${1:-} in
fetch)
    if [ -e target ] || [ ! -e "$kept" ]; then exit 0; fi
    rm -rf target.new
    # Where the file system can, nothing is copied before it is changed.
    cp --archive --reflink=auto "$kept" target.new
    mv target.new target
    ;;
keep)
    if [ -e "$kept" ]; then exit 0; fi
    rm -rf "$kept.new"
    mkdir "$kept.new"
    for profile in target/{,*-linux-*/}{debug,release}; do
        if [ ! -d "$profile/.fingerprint" ]; then continue; fi
        cp --archive --reflink=auto --parents "$profile"/{.fingerprint,build,deps} "$kept.new"
        for name in "${ours[@]}"; do
            for print in "$kept.new/$profile/.fingerprint/$name"-????????????????; do
                unit=${print##*/}
                rm -rf "$print" "$kept.new/$profile/build/$unit" "$kept.new/$profile/deps/"*"-${unit##*-}"{,.*}
            done
        done
    done
    mv "$kept.new/target" "$kept"
    rmdir "$kept.new"
    ;;
*)
    echo "usage: compiled.sh fetch|keep" >&2
    exit 2
    ;;
esac
