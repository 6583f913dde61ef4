#!/usr/bin/env bash
# Starts a real Heat on loopback: MariaDB, RabbitMQ, Keystone, heat-api, heat-api-cfn and heat-engine, without Nova.
# Prints one line of JSON that says where it is and how to log in. All that it writes lies below DIR.
#
# What already runs there is left alone, so a second call starts what down.sh stopped.
#
# usage: up.sh DIR
# env:   HSB_CACHE, PYTHON   see ../venv.sh
#        HEAT_PORTS          six ports: keystone heat-api heat-api-cfn amqp epmd erlang (default: free ones)
#        HEAT_AUTH_TTL       how long Keystone takes a signed URL, in minutes (default: 15)
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
    for look in 1 2 3; do
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
    until "$@" >"$dir/log/wait.out" 2>&1; do
        if [ $SECONDS -ge $end ] || has_ended "$name"; then
            # The logs may not be there yet; what matters is said in the next line.
            tail -n 20 "$dir/log/$name.out" "$dir/log/wait.out" >&2 || :
            die "$name is not ready"
        fi
        sleep 0.1
    done
}
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); } 2>/dev/null
sql() { mariadb --no-defaults --user=root --socket="$dir/run/mariadb.sock" "$@"; }

# ---- Ports: below the range from which the kernel serves outgoing connections.
if [ ! -s "$dir/run/ports" ]; then
    if [ -n "${HEAT_PORTS:-}" ]; then
        printf '%s\n' "$HEAT_PORTS"
    else
        python - <<'P'
import random, socket
held = []
while len(held) < 6:
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", random.randrange(20000, 32000)))
        held.append(s)
    except OSError:
        pass
print(*(s.getsockname()[1] for s in held))
P
    fi >"$dir/run/ports"
fi
read -r keystone_port api_port cfn_port amqp_port epmd_port erlang_port <"$dir/run/ports"
keystone=http://127.0.0.1:$keystone_port

# ---- RabbitMQ takes longest to start and is needed last.
if ! runs epmd; then
    start epmd env ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT="$epmd_port" epmd
fi
if ! runs rabbitmq; then
    say "rabbitmq"
    until_so epmd 10 answers "$epmd_port"
    printf 'listeners.tcp.1 = 127.0.0.1:%s\n' "$amqp_port" >"$dir/rabbit/rabbitmq.conf"
    echo '[].' >"$dir/rabbit/plugins"
    : >"$dir/rabbit/env.conf"
    start rabbitmq env HOME="$dir/rabbit" ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT="$epmd_port" \
        RABBITMQ_NODENAME=heatlab@localhost RABBITMQ_DIST_PORT="$erlang_port" \
        RABBITMQ_CONF_ENV_FILE="$dir/rabbit/env.conf" RABBITMQ_CONFIG_FILE="$dir/rabbit/rabbitmq.conf" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$dir/rabbit/plugins" RABBITMQ_MNESIA_BASE="$dir/rabbit/db" \
        RABBITMQ_LOG_BASE="$dir/rabbit/log" RABBITMQ_PID_FILE="$dir/rabbit/pid" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}' $rabbitmq
fi

# ---- MariaDB, on a Unix socket only. The durability of a test's database is worth no disk access.
if ! runs mariadb; then
    say "mariadb"
    if [ ! -e "$dir/run/database.done" ]; then
        rm -rf "$dir/database"
        mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$dir/database" --skip-test-db \
            --auth-root-authentication-method=normal --innodb-log-file-size=16M >"$dir/log/mariadb-install.out" 2>&1 ||
            { tail "$dir/log/mariadb-install.out" >&2; die "mariadb-install-db failed"; }
        touch "$dir/run/database.done"
    fi
    start mariadb mariadbd --no-defaults --user="$(id -un)" --datadir="$dir/database" --socket="$dir/run/mariadb.sock" \
        --pid-file="$dir/run/mariadbd.pid" --skip-networking --max-connections=300 --skip-log-bin --skip-name-resolve \
        --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 \
        --innodb-flush-method=nosync
    until_so mariadb 60 sql --execute 'SELECT 1'
    # The character set is that of most installations, and not the one with which every text can be written.
    for database in keystone heat; do
        sql --execute "CREATE DATABASE IF NOT EXISTS $database CHARACTER SET utf8mb3;
            GRANT ALL ON $database.* TO 'lab'@'localhost' IDENTIFIED BY '$password'"
    done
