#include "cuda/matrix.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/random.h"

// Formats of GGUF blocks: the type's number there, and ours.
static const struct block_type {
    const char *name;
    enum cuda_format format;
    int gguf_type;
    unsigned weights, bytes;
} blocks[] = {
    {"q4_0", CUDA_Q4_0, 2, 32, 18},
    {"q8_0", CUDA_Q8_0, 8, 32, 34},
    {"q4_k", CUDA_Q4_K, 12, 256, 144},
    {"q6_k", CUDA_Q6_K, 14, 256, 210},
};

enum { N_BLOCKS = sizeof blocks / sizeof *blocks };

static void set_blocks(struct cuda_matrix *w, const struct block_type *b) {
    w->format = b->format;
    w->row_bytes = (size_t)w->k / b->weights * b->bytes;
}

static void set_planes(struct cuda_matrix *w, const struct quant_planes *p, const void *data) {
    const uint8_t *bytes = data;
    w->row_bytes = p->code_stride;
    w->scales = p->groups ? bytes + p->scales : NULL;
    w->group = (unsigned)p->group;
    w->groups = (unsigned)p->groups;
    w->wide_scales = p->scale_bytes == sizeof(float);
    w->zeros = p->zero_stride ? bytes + p->zeros : NULL;
    w->zero_bytes = p->zero_stride;
}

bool cuda_matrix_of(const struct quant_format *f, const void *data, size_t n, size_t k,
                    struct cuda_matrix *w) {
    struct quant_planes p;
    if (n == 0 || k == 0 || n > INT32_MAX || k > INT32_MAX)
        return false;
    *w = (struct cuda_matrix){.n = (unsigned)n, .k = (unsigned)k, .codes = data};
    for (size_t i = 0; f->block_weights && i < N_BLOCKS; i++)
        if (f->gguf_type == blocks[i].gguf_type + 1 && f->block_bytes == blocks[i].bytes) {
            set_blocks(w, &blocks[i]);
            return k % blocks[i].weights == 0;
        }
    if (f->block_weights || f->span == SPAN_TENSOR || !quant_planes(f, n, k, &p))
        return false;
    if (f->dtype == DTYPE_F16 || f->dtype == DTYPE_BF16)
        w->format = f->dtype == DTYPE_F16 ? CUDA_F16 : CUDA_BF16;
    else if (strncmp(f->name, "int8", 4) == 0 && !f->zero_point)
        w->format = CUDA_INT8;
    else if (strncmp(f->name, "int4", 4) == 0) // other four bits mean other things
        w->format = CUDA_INT4;
    else
        return false;
    set_planes(w, &p, data);
    return true;
}

// ---- samples -----------------------------------------------------------------------------------

const char *const cuda_sample_formats[] = {
    "f16",      "bf16",     "int8",      "int8-g32",  "int8-g64",    "int8-g128",   "int4",
    "int4-g32", "int4-g64", "int4-g128", "int4-g256", "int4-g32-zp", "int4-g64-zp", "int4-g128-zp",
    "nf4",      "q8_0",     "q4_0",      "q4_k",      "q6_k",        NULL,
};

static void fill(struct random *r, void *data, size_t bytes) {
    uint64_t *words = data; // sizes are multiples of 64
    for (size_t i = 0; i < bytes / 8; i++)
        words[i] = random_u64(r);
}

// n scales between half and one and a half times `size`.
static void fill_scales(struct random *r, void *p, size_t n, size_t step, bool wide, double size) {
    for (size_t i = 0; i < n; i++, p = (char *)p + step) {
        float scale = (float)(size * (0.5 + random_uniform(r)));
        uint16_t half = f32_to_f16(scale);
        memcpy(p, wide ? (void *)&scale : (void *)&half, wide ? 4 : 2);
    }
}

// Random floats of 16 bits: sign and fraction, and an exponent that makes them about `size`.
static void fill_floats(uint16_t *p, size_t n, bool bf16, double size) {
    uint16_t one = bf16 ? f32_to_bf16((float)size) : f32_to_f16((float)size);
    uint16_t exponent = one & (bf16 ? 0x7f80 : 0x7c00), free_bits = bf16 ? 0x807f : 0x83ff;
    for (size_t i = 0; i < n; i++)
        p[i] = (uint16_t)((p[i] & free_bits) | exponent);
}

