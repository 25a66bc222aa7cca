#include "train/ops.h"

#include <math.h>
#include <string.h>

#include "train/vector.h"

// Sums over rows (gradients of gains and biases) are split among threads by columns: every column's
// sum runs through the rows in order, so the number of threads does not change it.
enum { STRIPE = 32 };

static size_t stripe_end(size_t begin, size_t columns) {
    return begin + STRIPE < columns ? begin + STRIPE : columns;
}

// ---- RMSNorm ------------------------------------------------------------------------------------

TRAIN_ROW static float norm_row(float *y, const float *x, const float *gain, size_t H, float eps) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < H; j++)
        sum += x[j] * x[j];
    float r = 1.0f / sqrtf(sum / (float)H + eps);
    for (size_t j = 0; j < H; j++)
        y[j] = x[j] * r * gain[j];
    return r;
}

void train_rmsnorm(float *y, float *r, const float *x, const float *gain, size_t M, size_t H,
                   float eps) {
#pragma omp parallel for schedule(static) if (M * H >= TRAIN_SHARED)
    for (size_t m = 0; m < M; m++)
        r[m] = norm_row(y + m * H, x + m * H, gain, H, eps);
}

TRAIN_ROW static void norm_grad_row(float *dx, const float *dy, const float *x, float r,
                                    const float *gain, size_t H, float keep) {
    float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
    for (size_t j = 0; j < H; j++)
        dot += gain[j] * dy[j] * x[j];
    float mean = dot * r * r / (float)H; // mean(g dy x̂) r, the other r is in x̂ below
    for (size_t j = 0; j < H; j++)
        dx[j] = keep * dx[j] + r * (gain[j] * dy[j] - x[j] * mean);
}

TRAIN_ROW static void norm_gain_stripe(float *dgain, const float *dy, const float *x,
                                       const float *r, size_t M, size_t stride, size_t n) {
    float sum[STRIPE] = {0};
    for (size_t m = 0; m < M; m++, dy += stride, x += stride)
        for (size_t j = 0; j < n; j++)
            sum[j] += dy[j] * x[j] * r[m];
    for (size_t j = 0; j < n; j++)
        dgain[j] += sum[j];
}

void train_rmsnorm_grad(float *dx, float *dgain, const float *dy, const float *x, const float *r,
                        const float *gain, size_t M, size_t H, bool add) {
    if (!add)
        memset(dx, 0, M * H * sizeof *dx);
#pragma omp parallel if (M * H >= TRAIN_SHARED)
    {
#pragma omp for schedule(static) nowait
        for (size_t j = 0; j < H; j += STRIPE)
            norm_gain_stripe(dgain + j, dy + j, x + j, r, M, H, stripe_end(j, H) - j);
#pragma omp for schedule(static)
        for (size_t m = 0; m < M; m++)
            norm_grad_row(dx + m * H, dy + m * H, x + m * H, r[m], gain, H, 1.0f);
    }
}

// ---- SwiGLU -------------------------------------------------------------------------------------

TRAIN_ROW static void swiglu_row(float *y, const float *gate, const float *up, size_t I) {
    for (size_t i = 0; i < I; i++)
        y[i] = gate[i] / (1.0f + exp_fast(-gate[i])) * up[i];
}

void train_swiglu(float *y, const float *gate_up, size_t M, size_t I) {
#pragma omp parallel for schedule(static) if (M * I >= TRAIN_SHARED)
    for (size_t m = 0; m < M; m++)
        swiglu_row(y + m * I, gate_up + 2 * m * I, gate_up + (2 * m + 1) * I, I);
}

TRAIN_ROW static void swiglu_grad_row(float *gate, float *up, const float *dy, size_t I) {
    for (size_t i = 0; i < I; i++) {
        float sigma = 1.0f / (1.0f + exp_fast(-gate[i])), silu = gate[i] * sigma;
        gate[i] = dy[i] * up[i] * (sigma + silu * (1.0f - sigma));
        up[i] = dy[i] * silu;
    }
}

void train_swiglu_grad(float *gate_up, const float *dy, size_t M, size_t I) {
#pragma omp parallel for schedule(static) if (M * I >= TRAIN_SHARED)
    for (size_t m = 0; m < M; m++)
        swiglu_grad_row(gate_up + 2 * m * I, gate_up + (2 * m + 1) * I, dy + m * I, I);
}

// ---- queries, keys and values -------------------------------------------------------------------

// Pair (i, i + D/2) turns by the angle: (a, b) -> (a cos - b sin, b cos + a sin). turn -1 turns
// back.
static void rotate(float *x, const float *cosine, const float *sine, size_t D, float turn) {
    for (size_t i = 0; i < D / 2; i++) {
        float a = x[i], b = x[i + D / 2], c = cosine[i], s = turn * sine[i];
        x[i] = a * c - b * s;
        x[i + D / 2] = b * c + a * s;
    }
}

