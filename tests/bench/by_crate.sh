#!/usr/bin/env bash
# Which crate how much of a program is made of: bytes of code and of data, as far as names tell. A function that the compiler made for
# several crates counts for the first one that its name has; what has been made one of several equal ones counts once.
# usage: by_crate.sh PROGRAM     that has its names still
set -euo pipefail

text=$(LC_ALL=C size --format=sysv --radix=10 "$1" | awk '$1 == ".text" { print $2 }')
nm --demangle --radix=d --print-size --numeric-sort "$1" | awk -v text="$text" '
    # Without a size it is a mark, and at the same address it is another name for the same.
    NF < 4 || $2 !~ /^[0-9]+$/ || $1 == last { next }
    {
        last = $1; bytes = $2 + 0; is_code = $3 ~ /^[tTwWi]$/
        name = $0
        sub(/^[0-9]+ [0-9]+ . /, "", name)
        # Whose value it drops says more than that it drops one.
        sub(/^core::ptr::drop_(in_place|glue)</, "", name)
        if (name ~ /^_?(ring_core|ecp_|aes|sha[0-9]|bn_|bssl|p256|fiat|x25519|gcm|vpaes|chacha|poly|mul|LIMBS)/) crate = "ring (C and assembler)"
        # A method of a type that no crate has.
        else if (name ~ /^<(&|mut |\[|\(|\*|str|bool|char|[iuf](8|16|32|64|128|size))[^:]*>::/) crate = "core"
        else if (match(name, /[a-z_][a-z_0-9]*::/)) crate = substr(name, RSTART, RLENGTH - 2)
        else crate = "(C)"
        if (is_code) code[crate] += bytes; else data[crate] += bytes
        seen[crate]
        if (is_code) all_code += bytes; else all_data += bytes
    }
    END {
        if (!all_code || !text) { print "by_crate.sh: it has no names any more" >"/dev/stderr"; exit 1 }
        for (crate in seen) printf "%9d %9d  %s\n", code[crate], data[crate], crate | "sort --key 1,1nr --key 2,2nr"
        close("sort --key 1,1nr --key 2,2nr")
        printf "%9d %9d  in all, of %d in .text (%.1f %%)\n", all_code, all_data, text, 100 * all_code / text
    }'
