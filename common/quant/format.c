#include "quant/format.h"

#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "quant/format_shared.h"
#include "quant/woven.h"

enum { PLANE_ALIGN = 64 };

// Per channel and per group, first without zero points.
#define PACKED_GROUP(width, group) , &quant_int##width##_g##group
#define PACKED_GROUP_ZP(width, group) , &quant_int##width##_g##group##_zp
#define PACKED_WIDTH(width)                                                                        \
    &quant_int##width QUANT_GROUPS(PACKED_GROUP, width),                                           \
        &quant_int##width##_zp QUANT_GROUPS(PACKED_GROUP_ZP, width)
#define GGML_ROW(id) &quant_##id,

const struct quant_format *const quant_formats[] = {
    &quant_f32,
    &quant_f16,
    &quant_bf16,
    &quant_int8_tensor,
    &quant_int8,
    &quant_int8_g32,
    &quant_int8_g64,
    &quant_int8_g128,
    &quant_int8_g32_zp,
    &quant_int8_g64_zp,
    &quant_int8_g128_zp,
    PACKED_WIDTH(6),
    PACKED_WIDTH(5),
    PACKED_WIDTH(4),
    PACKED_WIDTH(3),
    PACKED_WIDTH(2),
    QUANT_GGML_FORMATS(GGML_ROW) &quant_nf4,
    NULL,
};

const struct quant_format *quant_format_find(const char *name) {
    for (const struct quant_format *const *f = quant_formats; *f; f++)
        if (strcmp((*f)->name, name) == 0 || strcmp((*f)->label, name) == 0)
            return *f;
    return NULL;
}

const struct quant_format *quant_format_of_dtype(enum dtype t) {
    for (const struct quant_format *const *f = quant_formats; *f; f++)
        if ((*f)->dtype == t && t != DTYPE_BLOCK)
            return *f;
    return NULL;
}

const struct quant_format *quant_format_of_gguf(uint32_t type) {
    for (const struct quant_format *const *f = quant_formats; *f; f++)
        if ((*f)->gguf_type > 0 && (uint32_t)((*f)->gguf_type - 1) == type)
            return *f;
    return NULL;
}

// a / b, rounded up, for b > 0.
static size_t divide_up(size_t a, size_t b) {
    return a / b + (a % b != 0);
}

// Appends a plane of rows * row_bytes to the *end bytes there are, at the next aligned offset.
static bool add_plane(size_t rows, size_t row_bytes, size_t *offset, size_t *end) {
    size_t padded, size;
    if (!size_add(*end, PLANE_ALIGN - 1, &padded) || !size_mul(rows, row_bytes, &size))
        return false;
    *offset = size ? padded / PLANE_ALIGN * PLANE_ALIGN : *end;
    return size_add(*offset, size, end);
}

bool quant_planes(const struct quant_format *f, size_t n, size_t k, struct quant_planes *p) {
    size_t bits, scale_stride, codes;
    if (!size_mul(k, (size_t)f->bits, &bits))
        return false;
    *p = (struct quant_planes){.code_stride = divide_up(bits, 8)};
    if (f->span != SPAN_NONE) {
        p->group = f->span == SPAN_GROUP ? f->group : k ? k : 1;
        p->groups = divide_up(k, p->group);
        p->scale_bytes = f->span == SPAN_GROUP ? sizeof(uint16_t) : sizeof(float);
        if (f->zero_point && !size_mul(p->groups, (size_t)f->bits, &bits))
            return false;
        p->zero_stride = f->zero_point ? divide_up(bits, 8) : 0;
    }
    return size_mul(p->groups, p->scale_bytes, &scale_stride) &&
           add_plane(n, p->code_stride, &codes, &p->bytes) &&
           add_plane(f->span == SPAN_TENSOR ? 1 : n, scale_stride, &p->scales, &p->bytes) &&
           add_plane(n, p->zero_stride, &p->zeros, &p->bytes);
}

bool quant_planes_bytes(const struct quant_format *f, size_t n, size_t k, size_t *out) {
    struct quant_planes p;
    if (!quant_planes(f, n, k, &p))
        return false;
    *out = p.bytes;
    return true;
}

bool quant_bits_per_weight(const struct quant_format *f, size_t n, size_t k, double *out) {
    size_t bytes, weights;
    if (!f->bytes(f, n, k, &bytes) || !size_mul(n, k, &weights) || weights == 0)
        return false;
    *out = 8.0 * (double)bytes / (double)weights;
    return true;
}

void quant_read(const struct tensor *w, size_t row, size_t col, size_t count, float *out) {
    size_t n = w->shape[0], k = w->shape[1];
    struct weave weave;
    if (!w->woven)
        w->format->dequantize(w->format, w->data, n, k, row, col, count, out);
    else if (woven_layout(w, &weave)) // as it did when w was woven
        weave_read(&weave, row, col, count, out);
}

// The bits of floats of one sign are ordered like the floats, infinity above every number and NaN
// above infinity. So the largest of n integers is the largest magnitude and the check for NaN at
// once; unlike a maximum of floats, it vectorises without -ffast-math.
float quant_absmax(const float *w, size_t n) {
    int32_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t magnitude = (int32_t)(f32_bits(w[i]) & 0x7fffffff);
        largest = magnitude > largest ? magnitude : largest;
    }
    return f32_from_bits((uint32_t)largest);
}

struct quant_range quant_range(const float *w, size_t n) {
    int32_t hi = 0, lo = 0; // bits of the largest positive, and of the largest negative's magnitude
    for (size_t i = 0; i < n; i++) {
        int32_t bits = (int32_t)f32_bits(w[i]);
        int32_t negative = bits < 0 ? bits & 0x7fffffff : 0;
        hi = bits > hi ? bits : hi;
        lo = negative > lo ? negative : lo;
    }
    return (struct quant_range){-f32_from_bits((uint32_t)lo), f32_from_bits((uint32_t)hi)};
}

bool quant_fail_not_finite(const float *w, size_t row, size_t col, size_t n, struct error *err) {
    size_t i = 0;
    while (i + 1 < n && isfinite(w[i]))
        i++;
    return error_set(err, "row %zu, column %zu: weight is %g, expected a finite number", row,
                     col + i, (double)w[i]);
}

bool quant_fail_scale(float scale, size_t scale_bytes, size_t row, size_t col, size_t n,
                      struct error *err) {
    return error_set(err, "row %zu, columns %zu to %zu: scale is %g, expected at most %g", row, col,
                     col + n - 1, (double)scale, (double)scale_limit(scale_bytes));
}

bool quant_fail_size(size_t n, size_t k, struct error *err) {
    return error_set(err, "%zu rows of %zu weights overflow the address space", n, k);
}

bool quant_takes_int8_activations(const struct quant_format *f) {
    return f == &quant_int8 || f == &quant_int8_tensor;
}

bool quant_int8_planes(const struct tensor *w, const int8_t **codes, const float **scales,
                       size_t *scale_step) {
    const struct quant_format *f = w->format;
    struct quant_planes p;
    if (!quant_takes_int8_activations(f) || w->n_dims != 2 || w->woven ||
        !quant_planes(f, w->shape[0], w->shape[1], &p) || p.bytes > w->bytes)
        return false;
    *codes = w->data;
    *scales = (const float *)(const void *)((const char *)w->data + p.scales);
    *scale_step = f == &quant_int8;
    return true;
}
