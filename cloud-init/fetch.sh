#!/bin/sh
# fetch.sh of heat-salt-bootstrap: fetches the program, verifies it, puts it in place and runs it. If it cannot, it tells
# Heat why, in the form that Heat counts. POSIX sh, ASCII; wants one of curl, wget and python3, whichever is there.
#
# It is user_data as it stands: Heat's str_replace fills in what is written between two @ (see server.yaml), or you do.
# What is left as it is counts as not given. Exit codes and reasons are the program's own (`explain CODE`).
set -u
umask 077
PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

given() {
    case $1 in @*@) ;; *) printf %s "$1" ;; esac
}
url=$(given '@AGENT_URL@')          # where the program is; https as a rule
sha256=$(given '@AGENT_SHA256@')    # its checksum: nothing else is ever run
verb=$(given '@VERB@')              # run (the default), install, accept, apply; or none: only put it in place
id=$(given '@MINION_ID@')           # whom a failure to fetch is reported for; by default the short host name
closed=$(given '@CLOSE_METADATA@')  # true: only root may ask the metadata service, which tells whoever asks what stands in here
seconds=$(given '@FETCH_SECONDS@')  # how long to go on trying to fetch; by default 300, and never longer than the deadline allows

# The configuration, as JSON. Only root can read what becomes of it.
config() {
    cat <<'END-OF-CONFIG'
@CONFIG@
END-OF-CONFIG
}

# The wait condition handle's attributes as one JSON object: {"endpoint", "token"}, or its attribute `signal` as it is.
signal() {
    cat <<'END-OF-SIGNAL'
@SIGNAL@
END-OF-SIGNAL
}

# Further CAs, as PEM, that sign what this script talks to.
ca() {
    cat <<'END-OF-CA'
@CA@
END-OF-CA
}

etc=/etc/heat-salt-bootstrap
# When this began, by the time since the boot: the deadline of everything that comes after it counts from then.
began=/run/heat-salt-bootstrap/began
# Best place first. A read-only /usr is no reason to fail.
places='/usr/local/bin /opt/heat-salt-bootstrap/bin /var/lib/heat-salt-bootstrap/bin'

main() {
    handle=$(given "$(signal | tr -d '\n')") why=
    [ "$handle" != null ] || handle=
    [ -n "$id" ] || id=$(hostname 2>/dev/null || cat /proc/sys/kernel/hostname) id=${id%%.*}
    choose_seconds
    note_beginning
    work=/nowhere
    trap 'rm -rf "$work"' EXIT
    trap 'fail 61 interrupted "fetch.sh was told to stop before the program was in place"' HUP INT TERM
    # One of them is no disk, and so neither full nor read-only.
    for place in /run "${TMPDIR:-/tmp}" /var/tmp /dev/shm; do
        why=$(mktemp -d "$place/fetch.XXXXXX" 2>&1) || continue
        work=$why why=
        break
    done
    [ -d "$work" ] || nowhere
    gather_cas
    choose_tools
    [ "$closed" != true ] || close_metadata

    case ${verb:=run} in run | install | accept | apply | none) ;; *) fail 11 usage "there is no verb $verb" ;; esac
    keep_configuration
    program=$(in_place) || {
        fetch
        put_in_place
    }
    [ "$verb" != none ] || exit 0

    # From here on the program reports by itself, unless it is killed.
    trap - HUP INT TERM
    "$program" "$verb"
    code=$?
    if [ "$code" -gt 128 ] && [ -e /var/lib/heat-salt-bootstrap/progress ] && "$program" signal --killed; then exit "$code"; fi
    [ "$code" -le 128 ] || fail "$code" interrupted "the program was ended by signal $((code - 128)), by the out-of-memory killer perhaps"
    exit "$code"
}

