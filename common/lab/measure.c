#include "lab/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "eval/generate.h"
#include "io/npy.h"
#include "kernels/cpu/kernels.h"
#include "lab/gpu.h"
#include "model/device.h"
#include "quant/woven.h"
#include "text/chat.h"

// ---- --tokens, --logits ------------------------------------------------------------------------

static bool forward_tokens(const struct model *m, const int32_t *tokens, size_t n, float *logits,
                           struct error *err) {
    struct kv_cache kv;
    int32_t *positions = memory_alloc(n, sizeof *positions, "positions", err);
    if (!positions || !kv_cache_init(&kv, &m->config, 1, n, err)) {
        free(positions);
        return false;
    }
    for (size_t i = 0; i < n; i++)
        positions[i] = (int32_t)i;
    struct batch b = {.n = n, .tokens = tokens, .positions = positions};
    bool ok = model_forward(m, &kv, &b, logits, err);
    kv_cache_free(&kv);
    free(positions);
    return ok;
}

static bool write_logits(struct lab *lab, const struct model *m, struct error *err) {
    const struct cli_options *o = &lab->options;
    size_t n, v = m->config.vocab;
    int32_t *tokens = cli_token_ids(o->tokens, "--tokens", &n, err);
    float *logits = tokens ? memory_alloc(n, v * sizeof *logits, "logits", err) : NULL;
    bool ok = logits && forward_tokens(m, tokens, n, logits, err) &&
              npy_write_f32(o->logits, logits, n, v, err);
    free(tokens);
    free(logits);
    lab->done = true;
    return ok;
}

// ---- the parts of a row -----------------------------------------------------------------------

static bool print_piece(void *user, const char *text) {
    (void)user;
    fputs(text, stderr);
    fflush(stderr);
    return true;
}

static bool measure_text(struct lab *lab, const struct model *m, struct result_row *row,
                         struct error *err) {
    const struct cli_options *o = &lab->options;
    if (!o->prompt)
        return true;
    bool live = !o->quiet && isatty(STDERR_FILENO); // someone is watching: show it as it comes
    int32_t stop = o->chat ? chat_end_token(lab->tokenizer, NULL) : -1;
    struct generation g;
    if (live)
        fprintf(stderr, "%s: ", row->config);
    if (!generate(m, lab->tokenizer, &lab->prompt, stop, (size_t)o->max_tokens, o->sampling,
                  live ? print_piece : NULL, NULL, &g, err))
        return false;
    if (live)
        fputc('\n', stderr);
    row->ttft_ms = g.ttft_ms;
    row->text = g.text;
    g.text = NULL;
    generation_free(&g);
    return true;
}

static void show_perplexity(void *user, size_t done, size_t total, double nll) {
    char note[32];
    snprintf(note, sizeof note, "ppl %.4g", exp(nll));
    progress_update(user, done, total, note);
}

static bool measure_quality(struct lab *lab, const struct model *m, struct result_row *row,
                            struct error *err) {
    const struct cli_options *o = &lab->options;
    struct eval_text text = {.tokens = lab->text.ids,
                             .n = lab->text.n,
                             .ctx = o->ctx,
                             .protocol =
                                 o->ppl_mode == PPL_HALF ? PPL_PROTOCOL_HALF : PPL_PROTOCOL_FULL,
                             .bos = tokenizer_bos(lab->tokenizer)};
    bool first = !lab->reference.model;
    struct eval_result r;
    struct progress p;
    progress_start(&p, row->config, "tokens");
    bool ok = eval_perplexity(m, &text, first ? NULL : &lab->reference,
                              first ? &lab->reference : NULL, &r, show_perplexity, &p, err);
    progress_finish(&p);
    if (!ok)
        return false;
    if (isnan(r.nll))
        return error_set(err, "%s: %s: the logits are not numbers: a weight is NaN, or overflows",
                         lab->folder, row->config);
    row->ppl = r.ppl;
    row->nll = r.nll;
    row->ppl_tokens = (double)r.tokens;
    row->kld_mean = r.kld_mean;
    row->kld_p99 = r.kld_p99;
    row->top1_agree = r.top1_agree;
    return true;
}

static void show_choices(void *user, size_t done, size_t total, size_t right) {
    char note[32];
    snprintf(note, sizeof note, "%zu right", right);
    progress_update(user, done, total, note);
}

