#!/bin/sh
# All that a machine with a GPU has to say: correctness first, then compute-sanitizer, then times.
#   tools/cuda_results.sh [--quick]      # --quick: no sanitizer, no large models
# Writes results/cuda-kernels.csv and .md, cuda-models.csv and .md, and cuda-roofline.md; rows name
# device, driver, clocks and command. Nothing is replaced if a check fails.
set -eu
trap 'rm -f results/cuda-*.new results/cuda-*.new.csv' EXIT
cd "$(dirname "$0")/.."
quick=""
[ "${1:-}" != "--quick" ] || { quick=yes; shift; }

header() {
    commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
    echo "Measured $(date -u +%Y-%m-%d) at commit $commit with"
    echo "\`$1\`$2"
    echo
}

# The clocks as they are now, for the header of rows that do not name them.
clocks() {
    nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem --format=csv,noheader \
        2>/dev/null | head -1
}

make -s all build/nibble-tests
echo "== correctness: models, then every kernel against its reference" >&2
NIBBLE_GPU_TESTS=1 build/nibble-tests --filter 'cuda_model/*' -j1
./phase1 --device cuda --tokens 1,2,3,4,5,6,7,8 --logits /tmp/nibble-gpu.$$.npy
rm -f /tmp/nibble-gpu.$$.npy

# Every kernel on small shapes with remainders: several blocks of rows of w and of x (of 128 at
# most), the last ones not full; first whole blocks of 256 columns, which GGUF's formats need, then
# nothing whole. The last shape is large enough for kernel 10's blocks of two warpgroups.
check_kernels() {
    "$@" ./phase6 --device cuda --check --shape 333x1280 --batch 1,9,70,130 --quiet >/dev/null
    "$@" ./phase6 --device cuda --check --shape 77x291 --batch 1,3 --quiet >/dev/null
    "$@" ./phase6 --device cuda --check --shape 1000x200 --batch 2100 --format int4-g32 --quiet \
        >/dev/null
}

if [ -z "$quick" ] && command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck initcheck; do
        echo "== compute-sanitizer --tool $tool" >&2
        check_kernels compute-sanitizer --tool $tool --error-exitcode 1
        compute-sanitizer --tool $tool --error-exitcode 1 \
            ./phase1 --device cuda --limit 64 --ctx 64 --choices none --prompt "Victor was given" \
            --max-tokens 8 --temp 0.8 --quiet >/dev/null
    done
fi

echo "== kernels" >&2
rm -f results/cuda-kernels.new.csv results/cuda-models.new.csv
{
    header "./phase6 --device cuda" "; the weights are never in the L2 cache."
    ./phase6 --device cuda --csv results/cuda-kernels.new.csv "$@"
} >results/cuda-kernels.md.new

echo "== models" >&2
models="bundled"
[ -n "$quick" ] || for shape in qwen2.5-3b llama-8b; do
    [ -d "data/synth/$shape" ] || make -s synth SHAPE=$shape
    models="$models data/synth/$shape"
done
{
    header "./phase3 --device cuda --bench --choices none" ", on $(clocks):"
    for model in $models; do
        [ "$model" = bundled ] && from="" || from="--model $model --limit 4096"
        for config in "fp16" "int8 per-channel" "int4 group 128"; do
            # shellcheck disable=SC2086
            ./phase3 --device cuda --bench --choices none $from --config "$config" \
                --csv results/cuda-models.new.csv
            echo
        done
    done
} >results/cuda-models.md.new

for name in kernels models; do
    mv results/cuda-$name.new.csv results/cuda-$name.csv
    mv results/cuda-$name.md.new results/cuda-$name.md
    echo results/cuda-$name.csv
done
tools/cuda_roofline.sh
