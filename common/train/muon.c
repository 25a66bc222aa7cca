#include "train/muon.h"

#include <math.h>
#include <stdbool.h>

#include "train/adamw.h"
#include "train/gemm.h"
#include "train/vector.h"

static const double A = 3.4445, B = -4.7750, C = 2.0315;

struct sizes {
    size_t small, large;
    bool tall; // more rows than columns: x is read transposed
};

static struct sizes sizes_of(size_t rows, size_t columns) {
    bool tall = rows > columns;
    return (struct sizes){tall ? columns : rows, tall ? rows : columns, tall};
}

size_t muon_space(size_t rows, size_t columns) {
    struct sizes s = sizes_of(rows, columns);
    return 2 * s.small * s.small + 2 * rows * columns + GEMM_SPACE;
}

TRAIN_ROW static void combine(float *out, float a, const float *x, float b, const float *y,
                              size_t n) {
    for (size_t i = 0; i < n; i++)
        out[i] = a * x[i] + b * y[i];
}

// x as [small, large] whatever its shape, and the same transposed.
static struct gemm_view wide(const float *x, size_t columns, bool tall) {
    return tall ? gemm_by_columns(x, columns) : gemm_by_rows(x, columns);
}

void muon_orthogonalize(float *x, size_t rows, size_t columns, bool bf16, float *space) {
    struct sizes s = sizes_of(rows, columns);
    size_t n = rows * columns, square = s.small * s.small;
    float *gram = space, *power = gram + square, *next = power + square;
    struct gemm_work work = {next + n, bf16};
    float inverse = (float)(1.0 / (adamw_norm(x, n) + 1e-12));
    combine(x, inverse, x, 0.0f, x, n);
    for (int step = 0; step < MUON_STEPS; step++) {
        // gram = X Xᵀ; power = b gram + c gram²; X = a X + power X, X being [small, large].
        gemm(s.small, s.small, s.large, wide(x, columns, s.tall), wide(x, columns, !s.tall), false,
             gram, s.small, work);
        gemm(s.small, s.small, s.small, gemm_by_rows(gram, s.small), gemm_by_rows(gram, s.small),
             false, power, s.small, work);
        combine(power, (float)B, gram, (float)C, power, square);
        if (s.tall) // Xᵀ power: power is symmetric
            gemm(rows, columns, s.small, gemm_by_rows(x, columns), gemm_by_rows(power, s.small),
                 false, next, columns, work);
        else
            gemm(rows, columns, s.small, gemm_by_rows(power, s.small), gemm_by_rows(x, columns),
                 false, next, columns, work);
        combine(x, (float)A, x, 1.0f, next, n);
    }
}

// c[M, N] = a[M, K] b[K, N], or a bᵀ with b[N, K].
static void multiply_ref(double *c, const double *a, const double *b, size_t M, size_t N, size_t K,
                         bool transposed) {
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++) {
            double sum = 0;
            for (size_t k = 0; k < K; k++)
                sum += a[i * K + k] * (transposed ? b[j * K + k] : b[k * N + j]);
            c[i * N + j] = sum;
        }
}

void muon_orthogonalize_ref(double *x, size_t rows, size_t columns, double *space) {
    size_t n = rows * columns, square = rows * rows;
    double *gram = space, *power = gram + square, *next = power + square, norm = 0;
    for (size_t i = 0; i < n; i++)
        norm += x[i] * x[i];
    for (size_t i = 0; i < n; i++)
        x[i] /= sqrt(norm) + 1e-12;
    for (int step = 0; step < MUON_STEPS; step++) {
        multiply_ref(gram, x, x, rows, rows, columns, true);
        multiply_ref(power, gram, gram, rows, rows, rows, false);
        for (size_t i = 0; i < square; i++)
            power[i] = B * gram[i] + C * power[i];
        multiply_ref(next, power, x, rows, columns, rows, false);
        for (size_t i = 0; i < n; i++)
            x[i] = A * x[i] + next[i];
    }
}

void muon_update(float *w, const float *g, float *m, size_t rows, size_t columns,
                 const struct muon *muon, float *space) {
    size_t n = rows * columns;
    float *direction = space, *rest = space + n, mu = (float)muon->momentum;
    float scale = (float)muon->gradient_scale;
    combine(m, mu, m, scale, g, n);
    combine(direction, mu, m, scale, g, n); // Nesterov's: a step ahead
    muon_orthogonalize(direction, rows, columns, muon->bf16, rest);
    double size = 0.2 * sqrt((double)(rows > columns ? rows : columns));
    combine(w, (float)(1.0 - muon->lr * muon->decay), w, (float)(-muon->lr * size), direction, n);
}
