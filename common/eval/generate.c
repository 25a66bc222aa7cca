#include "eval/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/timer.h"
#include "eval/perplexity.h"
#include "model/device.h"

// ---- generation -------------------------------------------------------------------------------

struct run {
    const struct model *m;
    struct kv_cache kv;
    struct sampler sampler;
    struct token_stream stream;
    struct token_list history; // prompt and answer
    float *logits;             // [V]
    bool on_device;            // the model's device samples too
};

static bool run_init(struct run *r, const struct tokenizer *t, const struct token_list *prompt,
                     size_t capacity, struct sampler_options sampling, struct error *err) {
    size_t v = r->m->config.vocab;
    token_stream_init(&r->stream, t);
    if (!kv_cache_init(&r->kv, &r->m->config, 1, capacity, err) ||
        !sampler_init(&r->sampler, sampling, v, err) ||
        !(r->logits = memory_alloc(v, sizeof *r->logits, "logits", err)))
        return false;
    for (size_t i = 0; i < prompt->n; i++)
        if (!token_list_push(&r->history, prompt->ids[i], err))
            return false;
    return true;
}

static void run_free(struct run *r) {
    kv_cache_free(&r->kv);
    sampler_free(&r->sampler);
    token_stream_free(&r->stream);
    token_list_free(&r->history);
    free(r->logits);
}

// Feeds history[from, end), and leaves the logits of the last token if `wanted`.
static bool feed(struct run *r, size_t from, size_t end, bool wanted, struct error *err) {
    size_t n = end - from;
    if (n == 0)
        return true;
    int32_t *positions = memory_alloc(n, sizeof *positions, "positions", err);
    uint8_t *wants = memory_alloc(n, 1, "positions", err);
    bool ok = positions && wants;
    if (ok) {
        for (size_t i = 0; i < n; i++)
            positions[i] = (int32_t)(from + i);
        wants[n - 1] = wanted;
        struct batch b = {
            .n = n, .tokens = r->history.ids + from, .positions = positions, .wants_logits = wants};
        ok = model_forward(r->m, &r->kv, &b, r->logits, err);
    }
    free(positions);
    free(wants);
    return ok;
}

// Where the whole model and its sampler are on a device, it needs the prompt and goes on by itself.
static bool start_on_device(struct run *r, size_t max_tokens, struct error *err) {
    size_t n = r->history.n;
    return model_decode_start(r->m, &r->kv, &r->sampler.options, r->history.ids, n, max_tokens,
                              &r->on_device, err) &&
           (!r->on_device || feed(r, 0, n - 1, false, err));
}

static bool next_token(struct run *r, size_t fed, int32_t *token, struct error *err) {
    if (r->on_device)
        return model_decode_next(r->m, &r->kv, token, err);
    return feed(r, fed, r->history.n, true, err) &&
           sampler_next(&r->sampler, r->logits, r->history.ids, r->history.n, token, err);
}

static bool append_text(char **text, size_t *size, const char *piece, struct error *err) {
    size_t n = strlen(piece);
    char *grown = realloc(*text, *size + n + 1);
    if (!grown)
        return error_set(err, "out of memory for the text");
    memcpy(grown + *size, piece, n + 1);
    *text = grown;
    *size += n;
    return true;
}

static bool emit(struct generation *out, size_t *size, const char *piece, generate_sink *sink,
                 void *user, bool *stop, struct error *err) {
    if (!piece || !append_text(&out->text, size, piece, err))
        return false;
    if (*piece && sink && !sink(user, piece))
        *stop = true;
    return true;
}

static bool run_generation(struct run *r, size_t n_prompt, int32_t stop_token, size_t max_tokens,
                           generate_sink *sink, void *user, struct generation *out,
                           struct error *err) {
    const struct model_config *c = &r->m->config;
    size_t size = 0, fed = 0;
    bool stop = false;
    double start = timer_now(), first = NAN, last = NAN;
    if (!start_on_device(r, max_tokens, err))
        return false;
    while (!stop && out->tokens.n < max_tokens) {
        int32_t token;
        if (!next_token(r, fed, &token, err))
            return false;
        fed = r->history.n;
        double now = timer_now();
        if (fed == n_prompt)
            first = now;
        if (token == stop_token || model_config_is_eos(c, token))
            break;
        last = now;
        if (!token_list_push(&r->history, token, err) ||
            !token_list_push(&out->tokens, token, err) ||
            !emit(out, &size, token_stream_push(&r->stream, token, err), sink, user, &stop, err))
            return false;
    }
    out->ttft_ms = 1e3 * (first - start);
    if (out->tokens.n > 1)
        out->tpot_ms = 1e3 * (last - first) / (double)(out->tokens.n - 1);
    return emit(out, &size, token_stream_flush(&r->stream, err), sink, user, &stop, err);
}

bool generate_takes(const struct model *m, const struct token_list *prompt, struct error *err) {
    size_t limit = m->config.max_context;
    return (prompt->n && prompt->n <= limit) ||
           error_set(err, "the prompt has %zu tokens, expected 1 to %zu", prompt->n, limit);
}

