// Nothing here is tuned; what a step gains it gains by its idea.
#include "kernels/cpu/ladder/ladder.h"

#include "core/dtype.h"
#include "kernels/cpu/matmul_rows.h"

#define SIMD_VNNI
#define SIMD_BODY "kernels/cpu/ladder/integers_simd.h"
#include "kernels/cpu/simd.h"

static bool multiply_f16(struct ladder *l, struct error *err) {
    (void)err;
    const struct rows_job job = {.w = l->f16, .n = l->n, .y = l->y, .y_stride = l->n};
    matmul_rows(&job, 1, l->x, l->k, 1, l->k);
    return true;
}

static float weight_at(const struct ladder *l, size_t row, size_t col) {
    const uint8_t *block = l->codes + row * l->k / 2 + col / 32 * 16;
    int code = block[col % 16] >> (col % 32 < 16 ? 0 : 4) & 15;
    return f16_to_f32(l->scales[(row * l->k + col) / LADDER_GROUP]) * (float)(code - 8);
}

static bool step1_unpack_matrix(struct ladder *l, struct error *err) {
    (void)err;
    for (size_t row = 0; row < l->n; row++)
        for (size_t col = 0; col < l->k; col++)
            l->unpacked[row * l->k + col] = weight_at(l, row, col);
    for (size_t row = 0; row < l->n; row++) {
        float sum = 0;
        for (size_t col = 0; col < l->k; col++)
            sum += l->unpacked[row * l->k + col] * l->x[col];
        l->y[row] = sum;
    }
    return true;
}

static bool step2_unpack_each(struct ladder *l, struct error *err) {
    (void)err;
    for (size_t row = 0; row < l->n; row++) {
        float sum = 0;
        for (size_t col = 0; col < l->k; col++)
            sum += weight_at(l, row, col) * l->x[col];
        l->y[row] = sum;
    }
    return true;
}

static bool step3_vectors(struct ladder *l, struct error *err) {
    (void)err;
    matmul(l->y, l->n, l->x, l->k, 1, &l->packed, NULL);
    return true;
}

static bool step4_integers(struct ladder *l, struct error *err) {
    if (!weave_x_make(&l->q, &l->woven, l->x, l->k, 1, err))
        return false;
    SIMD_CALL(integer_rows, l);
    return true;
}

static bool step5_woven(struct ladder *l, struct error *err) {
    if (!weave_x_make(&l->q, &l->woven, l->x, l->k, 1, err))
        return false;
    matmul_weave(&(struct weave_job){.w = &l->woven, .y = l->y, .y_stride = l->n}, 1, &l->q);
    return true;
}

const struct ladder_step ladder_steps[] = {
    {"float16, one thread", LADDER_F16, false, false, multiply_f16},
    {"float16, all threads", LADDER_F16, true, false, multiply_f16},
    {"1 unpack the matrix", LADDER_PACKED, false, false, step1_unpack_matrix},
    {"2 unpack each weight", LADDER_PACKED, false, false, step2_unpack_each},
    {"3 unpack in vectors", LADDER_PACKED, false, false, step3_vectors},
    {"4 integer products", LADDER_PACKED, false, true, step4_integers},
    {"5 woven weights", LADDER_WOVEN, false, true, step5_woven},
    {"6 woven, all threads", LADDER_WOVEN, true, true, step5_woven},
    {.name = NULL},
};
