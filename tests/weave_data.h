// Random woven matrices in every shape of format the kernels know.
#ifndef NIBBLE_TESTS_WEAVE_DATA_H
#define NIBBLE_TESTS_WEAVE_DATA_H

#include "core/dtype.h"
#include "kernels/cpu/weave.h"
#include "tests/kernel_data.h"

static const int8_t curve[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113};

static const float curve_levels[16] = {-127 / 128., -104 / 128., -83 / 128., -65 / 128.,
                                       -49 / 128.,  -35 / 128.,  -22 / 128., -10 / 128.,
                                       1 / 128.,    13 / 128.,   25 / 128.,  38 / 128.,
                                       53 / 128.,   69 / 128.,   89 / 128.,  113 / 128.};

// Every shape of format the kernels know.
static const struct weave_kind weave_kinds[] = {
    {.bits = 4, .group = 128, .scale = WEAVE_SCALE_F16, .zero_code = 8},
    {.bits = 4, .group = 32, .scale = WEAVE_SCALE_F16, .zero_code = 8},
    {.bits = 4, .group = 64, .scale = WEAVE_SCALE_F16, .zero = WEAVE_ZERO_GROUP},
    {.bits = 4, .group = 256, .scale = WEAVE_SCALE_F16, .zero = WEAVE_ZERO_GROUP},
    {.bits = 4, .group = 32, .scale = WEAVE_SCALE_F16, .zero = WEAVE_ZERO_OFFSET},
    {.bits = 4, .group = 16, .scale = WEAVE_SCALE_F16, .zero_code = 8},
    {.bits = 4, .scale = WEAVE_SCALE_ROW, .zero_code = 8},
    {.bits = 4, .scale = WEAVE_SCALE_ROW, .zero = WEAVE_ZERO_GROUP},
    {.bits = 4, .group = 32, .scale = WEAVE_SCALE_F16, .table = curve},
    {.bits = 4,
     .group = 64,
     .scale = WEAVE_SCALE_F32,
     .table = curve,
     .levels = curve_levels,
     .step = 1 / 128.f},
    {.bits = 4, .group = 32, .scale = WEAVE_SCALE_K4, .zero = WEAVE_ZERO_K4},
    {.bits = 5, .group = 32, .scale = WEAVE_SCALE_F16, .zero_code = 16},
    {.bits = 5, .group = 32, .scale = WEAVE_SCALE_K4, .zero = WEAVE_ZERO_K4},
    {.bits = 5, .group = 128, .scale = WEAVE_SCALE_F16, .zero = WEAVE_ZERO_GROUP},
    {.bits = 6, .group = 16, .scale = WEAVE_SCALE_K6, .zero_code = 32},
    {.bits = 6, .group = 64, .scale = WEAVE_SCALE_F16, .zero_code = 32},
    {.bits = 8, .scale = WEAVE_SCALE_ROW},
    {.bits = 8, .group = 32, .scale = WEAVE_SCALE_F16},
    {.bits = 8, .group = 128, .scale = WEAVE_SCALE_F16},
};
enum { WEAVE_KINDS = sizeof weave_kinds / sizeof *weave_kinds };

static inline uint16_t random_half(struct random *r) {
    return f32_to_f16((float)(0.01 + 0.02 * random_uniform(r)));
}

static inline void random_row(struct random *r, const struct weave *w, struct weave_row *row) {
    bool k6 = w->kind.scale == WEAVE_SCALE_K6;
    for (size_t c = 0; c < w->k; c++)
        row->codes[c] = w->kind.bits == 8 ? (uint8_t)(random_below(r, 255) - 127)
                                          : (uint8_t)random_below(r, 1u << w->kind.bits);
    row->row_scale = (float)random_uniform(r);
    for (size_t g = 0; g < w->groups; g++) {
        row->scales[g] = random_half(r);
        row->wide_scales[g] = (float)random_normal(r);
        row->offsets[g] = random_half(r);
        row->zeros[g] = (uint8_t)random_below(r, 1u << (w->kind.bits < 8 ? w->kind.bits : 7));
    }
    for (size_t j = 0; j < w->k / 16; j++) {
        row->small[j] = k6 ? (uint8_t)(random_below(r, 256) - 128) : (uint8_t)random_below(r, 64);
        row->small_offsets[j] = (uint8_t)random_below(r, 64);
    }
}

// A matrix of random rows, its memory exactly as large as it says and on a cache line.
static inline bool random_weave(struct random *r, struct weave *w, const struct weave_kind *kind,
                                size_t n, size_t k) {
    struct weave_row row;
    if (!weave_layout(w, kind, n, k))
        return false;
    w->data = aligned_alloc(64, weave_bytes(w));
    memset(w->data, 0xff, weave_bytes(w));
    cr_assert(w->data && weave_row_init(&row, w));
    for (size_t i = 0; i < n; i++) {
        random_row(r, w, &row);
        weave_put(w, i, &row);
    }
    weave_row_free(&row);
    return true;
}

#endif
