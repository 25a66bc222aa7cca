// Phase 3: four bits collapse, groups recover.
//
// Sixteen levels cannot serve a row that has one huge weight. Give every group of neighbours a
// scale of its own and the huge weight spoils only its own group. Two weights share a byte.
#include "phases/phase3_group_int4/ladder.h"

static struct {
    bool ladder;
    const char *shape;
} flags;

static const struct cli_flag phase_flags[] = {
    {"ladder", NULL, CLI_FLAG, &flags.ladder, 0, 0, NULL,
     "with --bench: one matrix times one token, from unpacking everything to the kernel that "
     "models run on, in six steps; takes 1.5 GB of memory",
     "Kernels"},
    {"shape", "NxK", CLI_TEXT, &flags.shape, 3, 0, NULL,
     "rows and columns of --ladder's matrix, columns a multiple of 128 [11008x2048]", "Kernels"},
};

static const struct cli_program program = {
    .name = "phase3",
    .phase = 3,
    .summary = "INT4: naive per channel, then groups of 256 down to 32, symmetric and zero-point.",
    .examples =
        "./phase3                                        the bundled model\n"
        "./phase3 --model qwen2.5-3b --limit 20000 --prompt \"The capital of France is\"\n"
        "./phase3 --config 'int4 group 128'              one configuration\n"
        "./phase3 --config 'int4 group 128' --out m4     save it; then ./phase1 --model m4\n"
        "./phase3 --bench --ladder                       kernels, each better than the last\n",
    .flags = phase_flags,
    .n_flags = sizeof phase_flags / sizeof *phase_flags,
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

// The matrix's shape; ends the program where flags do not go together.
static void check_ladder(const struct cli_options *o, unsigned *n, unsigned *k) {
    const struct {
        const char *flag;
        bool given;
    } others[] = {{"model", o->model},   {"recipe", o->recipe}, {"prompt", o->prompt},
                  {"tokens", o->tokens}, {"out", o->out},       {"limits", o->limits},
                  {"device", o->cuda}};
    if (!o->bench)
        cli_usage_error(&program, "--ladder needs --bench too");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (others[i].given)
            cli_usage_error(&program, "--ladder and --%s exclude each other", others[i].flag);
    if (o->config && !ladder_has(o->config))
        cli_usage_error(&program, "--config is '%s', which is no row of --ladder", o->config);
    if (flags.shape && (!cli_shape(flags.shape, n, k) || *k % 128 || *k > 65536))
        cli_usage_error(&program,
                        "--shape is '%s', expected rows x columns, those a multiple of 128 up to "
                        "65536, as 11008x2048",
                        flags.shape);
}

int main(int argc, char **argv) {
    struct error err = {0};
    struct lab lab;
    unsigned n = 11008, k = 2048; // up and gate of a 3 B model
    cli_wait_briefly(argv);
    bool ok = lab_start(&lab, &program, argc, argv, &err);
    if (flags.shape && !flags.ladder)
        cli_usage_error(&program, "--shape needs --ladder too");
    if (flags.ladder)
        check_ladder(&lab.options, &n, &k);
    if (flags.ladder)
        ok = ok && ladder_measure(&lab, n, k, &err);
    else
        ok = ok && lab_configs(&lab, configs, sizeof configs / sizeof *configs, &err);
    if (!lab_close(&lab, ok, &err))
        cli_fail(&program, &err);
    return 0;
}
