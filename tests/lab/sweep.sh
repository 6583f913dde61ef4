#!/usr/bin/env bash
# Removes from the cache what nobody has used for thirty days and what has a newer one beside it: environments, roots, repositories and
# databases carry the key of what they were made of, and when that changes the old one is of no use any more.
#
# usage: sweep.sh CACHE   each NAME-KEY in it has a NAME-KEY.lock, which every use opens for writing
set -euo pipefail
cache=${1:?usage: sweep.sh CACHE}
[ -d "$cache" ] || exit 0

is_old() { [ -n "$(find "$1" -mtime +30)" ]; }

declare -A newest
while read -r _ lock; do
    old=${lock%.lock}
    name=${old%-*}
    if [ -z "${newest[$name]:-}" ]; then
        newest[$name]=$old
        continue
    fi
    if ! is_old "$lock" || [ ! -e "$old" ]; then continue; fi
    (
        # Whoever wants it from now on waits until it is gone, and makes it anew. The lock stays for those who wait. Opened for
        # reading only, or this would be a use.
        exec 9<"$lock"
        if ! flock --nonblock 9 || ! is_old "$lock"; then exit 0; fi
        echo "sweep.sh: removing $old" >&2
        rm -rf --one-file-system "$old" "$old.new"
    )
done < <(find "$cache" -maxdepth 1 -name '*-????????????.lock' -printf '%T@ %p\n' | sort --reverse --numeric-sort)
