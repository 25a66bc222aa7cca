// The operations a forward pass is made of, on arrays: nothing here knows a model.
//
// One operation per file: its plain reference (`_ref`, sums in double, no intrinsics) and its fast
// version. The fast versions are written once over vectors as wide as a register (foo_simd.h) and
// compiled for each instruction set; the one this CPU can run is chosen at start (or by NIBBLE_ISA:
// scalar, avx2, avx512, vnni, amx; on ARM scalar, neon, dotprod, i8mm). Sums have one order,
// whatever the number of threads and however many rows come together: a token decoded alone and one
// prefilled with others get the same bits (unless tiles of bfloat16 may round what comes together).
// Dimension letters: core/tensor.h.
#ifndef NIBBLE_KERNELS_H
#define NIBBLE_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

enum isa { ISA_SCALAR, ISA_AVX2, ISA_AVX512, ISA_COUNT };
// The best instruction set this CPU has, no better than NIBBLE_ISA asks for. Cached; thread-safe.
enum isa kernels_isa(void);
const char *kernels_isa_name(enum isa isa);
// For tests: use this one from now on (no better than the CPU has), with whatever goes with vectors
// of that width. Returns what is now in force.
enum isa kernels_isa_force(enum isa isa);

// The same in finer steps: integer dot products, and matrix tiles, are not in every CPU that has
// the vectors.
enum cpu_level {
    LEVEL_SCALAR,  // SSE2 or NEON, as the compiler uses them
    LEVEL_NEON,    // 64-bit ARM, all of them
    LEVEL_DOTPROD, // and sdot: dot products of four int8
    LEVEL_I8MM,    // and smmla: 2 x 8 int8 times 8 x 2
    LEVEL_AVX2,
    LEVEL_AVX512,
    LEVEL_VNNI, // AVX-512 with VNNI
    LEVEL_AMX,  // and AMX: tiles of int8 and bfloat16
    LEVEL_COUNT
};
enum cpu_level kernels_level(void);
// Fails where NIBBLE_ISA names what no CPU of this kind has: kernels_level would take the best.
bool kernels_check_environment(struct error *err);
// The best that this CPU has, whatever is in force.
enum cpu_level kernels_level_best(void);
// Whether CPUs of this kind can have it at all.
bool kernels_level_known(enum cpu_level level);
const char *kernels_level_name(enum cpu_level level);
// The level of that name; LEVEL_COUNT if there is none.
enum cpu_level kernels_level_find(const char *name);
// Use this one from now on, or the CPU's best if that is less or the level is of other CPUs.
enum cpu_level kernels_level_force(enum cpu_level level);

// ---- matmul.c ----------------------------------------------------------------------------------

// A weight matrix as the kernels see it: something that can hand out parts of its rows as float32.
struct weight_source {
    size_t n, k;
    const void *context;
    // Columns [col, col + count) of a row into out; col is a multiple of 256.
    void (*read)(const void *context, size_t row, size_t col, size_t count, float *out);
};

// y[m, n] = x[m, k] · wᵀ + bias[n] (bias may be NULL). Rows of x and y are x_stride and y_stride
// floats apart. Each weight is read (and unpacked) once, however large m is.
void matmul(float *y, size_t y_stride, const float *x, size_t x_stride, size_t m,
            const struct weight_source *w, const float *bias);
void matmul_ref(float *y, size_t y_stride, const float *x, size_t x_stride, size_t m,
                const struct weight_source *w, const float *bias);

// ---- convert.c: rows of 16-bit floats to float32 --------------------------------------------

void convert_f16_f32(const uint16_t *src, size_t n, float *dst);
void convert_bf16_f32(const uint16_t *src, size_t n, float *dst);

// ---- matmul_i8.c: int8 weights times int8 activations, exact integer sums ----------------------

// q[i] = round(x[i] / scale), scale = max|x| / 127 per row: x [m, k] -> q [m, k], scale [m].
// A row of zeros has scale 0.
void quantize_rows_i8(const float *x, size_t x_stride, size_t m, size_t k, int8_t *q, float *scale);
void quantize_rows_i8_ref(const float *x, size_t x_stride, size_t m, size_t k, int8_t *q,
                          float *scale);
// y[i, j] = x_scale[i] * w_scale[j * w_scale_step] * Σ q[i, :] w[j, :] + bias[j].
// w [n, k] int8; w_scale_step 1: a scale per row, 0: one for all. k <= 131072 keeps sums in int32.
void matmul_i8(float *y, size_t y_stride, const int8_t *q, const float *x_scale, size_t m,
               const int8_t *w, const float *w_scale, size_t w_scale_step, size_t n, size_t k,
               const float *bias);
void matmul_i8_ref(float *y, size_t y_stride, const int8_t *q, const float *x_scale, size_t m,
                   const int8_t *w, const float *w_scale, size_t w_scale_step, size_t n, size_t k,
                   const float *bias);

// ---- norm.c ----------------------------------------------------------------------------------

