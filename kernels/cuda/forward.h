// The operations of a forward pass on a GPU, beside the matrix products of cuda.h: arrays in,
// arrays out, nothing here knows a model. All pointers are the backend's memory. What depends on
// the token or its position is read from device memory, never passed by value: a decode step can be
// captured once, as a graph, and replayed for every token.
//
// Sums are float32 in one order, whatever the GPU does first: the same output for every run. What
// goes into a matrix product is float16, rows a multiple of 256 apart; a finite value too large for
// it becomes ±65504. Everything else is float32. Dimension letters: core/tensor.h.
#ifndef NIBBLE_CUDA_FORWARD_H
#define NIBBLE_CUDA_FORWARD_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

// Where an operation runs.
struct cuda_launch {
    void *stream;        // of the GPU
    int schedule;        // of the emulator, as in struct cuda_call
    unsigned processors; // multiprocessors to spread over
};

// The batch: tokens[t] is at positions[t] of sequences[t].
struct cuda_tokens {
    const int32_t *tokens, *positions, *sequences; // [T]
    unsigned n;                                    // T
};

// x[t] = table[tokens[t]] + places[positions[t]]
struct cuda_embed {
    struct cuda_tokens batch;
    struct cuda_matrix table;  // [V, H]; float16 in the packed layout where codes is NULL
    struct cuda_matrix places; // [.., H]; n 0: none
    float *x;                  // [T, H]
    unsigned width;            // H
};

// x += add + add_bias, then out = norm(x). One pass over x for both.
struct cuda_norm {
    float *x;              // [rows, width]
    const float *add;      // [rows, add_stride]; NULL: nothing to add
    const float *add_bias; // [width] or NULL
    unsigned rows, width, add_stride;
    const float *gain, *bias; // [width]; gain NULL: no norm, only the sum; bias only for center
    bool center;              // LayerNorm, else RMSNorm
    float eps;
    uint16_t *out; // [rows, out_stride] float16, zeros from width on; NULL: none
    unsigned out_stride;
    float *copy; // [rows, width] the same in float32; NULL: none
};

// cos and sin of position times frequency, computed in double: at position 131,071 a float's angle
// would be off by a hundredth.
struct cuda_angles {
    struct cuda_tokens batch;
    const float *inv_freq; // [half]
    unsigned half;         // D / 2
    float *out;            // [T, half, 2]
};

// What happens to q, k and v between the product and attention: biases, the norms of heads, the
// rotation; q stays where it is, k and v go to the cache in float16.
struct cuda_heads {
    struct cuda_tokens batch;
    float *qkv; // [T, stride]: A heads of q, B of k, B of v
    unsigned stride;
    const float *bias;            // [(A + 2 B) D] or NULL
    const float *q_gain, *k_gain; // [D] or NULL
    float eps;
    const float *angles;         // of struct cuda_angles; NULL: no rotation
    unsigned heads, kv_heads, d; // A, B, D; D is even
    uint16_t *keys, *values;     // [sequence, B, capacity, D]
    unsigned capacity;
};

// out[t, a] = Σ softmax(q[t, a] · k · scale) v over the positions of the token's sequence up to its
// own, the last `window` of them.
struct cuda_attend {
    struct cuda_tokens batch;
    const float *q;                                  // [T, q_stride]
    const uint16_t *keys, *values;                   // as in struct cuda_heads
    unsigned q_stride, heads, kv_heads, d, capacity; // D even, at most 256
    int window;
    float scale;
    uint16_t *out; // [T, out_stride] float16
    unsigned out_stride;
    // Tokens [first, first + count) of the batch. tiles: they are of one sequence, in the order of
    // their positions (prefill); else every token is on its own and its context is cut into
    // `splits` pieces, for as many blocks.
    unsigned first, count, splits;
    bool tiles;
    float *parts; // [count, splits, A, D + 2] where splits > 1
};

enum cuda_activation { CUDA_SILU_MUL, CUDA_GELU };
// out = silu(gate) · up, or gelu(up), after their biases.
struct cuda_activate {
    enum cuda_activation kind;
    const float *gate, *up;           // [rows, stride]
    const float *gate_bias, *up_bias; // [width] or NULL
    unsigned rows, width, stride;
    uint16_t *out; // [rows, out_stride] float16, zeros from width on
    unsigned out_stride;
};

// Every row of x as int8 with one scale would be: rounded to 127ths of its largest magnitude.
struct cuda_round {
    const uint16_t *x; // [rows, stride] float16
    uint16_t *out;     // the same shape
    unsigned rows, width, stride;
};

// float32 rows to float16, zeros from width on.
struct cuda_narrow {
    const float *x; // [rows, width]
    uint16_t *out;  // [rows, out_stride]
    unsigned rows, width, out_stride;
};

// y[rows, width] += bias
struct cuda_bias {
    float *y;
    const float *bias;
    unsigned rows, width;
};

// Chooses the token that follows, as text/sampler.h does on the CPU, and steps on: what the next
// forward pass reads is written here, on the device.
struct cuda_sample_state {
    int32_t step;   // draws so far
    int32_t length; // tokens in history
};
struct cuda_sample_next {
    float *logits; // [V]; changed where the penalty says so
    unsigned vocab;
    float temperature, top_p, repeat_penalty; // temperature 0: greedy
    unsigned top_k;                           // 1 … 1024, below V, unless greedy
    const double *draws;                      // [steps] uniform numbers, one per step
    struct cuda_sample_state *state;
    int32_t *history;          // prompt and answer; the token is appended
    int32_t *token, *position; // of the next pass: token set, position = length - 1
};
enum { CUDA_MAX_TOP_K = 1024 };

// Each starts the operation; NULL, or one line.
struct cuda_ops {
    const char *(*embed)(const struct cuda_launch *, const struct cuda_embed *);
    const char *(*norm)(const struct cuda_launch *, const struct cuda_norm *);
    const char *(*angles)(const struct cuda_launch *, const struct cuda_angles *);
    const char *(*heads)(const struct cuda_launch *, const struct cuda_heads *);
    const char *(*attend)(const struct cuda_launch *, const struct cuda_attend *);
    const char *(*activate)(const struct cuda_launch *, const struct cuda_activate *);
    const char *(*round)(const struct cuda_launch *, const struct cuda_round *);
    const char *(*narrow)(const struct cuda_launch *, const struct cuda_narrow *);
    const char *(*bias)(const struct cuda_launch *, const struct cuda_bias *);
    // The token is -1 if a logit is NaN or all are -inf.
    const char *(*sample)(const struct cuda_launch *, const struct cuda_sample_next *);
};

// Pieces that a context is cut into when `count` tokens are decoded, for attention to have work for
// every multiprocessor; it depends on nothing else, so neither do the results.
unsigned cuda_attend_splits(unsigned processors, unsigned count, unsigned kv_heads,
                            unsigned capacity);

#ifdef __cplusplus
}
#endif

#endif
