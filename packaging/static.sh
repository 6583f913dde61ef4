#!/usr/bin/env bash
# Builds the agent as it ships: static, by musl, and small.
# usage: static.sh TARGET           builds; the program is TARGET/release/heat-salt-bootstrap below the directory that cargo builds in
#        static.sh --std            says which standard library that has: small (built with it) or plain (as it comes with the compiler)
#
# Most of what is saved comes from a standard library that is built for size, out of its source (the component rust-src). Where that
# cannot be had, the one that comes with the compiler does the same on 15 % more bytes. Cargo builds a standard library for a stable
# compiler only if RUSTC_BOOTSTRAP asks for it; nothing in the program itself is unstable.
set -euo pipefail
cd "$(dirname "$0")/.."

sysroot=$(rustc --print sysroot)
source_of_std=$sysroot/lib/rustlib/src/rust
std() {
    if [ "${STD:-small}" = small ] && [ -f "$source_of_std/library/Cargo.lock" ]; then echo small; else echo plain; fi
}
if [ "$1" = --std ]; then std; exit; fi
target=$1

if [ "${STD:-small}" = small ] && [ "$(std)" = plain ]; then
    if ! { command -v rustup >/dev/null && rustup component add rust-src; }; then
        echo "static.sh: there is no rust-src to be had: the program gets some 15 % larger" >&2
    fi
fi

built=${CARGO_TARGET_DIR:-target}
mkdir -p "$built"
built=$(realpath "$built")
# ring is partly C. For another machine than this one Debian's cross compiler does: that C needs headers and no library.
machine=${target%%-*}
if [ "$machine" = "$(uname -m)" ]; then cc=$(command -v musl-gcc || echo cc); else cc=$machine-linux-gnu-gcc; fi
# A distribution's hardening would make it call glibc's own functions.
plain_c=-U_FORTIFY_SOURCE

# A static program gains nothing from position independent code but its size, and nothing from tables for unwinding if it aborts.
# Whoever builds it has a home of another name: it does not stand in the program. Nor does the name of this directory stand among the flags,
# so that what is compiled here of crates is of use to another checkout.
flags=(
    -C relocation-model=static
    -C force-unwind-tables=no
    -C "link-arg=-Wl,-T,packaging/no-unwind-tables.ld"
    "--remap-path-prefix=$source_of_std=/rust"
    "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/crates"
)
# What rustup adds for a target brings musl with it. A distribution's own compiler does not: there musl-gcc has it (Debian's musl-tools).
# The unwinder is asked for by name, and nothing of it is used.
if [ -d "$sysroot/lib/rustlib/$target/lib" ]; then
    if [ "$machine" != "$(uname -m)" ]; then flags+=(-C "linker=$cc"); fi
else
    mkdir -p "$built/empty"
    ar crs "$built/empty/libunwind.a"
    flags+=(
        -C "linker=$cc"
        -C link-self-contained=no
        -C target-feature=+crt-static
        -L "native=$built/empty"
    )
fi
words=(build --release --locked --target "$target" --bin heat-salt-bootstrap)
if [ "$(std)" = small ]; then
    export RUSTC_BOOTSTRAP=1
    words+=(-Z "build-std=std,panic_abort" -Z build-std-features=optimize_for_size)
    # Before the library whose place it takes.
    "$cc" -Os $plain_c -c -o "$built/no-unwinding-$target.o" packaging/no-unwinding.c
    flags+=(-Z "pre-link-args=$(realpath --relative-to=. "$built")/no-unwinding-$target.o")
fi
name=${target//-/_}
encoded=$(printf '%s\x1f' "${flags[@]}")
env "CC_$name=$cc" "CFLAGS_$name=$plain_c" CARGO_ENCODED_RUSTFLAGS="${encoded%$'\x1f'}" cargo "${words[@]}"
