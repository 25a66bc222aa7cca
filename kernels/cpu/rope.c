#include "kernels/cpu/kernels.h"

#include <math.h>

#define SIMD_BODY "rope_simd.h"
#include "simd.h"
#include "kernels/cpu/team.h"

enum { ROPE_PART = 1 << 13 }; // elements a thread takes at a time, or one row

enum { ROPE_PAIRS = 64 }; // angles kept on the stack at a time

void rope_ref(float *x, size_t x_stride, size_t m, size_t n_heads, size_t d,
              const int32_t *position, const float *inv_freq) {
    for (size_t t = 0; t < m; t++)
        for (size_t head = 0; head < n_heads; head++) {
            float *h = x + t * x_stride + head * d;
            for (size_t i = 0; i < d / 2; i++) {
                double angle = position[t] * (double)inv_freq[i];
                double a = h[i], b = h[i + d / 2];
                h[i] = (float)(a * cos(angle) - b * sin(angle));
                h[i + d / 2] = (float)(b * cos(angle) + a * sin(angle));
            }
        }
}

// A row's angles are the same in every head. They are worked out in double: at position 100000 a
// float32 angle is off by 0.004.
static void rope_row(float *row, size_t n_heads, size_t d, int32_t position,
                     const float *inv_freq) {
    float cosine[ROPE_PAIRS], sine[ROPE_PAIRS];
    for (size_t first = 0; first < d / 2; first += ROPE_PAIRS) {
        size_t n = min_size(ROPE_PAIRS, d / 2 - first);
        for (size_t i = 0; i < n; i++) {
            double angle = position * (double)inv_freq[first + i];
            cosine[i] = (float)cos(angle);
            sine[i] = (float)sin(angle);
        }
        for (size_t head = 0; head < n_heads; head++) {
            float *low = row + head * d + first;
            SIMD_CALL(rope_pairs, low, low + d / 2, cosine, sine, n);
        }
    }
}

struct rope_rows {
    float *x;
    size_t x_stride, m, n_heads, d, together;
    const int32_t *position;
    const float *inv_freq;
};

static void rope_chunk(void *context, size_t chunk) {
    const struct rope_rows *r = context;
    size_t first = chunk * r->together;
    for (size_t t = first; t < min_size(r->m, first + r->together); t++)
        rope_row(r->x + t * r->x_stride, r->n_heads, r->d, r->position[t], r->inv_freq);
}

void rope(float *x, size_t x_stride, size_t m, size_t n_heads, size_t d, const int32_t *position,
          const float *inv_freq) {
    size_t together = ROPE_PART / (n_heads * d + 1) + 1;
    struct rope_rows rows = {x, x_stride, m, n_heads, d, together, position, inv_freq};
    team_run((m + together - 1) / together, rope_chunk, &rows);
}
