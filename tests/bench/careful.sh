#!/usr/bin/env bash
# The same bootstrap as a careful author writes it without the agent: every call checked, every wait a loop with a
# limit and a second's sleep, no secret on a command line. It is what `lab bench` compares the agent with.
#
# The minion is installed and configured (a drop-in below MINION_ETC); this starts it, gets its key accepted, waits
# until it answers, fires the hook and waits for the job's result. Exits with the result's retcode.
#
# env: API_URL, API_CA (a file), API_USER, API_PASSWORD, API_EAUTH, HOOK, STATES, MINION_ID, MINION_PROGRAM, MINION_ETC
set -euo pipefail

give_up=$((SECONDS + 90))

# call PATH [CURL-OPTION...]: a request to salt-api; prints the answer.
call() {
    local path=$1
    shift
    curl --silent --show-error --fail --cacert "$API_CA" --max-time 30 --retry 3 \
        --header 'Accept: application/json' --header 'Content-Type: application/json' \
        --config - "$@" "$API_URL$path" <<<"${token:+header = \"X-Auth-Token: $token\"}"
}

# low CALL: runs one function of Salt's through the API.
low() {
    call / --data "[$1]"
}

# pause WHAT: a second's wait for something, as long as there is time.
pause() {
    if ((SECONDS >= give_up)); then
        echo "gave up waiting for $1" >&2
        exit 1
    fi
    sleep 1
}

accepted() {
    low "$(jq --null-input --arg id "$MINION_ID" '{client: "wheel", fun: "key.accept", match: $id}')" |
        jq --exit-status --arg id "$MINION_ID" '.return[0].data.return.minions // [] | index($id) != null' >/dev/null
}

answers() {
    low "$(jq --null-input --arg id "$MINION_ID" '{client: "local", fun: "test.ping", tgt: $id, timeout: 2}')" |
        jq --exit-status --arg id "$MINION_ID" '.return[0][$id] == true' >/dev/null
}

job_known() {
    jid=$(low "$(jq --null-input --arg id "$bootstrap_id" \
        '{client: "runner", fun: "jobs.list_jobs", search_metadata: {bootstrap_id: $id}}')" |
        jq --exit-status --raw-output '.return[0] | keys[0] // empty')
}

job_ended() {
    retcode=$(call "/jobs/$jid" | jq --exit-status --arg id "$MINION_ID" '.info[0].Result[$id].retcode')
}

"$MINION_PROGRAM" -d -c "$MINION_ETC"

token=
token=$(jq --null-input '{username: env.API_USER, password: env.API_PASSWORD, eauth: env.API_EAUTH}' |
    curl --silent --show-error --fail --cacert "$API_CA" --max-time 30 --retry 3 \
        --header 'Accept: application/json' --header 'Content-Type: application/json' \
        --data @- "$API_URL/login" |
    jq --exit-status --raw-output '.return[0].token')

until accepted; do pause "the key of $MINION_ID"; done
until answers; do pause "$MINION_ID to answer"; done

bootstrap_id=$(cat /proc/sys/kernel/random/uuid)
call "/hook/$HOOK" --data "$(jq --null-input --arg bootstrap_id "$bootstrap_id" \
    '{tgt: env.MINION_ID, tgt_type: "list", matcher: "list", args: env.STATES, $bootstrap_id}')" >/dev/null

until job_known; do pause "the job"; done
until job_ended; do pause "the result of job $jid"; done
exit "$retcode"
