// What the fast kernels change in a model's predictions, apart from what quantizing changed.
//
//     build/tools/kernel_error MODEL TEXT TOKENS FORMAT…
//     build/tools/kernel_error data/model data/eval.txt 16384 int8 q4_k
//
// For each format, over the text's first TOKENS: perplexity and KL divergence from the unquantized
// model, everything in float32 (what the tables of the phases score); then the same weights in the
// kernels that a model runs on, which round activations: the change of perplexity, and KL
// divergence from the row's own model in float32. Exits 1 if a perplexity changes by more than
// 0.1 %.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "eval/perplexity.h"
#include "kernels/cpu/kernels.h"
#include "quant/woven.h"
#include "report/progress.h"
#include "text/tokenizer.h"
#include "tools/bench/bench.h"
#include "tools/bench/model.h"

enum { MAX_TEXT = 1 << 30, CTX = 2048 };
static const double ppl_change_allowed = 0.1; // per cent

static void show(void *user, size_t done, size_t total, double nll) {
    (void)nll;
    progress_update(user, done, total, NULL);
}

static struct eval_result score(const struct model *m, const struct eval_text *text,
                                const struct eval_reference *reference,
                                struct eval_reference *record, const char *label) {
    struct eval_result result;
    struct error err;
    struct progress progress;
    progress_start(&progress, label, "tokens");
    bool ok = eval_perplexity(m, text, reference, record, &result, show, &progress, &err);
    progress_finish(&progress);
    if (!ok)
        bench_fail("%s", err.message);
    return result;
}

// One row; returns how far the perplexity moves, in per cent.
static double compare(const struct model *loaded, const struct eval_reference *unquantized,
                      const struct eval_text *text, const char *format) {
    struct error err;
    struct eval_reference own = {0};
    struct model *exact = bench_in_format(loaded, format), *fast = bench_in_format(loaded, format);
    if (!model_weave(fast, &err))
        bench_fail("%s", err.message);
    struct eval_result want = score(exact, text, unquantized, &own, format);
    struct eval_result got = score(fast, text, &own, NULL, format);
    double change = 100 * (got.ppl / want.ppl - 1);
    printf("| %s | %.4f | %.2g | %+.3f %% | %.2g | %.1f %% |\n", format, want.ppl, want.kld_mean,
           change, got.kld_mean, 100 * got.top1_agree);
    fflush(stdout);
    eval_reference_close(&own);
    model_free(fast);
    model_free(exact);
    return fabs(change);
}

// 0 if it is no number of at most nine digits.
static size_t tokens_of(const char *text) {
    size_t digits = strspn(text, "0123456789");
    return text[digits] || digits > 9 ? 0 : strtoul(text, NULL, 10);
}

int main(int argc, char **argv) {
    struct error err;
    struct token_list ids = {0};
    bench_start();
    size_t size, limit = argc > 4 ? tokens_of(argv[3]) : 0;
    if (limit < 2) {
        fprintf(stderr, "usage: kernel_error MODEL TEXT TOKENS FORMAT…, 2 tokens or more\n");
        return 2;
    }
    for (int i = 4; i < argc; i++)
        if (!quant_format_find(argv[i]))
            bench_fail("%s: no such format", argv[i]);
    struct model *m = model_load(argv[1], &err);
    struct tokenizer *t = m ? tokenizer_load(argv[1], &err) : NULL;
    char *bytes = t ? file_read(argv[2], MAX_TEXT, &size, &err) : NULL;
    if (!bytes || !tokenizer_encode(t, bytes, size, &ids, &err))
        bench_fail("%s", err.message);
    size_t most = m->config.max_context, ctx = most && most < CTX ? most : CTX;
    struct eval_text text = {ids.ids, ids.n < limit ? ids.n : limit, ctx, PPL_PROTOCOL_FULL, -1};
    struct eval_reference unquantized = {0};
    score(m, &text, NULL, &unquantized, "unquantized");
    printf("%s, the first %zu tokens of %s, windows of %zu, kernels of %s.\n\n", argv[1], text.n,
           argv[2], ctx, kernels_level_name(kernels_level()));
    printf("| Format | PPL | KLD of the format | PPL changes by | KLD of the kernels | Same "
           "first choice |\n|:--|--:|--:|--:|--:|--:|\n");
    bool ok = true;
    for (int i = 4; i < argc; i++)
        ok &= compare(m, &unquantized, &text, argv[i]) <= ppl_change_allowed;
    eval_reference_close(&unquantized);
    token_list_free(&ids);
    free(bytes);
    tokenizer_free(t);
    model_free(m);
    if (!ok)
        fprintf(stderr, "kernel_error: a perplexity changed by more than %g %%\n",
                ppl_change_allowed);
    return ok ? 0 : 1;
}