# fail CODE REASON MESSAGE: the end.
fail() {
    trap - HUP INT TERM
    # What may stand in JSON as it is.
    line=$(printf %s "$2: $3 (step fetch, code $1)" | tr -c ' !#-[]-~' ' ' | cut -c1-2000)
    echo "fetch.sh: $line" >&2
    # To make room; and there is nothing that comes after it.
    rm -f "$work/program" "$began"
    [ -z "$handle" ] || tell "$1" "$2"
    exit "$1"
}

# All of them are full or read-only; memory is not, and what is needed to tell Heat fits. What lies in /tmp is hidden until then.
nowhere() {
    if mount -t tmpfs -o size=16m,mode=700 fetch.sh /tmp 2>/dev/null; then
        work=/tmp
        trap 'umount /tmp' EXIT
        gather_cas
    fi
    choose_tools
    fail 24 local-system "a temporary directory cannot be made: $why"
}

# Of the configuration's deadline a minute is left at least, for telling Heat; of a short one, half.
choose_seconds() {
    case $seconds in '' | *[!0-9]*) seconds=300 ;; esac
    deadline=$(config | tr -d '\n' | sed -n 's/.*"deadline": *"\([0-9][0-9]*\)s".*/\1/p')
    [ -n "$deadline" ] || return 0
    most=$((deadline > 120 ? deadline - 60 : deadline / 2))
    [ "$seconds" -le "$most" ] || seconds=$most
}

# Where it cannot be noted, each part has a deadline of its own.
note_beginning() {
    read -r uptime _ </proc/uptime && mkdir -p "${began%/*}" && echo "${uptime%%.*}" >"$began"
} 2>/dev/null

# A CA that is given is trusted beside the system's own.
gather_cas() {
    cas=
    case $(ca) in
    *BEGIN*)
        cas=$work/cas.pem
        ca >"$cas"
        for store in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
            if [ -s "$store" ]; then
                cat "$store" >>"$cas"
                break
            fi
        done
        ;;
    esac
}

choose_tools() {
    has() { command -v "$1" >/dev/null 2>&1; }
    python=$(command -v python3 || echo /usr/libexec/platform-python)
    tool='' hasher=''
    if has curl; then
        tool=curl
    elif has "$python"; then
        tool=python
    elif has wget && wget --help 2>&1 | grep -q body-file; then
        tool=wget
    elif has wget; then
        # busybox's verifies no certificate, which the checksum makes good, and takes no secret but as an argument.
        tool=simple
    fi
    if has sha256sum; then
        hasher=sha256sum
    elif has openssl; then
        hasher='openssl dgst -sha256 -r'
    fi
}

keep_configuration() {
    mkdir -p "$etc/config.d" || fail 24 local-system "$etc cannot be made"
    [ -z "$(given "$(config)")" ] || config | keep config.json || fail 24 local-system "$etc/config.json cannot be written"
    if [ -n "$handle" ]; then
        printf '{"signal": %s}\n' "$handle" | keep config.d/90-signal.json || fail 24 local-system "$etc/config.d cannot be written to"
    fi
}

