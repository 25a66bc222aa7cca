#!/bin/sh
# Our GGUF files judged by others: of each type, perplexity and KL divergence as we measure them of
# the file, and as llama.cpp's own tool says of the same file; 64 tokens of greedy text; and what the
# gguf Python package reads (judge_gguf.py).
#   tools/judge_gguf.sh BIN NAME MODEL TEXT [CHUNKS [TYPES]]
# BIN is the folder with llama-perplexity and llama-completion, NAME that of results/gguf/NAME.csv and
# .md, MODEL a checkpoint ("": the bundled one), CHUNKS windows of CTX tokens (24), TYPES as --type.
# CTX (512), PROMPT, THREADS and PYTHON, an interpreter that has the package, come from the
# environment. Fails if a perplexity differs by more than 0.5 %, greedy text at all, or the package
# finds anything else. The bundled model:
#   PYTHON=python3 tools/judge_gguf.sh BIN bundled "" data/eval.txt
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 4 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
bin=$1 name=$2 model=$3 text=$4 chunks=${5:-24}
types=${6:-F32,F16,BF16,Q8_0,Q6_K,Q5_K_M,Q5_K_S,Q5_1,Q5_0,Q4_K_M,Q4_K_S,Q4_1,IQ4_NL,IQ4_XS,Q4_0,MXFP4,Q3_K_L,Q3_K_M,Q3_K_S,Q2_K}
ctx=${CTX:-512} threads=${THREADS:-$(nproc)} prompt=${PROMPT:-Once upon a time}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

./phase7 ${model:+--model "$model"} --type "F32,$types" --out "$work/files/" --text "$text" \
    --ppl-mode half --ctx "$ctx" --limit $((chunks * ctx)) --choices none --threads "$threads" --bench \
    --csv "$work/ours.csv" --quiet >/dev/null 2>"$work/log" || { cat "$work/log" >&2; exit 1; }

