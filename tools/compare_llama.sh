#!/bin/sh
# Times llama.cpp and this project on the same shape, interleaved, and prints both:
#
#     tools/compare_llama.sh LLAMA_BENCH MODEL.gguf FOLDER FORMAT [ROUNDS]
#
# LLAMA_BENCH: llama.cpp's llama-bench. MODEL.gguf and FOLDER: one shape, for it and for us.
# FORMAT: a row of ./phase3, as its table names it ('int4 group 128'). Every round runs both, so that
# a neighbour or a warm processor does not favour one; medians over rounds are what to compare.
set -eu
[ $# -ge 4 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
bench=$1 gguf=$2 folder=$3 format=$4 rounds=${5:-3}
threads=$(nproc)
for round in $(seq "$rounds"); do
    echo "round $round: llama.cpp"
    "$bench" -m "$gguf" -t "$threads" -p 512 -n 128 -r 1 -o csv | tail -2
    echo "round $round: nibble"
    ./phase3 --model "$folder" --config "$format" --limit 64 --choices none --bench --quiet --csv -
done
