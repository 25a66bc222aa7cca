#include "train/adamw.h"

#include <math.h>

#include "train/vector.h"

enum { CHUNK = 1 << 14, GROUP = 256 };

struct factors {
    float keep, beta1, beta2, rate, eps, inverse2, scale;
};

TRAIN_ROW static void update_chunk(float *w, const float *g, float *m, float *v, size_t n,
                                   const struct factors *by) {
    struct factors f = *by; // a copy: what the loop writes cannot be part of it
    for (size_t i = 0; i < n; i++) {
        float gradient = g[i] * f.scale;
        float first = f.beta1 * m[i] + (1.0f - f.beta1) * gradient;
        float second = f.beta2 * v[i] + (1.0f - f.beta2) * gradient * gradient;
        m[i] = first;
        v[i] = second;
        w[i] = f.keep * w[i] - f.rate * first / (__builtin_sqrtf(second * f.inverse2) + f.eps);
    }
}

void adamw_update(float *w, const float *g, float *m, float *v, size_t n, const struct adamw *a) {
    struct factors f = {
        .keep = (float)(1.0 - a->lr * a->decay),
        .beta1 = (float)a->beta1,
        .beta2 = (float)a->beta2,
        .rate = (float)(a->lr / (1.0 - pow(a->beta1, (double)a->step))),
        .eps = (float)a->eps,
        .inverse2 = (float)(1.0 / (1.0 - pow(a->beta2, (double)a->step))),
        .scale = (float)a->gradient_scale,
    };
#pragma omp parallel for schedule(static) if (n > CHUNK)
    for (size_t i = 0; i < n; i += CHUNK)
        update_chunk(w + i, g + i, m + i, v + i, n - i < CHUNK ? n - i : CHUNK, &f);
}

TRAIN_ROW static double sum_squares(const float *g, size_t n) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)g[i] * g[i];
    return sum;
}

// The chunks' sums are added in order, whichever thread made them. GROUP of them at a time.
double adamw_norm(const float *g, size_t n) {
    double total = 0.0, sums[GROUP];
    for (size_t begin = 0; begin < n; begin += (size_t)GROUP * CHUNK) {
        size_t left = n - begin, chunks = (left + CHUNK - 1) / CHUNK;
        chunks = chunks < GROUP ? chunks : GROUP;
#pragma omp parallel for schedule(static) if (n > CHUNK)
        for (size_t c = 0; c < chunks; c++) {
            size_t at = c * CHUNK;
            sums[c] = sum_squares(g + begin + at, left - at < CHUNK ? left - at : CHUNK);
        }
        for (size_t c = 0; c < chunks; c++)
            total += sums[c];
    }
    return sqrt(total);
}
