#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "kernels/cpu/matmul_weave.h"
#include "kernels/cpu/team.h"

#define SIMD_BODY "weave_x_simd.h"
#include "simd.h"

#define TEAM_MIN ((size_t)1 << 17) // values that are worth waking the team

static bool weave_x_reserve(struct weave_x *x, struct error *err) {
    size_t tokens = weave_x_tokens(x->m), units = tokens * x->units;
    size_t q = round_up(tokens * x->q_stride, 64);
    size_t bytes = q + units * (2 * sizeof(float) + sizeof(int32_t));
    if (bytes > x->capacity) {
        free(x->memory);
        x->capacity = 0;
        if (!(x->memory = memory_alloc(bytes, 1, "int8 activations", err)))
            return false;
        x->capacity = bytes;
    }
    x->q = x->memory;
    x->scale = (float *)(void *)(x->q + q);
    x->scaled_sum = x->scale + units;
    x->sum = (int32_t *)(void *)(x->scaled_sum + units);
    return true;
}

static void weave_x_shape(struct weave_x *out, const struct weave *w, size_t m) {
    out->m = m;
    out->k = w->k;
    out->q_stride = w->k_padded;
    out->unit = w->unit;
    out->units = w->units;
}

void weave_x_make_ref(struct weave_x *out, const float *x, size_t x_stride) {
    for (size_t i = 0; i < out->m; i++)
        for (size_t c = 0, u = i * out->units; c < out->q_stride; c += out->unit, u++) {
            size_t end = min_size(c + out->unit, out->q_stride);
            float largest = 0;
            for (size_t j = c; j < end && j < out->k; j++)
                if (!(fabsf(x[i * x_stride + j]) <= largest))
                    largest = fabsf(x[i * x_stride + j]);
            if (u >= (i + 1) * out->units)
                break;
            out->scale[u] = largest / 127;
            out->sum[u] = 0;
            float inverse = 127 / largest;
            for (size_t j = c; j < end; j++) {
                bool zero = j >= out->k || !(inverse < INFINITY && inverse > 0);
                int8_t q = zero ? 0 : (int8_t)rintf(x[i * x_stride + j] * inverse);
                out->q[i * out->q_stride + j] = q;
                out->sum[u] += q;
            }
            out->scaled_sum[u] = out->scale[u] * (float)out->sum[u];
        }
}

struct quantize_job {
    struct weave_x *out;
    const float *x, *gate; // gate: or NULL
    size_t x_stride;
};

static void zero_row(const struct weave_x *x, size_t i) {
    memset(x->q + i * x->q_stride, 0, x->q_stride);
    for (size_t u = i * x->units; u < (i + 1) * x->units; u++) {
        x->scale[u] = x->scaled_sum[u] = 0;
        x->sum[u] = 0;
    }
}

static void quantize_row(void *context, size_t i) {
    const struct quantize_job *job = context;
    const struct weave_x *out = job->out;
    SIMD_CALL(weave_x_row, out, i, job->x + i * job->x_stride,
              job->gate ? job->gate + i * job->x_stride : NULL);
}

bool weave_x_make_gated(struct weave_x *out, const struct weave *w, const float *gate,
                        const float *up, size_t stride, size_t m, struct error *err) {
    weave_x_shape(out, w, m);
    if (!weave_x_reserve(out, err))
        return false;
    struct quantize_job job = {out, up, gate, stride};
    if (m * w->k >= TEAM_MIN)
        team_run(m, quantize_row, &job);
    else
        for (size_t i = 0; i < m; i++)
            quantize_row(&job, i);
    if (weave_x_tokens(m) > m)
        zero_row(out, m);
    return true;
}

bool weave_x_make(struct weave_x *out, const struct weave *w, const float *x, size_t x_stride,
                  size_t m, struct error *err) {
    return weave_x_make_gated(out, w, NULL, x, x_stride, m, err);
}

void weave_x_free(struct weave_x *x) {
    free(x->memory);
    *x = (struct weave_x){0};
}
