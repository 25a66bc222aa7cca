#include "kernels/cpu/kernels.h"

#include <math.h>

#define SIMD_BODY "activation_simd.h"
#include "simd.h"
#include "kernels/cpu/team.h"

enum { ACTIVATION_PART = 16384 }; // elements a thread takes at a time: less is not worth a thread

struct activation {
    float *y;
    const float *a, *b;
    size_t n;
};

#define ACTIVATION_CHUNK(name, ...)                                                                \
    static void name##_chunk(void *context, size_t chunk) {                                        \
        const struct activation *run = context;                                                    \
        size_t i = chunk * ACTIVATION_PART;                                                        \
        SIMD_CALL(name##_part, run->y + i, __VA_ARGS__, min_size(ACTIVATION_PART, run->n - i));    \
    }
ACTIVATION_CHUNK(silu_mul, run->a + i, run->b + i)
ACTIVATION_CHUNK(gelu_tanh, run->a + i)
ACTIVATION_CHUNK(add_to, run->a + i)
#undef ACTIVATION_CHUNK

static void activation_run(struct activation *run, team_work *work) {
    team_run((run->n + ACTIVATION_PART - 1) / ACTIVATION_PART, work, run);
}

void silu_mul_ref(float *y, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++)
        y[i] = (float)(gate[i] / (1 + exp(-(double)gate[i])) * up[i]);
}

void silu_mul(float *y, const float *gate, const float *up, size_t n) {
    activation_run(&(struct activation){y, gate, up, n}, silu_mul_chunk);
}

void gelu_tanh_ref(float *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double v = x[i];
        y[i] = (float)(0.5 * v * (1 + tanh(sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))));
    }
}

void gelu_tanh(float *y, const float *x, size_t n) {
    activation_run(&(struct activation){y, x, NULL, n}, gelu_tanh_chunk);
}

void add_to(float *y, const float *x, size_t n) {
    activation_run(&(struct activation){y, x, NULL, n}, add_to_chunk);
}
