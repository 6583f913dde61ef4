# Completion of heat-bootstrap for bash; manual.py has written it.
_heat_bootstrap() {
    local path="" words="" each
    for each in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$path $each" in
        " token"|" token create"|" token list"|" token revoke"|" audit"|" fleet"|" forget"|" prune"|" doctor") path="$path $each" ;;
        esac
    done
    case $path in
    "") words="token audit fleet forget prune doctor -h --help --version -c --config-dir" ;;
    " token") words="create list revoke -h --help" ;;
    " token create") words="-h --help --states --uses --expires --rebuild --deregister --pin" ;;
    " token list") words="-h --help --json" ;;
    " token revoke") words="-h --help" ;;
    " audit") words="-h --help --count --json" ;;
    " fleet") words="-h --help --failed --since --json --watch --html" ;;
    " forget") words="-h --help" ;;
    " prune") words="-h --help --older --gone --dry-run" ;;
    " doctor") words="-h --help --json" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}")
}
complete -o default -F _heat_bootstrap heat-bootstrap
