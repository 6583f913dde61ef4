#!/usr/bin/env bash
# Starts a real Heat on loopback: MariaDB, RabbitMQ, Keystone, heat-api, heat-api-cfn and heat-engine, without Nova.
# Prints one line of JSON that says where it is and how to log in. All that it writes lies below DIR, but for the database as it is
# before anybody used it: that is kept for the next Heat.
#
# What already runs there is left alone, so a second call starts what has ended or was stopped by down.sh.
#
# usage: up.sh DIR
# env:   HSB_CACHE, PYTHON   see ../venv.sh
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { printf 'up.sh: %3d s: %s\n' "$SECONDS" "$*" >&2; }
die() { say "$*"; exit 1; }

[ $# = 1 ] || die "usage: up.sh DIR"
mkdir -p "$1"
dir=$(cd "$1" && pwd -P)
case $dir in *[!A-Za-z0-9._/-]*) die "$dir: the services take no such characters in a path" ;; esac
[ ${#dir} -le 80 ] || die "$dir is too long: the path of a Unix socket below it may have 107 characters"

# Whatever is started inherits this mark, by which down.sh knows it again; this script has to bear it too, lest it go on
# starting what down.sh stops.
[ "${HSB_HEAT_LAB:-}" = "$dir" ] || HSB_HEAT_LAB=$dir exec "${BASH_SOURCE[0]}" "$dir"

rabbitmq=/usr/lib/rabbitmq/bin/rabbitmq-server
missing=()
command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null || missing+=(mariadb-server)
[ -x $rabbitmq ] && command -v epmd >/dev/null || missing+=(rabbitmq-server)
command -v setsid >/dev/null || missing+=(util-linux)
[ ${#missing[@]} = 0 ] || die "missing: ${missing[*]}. Their programs are needed, not their services: on Debian, apt-get install" \
    "--no-install-recommends ${missing[*]}, with a /usr/sbin/policy-rc.d that exits with 101 if nothing is to be started"

venv=$("$here/../venv.sh" heat)

# A Python program that renames itself would write over its environment, where the mark is.
export SPT_NOENV=1
# The plug-ins lie in the source tree.
export PYTHONDONTWRITEBYTECODE=1
export PATH=$venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 PYTHONWARNINGS=ignore
unset PYTHONPATH PYTHONHOME http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
password=Lab-heat-Secret
region=RegionOne
umask 077
mkdir -p "$dir"/{run,log,home/.heat,rabbit,servers,keystone}

runs() { # NAME
    local pid
    pid=$(cat "$dir/run/$1.pid" 2>/dev/null) && grep -qzxF "HSB_HEAT_LAB=$dir" "/proc/$pid/environ" 2>/dev/null
}
# In the moment in which a process becomes another program it has no environment.
has_ended() { # NAME
    local look
    for look in 1 2 5; do
        if [ ! -s "$dir/run/$1.pid" ] || runs "$1"; then return 1; fi
        sleep "0.$look"
    done
}
start() { # NAME COMMAND...: leaves it running in a session of its own
    local name=$1
    shift
    # That of an earlier one would say that this one has ended.
    rm -f "$dir/run/$name.pid"
    # shellcheck disable=SC2016  # it is for the inner shell
    setsid sh -c 'echo $$ >"$0"; exec "$@"' "$dir/run/$name.pid" "$@" >>"$dir/log/$name.out" 2>&1 </dev/null &
}
# until_so NAME SECONDS COMMAND...: waits until the command succeeds, but not for a service that has ended.
until_so() {
    local name=$1 end=$((SECONDS + $2))
    shift 2
    until "$@" >"$dir/log/wait-$name.out" 2>&1; do
        if [ $SECONDS -ge $end ] || has_ended "$name"; then
            # The logs may not be there yet; what matters is said in the next line.
            tail -n 20 "$dir/log/$name.out" "$dir/log/wait-$name.out" >&2 || :
            die "$name is not ready"
        fi
        sleep 0.1
    done
}
# A machine may be slow, and a service that has ended is not waited for: this is for one that hangs.
long=600
answers() { (exec 3<>"/dev/tcp/$1/$2"); } 2>/dev/null
sql() { mariadb --no-defaults --user=root --socket="$dir/run/mariadb.sock" "$@"; }
copy() { cp --archive --reflink=auto "$@"; }

# ---- Where it listens. Every Heat has an address of its own, on which nobody else looks for a port, and ports below the range from
# which the kernel serves who asks for any: the services may be away for a while, and nobody takes their places.
if [ ! -s "$dir/run/places" ]; then
    python - >"$dir/run/places.new" <<'P'
import random, socket
address = "127.%d.%d.%d" % (random.randrange(1, 255), random.randrange(256), random.randrange(1, 255))
held = []
while len(held) < 4:
    s = socket.socket()
    try:
        # Somebody may listen on all addresses.
        s.bind((address, random.randrange(20000, 32000)))
        held.append(s)
    except OSError:
        pass
print(address, *(s.getsockname()[1] for s in held))
P
    mv "$dir/run/places.new" "$dir/run/places"
fi
read -r address keystone_port api_port cfn_port amqp_port <"$dir/run/places"
keystone=http://$address:$keystone_port

# ---- RabbitMQ takes longest to start and is needed last. Its two further ports cannot be had at that address: epmd listens on
# 127.0.0.1 as well, and RabbitMQ looks whether Erlang's is free on all addresses. They are nobody's business, so they are drawn
# anew each time.
start_rabbitmq() {
    local epmd_port erlang_port
    if runs epmd; then "$here/down.sh" "$dir" epmd; fi
    epmd_port=$((20000 + RANDOM % 12000)) erlang_port=$((20000 + RANDOM % 12000))
    start epmd env ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$epmd_port epmd
    printf 'listeners.tcp.1 = %s:%s\n' "$address" "$amqp_port" >"$dir/rabbit/rabbitmq.conf"
    echo '[].' >"$dir/rabbit/plugins"
    : >"$dir/rabbit/env.conf"
    (until_so epmd $long answers 127.0.0.1 $epmd_port) || return 0
    start rabbitmq env HOME="$dir/rabbit" ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$epmd_port \
        RABBITMQ_NODENAME=heatlab@localhost RABBITMQ_DIST_PORT=$erlang_port \
        RABBITMQ_CONF_ENV_FILE="$dir/rabbit/env.conf" RABBITMQ_CONFIG_FILE="$dir/rabbit/rabbitmq.conf" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$dir/rabbit/plugins" RABBITMQ_MNESIA_BASE="$dir/rabbit/db" \
        RABBITMQ_LOG_BASE="$dir/rabbit/log" RABBITMQ_PID_FILE="$dir/rabbit/pid" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {${address//./,}}" $rabbitmq
}
rabbitmq_is_up() {
    local try
    for try in 2 3 4 5; do
        if (until_so rabbitmq $long answers "$address" "$amqp_port"); then return; fi
        say "a port may have been taken: try $try"
        start_rabbitmq
    done
    until_so rabbitmq $long answers "$address" "$amqp_port"
}
if ! runs rabbitmq; then
    say "rabbitmq"
    start_rabbitmq
fi

# ---- MariaDB, on a Unix socket only. The durability of a test's database is worth no disk access.
start_mariadb() {
    start mariadb mariadbd --no-defaults --user="$(id -un)" --datadir="$dir/database" --socket="$dir/run/mariadb.sock" \
        --pid-file="$dir/run/mariadbd.pid" --skip-networking --max-connections=300 --skip-log-bin --skip-name-resolve \
        --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 \
        --innodb-flush-method=nosync
    until_so mariadb $long sql --execute 'SELECT 1'
}

# ---- Keystone
cat >"$dir/keystone/keystone.conf" <<C
[DEFAULT]
log_dir = $dir/log
[database]
connection = mysql+pymysql://lab:$password@localhost/keystone?unix_socket=$dir/run/mariadb.sock
[identity]
password_hash_rounds = 4
[credential]
key_repository = $dir/keystone/credential
[fernet_tokens]
key_repository = $dir/keystone/fernet
[cache]
enabled = true
backend = dogpile.cache.memory
C
export OS_KEYSTONE_CONFIG_DIR=$dir/keystone
# serve NAME PORT MODULE THREADS
serve() {
    runs "$1" && return
    say "$1"
    start "$1" env HOME="$dir/home" uwsgi --http-socket "$address:$2" --module "$3" --processes 1 --threads "$4" --master \
        --enable-threads --lazy-apps --need-app --die-on-term --buffer-size 65535 --add-header 'Connection: close'
}
# One process, since what it remembers is in that process' memory, and without it each request costs half a second of CPU. With more
# than one thread it now and then refuses to create a trust.
serve_keystone() { serve keystone "$keystone_port" keystone.wsgi.api:application 1; }

# ---- Heat. The plug-ins stand for Nova and Neutron.
account() { # the heat service's own account, for a section of its configuration
    cat <<C
auth_type = password
auth_url = $keystone
username = heat
password = $password
user_domain_id = default
C
}
middleware() {
    account
    cat <<C
www_authenticate_uri = $keystone
project_name = service
project_domain_id = default
region_name = $region
service_token_roles_required = true
C
}
# Its WSGI modules look for their configuration below HOME and nowhere else that is not the machine's.
configure_heat() {
    # Whoever starts just now must not read half of it.
    heat_conf >"$dir/home/.heat/heat.conf.new"
    mv "$dir/home/.heat/heat.conf.new" "$dir/home/.heat/heat.conf"
}
heat_conf() {
    cat <<C
[DEFAULT]
log_dir = $dir/log
transport_url = rabbit://guest:guest@$address:$amqp_port/
auth_encryption_key = 0123456789abcdef0123456789abcdef
region_name_for_services = $region
heat_metadata_server_url = http://$address:$cfn_port
heat_waitcondition_server_url = http://$address:$cfn_port/v1/waitcondition
stack_user_domain_id = $(cat "$dir/keystone/domain")
stack_domain_admin = heat_domain_admin
stack_domain_admin_password = $password
num_engine_workers = 1
environment_dir = $venv/etc/heat/environment.d
template_dir = $venv/etc/heat/templates
plugin_dirs = $here/plugins
[database]
connection = mysql+pymysql://lab:$password@localhost/heat?unix_socket=$dir/run/mariadb.sock
[paste_deploy]
api_paste_config = $venv/etc/heat/api-paste.ini
[oslo_messaging_rabbit]
rabbit_quorum_queue = false
heartbeat_in_pthread = false
[clients_keystone]
auth_uri = $keystone
[trustee]
$(account)
[keystone_authtoken]
$(middleware)
[ec2authtoken]
$(middleware)
C
}

# ---- The database, with Heat's accounts in it, and Keystone's keys. Making it takes longer than all the rest, so it is kept: for
# whoever has the same Heat, the same MariaDB and the same of these scripts.
make_database() {
    local owner database
    owner=(--keystone-user "$(id -un)" --keystone-group "$(id -gn)")
    manage() {
        say "keystone-manage $1"
        keystone-manage --config-file "$dir/keystone/keystone.conf" "$@" >>"$dir/log/keystone-manage.out" 2>&1 ||
            { tail "$dir/log/keystone-manage.out" >&2; die "keystone-manage $1 failed"; }
    }
    if runs keystone; then "$here/down.sh" "$dir" keystone; fi
    if runs mariadb; then "$here/down.sh" "$dir" mariadb; fi
    rm -rf "$dir/database" "$dir"/keystone/{fernet,credential}
    mkdir "$dir"/keystone/{fernet,credential}
    say "mariadb-install-db"
    mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$dir/database" --skip-test-db \
        --auth-root-authentication-method=normal --innodb-log-file-size=16M >"$dir/log/mariadb-install.out" 2>&1 ||
        { tail "$dir/log/mariadb-install.out" >&2; die "mariadb-install-db failed"; }
    start_mariadb
    # The character set is that of most installations, and not the one with which every text can be written.
    for database in keystone heat; do
        sql --execute "CREATE DATABASE $database CHARACTER SET utf8mb3;
            GRANT ALL ON $database.* TO 'lab'@'localhost' IDENTIFIED BY '$password'"
    done
    manage db_sync
    manage fernet_setup "${owner[@]}"
    manage credential_setup "${owner[@]}"
    manage bootstrap --bootstrap-password "$password" --bootstrap-region-id $region \
        --bootstrap-public-url "$keystone" --bootstrap-internal-url "$keystone" --bootstrap-admin-url "$keystone"
    serve_keystone
    until_so keystone $long answers "$address" "$keystone_port"
    say "accounts"
    python "$here/accounts.py" "$keystone" "$password" $region "http://$address:$api_port" "http://$address:$cfn_port" \
        >"$dir/keystone/domain" 2>"$dir/log/accounts.out" || { tail "$dir/log/accounts.out" >&2; die "the accounts could not be made"; }
    "$here/down.sh" "$dir" keystone
    configure_heat
    say "heat-manage"
    heat-manage --config-file "$dir/home/.heat/heat.conf" db_sync >"$dir/log/heat-manage.out" 2>&1 ||
        { tail "$dir/log/heat-manage.out" >&2; die "heat-manage db_sync failed"; }
    # Where the services are stands in Keystone's catalog; the next Heat has them elsewhere.
    sql keystone --execute "UPDATE endpoint SET url = REPLACE(REPLACE(REPLACE(url,
        '$address:$keystone_port', 'keystone.lab'), '$address:$api_port', 'heat.lab'), '$address:$cfn_port', 'cfn.lab')"
    # Told to end, it writes down all that it has.
    "$here/down.sh" "$dir" mariadb
}
kept=${HSB_CACHE:-$HOME/.cache/heat-salt-bootstrap}/heat-database-$({
    cat "${BASH_SOURCE[0]}" "$here/accounts.py"
    mariadbd --no-defaults --version
    id -un
    echo "$venv"
} | sha256sum | cut -c1-12)
if [ ! -e "$dir/run/database.done" ]; then
    # Of two that find nothing one waits for the other. What is started here must not keep the lock.
    exec 9>"$kept.lock"
    flock 9
    if [ ! -e "$kept/keystone/domain" ]; then
        make_database 9>&-
        rm -rf "$kept" "$kept.new"
        mkdir "$kept.new"
        copy "$dir/database" "$dir/keystone" "$kept.new"
        # One that was cut off half way is not there at all.
        mv "$kept.new" "$kept"
    fi
    exec 9>&-
    rm -rf "$dir/database" "$dir"/keystone/{fernet,credential}
    copy "$kept/database" "$dir"
    copy "$kept"/keystone/{fernet,credential,domain} "$dir/keystone"
    touch "$dir/run/database.done"
fi
if ! runs mariadb; then
    say "mariadb"
    start_mariadb
fi
sql keystone --execute "UPDATE endpoint SET url = REPLACE(REPLACE(REPLACE(url,
    'keystone.lab', '$address:$keystone_port'), 'heat.lab', '$address:$api_port'), 'cfn.lab', '$address:$cfn_port')"

# ---- The services. All of them load for seconds: side by side.
serve_keystone
configure_heat
serve heat-api "$api_port" heat.wsgi.api:application 4
serve heat-api-cfn "$cfn_port" heat.wsgi.cfn:application 4
rabbitmq_is_up
if ! runs heat-engine; then
    say "heat-engine"
    start heat-engine env HOME="$dir/home" heat-engine --config-file "$dir/home/.heat/heat.conf"
fi
until_so keystone $long answers "$address" "$keystone_port"
until_so heat-api-cfn $long answers "$address" "$cfn_port"
until_so heat-api $long python "$here/ready.py" "$keystone" "$password" "http://$address:$api_port"
say "ready"
printf '{"keystone": "%s", "heat": "http://%s:%s", "cfn": "http://%s:%s", "user": "demo", "project": "demo", "password": "%s"}\n' \
    "$keystone" "$address" "$api_port" "$address" "$cfn_port" "$password"
