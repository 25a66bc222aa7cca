#include "eval/perplexity.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/timer.h"
#include "kernels/cpu/kernels.h"

// Positions whose logits exist at a time: 32 × 151,936 × 4 bytes = 19 MB, twice.
enum { LOGIT_ROWS = 32 };

double nll_of(const float *logits, size_t v, int32_t token) {
    return log_sum_exp(logits, v) - (double)logits[token];
}

double kl_divergence(const float *reference, const float *logits, size_t v) {
    double p_norm = log_sum_exp(reference, v), q_norm = log_sum_exp(logits, v), sum = 0;
    for (size_t i = 0; i < v; i++) {
        double log_p = (double)reference[i] - p_norm, log_q = (double)logits[i] - q_norm;
        double p = exp(log_p);
        if (p != 0) // not p > 0, which would pass over NaN
            sum += p * (log_p - log_q);
    }
    return sum;
}

size_t argmax(const float *x, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static int compare_floats(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

double quantile(float *values, size_t n, double p) {
    if (!n)
        return NAN;
    qsort(values, n, sizeof *values, compare_floats);
    double at = p * (double)(n - 1);
    size_t low = (size_t)at;
    size_t high = low + 1 < n ? low + 1 : low;
    return values[low] + (at - (double)low) * ((double)values[high] - values[low]);
}

// ---- the protocol: which windows, which positions ----------------------------------------------

struct window {
    size_t begin, n;   // tokens
    size_t first, end; // positions p whose token is scored: first <= p < end
};

// The window that begins at `begin`; n == 0 where the protocol has no more.
static struct window next_window(const struct eval_text *text, size_t begin) {
    struct window w = {.begin = begin};
    size_t left = text->n - begin, n = left < text->ctx ? left : text->ctx;
    if (text->protocol == PPL_PROTOCOL_HALF && n == text->ctx) {
        w.n = n;
        w.first = n / 2 + 1;
        w.end = n;
    } else if (text->protocol == PPL_PROTOCOL_FULL && n >= 2) {
        w.n = n;
        w.first = 1;
        w.end = n;
    }
    return w;
}

static size_t count_scored(const struct eval_text *text, size_t *fed) {
    size_t scored = 0;
    *fed = 0;
    for (size_t begin = 0; begin < text->n; begin += text->ctx) {
        struct window w = next_window(text, begin);
        scored += w.end - w.first;
        *fed += w.n;
    }
    return scored;
}

// ---- one evaluation ---------------------------------------------------------------------------

struct evaluation {
    const struct model *m;
    const struct eval_text *text;
    const struct eval_reference *reference;
    struct eval_reference *record;
    struct kv_cache kv;
    int32_t *tokens, *positions; // [ctx]
    float *hidden;               // [ctx, H]
    float *reference_hidden;     // [LOGIT_ROWS, H]
    float *logits;               // [LOGIT_ROWS, V]
    float *reference_logits;     // [LOGIT_ROWS, V]
    float *kld;                  // [scored]
    size_t scored, agree;
    double nll_sum;
    struct eval_result *result;
};

static bool evaluation_init(struct evaluation *e, size_t scored, struct error *err) {
    size_t ctx = e->text->ctx < e->text->n ? e->text->ctx : e->text->n;
    size_t h = e->m->config.hidden, v = e->m->config.vocab;
    bool compared = e->reference != NULL;
    if (!kv_cache_init(&e->kv, &e->m->config, 1, ctx, err))
        return false;
    e->tokens = memory_alloc(ctx, sizeof *e->tokens, "tokens", err);
    e->positions = memory_alloc(ctx, sizeof *e->positions, "positions", err);
    e->hidden = memory_alloc(ctx, h * sizeof *e->hidden, "hidden states", err);
    e->logits = memory_alloc(LOGIT_ROWS, v * sizeof *e->logits, "logits", err);
    if (compared) {
        e->reference_hidden = memory_alloc(LOGIT_ROWS, h * sizeof(float), "hidden states", err);
        e->reference_logits = memory_alloc(LOGIT_ROWS, v * sizeof(float), "logits", err);
        e->kld = memory_alloc(scored, sizeof *e->kld, "divergences", err);
    }
    return e->tokens && e->positions && e->hidden && e->logits &&
           (!compared || (e->reference_hidden && e->reference_logits && e->kld));
}

static void evaluation_free(struct evaluation *e) {
    kv_cache_free(&e->kv);
    free(e->tokens);
    free(e->positions);
    free(e->hidden);
    free(e->reference_hidden);
    free(e->logits);
    free(e->reference_logits);
    free(e->kld);
}

static bool transfer(bool out, int fd, float *data, size_t row, size_t rows, size_t width,
                     struct error *err) {
    char *at = (char *)data;
    size_t left = rows * width * sizeof *data;
    off_t offset = (off_t)(row * width * sizeof *data);
    while (left) {
        ssize_t n = out ? pwrite(fd, at, left, offset) : pread(fd, at, left, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, "the reference's hidden states: cannot %s a temporary file: %s",
                             out ? "write" : "read", n ? strerror(errno) : "it ends early");
        at += n;
        offset += n;
        left -= (size_t)n;
    }
    return true;
}

// Scores `rows` positions from `first` of a window: hidden[p] predicts token p + 1.
static bool score_rows(struct evaluation *e, const struct window *w, size_t first, size_t rows,
                       struct error *err) {
    size_t h = e->m->config.hidden, v = e->m->config.vocab;
    if (!model_logits(e->m, e->hidden + (first - 1) * h, rows, e->logits, err))
        return false;
    const struct eval_reference *ref = e->reference;
    if (ref && (!transfer(false, ref->fd, e->reference_hidden, e->scored, rows, h, err) ||
                !model_logits(ref->model, e->reference_hidden, rows, e->reference_logits, err)))
        return false;
    if (e->record &&
        !transfer(true, e->record->fd, e->hidden + (first - 1) * h, e->scored, rows, h, err))
        return false;
    double nll[LOGIT_ROWS];
    size_t agree = 0;
#pragma omp parallel for schedule(static) reduction(+ : agree)
    for (size_t i = 0; i < rows; i++) {
        const float *logits = e->logits + i * v;
        nll[i] = nll_of(logits, v, e->text->tokens[w->begin + first + i]);
        if (ref) {
            const float *reference = e->reference_logits + i * v;
            e->kld[e->scored + i] = (float)kl_divergence(reference, logits, v);
            agree += argmax(reference, v) == argmax(logits, v);
        }
    }
    for (size_t i = 0; i < rows; i++)
        e->nll_sum += nll[i];
    e->agree += agree;
    e->scored += rows;
    return true;
}

static bool run_window(struct evaluation *e, const struct window *w, struct error *err) {
    for (size_t p = 0; p < w->n; p++) {
        e->tokens[p] = e->text->tokens[w->begin + p];
        e->positions[p] = (int32_t)p;
    }
    if (e->text->protocol == PPL_PROTOCOL_HALF && e->text->bos >= 0)
        e->tokens[0] = e->text->bos;
    struct batch b = {.n = w->n, .tokens = e->tokens, .positions = e->positions};
    double start = timer_now();
    if (!model_hidden(e->m, &e->kv, &b, e->hidden, err))
        return false;
    e->result->forward_seconds += timer_now() - start;
    e->result->forward_tokens += w->n;
    for (size_t p = w->first; p < w->end; p += LOGIT_ROWS)
        if (!score_rows(e, w, p, w->end - p < LOGIT_ROWS ? w->end - p : LOGIT_ROWS, err))
            return false;
    return true;
}

static void summarize(struct evaluation *e) {
    struct eval_result *r = e->result;
    r->tokens = e->scored;
    r->nll = e->nll_sum / (double)e->scored;
    r->ppl = exp(r->nll);
    r->kld_mean = r->kld_p99 = r->top1_agree = NAN;
    if (!e->reference)
        return;
    double sum = 0;
    for (size_t i = 0; i < e->scored; i++)
        sum += e->kld[i];
    r->kld_mean = sum / (double)e->scored;
    r->kld_p99 = isnan(sum) ? NAN : quantile(e->kld, e->scored, 0.99);
    r->top1_agree = (double)e->agree / (double)e->scored;
}

static bool reference_open(struct eval_reference *r, const struct model *m, size_t n,
                           struct error *err) {
    const char *folder = getenv("TMPDIR");
    char path[1024];
    snprintf(path, sizeof path, "%s/nibble-XXXXXX", folder && *folder ? folder : "/var/tmp");
    int fd = mkstemp(path);
    if (fd < 0)
        return error_set(err, "%s: cannot create a temporary file: %s", path, strerror(errno));
    unlink(path);
    *r = (struct eval_reference){.model = m, .fd = fd, .n = n};
    return true;
}

void eval_reference_close(struct eval_reference *r) {
    if (r->model)
        close(r->fd);
    *r = (struct eval_reference){0};
}

bool eval_perplexity(const struct model *m, const struct eval_text *text,
                     const struct eval_reference *reference, struct eval_reference *record,
                     struct eval_result *result, eval_progress *progress, void *user,
                     struct error *err) {
    size_t fed, scored = text->ctx ? count_scored(text, &fed) : 0;
    if (!scored)
        return error_set(err, "the text has %zu tokens, too few to score with windows of %zu",
                         text->n, text->ctx);
    if (reference && (reference->n != scored || reference->model->config.vocab != m->config.vocab ||
                      reference->model->config.hidden != m->config.hidden))
        return error_set(err, "the reference belongs to another text or model");
    *result = (struct eval_result){0};
    struct evaluation e = {
        .m = m, .text = text, .reference = reference, .record = record, .result = result};
    if (record && !reference_open(record, m, scored, err))
        return false;
    bool ok = evaluation_init(&e, scored, err);
    for (size_t begin = 0; ok && begin < text->n; begin += text->ctx) {
        struct window w = next_window(text, begin);
        ok = !w.n || run_window(&e, &w, err);
        if (ok && progress)
            progress(user, result->forward_tokens, fed,
                     e.scored ? e.nll_sum / (double)e.scored : 0);
    }
    if (ok)
        summarize(&e);
    else if (record)
        eval_reference_close(record);
    evaluation_free(&e);
    return ok;
}