static void heads_row(float *y, const float *x, const struct head_shape *s, size_t position) {
    size_t A = s->n_heads, B = s->n_kv_heads, D = s->head_dim, width = (A + 2 * B) * D;
    const float *cosine = s->cosine + position * D / 2, *sine = s->sine + position * D / 2;
    if (s->bias)
        for (size_t j = 0; j < width; j++)
            y[j] = x[j] + s->bias[j];
    else if (x != y)
        memcpy(y, x, width * sizeof *y);
    for (size_t h = 0; h < A + B; h++, y += D) {
        if (s->q_norm)
            norm_row(y, y, h < A ? s->q_norm : s->k_norm, D, s->eps);
        rotate(y, cosine, sine, D, 1.0f);
    }
}

void train_heads(float *y, const float *x, const struct head_shape *s, size_t M, size_t context) {
    size_t width = (s->n_heads + 2 * s->n_kv_heads) * s->head_dim;
#pragma omp parallel for schedule(static) if (M * width >= TRAIN_SHARED)
    for (size_t m = 0; m < M; m++)
        heads_row(y + m * width, x + m * width, s, m % context);
}

static float inverse_rms(const float *x, size_t n, float eps) {
    float sum = 0.0f;
    for (size_t j = 0; j < n; j++)
        sum += x[j] * x[j];
    return 1.0f / sqrtf(sum / (float)n + eps);
}

// Gains are shared by all heads: dgain[i] += Σ_rows Σ_heads dy x r, one element per call.
static void head_gain_grad(float *dgain, const float *dy, const float *x,
                           const struct head_shape *s, size_t M, size_t first, size_t n_heads) {
    size_t D = s->head_dim, width = (s->n_heads + 2 * s->n_kv_heads) * D;
    for (size_t m = 0; m < M; m++)
        for (size_t h = first; h < first + n_heads; h++) {
            const float *row = x + m * width + h * D, *dyr = dy + m * width + h * D;
            float r = inverse_rms(row, D, s->eps);
            for (size_t i = 0; i < D; i++)
                dgain[i] += dyr[i] * row[i] * r;
        }
}

static void heads_norm_grad_row(float *dy, const float *x, const struct head_shape *s) {
    size_t D = s->head_dim;
    for (size_t h = 0; h < s->n_heads + s->n_kv_heads; h++, x += D, dy += D) {
        const float *gain = h < s->n_heads ? s->q_norm : s->k_norm;
        norm_grad_row(dy, dy, x, inverse_rms(x, D, s->eps), gain, D, 0.0f);
    }
}

void train_heads_grad(float *dy, const float *x, const struct head_shape *s, size_t M,
                      size_t context, float *dbias, float *dq_norm, float *dk_norm) {
    size_t A = s->n_heads, B = s->n_kv_heads, D = s->head_dim, width = (A + 2 * B) * D;
#pragma omp parallel for schedule(static) if (M * width >= TRAIN_SHARED)
    for (size_t m = 0; m < M; m++)
        for (size_t h = 0; h < A + B; h++)
            rotate(dy + m * width + h * D, s->cosine + m % context * D / 2,
                   s->sine + m % context * D / 2, D, -1.0f);
    if (s->q_norm) {
#pragma omp parallel sections if (M * width >= TRAIN_SHARED)
        {
#pragma omp section
            head_gain_grad(dq_norm, dy, x, s, M, 0, A);
#pragma omp section
            head_gain_grad(dk_norm, dy, x, s, M, A, B);
        }
#pragma omp parallel for schedule(static) if (M * width >= TRAIN_SHARED)
        for (size_t m = 0; m < M; m++)
            heads_norm_grad_row(dy + m * width, x + m * width, s);
    }
    if (s->bias)
        train_column_sums(dbias, dy, M, width);
}

// ---- sums ---------------------------------------------------------------------------------------

TRAIN_ROW static void add_row(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

void train_add(float *y, const float *x, size_t n) {
    const size_t chunk = 4096;
#pragma omp parallel for schedule(static) if (n >= TRAIN_SHARED)
    for (size_t i = 0; i < n; i += chunk)
        add_row(y + i, x + i, n - i < chunk ? n - i : chunk);
}

TRAIN_ROW static void sum_stripe(float *sums, const float *x, size_t M, size_t stride, size_t n) {
    float sum[STRIPE] = {0};
    for (size_t m = 0; m < M; m++, x += stride)
        for (size_t j = 0; j < n; j++)
            sum[j] += x[j];
    for (size_t j = 0; j < n; j++)
        sums[j] += sum[j];
}

void train_column_sums(float *sums, const float *x, size_t M, size_t columns) {
#pragma omp parallel for schedule(static) if (M * columns >= TRAIN_SHARED)
    for (size_t j = 0; j < columns; j += STRIPE)
        sum_stripe(sums + j, x + j, M, columns, stripe_end(j, columns) - j);
}
