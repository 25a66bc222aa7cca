#include "cli/table.h"

#include <math.h>
#include <string.h>

#include "core/memory.h"

#define AT(field) offsetof(struct cli_values, field)

// clang-format off
static const struct {
    const char *name, *value;
    enum cli_kind kind;
    size_t target; // where in struct cli_values
    double min, max;
    const char *initial, *group, *help;
} common[] = {
    {"model", "M", CLI_TEXT, AT(options.model), 1, 0, NULL, "Model",
     "a name (see below), a folder in the Hugging Face layout or a .gguf file [the bundled one]"},
    {"config", "NAME", CLI_TEXT, AT(options.config), 1, 0, NULL, "Model",
     "only this row of the table, named as it is there, e.g. 'int4 group 128'"},
    {"only", "PATTERNS", CLI_TEXT, AT(options.only), 1, 0, NULL, "Model",
     "quantize only tensors that match these globs, joined by ',' or '|' [every linear of the "
     "blocks]"},
    {"skip", "PATTERNS", CLI_TEXT, AT(options.skip), 1, 0, NULL, "Model",
     "leave tensors that match as they are [none]"},
    {"recipe", "FILE", CLI_TEXT, AT(options.recipe), 1, 0, NULL, "Model",
     "one more row, named after the file: lines of 'pattern format', first match wins; phase 5 "
     "writes one"},
    {"search", NULL, CLI_FLAG, AT(options.search), 0, 0, NULL, "Model",
     "integer formats: look for the scales of least squared error instead of those that the largest "
     "weights set; takes longer"},

    {"text", "FILE", CLI_TEXT, AT(options.text), 1, 0, NULL, "Evaluation",
     "UTF-8 text to score [the bundled evaluation text]"},
    {"calib", "FILE", CLI_TEXT, AT(options.calib), 1, 0, NULL, "Evaluation",
     "UTF-8 text to calibrate on, in phases that do [the bundled calibration text]"},
    {"ctx", "N", CLI_SIZE, AT(options.ctx), 0, 1 << 24, NULL, "Evaluation",
     "window length in tokens [2048, or the model's own limit if smaller]"},
    {"limit", "N", CLI_SIZE, AT(options.limit), 0, INFINITY, "0", "Evaluation",
     "use only the first N tokens of the text; 0: all"},
    {"ppl-mode", "full|half", CLI_CHOICE, AT(ppl_mode), 0, 0, "full", "Evaluation",
     "full: every token of a window but its first is scored; half: llama.cpp's protocol, the "
     "second halves of whole windows"},
    {"choices", "FILE", CLI_TEXT, AT(options.choices), 1, 0, NULL, "Evaluation",
     "multiple-choice questions, one JSON object a line; none: no questions [the bundled ones for "
     "the bundled model, none for others]"},
    {"questions", "N", CLI_SIZE, AT(options.questions), 0, INFINITY, "0", "Evaluation",
     "ask only the first N of them; 0: all"},
    {"activations", "f32|int8", CLI_CHOICE, AT(activations), 0, 0, "f32", "Evaluation",
     "f32: score the weights alone; int8: score what the fast kernels compute, which round "
     "activations (to bfloat16 on AMX, many tokens at once)"},
    {"bench", NULL, CLI_FLAG, AT(options.bench), 0, 0, NULL, "Evaluation",
     "time prefill (512 tokens) and decode (128): a warm-up, then the median of 5"},

    {"prompt", "TEXT", CLI_TEXT, AT(options.prompt), 0, 0, NULL, "Generation",
     "continue this text after loading"},
    {"chat", NULL, CLI_FLAG, AT(options.chat), 0, 0, NULL, "Generation",
     "put the prompt into the model's chat template"},
    {"system", "TEXT", CLI_TEXT, AT(options.system), 0, 0, NULL, "Generation",
     "the system message of --chat"},
    {"max-tokens", "N", CLI_INT, AT(options.max_tokens), 1, 1 << 24, "64", "Generation",
     "generate at most N tokens"},
    {"temp", "F", CLI_FLOAT, AT(options.sampling.temperature), 0, 100, "0", "Generation",
     "temperature; 0 is greedy: always the most likely token"},
    {"top-k", "N", CLI_INT, AT(options.sampling.top_k), 0, 1 << 24, "40", "Generation",
     "draw from the K most likely tokens; 0: all"},
    {"top-p", "F", CLI_FLOAT, AT(options.sampling.top_p), 0, 1, "0.95", "Generation",
     "draw from the fewest tokens that together have this probability; 1: all"},
    {"repeat-penalty", "F", CLI_FLOAT, AT(options.sampling.repeat_penalty), 0.1, 10, "1.0",
     "Generation", "make tokens of the last 64 less likely; 1: off"},
    {"seed", "N", CLI_U64, AT(options.sampling.seed), 0, INFINITY, "0", "Generation",
     "seed of the draws; the same seed gives the same text"},

    {"json", "FILE", CLI_TEXT, AT(options.json), 1, 0, NULL, "Output",
     "write the results as JSON; '-': to stdout, in place of the table"},
    {"csv", "FILE", CLI_TEXT, AT(options.csv), 1, 0, NULL, "Output",
     "append the results as CSV; '-': to stdout, in place of the table"},
    {"out", "PATH", CLI_TEXT, AT(options.out), 1, 0, NULL, "Output",
     "where to write what the phase makes; a quantized model is a folder, for --model [under "
     "results/<model>/]"},
    {"quiet", NULL, CLI_FLAG, AT(options.quiet), 0, 0, NULL, "Output",
     "no progress"},

    {"threads", "N", CLI_INT, AT(options.threads), 1, 1024, NULL, "Runtime",
     "worker threads [all cores]"},
    {"isa", "best|scalar|neon|dotprod|i8mm|avx2|avx512|vnni|amx", CLI_CHOICE, AT(options.isa), 0, 0,
     "best", "Runtime", "use no better instructions than these"},
    {"device", "cpu|cuda", CLI_CHOICE, AT(device), 0, 0, "cpu", "Runtime",
     "where the arithmetic runs"},
    {"gpu-layers", "N", CLI_SIZE, AT(options.gpu_layers), 0, 1000000, "0", "Runtime",
     "with --device cuda: only the last N layers and the head on the GPU, the others on the CPU; "
     "0: all"},
    {"emulate", NULL, CLI_FLAG, AT(options.emulate), 0, 0, NULL, "Runtime",
     "with --device cuda: run the GPU's kernels on the CPU, in an emulator; correct, and slow"},
    {"help", NULL, CLI_FLAG, AT(help), 0, 0, NULL, "Runtime",
     "print this and stop"},
    {"version", NULL, CLI_FLAG, AT(version), 0, 0, NULL, "Runtime",
     "print the version and stop"},

    {"tokens", "IDS", CLI_TEXT, AT(options.tokens), 1, 0, NULL, "Debugging",
     "one forward pass over these token ids (1,2,3), for --logits"},
    {"logits", "FILE", CLI_TEXT, AT(options.logits), 1, 0, NULL, "Debugging",
     "write the logits of --tokens: NumPy float32, [tokens, vocab]; '-': to stdout"},
    {"tokenize", "FILE", CLI_TEXT, AT(options.tokenize), 1, 0, NULL, "Debugging",
     "print the token ids of the file's text, on one line"},
    {"detokenize", "FILE", CLI_TEXT, AT(options.detokenize), 1, 0, NULL, "Debugging",
     "print the text of the file's token ids, byte for byte"},
    {"limits", NULL, CLI_FLAG, AT(options.limits), 0, 0, NULL, "Debugging",
     "measure this machine's read bandwidth and arithmetic peaks"},
};
// clang-format on