# From here on, and from the beginning of each boot where there is systemd, no other user and no container gets an answer from the metadata
# service. Root still does: cloud-init asks it at every boot.
close_metadata() {
    closer=$etc/close-metadata why='neither nft nor iptables is here'
    mkdir -p "$etc" || fail 24 local-system "$etc cannot be made"
    for way in nft iptables; do
        has $way || continue
        { rules $way | keep close-metadata && chmod 700 "$closer"; } || fail 24 local-system "$closer cannot be written"
        why="$way: $("$closer" 2>&1)" && why= && break
    done
    [ -z "$why" ] || fail 24 local-system "the metadata service cannot be closed to others: $(first_line "$why")"
    unit=/etc/systemd/system/heat-salt-bootstrap-metadata.service
    why=$({ closing_unit >$unit && chmod 644 $unit && systemctl --quiet enable ${unit##*/}; } 2>&1) ||
        echo "fetch.sh: the metadata service is closed until the next boot only: $why" >&2
}

# Not before what empties all tables.
closing_unit() {
    cat <<END-OF-UNIT
[Unit]
Description=Only root may ask the metadata service
DefaultDependencies=no
After=local-fs.target nftables.service iptables.service firewalld.service
Before=network-pre.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=$closer

[Install]
WantedBy=sysinit.target
END-OF-UNIT
}

# rules TOOL: a script that makes them, and changes nothing where they are.
rules() {
    printf '%s\n' '#!/bin/sh' 'PATH=/usr/sbin:/usr/bin:/sbin:/bin'
    case $1 in
    nft)
        cat <<'END-OF-RULES'
nft -f - <<'END'
table inet heat-salt-bootstrap
delete table inet heat-salt-bootstrap
table inet heat-salt-bootstrap {
    chain output {
        type filter hook output priority 0;
        ip daddr 169.254.169.254 meta skuid != 0 reject
        ip6 daddr fe80::a9fe:a9fe meta skuid != 0 reject
    }
    chain forward {
        type filter hook forward priority 0;
        ip daddr 169.254.169.254 reject
        ip6 daddr fe80::a9fe:a9fe reject
    }
}
END
END-OF-RULES
        ;;
    iptables)
        cat <<'END-OF-RULES'
close() {
    for chain in 'OUTPUT -m owner ! --uid-owner 0' FORWARD; do
        $1 -w -C $chain -d $2 -j REJECT 2>/dev/null || $1 -w -I $chain -d $2 -j REJECT || exit
    done
}
close iptables 169.254.169.254
if command -v ip6tables >/dev/null && [ -e /proc/net/if_inet6 ]; then close ip6tables fe80::a9fe:a9fe; fi
END-OF-RULES
        ;;
    esac
}

# A file is whole or not there: it gets its name last.
keep() {
    cat >"$etc/$1.new" && mv -f "$etc/$1.new" "$etc/$1"
}

# The program is there already: this is a second run, or the image brought it.
in_place() {
    if [ -z "$url" ]; then
        command -v heat-salt-bootstrap && return
    fi
    for place in $places; do
        if [ -x "$place/heat-salt-bootstrap" ] && is_right "$place/heat-salt-bootstrap"; then
            echo "$place/heat-salt-bootstrap"
            return
        fi
    done
    return 1
}

# is_right FILE: does it have the checksum?
is_right() {
    if [ -n "$hasher" ]; then
        sum=$($hasher <"$1")
    else
        sum=$("$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())' <"$1")
    fi
    [ "${sum%% *}" = "$sha256" ]
}

# Downloads to $work/program until it is right, or the time is up.
fetch() {
    [ -n "$url" ] || fail 10 config 'the program is not here, and there is no URL to fetch it from'
    [ ${#sha256} -eq 64 ] || fail 10 config 'the sha256 of the program is not given, or is not one'
    [ -n "$tool" ] || fail 23 unsupported-system 'none of curl, wget and python3 is here to fetch the program with'
    shown=$(masked "$url")
    [ -n "$hasher" ] || has "$python" || fail 23 unsupported-system 'none of sha256sum, openssl and python3 is here to verify the program with'
    end=$(($(date +%s) + seconds)) pause=1 wrong=0
    while left=$((end - $(date +%s))) && [ "$left" -gt 0 ]; do
        # Kept in a variable, since a file system may be full.
        if said=$(ask GET "$url" 'Accept: */*' "$work/program" "$left" 2>&1); then
            if is_right "$work/program"; then return; fi
            why="$shown has the sha256 ${sum%% *}, not $sha256"
            # A proxy may have called half a file whole; the same three times is another file.
            wrong=$((wrong + 1))
            [ "$wrong" -lt 3 ] || fail 22 package-untrusted "$why"
        else
            why=$(first_line "$said")
            if like 'error:? (http/[0-9.]+ )?(40[0-7]|410)'; then
                fail 21 repository-unreachable "$shown cannot be fetched: $why"
            elif like 'no space|cannot write|curl: .23.'; then
                fail 24 local-system "the program cannot be written to $work: $why"
            fi
        fi
        wait=$(pause_for "$left")
        echo "fetch.sh: $why; trying again in $wait s" >&2
        sleep "$wait"
        pause=$((pause < 16 ? pause * 2 : 30))
    done
    fail 21 repository-unreachable "$shown could not be fetched within $seconds s: $why"
}

# pause_for SECONDS: how long to wait, no longer than this: as long as the server asks for, else longer each time; and not as long as all
# other machines that were started together.
pause_for() {
    asked=$(tr 'A-Z\r' 'a-z ' <"$work/headers" 2>/dev/null | sed -n 's/^ *retry-after: *\([0-9]\{1,6\}\) *$/\1/p' | tail -n 1)
    random=$(od -An -N2 -tu2 /dev/urandom 2>/dev/null | tr -cd 0-9)
    wait=$((${asked:-$pause} + ${random:-$$} % (pause + 1)))
    echo $((wait < $1 ? wait : $1))
}

like() {
    printf '%s\n' "$said" | grep -Eiq "$1"
}

first_line() {
    masked "$1" | sed -n '/./{p;q;}'
}

# URLs without who logs in, and without what may be a signature.
masked() {
    printf '%s\n' "$1" | sed 's|://[^/@ ]*@|://***@|g; s|\(://[^ ?]*\)?[^ ]*|\1?***|g'
}

put_in_place() {
    for place in $places; do
        program=$place/heat-salt-bootstrap
        if why=$({ { [ -d "$place" ] || { mkdir -p "$place" && chmod 755 "$place"; }; } && cp "$work/program" "$program.new" && chmod 755 "$program.new" &&
            "$program.new" --version && mv -f "$program.new" "$program"; } 2>&1); then
            return
        fi
        rm -f "$program.new" 2>/dev/null
        echo "fetch.sh: not in $place: $why" >&2
    done
    fail 24 local-system "the program can be put into none of $places: $why"
}

# ask METHOD URL HEADER OUT SECONDS: asks. All but GET send $work/body, and are not sent on to another place. The answer's headers
# are in $work/headers, and what goes wrong is said in the first line on standard error. What may be secret stands in files, never
# among the arguments.
ask() {
    rm -f "$work/headers"
    case $tool in
    curl)
        printf '%s = "%s"\n' request "$1" url "$2" header "$3" >"$work/request"
        if [ "$1" = GET ]; then
            echo location >>"$work/request"
        else
            printf '%s = "%s"\n' header 'Content-Type: application/json' data-binary "@$work/body" >>"$work/request"
        fi
        curl --config "$work/request" --fail --silent --show-error --connect-timeout 10 --speed-limit 1 --speed-time 75 \
            --max-time "$5" ${cas:+--cacert "$cas"} --dump-header "$work/headers" --output "$4"
        ;;
    python)
        printf '%s\n' "$@" "$cas" >"$work/request"
        bounded "$5" "$python" - "$work" <<'END-OF-PYTHON'
import base64, shutil, ssl, sys, urllib.parse as urls, urllib.request as http
work = sys.argv[1]
method, url, header, out, seconds, cas = open(work + "/request").read().split("\n")[:6]
headers, body, parts = dict([header.split(": ", 1)]), None, []
if method != "GET":
    headers["Content-Type"] = "application/json"
    body = open(work + "/body", "rb").read()
    stay = http.HTTPRedirectHandler()
    stay.redirect_request = lambda *_: None
    parts = [stay]
https = http.HTTPSHandler(context=ssl.create_default_context(cafile=cas or None))
split = urls.urlsplit(url)
login, _, host = split.netloc.rpartition("@")
request = http.Request(split._replace(netloc=host).geturl(), body, headers, method=method)
if login:
    request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(urls.unquote(login).encode()).decode())
try:
    answer = http.build_opener(https, *parts).open(request, timeout=75)
    open(work + "/headers", "w").write(str(answer.headers))
    with open(out, "wb") as file:
        shutil.copyfileobj(answer, file)
except Exception as error:
    open(work + "/headers", "w").write(str(getattr(error, "headers", "")))
    sys.exit(str(error))
END-OF-PYTHON
        ;;
    wget)
        printf '%s\n' "$2" >"$work/url"
        printf '%s = %s\n' input "$work/url" header "$3" >"$work/request"
        [ "$1" = GET ] || printf '%s = %s\n' method "$1" header 'Content-Type: application/json' body_file "$work/body" max_redirect 0 >>"$work/request"
        WGETRC=$work/request bounded "$5" wget --no-verbose --server-response --tries=1 --timeout=75 ${cas:+--ca-certificate="$cas"} \
            --output-document="$4" 2>"$work/headers" || { grep -v -e '^  ' -e ':$' "$work/headers" >&2 && return 1; }
        ;;
    simple)
        [ "$1" = GET ] || { echo 'none of curl, python3 and GNU wget is here' >&2 && return 1; }
        # Some of busybox's fall over their own --timeout.
        bounded "$(($5 < 75 ? $5 : 75))" wget -q -O "$4" "$2"
        ;;
    esac
}

