// Phase 1: the reference row of every later table.
//
// Load a real checkpoint, tokenize, prefill and decode, measure perplexity. Nothing is quantized:
// weights stay in the type the checkpoint stores, sums are float32.
#include "lab/lab.h"

static const struct cli_program program = {
    .name = "phase1",
    .phase = 1,
    .summary = "The baseline: a real checkpoint, its perplexity, its speed, its memory.",
    .examples = "./phase1                                        the bundled model\n"
                "./phase1 --model qwen2.5-0.5b --prompt \"Once upon a time\"\n"
                "./phase1 --model qwen2.5-3b --text wiki.test.raw --ctx 2048 --limit 20000\n"
                "./phase1 --limits                               what this machine can do\n",
    .without = "only skip search",
};

int main(int argc, char **argv) {
    struct error err = {0};
    if (!lab_run(&program, NULL, 0, argc, argv, &err))
        cli_fail(&program, &err);
    return 0;
}