static bool measure_choices(struct lab *lab, const struct model *m, struct result_row *row,
                            struct error *err) {
    if (!lab->questions.n)
        return true;
    struct choices_result r;
    struct progress p;
    progress_start(&p, row->config, "questions");
    bool ok = choices_score(m, lab->tokenizer, &lab->questions, lab->options.questions, &r,
                            show_choices, &p, err);
    progress_finish(&p);
    if (!ok)
        return false;
    row->accuracy = r.accuracy;
    row->accuracy_n = (double)r.asked;
    return true;
}

// With --bench 512 + 128 tokens five times; without, a glance: 128 + 16 once.
static bool measure_speed(struct lab *lab, const struct model *m, struct result_row *row,
                          struct error *err) {
    bool bench = lab->options.bench;
    struct speed s;
    if (!(bench ? speed_measure(m, 512, 128, 5, &s, err) : speed_measure(m, 128, 16, 1, &s, err)))
        return false;
    row->prefill_tps = s.prefill_tps;
    row->decode_tps = s.decode_tps;
    row->tpot_ms = s.tpot_ms;
    row->tpot_sd_ms = s.tpot_sd_ms;
    if (bench)
        row->ttft_ms = s.ttft_ms;
    return true;
}

static bool measure_scores(struct lab *lab, const struct model *m, struct result_row *row,
                           struct error *err) {
    if (lab->options.tokens)
        return write_logits(lab, m, err);
    row->model_bytes = (double)model_bytes(m);
    return measure_quality(lab, m, row, err) && measure_choices(lab, m, row, err);
}

// The emulator's times mean nothing.
static bool measure_engine(struct lab *lab, const struct model *m, struct result_row *row,
                           struct error *err) {
    if (!measure_text(lab, m, row, err))
        return false;
    if (!lab->options.emulate)
        return measure_speed(lab, m, row, err);
    row->ttft_ms = NAN;
    return true;
}

static bool measure_on_gpu(struct lab *lab, struct model *m, struct result_row *row,
                           struct error *err) {
    bool ok = gpu_place(lab, m, row->config, err) && measure_scores(lab, m, row, err) &&
              (lab->done || measure_engine(lab, m, row, err));
    gpu_leave(lab, m, row);
    return ok;
}

static bool measure_on_cpu(struct lab *lab, struct model *m, struct result_row *row,
                           struct error *err) {
    bool shared = m == lab->model, exact = !lab->options.int8_activations;
    struct model *engine = shared ? model_share(m, err) : m;
    bool ok = engine && (!exact || measure_scores(lab, m, row, err));
    if (ok && !(exact && lab->done))
        ok = model_weave(engine, err) && (exact || measure_scores(lab, engine, row, err)) &&
             (lab->done || measure_engine(lab, engine, row, err));
    if (shared && !exact && ok)
        lab->reference_model = engine; // later rows are compared with what it computed
    else if (shared)
        model_free(engine);
    return ok;
}

bool measure_row(struct lab *lab, struct model *m, struct result_row *row, struct error *err) {
    bool ok = (lab->gpu ? measure_on_gpu : measure_on_cpu)(lab, m, row, err);
    row->peak_rss_bytes = (double)memory_use().peak;
    if (ok && !lab->done)
        ok = result_table_add(&lab->table, row, err);
    if (!ok || lab->done)
        result_row_free(row);
    return ok;
}

// ---- --limits ----------------------------------------------------------------------------------

static bool add_limit(struct result_table *table, const char *name, double gb_s, double gop_s,
                      struct error *err) {
    struct result_row row;
    result_row_init(&row, name, "");
    row.gb_s = gb_s;
    row.gop_s = gop_s;
    return result_table_add(table, &row, err);
}

bool measure_limits(struct result_table *table, struct error *err) {
    struct machine_limits limits;
    machine_limits_measure(&limits);
    return add_limit(table, "memory read", limits.read_gb_s, NAN, err) &&
           add_limit(table, "memory copy", limits.copy_gb_s, NAN, err) &&
           add_limit(table, "float32 multiply-add", NAN, limits.f32_gflop_s, err) &&
           (limits.i8_gop_s <= 0 ||
            add_limit(table, "int8 multiply-add", NAN, limits.i8_gop_s, err)) &&
           (limits.bf16_gflop_s <= 0 ||
            (add_limit(table, "int8 multiply-add in tiles", NAN, limits.i8_tiles_gop_s, err) &&
             add_limit(table, "int8 in tiles loaded from L1", NAN, limits.i8_fed_gop_s, err) &&
             add_limit(table, "bfloat16 multiply-add in tiles", NAN, limits.bf16_gflop_s, err)));
}