# bounded SECONDS COMMAND...: with an end, where there is something that makes one.
bounded() {
    if has timeout; then timeout "$@"; else shift && "$@"; fi
}

# field NAME: a text of the handle's, as it stands there in JSON.
field() {
    printf '%s\n' "$handle" | sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p'
}

# tell CODE REASON: says FAILURE and the line to Heat, for a minute if need be.
tell() {
    if [ -z "$tool" ]; then
        echo 'fetch.sh: Heat cannot be told: none of curl, wget and python3 is here' >&2
        return
    fi
    if [ ! -d "$work" ]; then
        echo 'fetch.sh: Heat cannot be told: no directory takes a file' >&2
        return
    fi
    message="\"id\": \"$id\", \"data\": {\"schema\": 1, \"minion_id\": \"$id\", \"verdict\": \"failed\", \"code\": $1, \"reason\": \"$2\","
    message="{\"status\": \"FAILURE\", \"reason\": \"$line\", $message \"step\": \"fetch\", \"message\": \"$line\"}}"
    end=$(($(date +%s) + 60))
    until said=$(say 2>&1); do
        if [ "$(date +%s)" -ge "$end" ]; then
            echo "fetch.sh: Heat could not be told: $(first_line "$said")" >&2
            return
        fi
        sleep 2
    done
    echo 'fetch.sh: Heat was told' >&2
}

