#!/bin/sh
# How fast a checkpoint is quantized and what that loses, beside llama-quantize: the same file, the
# same types, the same number of threads, one after the other, in turns.
#   tools/bench_gguf.sh BIN NAME MODEL.gguf [TYPES [RUNS]]
# BIN is the folder with llama-quantize, NAME that of results/gguf/NAME.csv and .md (rows of other
# types stay there), MODEL a file in F16 (./phase7 --type F16 --no-eval writes one), TYPES as --type,
# RUNS of which the median counts (3). The environment: WORK, a folder for files of the model's size;
# THREADS; SEARCH=1, the error with --search too; RUNNER, a command that each measured one is run
# through (nice, taskset). Needs GNU time, and make tools.
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 3 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
bin=$1 name=$2 model=$3 runs=${5:-3}
types=${4:-Q8_0,Q6_K,Q5_K_M,Q5_1,Q5_0,Q4_K_M,Q4_1,IQ4_NL,IQ4_XS,Q4_0,MXFP4,Q3_K_M,Q2_K}
threads=${THREADS:-$(nproc)} csv=results/gguf/$name.csv
work=$(mktemp -d "${WORK:-${TMPDIR:-/tmp}}/bench_gguf.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM

# Runs a command; a line with its seconds and peak kilobytes is added to a file.
timed() {
    to=$1
    shift
    ${RUNNER:-} env time -a -o "$to" -f "%e %M" "$@" >"$work/log" 2>&1 ||
        { tail -2 "$work/log" >&2; exit 1; }
}
median() { sort -n "$1" | awk '{ t[NR] = $1 } END { print t[int((NR + 1) / 2)] }'; }
peak() { awk '$2 > p { p = $2 } END { printf "%.0f", p * 1024 }' "$1"; }
nmse() {
    build/tools/gguf_error "$model" "$1" >"$work/nmse"
    awk -F, '{ print $3 }' "$work/nmse"
}
# By itself llama-quantize has MXFP4 for experts only, and Q8_0 for all matrices of a dense model.
theirs() {
    rm -f "$work/b.gguf"
    case $1 in
    MXFP4) set -- --tensor-type 'blk\..*=mxfp4' "$model" "$work/b.gguf" MXFP4_MOE ;;
    *) set -- "$model" "$work/b.gguf" "$1" ;;
    esac
    timed "$work/llama" "$bin/llama-quantize" "$@" "$threads"
}
ours() {
    rm -f "$work/a.gguf"
    ./phase7 --quiet --no-eval --model "$model" --threads "$threads" --out "$work/a.gguf" "$@"
}

mkdir -p results/gguf
header=type,runs,seconds,llama_seconds,speedup,file_bytes,peak_rss_bytes,llama_peak_rss_bytes
header=$header,nmse,llama_nmse,search_nmse
for type in $(echo "$types" | tr ',' ' '); do
    cat "$model" >/dev/null # into the page cache
    for run in $(seq "$runs"); do
        rm -f "$work/a.gguf"
        theirs "$type"
        timed "$work/ours" ./phase7 --quiet --no-eval --model "$model" --threads "$threads" \
            --out "$work/a.gguf" --type "$type"
    done
    a=$(median "$work/ours") b=$(median "$work/llama")
    row=$type,$runs,$a,$b,$(awk "BEGIN { printf \"%.3f\", $b / $a }"),$(wc -c <"$work/a.gguf"),$(
        peak "$work/ours"),$(peak "$work/llama")
    # One by one: of several substitutions, set -e sees the last.
    error=$(nmse "$work/a.gguf")
    row=$row,$error
    error=$(nmse "$work/b.gguf")
    row=$row,$error
    [ -z "${SEARCH:-}" ] || ours --type "$type" --search >/dev/null
    error=${SEARCH:+$(nmse "$work/a.gguf")}
    row=$row,$error
    touch "$csv"
    { echo "$header" && awk -F, -v type="$type" 'NR > 1 && $1 != type' "$csv" && echo "$row"; } \
        >"$work/csv"
    mv "$work/csv" "$csv"
    echo "$row" >&2
    rm -f "$work/ours" "$work/llama"
done

{
    echo "Measured $(date -u +%Y-%m-%d) at commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    echo "on $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $threads threads: a file of"
    echo "$(wc -c <"$model" | awk '{ printf "%.2f", $1 / 1e9 }') GB in F16, in the page cache, quantized by \`./phase7 --no-eval\` and by llama-quantize"
    echo "in turns; medians. Ours includes measuring the error, reading back and waiting for the disk."
    echo
    echo "| Type | File, MB | Runs | Seconds | llama-quantize | times as fast | Peak, MB | llama's, MB | NMSE | llama's NMSE | NMSE, --search |"
    echo "|:-----|---------:|-----:|--------:|---------------:|--------------:|---------:|------------:|-----:|-------------:|---------------:|"
    awk -F, 'NR > 1 {
        printf "| %s | %.0f | %d | %.2f | %.2f | %.2f | %.0f | %.0f | %.4g | %.4g | %s |\n", $1,
            $6 / 1e6, $2, $3, $4, $5, $7 / 1e6, $8 / 1e6, $9, $10,
            $11 == "" ? "–" : sprintf("%.4g", $11) }' "$csv"
} >"$work/md"
mv "$work/md" "results/gguf/$name.md"
cat "results/gguf/$name.md"
