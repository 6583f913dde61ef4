#!/usr/bin/env bash
# How long `install` takes beside the package manager's own command by hand, in one run: five turns of each, in turn, on fresh
# machines, and the medians.
# usage: bench.sh AGENT
set -euo pipefail
agent=$(realpath "$1")
cd "$(dirname "$0")"
repositories=$(./repositories.sh "$(../lab/venv.sh 3006)" "$(../lab/venv.sh 3008)")
port=8741
python3 -m http.server --bind 127.0.0.1 --directory "$repositories" "$port" >/dev/null 2>&1 &
server=$!
trap 'kill $server' EXIT
url=http://127.0.0.1:$port

config() {
    python3 - "$url/$1/good" "$repositories/key.asc" <<'EOT'
import json, sys
key = open(sys.argv[2]).read()
minion = {"id": "web-1", "master": "127.0.0.1", "master_finger": ":".join(["ab"] * 32)}
print(json.dumps({"minion": minion, "accept": "none", "install": {"version": "3006", "repository": {"url": sys.argv[1], "gpg_key": key}}}))
EOT
}

# seconds ROOT FORMAT HOW: the time of one installation on a fresh machine.
seconds() {
    local dir
    dir=$(mktemp -d)
    ./vm.sh up "$(./roots.sh "$1")" "$dir"
    install -m 755 "$agent" "$dir/tree/usr/bin/heat-salt-bootstrap"
    mkdir -p "$dir/tree/etc/heat-salt-bootstrap"
    config "$2" >"$dir/tree/etc/heat-salt-bootstrap/config.json"
    cp "$repositories/key.asc" "$dir/tree/key.asc"
    local by_hand="mkdir -p /etc/yum.repos.d
printf '[salt]\nname=salt\nbaseurl=$url/rpm/good\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey=file:///key.asc\n' >/etc/yum.repos.d/salt.repo
dnf -y install 'salt-minion-3006.*'"
    if [ "$2" = deb ]; then
        by_hand="printf 'deb [signed-by=/key.asc] $url/deb/good stable main\n' >/etc/apt/sources.list.d/salt.list
printf 'Package: salt-*\nPin: version 3006.*\nPin-Priority: 1001\n' >/etc/apt/preferences.d/salt
apt-get update && DEBIAN_FRONTEND=noninteractive apt-get -y install salt-minion"
    fi
    local script="heat-salt-bootstrap install"
    if [ "$3" = by-hand ]; then script="set -e; $by_hand; [ -e /var/run/salt-minion.pid ] || salt-minion -d; until [ -e /var/run/salt-minion.pid ]; do sleep 0.01; done"; fi
    local begun=$EPOCHREALTIME ended
    ./vm.sh run "$dir" "$script" >"$dir.log" 2>&1 || { cat "$dir.log" >&2; exit 1; }
    ended=$EPOCHREALTIME
    rm -f "$dir.log"
    ./vm.sh down "$dir"
    echo $(((${ended/./} - ${begun/./}) / 1000))
}

for kind in 'el rpm dnf' 'bookworm deb apt-get'; do
    read -r root format name <<<"$kind"
    by_hand=() by_agent=()
    for _ in 1 2 3 4 5; do
        by_hand+=("$(seconds "$root" "$format" by-hand)")
        by_agent+=("$(seconds "$root" "$format" agent)")
    done
    median() { printf '%s\n' "$@" | sort -n | sed -n 3p; }
    hand=$(median "${by_hand[@]}") own=$(median "${by_agent[@]}")
    echo "$name: by hand $hand ms, by the agent $own ms: $((own - hand)) ms over it (at most 500, or 5 %)"
done