// Scales of a block, where random bytes would be huge, infinite or NaN.
static void mend_blocks(struct random *r, const struct block_type *b, void *data, size_t n,
                        double size) {
    char *p = data;
    if (b->format == CUDA_Q8_0)
        fill_scales(r, p, n, b->bytes, false, size / 127);
    else if (b->format == CUDA_Q4_0)
        fill_scales(r, p, n, b->bytes, false, size / 8);
    else if (b->format == CUDA_Q6_K)
        fill_scales(r, p + 208, n, b->bytes, false, size / 32 / 128);
    else {
        fill_scales(r, p, n, b->bytes, false, size / 16 / 64);
        fill_scales(r, p + 2, n, b->bytes, false, size / 64);
    }
}

// NF4: INT4's planes, groups of 64.
static bool planes_of(const char *format, unsigned n, unsigned k, enum cuda_format *type,
                      struct quant_planes *p) {
    struct cuda_matrix w;
    bool nf4 = strcmp(format, "nf4") == 0;
    const struct quant_format *f = quant_format_find(nf4 ? "int4-g64" : format);
    if (!f || !cuda_matrix_of(f, format, n, k, &w) || !quant_planes(f, n, k, p))
        return false;
    *type = nf4 ? CUDA_NF4 : w.format;
    return true;
}

static void mend_planes(struct random *r, struct cuda_sample *s, const struct quant_planes *p,
                        double size) {
    enum cuda_format f = s->w.format;
    char *data = s->data;
    if (f == CUDA_F16 || f == CUDA_BF16)
        fill_floats(s->data, (size_t)s->w.n * s->w.k, f == CUDA_BF16, size);
    else
        fill_scales(r, data + p->scales, s->w.n * p->groups, p->scale_bytes, s->w.wide_scales,
                    size / (f == CUDA_INT8  ? 127
                            : f == CUDA_NF4 ? 1
                                            : 8));
}

bool cuda_sample_init(struct cuda_sample *s, const char *format, unsigned n, unsigned k,
                      uint64_t seed, struct error *err) {
    struct random r = {seed};
    struct quant_planes p = {0};
    const struct block_type *b = NULL;
    *s = (struct cuda_sample){.w = {.n = n, .k = k}};
    for (size_t i = 0; i < N_BLOCKS; i++)
        b = strcmp(format, blocks[i].name) == 0 ? &blocks[i] : b;
    if (n == 0 || k == 0 || (b ? k % b->weights != 0 : !planes_of(format, n, k, &s->w.format, &p)))
        return error_set(err, "%u rows of %u weights in format '%s', expected %s", n, k, format,
                         b ? "whole blocks" : "one that the kernels read");
    if (b)
        set_blocks(&s->w, b);
    s->bytes = b ? n * s->w.row_bytes : p.bytes;
    s->data = memory_alloc((s->bytes + 63) / 64, 64, "weights", err);
    if (!s->data)
        return false;
    fill(&r, s->data, (s->bytes + 63) / 64 * 64);
    s->w.codes = s->data;
    if (!b)
        set_planes(&s->w, &p, s->data);
    if (b)
        mend_blocks(&r, b, s->data, s->bytes / b->bytes, 1 / sqrt(k));
    else
        mend_planes(&r, s, &p, 1 / sqrt(k));
    return true;
}

void cuda_sample_free(struct cuda_sample *s) {
    free(s->data);
    s->data = NULL;
}

uint16_t *cuda_sample_x(unsigned m, unsigned k, unsigned *stride, uint64_t seed,
                        struct error *err) {
    struct random r = {seed};
    *stride = (k + 255) / 256 * 256;
    uint16_t *x = memory_alloc((size_t)m * *stride, sizeof *x, "activations", err);
    for (unsigned i = 0; x && i < m; i++)
        for (unsigned j = 0; j < k; j++)
            x[(size_t)i * *stride + j] = f32_to_f16((float)random_normal(&r));
    return x;
}
