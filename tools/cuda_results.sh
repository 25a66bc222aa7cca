#!/bin/sh
# Checks and times the kernels on this machine's GPU: results/cuda-kernels.csv and the table of
# notebooks-md/06-cuda-kernels.md. Takes some minutes; nothing is replaced if it fails.
set -eu
trap 'rm -f results/cuda-kernels.*.new' EXIT
cd "$(dirname "$0")/.."
make -s phase6
rm -f results/cuda-kernels.csv.new
{
    echo "Measured $(date -u +%Y-%m-%d) at commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown) with"
    echo "\`./phase6 --device cuda\`; the weights are never in the L2 cache."
    echo
    ./phase6 --device cuda --csv results/cuda-kernels.csv.new "$@"
} >results/cuda-kernels.md.new
mv results/cuda-kernels.csv.new results/cuda-kernels.csv
mv results/cuda-kernels.md.new results/cuda-kernels.md
echo results/cuda-kernels.csv
