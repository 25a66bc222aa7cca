// AbsMax: the largest magnitude that shares a scale becomes 127, everything else follows.
//
//     scale = max |w| / 127        code = round(w / scale)        ŵ = scale * code
//
//     w       -0.8   0.1   0.42   1.27        max |w| = 1.27, scale = 0.01
//     code     -80    10     42    127        one byte each, -128 is never used
//
// No ŵ is further than half a scale from its w. So the question is who shares a scale with whom:
// one large weight makes the steps coarse for all of them. The whole matrix (one scale), a row (an
// output channel), or a group of 32 to 128 neighbours in a row.
#include "quant/format_shared.h"
#include "quant/scale_search.h"

enum { CODE_MAX = 127 };

static void round_codes(const float *w, size_t n, float scale, int8_t *codes) {
    if (scale == 0) { // all weights are 0, or too small for a scale
        memset(codes, 0, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        codes[i] = (int8_t)round_even(clamp(w[i] / scale, -CODE_MAX, CODE_MAX));
}

// The scale of the n weights of row r from column col on.
static bool choose_scale(const struct quant_format *f, const float *w, size_t n, size_t r,
                         size_t col, size_t scale_bytes, const struct quant_hints *hints,
                         float *scale, struct error *err) {
    float largest = quant_absmax(w, n);
    if (!isfinite(largest))
        return quant_fail_not_finite(w, r, col, n, err);
    float exact = (f->span == SPAN_TENSOR ? hints->absmax : largest) / CODE_MAX;
    struct quant_grid grid = {scale_round(scale_bytes, exact), 0, -CODE_MAX, CODE_MAX};
    if (!isfinite(grid.scale))
        return quant_fail_scale(exact, scale_bytes, r, col, n, err);
    if (hints->search && f->span != SPAN_TENSOR)
        quant_grid_search(w, hints->importance ? hints->importance + col : NULL, n, false,
                          scale_bytes, &grid);
    *scale = grid.scale;
    return true;
}

static bool quantize_int8(const struct quant_format *f, const float *w, size_t row, size_t count,
                          size_t n, size_t k, const struct quant_hints *hints, void *out,
                          struct error *err) {
    struct quant_planes p;
    if (!quant_planes(f, n, k, &p))
        return quant_fail_size(n, k, err);
    for (size_t r = row; r < row + count; r++, w += k) {
        for (size_t g = 0; g < p.groups; g++) {
            size_t col = g * p.group, len = size_min(p.group, k - col);
            float scale = 0;
            if (!choose_scale(f, w + col, len, r, col, p.scale_bytes, hints, &scale, err))
                return false;
            if (f->span != SPAN_TENSOR || r == 0) // one scale, so one writer
                scale_store((char *)out + p.scales, p.scale_bytes, r * p.groups + g, scale);
            round_codes(w + col, len, scale, (int8_t *)out + r * k + col);
        }
    }
    return true;
}

// Which scale column col of a row has; the one scale of a tensor is number 0.
static size_t scale_index(const struct quant_format *f, const struct quant_planes *p, size_t row,
                          size_t col) {
    return f->span == SPAN_TENSOR ? 0 : row * p->groups + col / p->group;
}

static void dequantize_int8_ref(const struct quant_format *f, const void *data, size_t n, size_t k,
                                size_t row, size_t col, size_t count, float *out) {
    struct quant_planes p;
    if (!quant_planes(f, n, k, &p))
        return;
    const int8_t *codes = (const int8_t *)data + row * k;
    for (size_t i = col; i < col + count; i++) {
        float scale =
            scale_load((const char *)data + p.scales, p.scale_bytes, scale_index(f, &p, row, i));
        out[i - col] = scale * (float)codes[i];
    }
}

static inline __attribute__((always_inline)) void
dequantize_int8_body(const struct quant_format *f, const void *data, size_t n, size_t k, size_t row,
                     size_t col, size_t count, float *restrict out) {
    struct quant_planes p;
    if (!quant_planes(f, n, k, &p))
        return;
    const int8_t *restrict codes = (const int8_t *)data + row * k + col;
    const char *scales = (const char *)data + p.scales;
    size_t s = scale_index(f, &p, row, col);
    for (size_t done = 0; done < count; s++) {
        size_t end = size_min(done + p.group, count);
        float scale = scale_load(scales, p.scale_bytes, s);
        for (; done < end; done++)
            out[done] = scale * (float)codes[done];
    }
}

FORMAT_VERSIONS(dequantize_int8, dequantize_int8_body, dequantize_int8_body, dequantize_int8_body)

#define INT8_FORMAT(id, text, description, scale_span, group_size)                                 \
    _Static_assert((group_size) == 0 || 256 % (group_size) == 0, "columns are read from 256 on");  \
    const struct quant_format quant_##id = {.name = text,                                          \
                                            .label = "int8 " description,                          \
                                            .dtype = DTYPE_BLOCK,                                  \
                                            .bits = 8,                                             \
                                            .span = scale_span,                                    \
                                            .group = group_size,                                   \
                                            .bytes = quant_planes_bytes,                           \
                                            .quantize = quantize_int8,                             \
                                            .dequantize_ref = dequantize_int8_ref,                 \
                                            .dequantize = dequantize_int8}

INT8_FORMAT(int8_tensor, "int8-tensor", "per-tensor", SPAN_TENSOR, 0);
INT8_FORMAT(int8, "int8", "per-channel", SPAN_ROW, 0);
INT8_FORMAT(int8_g32, "int8-g32", "group 32", SPAN_GROUP, 32);
INT8_FORMAT(int8_g64, "int8-g64", "group 64", SPAN_GROUP, 64);
INT8_FORMAT(int8_g128, "int8-g128", "group 128", SPAN_GROUP, 128);
