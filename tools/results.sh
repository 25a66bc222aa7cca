#!/bin/sh
# Regenerates results/ on this machine: the bundled model's tables, rows and figures, and, if `make
# synth` has written it, the 3 B-shaped checkpoint's sizes and speeds.
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

for phase in phase1 phase2 phase3; do
    run $phase results/bundled --bench --questions 300 --prompt "$prompt" --max-tokens 40
done
run phase4 results/bundled --choices none
run phase5 results/bundled --choices none
run phase7 results/bundled --type Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q4_K_S,Q4_0,IQ4_XS,Q2_K --limit 8192 \
    --choices none --bench --out build/gguf/
build/tools/figures data/model results/bundled
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