# The transports of a handle, told apart by their attributes.
say() {
    auth=$(field auth_url) alarm=$(field alarm_url)
    if [ -n "$(field token)" ]; then
        send POST "$(field endpoint)" "X-Auth-Token: $(field token)" "$message"
    elif [ -n "$auth" ] && [ -n "$alarm" ]; then
        auth=${auth%/} auth=${auth%/v2.0}
        send POST "${auth%/v3}/v3/auth/tokens" 'Accept: application/json' "{\"auth\": {\"identity\": {\"methods\": [\"password\"],
            \"password\": {\"user\": {\"id\": \"$(field user_id)\", \"password\": \"$(field password)\"}}},
            \"scope\": {\"project\": {\"id\": \"$(field project_id)\"}}}}" || return
        token=$(tr -d '\r' <"$work/headers" | sed -n 's/^ *[Xx]-[Ss]ubject-[Tt]oken: *//p' | tail -n 1)
        send POST "$alarm" "X-Auth-Token: $token" "$message"
    elif [ -n "$alarm" ]; then
        send PUT "$alarm" 'Accept: */*' "$message"
    elif [ -n "$(field url)" ]; then
        send PUT "$(field url)" 'Accept: */*' "{\"Status\": \"FAILURE\", \"Reason\": \"$line\", \"UniqueId\": \"$id\", \"Data\": \"fetch\"}"
    else
        echo 'the handle is of a kind that fetch.sh cannot tell anything' >&2
        return 1
    fi
}

send() {
    printf %s "$4" >"$work/body"
    ask "$1" "$2" "$3" /dev/null 75
}

main