// y = x / sqrt(mean(x²) + eps) * gain, for each of m rows of n. y may be x.
void rmsnorm(float *y, const float *x, size_t m, size_t n, const float *gain, float eps);
void rmsnorm_ref(float *y, const float *x, size_t m, size_t n, const float *gain, float eps);
// y = (x - mean) / sqrt(variance + eps) * gain + bias. bias may be NULL.
void layernorm(float *y, const float *x, size_t m, size_t n, const float *gain, const float *bias,
               float eps);
void layernorm_ref(float *y, const float *x, size_t m, size_t n, const float *gain,
                   const float *bias, float eps);

// ---- rope.c: rotary position embedding, Su et al. 2021 -----------------------------------------

// Rotates each of n_heads heads of dimension d in each of m rows by its position: pair (i, i + d/2)
// turns by position * inv_freq[i] (the "half" layout that Hugging Face checkpoints use).
// x [m, n_heads * d] with rows x_stride apart; position [m]; inv_freq [d/2]. Angles in double.
void rope(float *x, size_t x_stride, size_t m, size_t n_heads, size_t d, const int32_t *position,
          const float *inv_freq);
void rope_ref(float *x, size_t x_stride, size_t m, size_t n_heads, size_t d,
              const int32_t *position, const float *inv_freq);

// ---- activation.c -----------------------------------------------------------------------------

// y[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + e^-x). y may be gate or up.
void silu_mul(float *y, const float *gate, const float *up, size_t n);
void silu_mul_ref(float *y, const float *gate, const float *up, size_t n);
// GPT-2's gelu_new: 0.5 x (1 + tanh(sqrt(2/π) (x + 0.044715 x³))). y may be x.
void gelu_tanh(float *y, const float *x, size_t n);
void gelu_tanh_ref(float *y, const float *x, size_t n);
// y += x.
void add_to(float *y, const float *x, size_t n);

// ---- softmax.c --------------------------------------------------------------------------------

// log Σ e^x[i], computed around the maximum; the building block of NLL and KL divergence.
double log_sum_exp(const float *x, size_t n);
double log_sum_exp_ref(const float *x, size_t n);

// ---- divergence.c -----------------------------------------------------------------------------

// KL divergence of q = softmax(logits) from p = softmax(reference), where q may be very close to p:
// with d = logits - reference and x = d - Σ p d, it is log(1 + Σ p (eˣ - 1 - x)), a sum without
// cancellation. p need not be normalised. All [v]. Relative error below 2e-6 beside the logits' own
// rounding.
double kl_of_change(const float *p, const float *reference, const float *logits, size_t v);
double kl_of_change_ref(const float *p, const float *reference, const float *logits, size_t v);

// p = softmax(logits), normalised to 1e-6.
void probabilities(const float *logits, size_t v, float *p);
void probabilities_ref(const float *logits, size_t v, float *p);

// ---- attention.c ------------------------------------------------------------------------------

// One query token: which cached sequence it belongs to and how much of it it may see.
struct attention_query {
    const float *k; // [position][D] of key/value head 0; head h starts at h * head_stride
    const float *v;
    size_t head_stride;
    int32_t first, last; // sees cached positions first … last
};

// out[t, a, :] = Σ_p softmax_p(q[t, a, :]·k[p, b, :] * scale) v[p, b, :], b = a / (A / B), causal.
// q, out: [m, n_heads * d]. Queries that share a cache and lie next to each other are processed in
// blocks that read each key once.
void attention(float *out, const float *q, size_t m, size_t n_heads, size_t n_kv_heads, size_t d,
               const struct attention_query *queries, float scale);
// The same where queries, keys, values and softmax's weights may be rounded to bfloat16, by up to
// 2^-8 each: AMX tiles do, where at least 32 rows (queries times heads that share keys) come
// together and d is at most 256. Elsewhere it is attention.
void attention_rounded(float *out, const float *q, size_t m, size_t n_heads, size_t n_kv_heads,
                       size_t d, const struct attention_query *queries, float scale);
void attention_ref(float *out, const float *q, size_t m, size_t n_heads, size_t n_kv_heads,
                   size_t d, const struct attention_query *queries, float scale);

// ---- limits.c: what this machine can do, the denominators of every "fraction of the limit"
// --------

struct machine_limits {
    double read_gb_s;      // reading memory, all threads, 10^9 bytes/s
    double copy_gb_s;      // bytes read plus bytes written
    double f32_gflop_s;    // float32 fused multiply-adds, 2 operations each
    double i8_gop_s;       // int8 multiply-adds into int32; 0 if the CPU has no such instruction
    double i8_tiles_gop_s; // the same in tiles (AMX); 0 without
    double i8_fed_gop_s;   // the same with each tile loaded from the L1 cache before
    double bf16_gflop_s;   // bfloat16 multiply-adds in tiles; 0 without
};
// Takes about two seconds. Best of several passes, with as many threads as OpenMP has now.
void machine_limits_measure(struct machine_limits *limits);

#endif