enum { N_COMMON = sizeof common / sizeof common[0] };

static bool named_in(const struct cli_program *p, const char *name) {
    for (size_t i = 0; i < p->n_flags; i++)
        if (strcmp(p->flags[i].name, name) == 0)
            return true;
    return false;
}

bool cli_listed(const char *words, const char *name, size_t n) {
    for (const char *w = words; w && *w; w += strcspn(w, " "), w += strspn(w, " "))
        if (strcspn(w, " ") == n && strncmp(w, name, n) == 0)
            return true;
    return false;
}

bool cli_table_init(struct cli_table *t, const struct cli_program *p, struct cli_values *v,
                    struct error *err) {
    *t = (struct cli_table){.n = p->n_flags, .without = p->without};
    t->flags = memory_alloc(p->n_flags + N_COMMON, sizeof *t->flags, "table of flags", err);
    if (!t->flags)
        return false;
    if (p->n_flags)
        memcpy(t->flags, p->flags, p->n_flags * sizeof *t->flags);
    for (size_t i = 0; i < N_COMMON; i++)
        if (!named_in(p, common[i].name) &&
            !cli_listed(p->without, common[i].name, strlen(common[i].name)))
            t->flags[t->n++] = (struct cli_flag){
                .name = common[i].name,
                .value = common[i].value,
                .kind = common[i].kind,
                .target = (char *)v + common[i].target,
                .min = common[i].min,
                .max = common[i].max,
                .initial = common[i].initial,
                .help = common[i].help,
                .group = common[i].group,
            };
    return true;
}
