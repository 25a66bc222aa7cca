#include "kernels/cpu/kernels.h"

#include <math.h>

#define SIMD_BODY "norm_simd.h"
#include "simd.h"
#include "kernels/cpu/team.h"

enum { NORM_PART = 1 << 15 }; // elements a thread takes at a time, or one row

struct norm_rows {
    float *y;
    const float *x, *gain, *bias;
    size_t m, n, together;
    float eps;
};

static void rmsnorm_chunk(void *context, size_t chunk) {
    const struct norm_rows *r = context;
    size_t first = chunk * r->together;
    for (size_t i = first; i < min_size(r->m, first + r->together); i++)
        SIMD_CALL(rmsnorm_row, r->y + i * r->n, r->x + i * r->n, r->n, r->gain, r->eps);
}

static void layernorm_chunk(void *context, size_t chunk) {
    const struct norm_rows *r = context;
    size_t first = chunk * r->together;
    for (size_t i = first; i < min_size(r->m, first + r->together); i++)
        SIMD_CALL(layernorm_row, r->y + i * r->n, r->x + i * r->n, r->n, r->gain, r->bias, r->eps);
}

static void norm_run(struct norm_rows *r, team_work *work) {
    r->together = NORM_PART / (r->n + 1) + 1;
    team_run((r->m + r->together - 1) / r->together, work, r);
}

void rmsnorm_ref(float *y, const float *x, size_t m, size_t n, const float *gain, float eps) {
    for (size_t i = 0; i < m; i++, x += n, y += n) {
        double squares = 0;
        for (size_t j = 0; j < n; j++)
            squares += (double)x[j] * x[j];
        double inverse = 1 / sqrt(squares / (double)n + eps);
        for (size_t j = 0; j < n; j++)
            y[j] = (float)(x[j] * inverse * gain[j]);
    }
}

void rmsnorm(float *y, const float *x, size_t m, size_t n, const float *gain, float eps) {
    norm_run(&(struct norm_rows){y, x, gain, NULL, m, n, 0, eps}, rmsnorm_chunk);
}

void layernorm_ref(float *y, const float *x, size_t m, size_t n, const float *gain,
                   const float *bias, float eps) {
    for (size_t i = 0; i < m; i++, x += n, y += n) {
        double mean = 0, variance = 0;
        for (size_t j = 0; j < n; j++)
            mean += x[j] / (double)n;
        for (size_t j = 0; j < n; j++)
            variance += (x[j] - mean) * (x[j] - mean) / (double)n;
        double inverse = 1 / sqrt(variance + eps);
        for (size_t j = 0; j < n; j++)
            y[j] = (float)((x[j] - mean) * inverse * gain[j] + (bias ? bias[j] : 0));
    }
}

void layernorm(float *y, const float *x, size_t m, size_t n, const float *gain, const float *bias,
               float eps) {
    norm_run(&(struct norm_rows){y, x, gain, bias, m, n, 0, eps}, layernorm_chunk);
}