bool generate(const struct model *m, const struct tokenizer *t, const struct token_list *prompt,
              int32_t stop, size_t max_tokens, struct sampler_options sampling, generate_sink *sink,
              void *user, struct generation *out, struct error *err) {
    *out = (struct generation){.tpot_ms = NAN};
    size_t limit = m->config.max_context;
    if (!generate_takes(m, prompt, err))
        return false;
    if (max_tokens > limit - prompt->n)
        max_tokens = limit - prompt->n;
    struct run r = {.m = m};
    bool ok = run_init(&r, t, prompt, prompt->n + max_tokens, sampling, err) &&
              run_generation(&r, prompt->n, stop, max_tokens, sink, user, out, err);
    run_free(&r);
    if (!ok)
        generation_free(out);
    return ok;
}

void generation_free(struct generation *g) {
    token_list_free(&g->tokens);
    free(g->text);
    *g = (struct generation){0};
}

// ---- speed --------------------------------------------------------------------------------------

struct timing {
    const struct model *m;
    struct kv_cache kv;
    int32_t *tokens, *positions; // [n_prefill + n_decode]
    uint8_t *wants;              // [n_prefill]: only the last
    float *logits;               // [V]
};

static bool timing_init(struct timing *t, size_t n_prefill, size_t n_decode, struct error *err) {
    size_t n = n_prefill + n_decode;
    t->tokens = memory_alloc(n, sizeof *t->tokens, "tokens", err);
    t->positions = memory_alloc(n, sizeof *t->positions, "positions", err);
    t->wants = memory_alloc(n_prefill, 1, "tokens", err);
    t->logits = memory_alloc(t->m->config.vocab, sizeof *t->logits, "logits", err);
    if (!t->tokens || !t->positions || !t->wants || !t->logits ||
        !kv_cache_init(&t->kv, &t->m->config, 1, n, err))
        return false;
    struct random random = {1};
    for (size_t i = 0; i < n; i++) {
        t->tokens[i] = (int32_t)random_below(&random, (uint32_t)t->m->config.vocab);
        t->positions[i] = (int32_t)i;
    }
    t->wants[n_prefill - 1] = 1;
    return true;
}

static void timing_free(struct timing *t) {
    kv_cache_free(&t->kv);
    free(t->tokens);
    free(t->positions);
    free(t->wants);
    free(t->logits);
}

// One run: prefill seconds, then the seconds of each decoded token.
static bool time_run(struct timing *t, size_t n_prefill, size_t n_decode, double *prefill,
                     float *decode, struct error *err) {
    struct batch b = {
        .n = n_prefill, .tokens = t->tokens, .positions = t->positions, .wants_logits = t->wants};
    double start = timer_now();
    if (!model_forward(t->m, &t->kv, &b, t->logits, err))
        return false;
    *prefill = timer_now() - start;
    bool on_device;
    if (!model_decode_start(t->m, &t->kv, &(struct sampler_options){.repeat_penalty = 1}, t->tokens,
                            n_prefill, n_decode, &on_device, err))
        return false;
    for (size_t i = 0; i < n_decode; i++) {
        int32_t token;
        struct batch one = {
            .n = 1, .tokens = t->tokens + n_prefill + i, .positions = t->positions + n_prefill + i};
        start = timer_now();
        if (!(on_device ? model_decode_next(t->m, &t->kv, &token, err)
                        : model_forward(t->m, &t->kv, &one, t->logits, err)))
            return false;
        decode[i] = (float)(timer_now() - start);
    }
    return true;
}

static void summarize(float *prefill, float *decode, size_t n_prefill, size_t n_decode, size_t runs,
                      struct speed *s) {
    double median = quantile(prefill, runs, 0.5), sum = 0, squares = 0;
    size_t n = runs * n_decode;
    s->prefill_tps = (double)n_prefill / median;
    s->ttft_ms = 1e3 * median;
    for (size_t i = 0; i < n; i++)
        sum += decode[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (decode[i] - mean) * (decode[i] - mean);
    s->tpot_ms = 1e3 * mean;
    s->tpot_sd_ms = n > 1 ? 1e3 * sqrt(squares / (double)(n - 1)) : 0;
    float totals[runs];
    for (size_t r = 0; r < runs; r++) {
        totals[r] = 0;
        for (size_t i = 0; i < n_decode; i++)
            totals[r] += decode[r * n_decode + i];
    }
    s->decode_tps = (double)n_decode / quantile(totals, runs, 0.5);
}

bool speed_measure(const struct model *m, size_t n_prefill, size_t n_decode, int runs,
                   struct speed *s, struct error *err) {
    size_t limit = m->config.max_context, n_runs = (size_t)runs;
    if (limit < 2 || runs < 1)
        return error_set(err, "a context of %zu tokens is too short to time", limit);
    if (n_prefill + n_decode > limit) { // a short context: the same shape, smaller
        n_decode = limit / 5 ? limit / 5 : 1;
        n_prefill = limit - n_decode;
    }
    struct timing t = {.m = m};
    float *prefill = memory_alloc(n_runs, sizeof *prefill, "timings", err);
    float *decode = memory_alloc(n_runs * n_decode, sizeof *decode, "timings", err);
    bool ok = prefill && decode && timing_init(&t, n_prefill, n_decode, err);
    double seconds;
    ok = ok && time_run(&t, n_prefill, n_decode, &seconds, decode, err); // warm-up
    for (size_t r = 0; ok && r < n_runs; r++) {
        ok = time_run(&t, n_prefill, n_decode, &seconds, decode + r * n_decode, err);
        prefill[r] = (float)seconds;
    }
    if (ok)
        summarize(prefill, decode, n_prefill, n_decode, n_runs, s);
    timing_free(&t);
    free(prefill);
    free(decode);
    return ok;
}
