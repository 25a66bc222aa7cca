#include "lab/budget.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

// ---- "2.4GB" ----------------------------------------------------------------------------------

static const struct {
    const char *name;
    double bytes;
} units[] = {{"", 1},         {"B", 1},        {"kB", 1e3},    {"KB", 1e3},
             {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12},   {"KiB", 0x1p10},
             {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};

bool budget_parse_bytes(const char *text, size_t *bytes) {
    size_t digits = strspn(text, "0123456789."); // no "1e3", "0x10" or "inf"
    char *end;
    double value = strtod(text, &end);
    if (digits == 0 || end != text + digits)
        return false;
    end += strspn(end, " ");
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(end, units[i].name) != 0)
            continue;
        value *= units[i].bytes;
        if (!(value >= 1 && value < 0x1p62))
            return false;
        *bytes = (size_t)value;
        return true;
    }
    return false;
}

static const char *megabytes(size_t bytes, char out[32]) {
    snprintf(out, 32, bytes >= 1000000000 ? "%.3f GB" : "%.3f MB",
             (double)bytes / (bytes >= 1000000000 ? 1e9 : 1e6));
    return out;
}
#define MEGABYTES(bytes) megabytes(bytes, (char[32]){0})

// ---- what is not the mix's --------------------------------------------------------------------

struct matrices {
    size_t stored, halved; // bytes of all linears, and in float16
};

static bool add_matrix(void *user, struct linear *l) {
    struct matrices *sum = user;
    sum->stored += l->w.bytes;
    sum->halved += 2 * l->w.shape[0] * l->w.shape[1];
    return true;
}

size_t budget_rest(const struct model *m, const struct mix *x) {
    struct matrices all = {0};
    bool f32 = m->layers[0].q.w.dtype == DTYPE_F32;
    if (!f32)
        return model_bytes(m) - mix_stored_bytes(x);
    model_visit_linears((struct model *)(uintptr_t)m, add_matrix, &all); // only looks
    return model_bytes(m) - all.stored + all.halved - 2 * mix_weights(x);
}

// As kv_cache_init and the forward pass allocate them: blocks of up to 512 tokens, logits of 32.
bool budget_running(const struct model_config *c, size_t ctx, size_t *cache, size_t *work) {
    size_t position = 2 * c->n_layers * c->n_kv_heads * c->head_dim * sizeof(float);
    size_t block = ctx < 512 ? ctx : 512, heads = 2 * (c->n_heads + c->n_kv_heads) * c->head_dim;
    size_t token = (4 * c->hidden + heads + 2 * c->intermediate) * sizeof(float) + 64;
    size_t logits = 32 * c->vocab * sizeof(float);
    return size_mul(position, ctx, cache) && size_mul(token, block, work) &&
           size_add(*work, logits, work);
}

// ---- the flags --------------------------------------------------------------------------------

static bool resolve_bits(float bits, const struct mix *x, struct budget *b, struct error *err) {
    double weights = (double)mix_weights(x), smallest = 8 * (double)mix_smallest(x) / weights;
    b->bytes = (size_t)((double)bits * weights / 8);
    snprintf(b->words, sizeof b->words, "%g bits per weight", (double)bits);
    if (b->bytes >= mix_smallest(x))
        return true;
    return error_set(err, "--bits %g cannot be met: the smallest mix takes %.4g bits per weight",
                     (double)bits, ceil(smallest * 1000) / 1000);
}

static bool resolve_size(const char *text, const struct mix *x, struct budget *b,
                         struct error *err) {
    size_t size, smallest = b->rest + mix_smallest(x);
    if (!budget_parse_bytes(text, &size))
        return error_set(err, "--size is '%s', expected bytes such as 2.4GB or 300MB", text);
    b->bytes = size > b->rest ? size - b->rest : 0;
    snprintf(b->words, sizeof b->words, "%s of weights", MEGABYTES(size));
    return size >= smallest ||
           error_set(err, "--size %s cannot be met: the smallest model takes %zu bytes (%s)", text,
                     smallest, MEGABYTES(smallest));
}

static bool resolve_fit(const char *text, const struct model *m, const struct mix *x, size_t ctx,
                        struct budget *b, struct error *err) {
    size_t size, cache, work, need;
    if (!budget_parse_bytes(text, &size))
        return error_set(err, "--fit is '%s', expected bytes such as 8GB or 300MB", text);
    if (!budget_running(&m->config, ctx, &cache, &work) || !size_add(cache, work, &need) ||
        !size_add(need, b->rest + mix_smallest(x), &need))
        return error_set(err, "--fit: a key/value cache of %zu positions overflows", ctx);
    size_t others = cache + work + b->rest;
    b->bytes = size > others ? size - others : 0;
    snprintf(b->words, sizeof b->words, "%s with %s of cache for %zu positions and %s of buffers",
             MEGABYTES(size), MEGABYTES(cache), ctx, MEGABYTES(work));
    return size >= need ||
           error_set(err,
                     "--fit %s cannot be met: the least is %zu bytes (%s): %s of weights, %s of "
                     "cache for %zu positions, %s of buffers",
                     text, need, MEGABYTES(need), MEGABYTES(need - cache - work), MEGABYTES(cache),
                     ctx, MEGABYTES(work));
}

bool budget_resolve(const struct budget_flags *flags, const struct model *m, const struct mix *x,
                    size_t ctx, size_t standard, struct budget *b, struct error *err) {
    *b = (struct budget){.bytes = standard, .rest = budget_rest(m, x)};
    int given = (flags->bits > 0) + (flags->size != NULL) + (flags->fit != NULL);
    if (given > 1)
        return error_set(err, "--bits, --size and --fit exclude each other");
    if (flags->bits > 0)
        return resolve_bits(flags->bits, x, b, err);
    if (flags->size)
        return resolve_size(flags->size, x, b, err);
    if (flags->fit)
        return resolve_fit(flags->fit, m, x, ctx, b, err);
    snprintf(b->words, sizeof b->words, "the bytes of uniform int4-g128");
    return standard >= mix_smallest(x) ||
           error_set(err,
                     "the bytes of uniform int4-g128 cannot be met: the smallest mix takes %zu "
                     "bytes",
                     mix_smallest(x));
}
