#!/bin/sh
# Times llama.cpp and this project side by side: results/cpu-peers.csv and .md.
#
#     tools/compare_llama.sh LLAMA_BENCH MODEL [ROUNDS]
#
# LLAMA_BENCH: llama.cpp's llama-bench. MODEL: a checkpoint's folder. Its GGUF files, in build/peers/,
# are read by both; this project's own formats have no counterpart and stand beside the GGUF type of
# about their size. Engines and types take turns, ROUNDS times (3), so that a neighbour or a warm
# processor favours none; medians count. Prefill of 512 tokens, decode of 128, all processors.
# --prepare in place of ROUNDS only writes the files.
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
bench=$1 model=$2 rounds=${3:-3}
name=$(basename "$model") threads=$(nproc)
types="F16 Q8_0 Q4_0 Q4_K_M" formats="int8 int4-g128"
mkdir -p build/peers
rows=$(mktemp build/peers/rows.XXXXXX)
trap 'rm -f "$rows" "$rows.csv" "$rows.json" results/cpu-peers.*.new' EXIT INT TERM

for type in $types; do
    file=build/peers/$name-$type.gguf
    [ -f "$file" ] || ./phase7 --quiet --no-eval --model "$model" --type "$type" --out "$file" >/dev/null
done
# shellcheck disable=SC2086
build/tools/bench_models --prepare "$model" $formats
[ "$rounds" != --prepare ] || exit 0

# llama FORMAT FILE: a row "llama.cpp,FORMAT,prefill,decode,0"
llama() {
    "$bench" -m "$2" -t "$threads" -p 512 -n 128 -r 1 -o jsonl >"$rows.json" 2>/dev/null
    sed -n 's/.*"avg_ts": \([0-9.]*\).*/\1/p' "$rows.json" | paste -sd, |
        sed "s/.*/llama.cpp,$1,&,0/" >>"$rows"
}

# ours FORMAT MODEL [NAME]: a row "nibble,FORMAT,prefill,decode,ceiling of decode"
ours() {
    label=$1
    shift
    rm -f "$rows.csv"
    build/tools/bench_models --brief --rounds 1 --csv "$rows.csv" "$@" >/dev/null
    awk -F, -v format="$label" '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
        NR == 2 { print "nibble," format "," $at["prefill_tps"] "," $at["decode_tps"] "," \
                      $at["decode_ceiling"] }' "$rows.csv" >>"$rows"
}

for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    for type in $types; do
        cat "build/peers/$name-$type.gguf" >/dev/null # into the page cache
        llama "$type" "build/peers/$name-$type.gguf"
        ours "$type" "build/peers/$name-$type.gguf"
    done
    for format in $formats; do
        ours "$format" "$model" "$format"
    done
done

awk -F, -v rounds="$rounds" '
function median(list,   x, n, i, j, t) {
    n = split(list, x, " ")
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && x[j - 1] + 0 > x[j] + 0; j--) { t = x[j]; x[j] = x[j - 1]; x[j - 1] = t }
    return n % 2 ? x[(n + 1) / 2] : (x[n / 2] + x[n / 2 + 1]) / 2
}
{
    key = $1 "," $2
    if (!(key in prefill)) order[++n] = key
    prefill[key] = prefill[key] " " $3
    decode[key] = decode[key] " " $4
    ceiling[key] = ceiling[key] " " $5
}
END {
    beside["int8"] = "Q8_0"
    beside["int4-g128"] = "Q4_0"
    print "engine,format,rounds,prefill_tps,decode_tps,decode_ceiling,beside,prefill_ratio,decode_ratio"
    for (i = 1; i <= n; i++) {
        split(order[i], part, ",")
        p = median(prefill[order[i]])
        d = median(decode[order[i]])
        printf "%s,%d,%.2f,%.3f,", order[i], rounds, p, d
        if (part[1] != "nibble") { print ",,,"; continue }
        peer = part[2] in beside ? beside[part[2]] : part[2]
        printf "%.3f,%s,%.3f,%.3f\n", median(ceiling[order[i]]), peer,
            p / median(prefill["llama.cpp," peer]), d / median(decode["llama.cpp," peer])
    }
}' "$rows" >results/cpu-peers.csv.new

{
    echo "Measured $(date -u +%Y-%m-%d) at commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    echo "on $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $threads threads: $name, $([ "$rounds" = 1 ] && echo "one round," || echo "medians of $rounds rounds,")"
    echo "in which both engines take turns; llama.cpp at commit $(
        sed -n '1s/.*"build_commit": "\([^"]*\)".*/\1/p' "$rows.json")."
    echo "Prefill of 512 tokens and decode of 128, tokens per second."
    echo
    echo "| Format | Beside | Prefill | llama.cpp | times | Decode | llama.cpp | times | of the ceiling |"
    echo "|:-------|:-------|--------:|----------:|------:|-------:|----------:|------:|---------------:|"
    awk -F, '
        $1 == "llama.cpp" { p[$2] = $4; d[$2] = $5 }
        $1 == "nibble" { printf "| %s | %s | %.0f | %.1f | %.2f | %.2f | %.2f | %.2f | %.0f %% |\n",
            $2, $7, $4, p[$7], $8, $5, d[$7], $9, 100 * $5 / $6 }' results/cpu-peers.csv.new
} >results/cpu-peers.md.new
mv results/cpu-peers.csv.new results/cpu-peers.csv
mv results/cpu-peers.md.new results/cpu-peers.md
echo results/cpu-peers.md
