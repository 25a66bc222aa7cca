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
    mkdir -p "$folder"
    rm -f "$folder/$phase.csv"
    shown=""
    for word in "$@"; do
        case $word in *' '*) shown="$shown '$word'" ;; *) shown="$shown $word" ;; esac
    done
    { header "./$phase$shown" && "./$phase" --csv "$folder/$phase.csv" "$@"; } >"$folder/$phase.md.new"
    mv "$folder/$phase.md.new" "$folder/$phase.md"
    echo "$folder/$phase.md"
}

baseline() {
    for phase in phase1 phase2 phase3; do
        run $phase results/bundled --bench --questions 300 --prompt "$prompt" --max-tokens 40
    done
    build/tools/figures data/model results/bundled
}

sensitivity() {
    run phase4 results/bundled --choices none
    if [ -d data/synth/qwen2.5-0.5b ]; then # random weights: only what the analysis takes counts
        out=results/qwen2.5-0.5b-shape
        mkdir -p $out
        set -- --model data/synth/qwen2.5-0.5b --limit 512 --choices none
        ./phase4 "$@" --lbl-dump-dir build/analysis >/dev/null
        { header "./phase4 $*" && cat build/analysis/lbl_cost.md; } >$out/phase4.md
        echo $out/phase4.md
    fi
}

# The original study's second table, and what else its bytes can do; then the bytes of INT4, whose
# reports replace those of the first.
mixes_of() {
    folder=$1
    shift
    run phase5 "$folder" "$@" --base nf4 --keep 1 --bits 4.5 --mixes 0 --sweep 0
    mv "$folder/phase5.md" "$folder/restored.md"
    mv "$folder/phase5.csv" "$folder/restored.csv"
    run phase5 "$folder" "$@"
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

if [ $# -gt 0 ]; then
    for part in "$@"; do
        "$part"
    done
    exit
fi
baseline
sensitivity
mixed
if [ -d data/train/model ]; then # what `make train` left: its snapshots, without outliers
    rm -f build/training.csv
    for model in $(ls -d data/train/model/step-* | sort -t- -k2 -n) data/train/model; do
        ./phase1 --model "$model" --limit 16384 --choices data/choices.jsonl --prompt "$prompt" \
            --max-tokens 60 --csv build/training.csv
    done
    build/tools/training_figures results/train.csv build/training.csv data/model data/eval.txt \
        results/bundled
fi
run phase1 results/machine --limits
make -s demo >results/bundled/demo.md || true # it compares with the figures this replaces
cp build/demo/phase3.csv results/bundled/demo.csv

if [ -d data/synth/qwen2.5-3b ]; then # all rows of the three phases are in phase 3's table
    run phase3 results/qwen2.5-3b-shape --model data/synth/qwen2.5-3b --limit 512 --ctx 512
fi
