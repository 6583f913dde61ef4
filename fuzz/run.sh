#!/usr/bin/env bash
# Throws inputs at everything that reads what others say: first those that are kept, then new ones.
# usage: run.sh SECONDS [TARGET...]     all targets if none is named; two at a time; for 0 s only what is kept
# env:   HSB_ALL    1 for libFuzzer where nothing new is looked for, too: what takes minutes to build tries each input once
#
# The compiler is the stable one: the flags are those that cargo-fuzz gives a nightly one, without its sanitizers. New inputs that reach
# new code are kept in target/fuzz/corpus; what is worth keeping for good belongs in fuzz/corpus/TARGET.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1
shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then mapfile -t targets < <(basename --suffix .rs fuzz/fuzz_targets/*.rs); fi

built=${CARGO_TARGET_DIR:-target}/fuzz
mkdir -p "$built/log" "$built/found"
built=$(realpath "$built")
# build CARGO-ARGUMENT...
build() { cargo build --quiet --locked --manifest-path fuzz/Cargo.toml "$@" "${targets[@]/#/--bin=}"; }

replay=
if [ "$seconds" = 0 ] && [ -z "${HSB_ALL:-}" ]; then
    replay=1
    # In the directory of all other builds: most of what this one needs is there.
    build --no-default-features --target-dir "$(dirname "$built")"
    programs=$(dirname "$built")/debug
else
    flags=(-C passes=sancov-module --cfg fuzzing -C codegen-units=1)
    for flag in level=4 inline-8bit-counters pc-table trace-compares; do flags+=(-C "llvm-args=-sanitizer-coverage-$flag"); done
    encoded=$(printf '%s\x1f' "${flags[@]}")
    host=$(rustc --version --verbose | sed -n 's/^host: //p')
    CARGO_ENCODED_RUSTFLAGS="${encoded%$'\x1f'}" build --release --target "$host" --target-dir "$built"
    programs=$built/$host/release
fi

# The recorded files of the tests are seeds too.
declare -A recorded=([job]=tests/data/jobs [salt_api]=tests/data/api [keys]=tests/data/api)

# one TARGET: says nothing unless something is found.
one() {
    local target=$1 program=$programs/$1 log=$built/log/$1 corpora=("$built/corpus/$1")
    mkdir -p "${corpora[0]}"
    for dir in "fuzz/corpus/$target" ${recorded[$target]:+"${recorded[$target]}"}; do
        if [ -d "$dir" ]; then corpora+=("$dir"); fi
    done
    local limits=(-timeout=10 -rss_limit_mb=2048 -max_len=65536 "-artifact_prefix=$built/found/$target-")
    if [ -n "$replay" ]; then
        if RUST_BACKTRACE=0 timeout --kill-after=5 60 "$program" "${corpora[@]}" >"$log" 2>&1; then return; fi
        # There is no such line where time or memory was up.
        sed -n '/^FAILED /p' "$log" >&2
        tail -n 20 "$log" >&2
        echo "fuzz: $target: an input that is kept fails" >&2
        return 1
    fi
    # Without a limit of time it would go on for ever.
    if "$program" "${limits[@]}" -runs=0 -print_final_stats=1 "${corpora[@]}" >"$log" 2>&1 &&
        { [ "$seconds" = 0 ] || "$program" "${limits[@]}" "-max_total_time=$seconds" -print_final_stats=1 "${corpora[@]}" >>"$log" 2>&1; }; then
        return
    fi
    tail -n 40 "$log" >&2
    echo "fuzz: $target: a finding; once more: $program $built/found/$target-..." >&2
    return 1
}

failed=0
running=()
# What was begun first is waited for first; all of them take the same time.
for target in "${targets[@]}"; do
    one "$target" &
    running+=($!)
    if [ ${#running[@]} = 2 ]; then
        wait "${running[0]}" || failed=1
        running=("${running[1]}")
    fi
done
for pid in "${running[@]}"; do wait "$pid" || failed=1; done

total=0
for target in "${targets[@]}"; do
    tried=$(sed -n 's/^stat::number_of_executed_units: *//p' "$built/log/$target" | tail -n 1)
    printf 'fuzz: %-12s %10s inputs\n' "$target" "${tried:-?}"
    total=$((total + ${tried:-0}))
done
echo "fuzz: $total inputs in all, $seconds s for each of ${#targets[@]} targets"
exit $failed
