#!/bin/sh
# Regenerates results/ on this machine: the bundled model's tables, rows and figures; where they are,
# those of the model of books in $NIBBLE_SHARED, and the times and sizes of the synthetic checkpoints
# that `make synth` writes. `tools/results.sh kernels ladder peers` makes only the parts that are named.
set -eu
trap 'rm -f results/*/*.md.new results/cpu-*.new results/cpu-*.new.csv' EXIT
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

# What the model answers; and, where `make train` left its snapshots, how it came to that.
training() {
    models=data/model
    [ ! -d data/train/first/step-3200 ] || models="data/train/first/step-3200 data/train/first $models"
    # shellcheck disable=SC2086
    { header "build/tools/question_kinds data/choices.jsonl $models" &&
        build/tools/question_kinds data/choices.jsonl $models; } >results/bundled/questions.md.new
    mv results/bundled/questions.md.new results/bundled/questions.md
    echo results/bundled/questions.md
    [ -d data/train/first ] && [ -d data/train/model ] || return 0 # without outliers
    rm -f build/training.csv
    for model in $(ls -d data/train/first/step-* | sort -t- -k2 -n) data/train/first \
        $(ls -d data/train/model/step-* | sort -t- -k2 -n) data/train/model; do
        ./phase1 --model "$model" --limit 16384 --choices data/choices.jsonl --prompt "$prompt" \
            --max-tokens 60 --csv build/training.csv
    done
    build/tools/training_figures results/train-first.csv results/train.csv build/training.csv \
        data/model data/eval.txt results/bundled
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

# A table of what matters of the kernels' rows: one shape, and a line for each format.
kernels() {
    build/tools/bench_kernels --csv results/cpu-kernels.new.csv >/dev/null
    {
        header build/tools/bench_kernels
        awk -F, '
            $1 == "limit" {
                rate = $7 > 0 ? sprintf("%.1f GB/s", $7) : sprintf("%.0f Gop/s", $8)
                printf "%s%s %s", limits++ ? ", " : "", $4, rate
            }
            $1 == "attention" {
                rows[++attentions] = sprintf("| %s | %d | %s | %.0f | %.1f (%.0f %%) | %.0f (%.0f %%) |",
                    $4, $3, $2, $5, $7, 100 * $9, $8, 100 * $10)
            }
            $1 == "quantize" {
                quantized = quantized sprintf("%s%s %.0f µs, %.1f GB/s (%.0f %%)",
                    quantized ? "; " : "", $2, $5, $7, 100 * $9)
            }
            $4 != "11008 x 2048" { next }
            !($2 in seen) { seen[$2] = 1; order[++n] = $2 }
            {
                cell = $2 " " ($1 == "tiles" ? "tiles" : $3 == 512 ? "many" : "few") " " $3
                gb[cell] = sprintf("%.1f (%.0f %%)", $7, 100 * $9)
                gop[cell] = sprintf("%.0f (%.0f %%)", $8, 100 * $10)
            }
            function show(cells, name) { printf " %s |", name in cells ? cells[name] : "–" }
            END {
                print ". Products of 11008 × 2048, GB/s of weights (share of the read bandwidth) for"
                print "a few tokens and Gop/s (share of the peak) for many:"
                print ""
                print "| Format | M = 1 | M = 4 | M = 16 | M = 512 | M = 512, bfloat16 tiles |"
                print "|:-------|------:|------:|-------:|--------:|------------------------:|"
                for (i = 1; i <= n; i++) {
                    printf "| %s |", order[i]
                    show(gb, order[i] " few 1")
                    show(gb, order[i] " few 4")
                    show(gb, order[i] (order[i] ~ /F16/ ? " tiles 16" : " few 16"))
                    show(gop, order[i] " many 512")
                    show(gop, order[i] " tiles 512")
                    print ""
                }
                if (!attentions) exit
                print ""
                print "512 tokens of 11008 to int8, GB/s of what is read: " quantized "."
                print ""
                print "Attention: GB/s of keys and values, Gop/s (share of the peak of what it is made in):"
                print ""
                print "| Query/key heads | M | Made in | µs | GB/s | Gop/s |"
                print "|:----------------|--:|:--------|---:|-----:|------:|"
                for (i = 1; i <= attentions; i++) print rows[i]
            }' results/cpu-kernels.new.csv
    } >results/cpu-kernels.md.new
    mv results/cpu-kernels.new.csv results/cpu-kernels.csv
    mv results/cpu-kernels.md.new results/cpu-kernels.md
    echo results/cpu-kernels.md
}

# What the kernels' rounding of activations changes, apart from the formats' own errors.
kernel_error() {
    status=0
    set -- data/model data/eval.txt 32768 int8 int8-g128 int4-g128 int4-g32 int4-g128-zp nf4 q8_0 \
        q4_0 q4_1 q5_0 q4_k q5_k q6_k iq4_nl
    header "build/tools/kernel_error $*" >results/bundled/kernel-error.md.new
    build/tools/kernel_error "$@" >>results/bundled/kernel-error.md.new || status=$?
    mv results/bundled/kernel-error.md.new results/bundled/kernel-error.md
    echo results/bundled/kernel-error.md
    return $status
}

# The steps from unpacking everything to the kernel that models run on.
ladder() {
    run_as ladder phase3 results/machine --bench --ladder
}

# Formats that take turns: together their files fit in the memory that the system reads files into.
models_of() {
    build/tools/bench_models --rounds "${ROUNDS:-3}" --csv results/cpu-models.new.csv "$@"
}

# Whole models, in $ROUNDS rounds; k-quants need rows of 256.
models() {
    rm -f results/cpu-models.new.csv
    {
        header build/tools/bench_models
        for shape in qwen2.5-3b qwen2.5-0.5b; do
            [ -d data/synth/$shape ] || continue
            models_of data/synth/$shape keep int8 int4-g128
            echo
            if [ $shape = qwen2.5-3b ]; then
                models_of data/synth/$shape q8_0 q4_0 q4_k q6_k
            else
                models_of data/synth/$shape q8_0 q4_0
            fi
            echo
        done
        models_of --name bundled data/model keep int8 int4-g128 q8_0 q4_0
    } >results/cpu-models.md.new
    mv results/cpu-models.new.csv results/cpu-models.csv
    mv results/cpu-models.md.new results/cpu-models.md
    echo results/cpu-models.md
}

# Beside llama.cpp, where $LLAMA_BENCH is its llama-bench.
peers() {
    [ -n "${LLAMA_BENCH:-}" ] && [ -d data/synth/qwen2.5-3b ] || return 0
    tools/compare_llama.sh "$LLAMA_BENCH" data/synth/qwen2.5-3b "${ROUNDS:-3}"
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
training
machine
kernels
kernel_error
ladder
models
peers
demo

if [ -d data/synth/qwen2.5-3b ]; then # all rows of the three phases are in phase 3's table
    run phase3 results/qwen2.5-3b-shape --model data/synth/qwen2.5-3b --limit 512 --ctx 512
fi