# column NAME of the row CONFIG
ours() {
    awk -F, -v row="$1" -v want="$2" '
        NR == 1 { for (i = 1; i <= NF; i++) { if ($i == want) col = i; if ($i == "config") key = i } }
        $key == row { print $col }' "$work/ours.csv" | tail -1
}
file_of() { ls "$work"/files/*-"$1".gguf; }

# Runs llama-perplexity until LAST is in what it says: its last lines are lost now and then.
# --no-repack: its plain kernels, which every CPU has.
perplexity() {
    log=$1 last=$2
    shift 2
    for try in 1 2 3 4 5 6 7 8; do
        "$bin/llama-perplexity" -c "$ctx" -b "$ctx" -t "$threads" --no-repack \
            --kl-divergence-base "$work/base" "$@" >"$work/$log" 2>&1 ||
            { echo "llama-perplexity failed: $(tail -1 "$work/$log")" >&2; exit 1; }
        if grep -q "$last" "$work/$log"; then return; fi
    done
    echo "llama-perplexity does not say '$last' ($try times)" >&2
    exit 1
}
perplexity base.log "Final estimate" -m "$(file_of F32)" -f "$text" --chunks "$chunks"

mkdir -p results/gguf
csv=results/gguf/$name.csv
header=type,file_bytes,bits_per_weight,ppl,llama_ppl,ppl_difference,kld,llama_kld,top1,llama_top1
echo "$header,prefill_tps,decode_tps" >"$csv"
for type in $(echo "$types" | tr ',' ' '); do
    perplexity "$type.log" "Same top p:" -m "$(file_of "$type")" --kl-divergence
    ppl=$(awk '/Mean PPL\(Q\) / { print $4 }' "$work/$type.log")
    kld=$(awk '/Mean    KLD:/ { print $3 }' "$work/$type.log")
    top=$(awk '/Same top p:/ { print $4 / 100 }' "$work/$type.log")
    echo "$type,$(ours "$type" file_bytes),$(ours "$type" bits_per_weight),$(ours "$type" ppl),$ppl,$(
        awk -v a="$(ours "$type" ppl)" -v b="$ppl" 'BEGIN { printf "%.6f", a / b - 1 }'),$(
        ours "$type" kld_mean),$kld,$(ours "$type" top1_agree),$top,$(ours "$type" prefill_tps),$(
        ours "$type" decode_tps)" >>"$csv"
    tail -1 "$csv" >&2
done

# Greedy text, where nothing is rounded on the way. llama-completion's end is lost now and then, too:
# it is asked again while what it says is only the beginning of ours.
greedy() {
    file=$(file_of "$1")
    ./phase1 --model "$file" --text "$text" --limit 64 --choices none --quiet --prompt "$prompt" \
        --max-tokens 64 --json "$work/json" >/dev/null 2>&1
    text_key='s/.*"text":[[:space:]]*"\(.*\)"[,}[:space:]]*$/\1/p'
    sed -n "$text_key" "$work/json" | tail -1 | sed 's/\\"/"/g' >"$work/b"
    printf '%b\n' "$(cat "$work/b")" >"$work/c"
    ours=$(tr -d ' \n' <"$work/c")
    for try in 1 2 3 4 5 6 7 8; do
        "$bin/llama-completion" -m "$file" -p "$prompt" -n 64 --temp 0 -no-cnv --no-display-prompt \
            --no-repack -t "$threads" 2>/dev/null </dev/null |
            sed 's/ *\[end of text\] *$//' >"$work/a"
        theirs=$(tr -d ' \n' <"$work/a")
        case "$ours" in "$theirs") break ;; "$theirs"*) ;; *) break ;; esac
    done
    if [ -n "$ours" ] && [ "$ours" = "$theirs" ]; then
        echo "$1: 64 greedy tokens after \"$prompt\" are the same as llama.cpp's."
    else
        echo "$1: greedy text differs: ours \"$(cat "$work/c")\", llama.cpp's \"$(cat "$work/a")\"."
        echo "greedy text of $1" >>"$work/failed"
    fi
}

# The largest difference of two perplexities, in percent; 100 where one is no number.
largest() {
    awk -F, 'NR > 1 { d = $6 !~ /^-?[0-9.]+$/ ? 1 : $6 < 0 ? -$6 : $6; if (d > most) most = d }
        END { printf "%.3f", 100 * most }' "$csv"
}

{
    echo "Measured $(date -u +%Y-%m-%d) at commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    echo "on $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $threads threads:"
    echo "$chunks windows of $ctx tokens of \`$(basename "$text")\`, the second half of each scored."
    echo "\"llama\" is what llama-perplexity says of the same file. KL divergence is against the F32 file."
    echo "llama.cpp rounds activations to 8 bits where weights are quantized (to BF16 where they are"
    echo "BF16), which adds to its divergence what the Q8_0 row shows; we multiply in float32."
    echo
    echo "| Type | File, MB | Bits/weight | PPL | llama PPL | difference | KLD | llama KLD | Top-1 | llama top-1 | Prefill t/s | Decode t/s |"
    echo "|:-----|---------:|------------:|----:|----------:|-----------:|----:|----------:|------:|------------:|------------:|-----------:|"
    awk -F, 'NR > 1 { printf "| %s | %.2f | %.3f | %.4f | %.4f | %+.3f %% | %.5f | %.5f | %.1f %% | %.1f %% | %.0f | %.0f |\n",
        $1, $2 / 1e6, $3, $4, $5, 100 * $6, $7, $8, 100 * $9, 100 * $10, $11, $12 }' "$csv"
    echo
    echo "The two perplexities of a file differ by at most $(largest) %."
    largest | awk '{ exit !($1 > 0.5) }' && echo "perplexity" >>"$work/failed"
    greedy F32
    case ",$types," in *,F16,*) greedy F16 ;; esac
    if [ -n "${PYTHON:-}" ]; then
        "$PYTHON" tools/judge_gguf.py "$(file_of F32)" "$work"/files/*.gguf ||
            echo "the gguf package" >>"$work/failed"
    fi
} >"$work/md"
mv "$work/md" "results/gguf/$name.md"
cat "results/gguf/$name.md"
if [ -e "$work/failed" ]; then
    echo "judge_gguf: not as expected: $(tr '\n' ' ' <"$work/failed")" >&2
    exit 1
fi
