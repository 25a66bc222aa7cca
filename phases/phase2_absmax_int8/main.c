// Phase 2: half the bytes, almost no damage.
//
// AbsMax INT8 divides by the largest magnitude and rounds to -127 … 127. First with one scale for a
// whole matrix, then with one per output channel; first the weights alone, then the activations
// too, quantized on the fly, so that the products are sums of integers.
#include "lab/lab.h"

static const struct cli_program program = {
    .name = "phase2",
    .phase = 2,
    .summary = "AbsMax INT8, per tensor and per channel, weights alone and activations too.",
    .examples =
        "./phase2                                        the bundled model\n"
        "./phase2 --model qwen2.5-0.5b --prompt \"Once upon a time\"\n"
        "./phase2 --only '*.mlp.*'                       quantize the MLPs only\n"
        "./phase2 --skip '*.down_proj'                   all but the down projections\n"
        "./phase2 --config 'int8 per-channel' --out m8   save it; then ./phase2 --model m8\n",
};

static const struct lab_config configs[] = {
    {.format = "int8-tensor"},
    {.format = "int8"},
    {.format = "int8-tensor", .int8_activations = true},
    {.format = "int8", .int8_activations = true},
};

int main(int argc, char **argv) {
    struct error err = {0};
    if (!lab_run(&program, configs, sizeof configs / sizeof *configs, argc, argv, &err))
        cli_fail(&program, &err);
    return 0;
}