fi

# ---- Keystone
cat >"$dir/keystone/keystone.conf" <<C
[DEFAULT]
log_dir = $dir/log
[database]
connection = mysql+pymysql://lab:$password@localhost/keystone?unix_socket=$dir/run/mariadb.sock
[identity]
password_hash_rounds = 4
[token]
expiration = 3600
[credential]
auth_ttl = ${HEAT_AUTH_TTL:-15}
key_repository = $dir/keystone/credential
[fernet_tokens]
key_repository = $dir/keystone/fernet
[cache]
enabled = false
C
export OS_KEYSTONE_CONFIG_DIR=$dir/keystone
if [ ! -e "$dir/run/keystone.done" ]; then
    say "keystone's database"
    mkdir -p "$dir"/keystone/{fernet,credential}
    manage() { keystone-manage --config-file "$dir/keystone/keystone.conf" "$@" >>"$dir/log/keystone-manage.out" 2>&1 || die "keystone-manage $1 failed, see $dir/log"; }
    owner=(--keystone-user "$(id -un)" --keystone-group "$(id -gn)")
    manage db_sync
    manage fernet_setup "${owner[@]}"
    manage credential_setup "${owner[@]}"
    manage bootstrap --bootstrap-password "$password" --bootstrap-region-id $region \
        --bootstrap-public-url "$keystone" --bootstrap-internal-url "$keystone" --bootstrap-admin-url "$keystone"
    touch "$dir/run/keystone.done"
fi
# serve NAME PORT MODULE PROCESSES THREADS
serve() {
    runs "$1" && return
    say "$1"
    start "$1" env HOME="$dir/home" uwsgi --http-socket "127.0.0.1:$2" --module "$3" --processes "$4" --threads "$5" --master \
        --enable-threads --lazy-apps --need-app --die-on-term --buffer-size 65535 --add-header 'Connection: close'
}
# With more than one thread it now and then refuses to create a trust.
serve keystone "$keystone_port" keystone.wsgi.api:application 3 1


# ---- Heat's accounts. Where its services are stands in Keystone's catalog.
if [ ! -e "$dir/run/accounts.done" ]; then
    until_so keystone 60 answers "$keystone_port"
    say "accounts"
    python "$here/accounts.py" "$keystone" "$password" $region "http://127.0.0.1:$api_port" "http://127.0.0.1:$cfn_port" \
        >"$dir/run/domain" 2>"$dir/log/accounts.out" || { tail "$dir/log/accounts.out" >&2; die "the accounts could not be made"; }
    touch "$dir/run/accounts.done"
fi

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
cat >"$dir/home/.heat/heat.conf" <<C
[DEFAULT]
log_dir = $dir/log
transport_url = rabbit://guest:guest@127.0.0.1:$amqp_port/
auth_encryption_key = 0123456789abcdef0123456789abcdef
region_name_for_services = $region
heat_metadata_server_url = http://127.0.0.1:$cfn_port
heat_waitcondition_server_url = http://127.0.0.1:$cfn_port/v1/waitcondition
stack_user_domain_id = $(cat "$dir/run/domain")
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
if [ ! -e "$dir/run/heat.done" ]; then
    say "heat's database"
    heat-manage --config-file "$dir/home/.heat/heat.conf" db_sync >"$dir/log/heat-manage.out" 2>&1 ||
        { tail "$dir/log/heat-manage.out" >&2; die "heat-manage db_sync failed"; }
    touch "$dir/run/heat.done"
fi
until_so rabbitmq 120 answers "$amqp_port"
if ! runs heat-engine; then
    say "heat-engine"
    start heat-engine env HOME="$dir/home" heat-engine --config-file "$dir/home/.heat/heat.conf"
fi
serve heat-api "$api_port" heat.wsgi.api:application 1 4
serve heat-api-cfn "$cfn_port" heat.wsgi.cfn:application 1 4
until_so heat-api-cfn 120 answers "$cfn_port"
until_so heat-api 120 python "$here/ready.py" "$keystone" "$password" "http://127.0.0.1:$api_port"
say "ready"
printf '{"keystone": "%s", "heat": "http://127.0.0.1:%s", "cfn": "http://127.0.0.1:%s", "user": "demo", "project": "demo", "password": "%s"}\n' \
    "$keystone" "$api_port" "$cfn_port" "$password"
