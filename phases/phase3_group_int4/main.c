// Phase 3: four bits collapse, groups recover.
//
// Sixteen levels cannot serve a row that has one huge weight. Give every group of neighbours a
// scale of its own and the huge weight spoils only its own group. Two weights share a byte.
#include "lab/lab.h"

static const struct cli_program program = {
    .name = "phase3",
    .phase = 3,
    .summary = "INT4: naive per channel, then groups of 256 down to 32, symmetric and zero-point.",
    .examples =
        "./phase3                                        the bundled model\n"
        "./phase3 --model qwen2.5-3b --limit 20000 --prompt \"The capital of France is\"\n"
        "./phase3 --config 'int4 group 128'              one configuration\n"
        "./phase3 --config 'int4 group 128' --out m4     save it; then ./phase1 --model m4\n",
};

static const struct lab_config configs[] = {
    // Phase 2's rows, for comparison.
    {.format = "int8-tensor"},
    {.format = "int8"},
    {.format = "int8-tensor", .int8_activations = true},
    {.format = "int8", .int8_activations = true},
    // One scale per row: the collapse.
    {.format = "int4"},
    {.format = "int4-zp"},
    // One scale per group: the recovery.
    {.format = "int4-g256"},
    {.format = "int4-g128"},
    {.format = "int4-g64"},
    {.format = "int4-g32"},
    {.format = "int4-g256-zp"},
    {.format = "int4-g128-zp"},
    {.format = "int4-g64-zp"},
    {.format = "int4-g32-zp"},
};

int main(int argc, char **argv) {
    struct error err = {0};
    if (!lab_run(&program, configs, sizeof configs / sizeof *configs, argc, argv, &err))
        cli_fail(&program, &err);
    return 0;
}
