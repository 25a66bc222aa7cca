#!/bin/sh
# Regenerates results/ on this machine: the bundled model's tables, rows and figures; where they are,
# those of the model of books in $NIBBLE_SHARED, and the times and sizes of the synthetic checkpoints
# that `make synth` writes. `tools/results.sh mixed …` makes only the parts that are named.
set -eu
trap 'rm -f results/*/*.md.new' EXIT
cd "$(dirname "$0")/.."
prompt="Victor was given eight figs at the post office."

header() {
    echo "Measured $(date -u +%Y-%m-%d) at commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    echo "on $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores, with"
    echo "\`$1\`."
    echo
}

# run PHASE FOLDER ARGS…: the table to FOLDER/PHASE.md, the rows to FOLDER/PHASE.csv
run() {
    phase=$1 folder=$2
    shift 2
    run_as "$phase" "$phase" "$folder" "$@"
}

# run_as NAME PHASE FOLDER ARGS…: the same to FOLDER/NAME.md and .csv
run_as() {
    name=$1 phase=$2 folder=$3
    shift 3
    mkdir -p "$folder"
    rm -f "$folder/$name.csv"
    shown=""
    for word in "$@"; do
        case $word in *' '*) shown="$shown '$word'" ;; *) shown="$shown $word" ;; esac
    done
    { header "./$phase$shown" && "./$phase" --csv "$folder/$name.csv" "$@"; } >"$folder/$name.md.new"
    mv "$folder/$name.md.new" "$folder/$name.md"
    echo "$folder/$name.md"
}

baseline() {
    for phase in phase1 phase2 phase3; do
        run $phase results/bundled --bench --questions 300 --prompt "$prompt" --max-tokens 40
    done
    build/tools/figures data/model results/bundled
}

sensitivity() {
    run phase4 results/bundled --choices none --lbl-dump-dir results/bundled
}

# What the analysis takes where there are 24 layers; the weights are random, nothing else counts.
analysis() {
    out=results/qwen2.5-0.5b-shape
    [ -d data/synth/qwen2.5-0.5b ] || return 0
    mkdir -p $out
    set -- --model data/synth/qwen2.5-0.5b --probe 128 --limit 512 --choices none
    ./phase4 "$@" --lbl-dump-dir build/analysis >/dev/null
    { header "./phase4 $*" && cat build/analysis/lbl_cost.md; } >$out/phase4.md
    echo $out/phase4.md
}

# The original study's second table, and what else its bytes can do; then the bytes of INT4, whose
# reports replace those of the first.
mixes_of() {
    folder=$1
    shift
    set -- "$@" --lbl-dump-dir "$folder"
    run_as restored phase5 "$folder" "$@" --base nf4 --keep 1 --bits 4.5 --mixes 0
    run phase5 "$folder" "$@" --sweep 0.25
}

mixed() {
    shared=${NIBBLE_SHARED:-../shared}/data
    mixes_of results/bundled --choices none
    if [ -d "$shared/models/books-qwen2" ]; then
        mixes_of results/books-qwen2 --choices none --model "$shared/models/books-qwen2" \
            --ctx 256 --calib "$shared/text/books-calib.txt" \
            --text "$shared/text/books-eval.txt" --limit 32768
    fi
}

gguf() {
    rm -rf build/gguf
    run phase7 results/bundled --type Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q4_K_S,Q4_0,IQ4_XS,Q2_K --limit 8192 \
        --choices none --bench --out build/gguf/
}

demo() { # it compares with the figures this replaces
    make -s demo >results/bundled/demo.md || true
    cp build/demo/phase3.csv results/bundled/demo.csv
}

machine() {
    run phase1 results/machine --limits
    { header build/tools/bench_train && build/tools/bench_train; } >results/machine/training.md.new
    mv results/machine/training.md.new results/machine/training.md
    echo results/machine/training.md
}

if [ $# -gt 0 ]; then
    for part in "$@"; do
        "$part"
    done
    exit
fi
baseline
sensitivity
analysis
mixed
gguf
if [ -d data/train/model ]; then # what `make train` left: its snapshots, without outliers
    rm -f build/training.csv
    for model in $(ls -d data/train/model/step-* | sort -t- -k2 -n) data/train/model; do
        ./phase1 --model "$model" --limit 16384 --choices data/choices.jsonl --prompt "$prompt" \
            --max-tokens 60 --csv build/training.csv
    done
    build/tools/training_figures results/train.csv build/training.csv data/model data/eval.txt \
        results/bundled
fi
machine
demo

if [ -d data/synth/qwen2.5-3b ]; then # all rows of the three phases are in phase 3's table
    run phase3 results/qwen2.5-3b-shape --model data/synth/qwen2.5-3b --limit 512 --ctx 512
fi
