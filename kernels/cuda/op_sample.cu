// Choosing the next token on the device, so that a step of decoding never waits for the host: the
// same steps as text/sampler.c in the same order, one block for the vocabulary.
//
// Greedy is a maximum. Otherwise the top-k are found by radix: a token's key is its logit, mapped
// to an unsigned number that orders the same way, above its inverted id, so that no two keys are
// equal and equal logits come lowest id first. Digit by digit, a histogram says in which bucket the
// k-th largest key lies:
//
//     digit 0   counts of 256 buckets from the top: 3, 9, 31, …     the 40th key is in bucket 2
//     digit 1   of the keys in that bucket only                     and so on
//
// The k keys at or above the border are sorted in shared memory; weights and the draw are as on the
// CPU, in double.
#include "kernels/cuda/forward.cuh"

namespace NIBBLE_CUDA {

enum { THREADS = 1024, WARPS = THREADS / 32, WINDOW = 64 };

typedef unsigned long long key64;

// Unsigned order is the floats' order; the two zeros are one.
__device__ __forceinline__ unsigned ordered(float v) {
    const unsigned bits = bits_as<unsigned>(v + 0.0f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float unordered(unsigned key) {
    return bits_as<float>(key >> 31 ? key & 0x7fffffffu : ~key);
}
__device__ __forceinline__ key64 key_of(float logit, unsigned id) {
    return (key64)ordered(logit) << 32 | ~id;
}
__device__ __forceinline__ unsigned id_of(key64 key) {
    return ~(unsigned)key;
}

struct sample_space {
    key64 best[CUDA_MAX_TOP_K];
    double weight[CUDA_MAX_TOP_K];
    unsigned counts[256];
    key64 warps[WARPS];
    unsigned n, bucket, above;
    bool broken; // a NaN
};

__device__ __forceinline__ key64 max_key(key64 mine, sample_space *s) {
    const unsigned lane = threadIdx.x % 32;
    for (int step = 16; step; step /= 2) {
        const unsigned high = __shfl_xor_sync(~0u, (unsigned)(mine >> 32), step);
        const unsigned low = __shfl_xor_sync(~0u, (unsigned)mine, step);
        const key64 other = (key64)high << 32 | low;
        mine = other > mine ? other : mine;
    }
    if (lane == 0)
        s->warps[threadIdx.x / 32] = mine;
    __syncthreads();
    for (unsigned i = 0; i < WARPS; i++)
        mine = s->warps[i] > mine ? s->warps[i] : mine;
    __syncthreads();
    return mine;
}

// Logits of the last 64 tokens become less likely, once however often they were said.
__device__ __forceinline__ void penalize(const cuda_sample_next &a, int length) {
    const int from = max(0, length - (int)WINDOW), i = from + (int)threadIdx.x;
    bool first = i < length;
    const int id = first ? a.history[i] : -1;
    for (int j = from; first && j < i; j++)
        first = a.history[j] != id;
    if (first && id >= 0 && (unsigned)id < a.vocab)
        a.logits[id] =
            a.logits[id] > 0 ? a.logits[id] / a.repeat_penalty : a.logits[id] * a.repeat_penalty;
    __syncthreads();
}

// The largest key; broken tells of a NaN.
__device__ __forceinline__ key64 best_of(const cuda_sample_next &a, sample_space *s) {
    key64 best = 0;
    bool nan = false;
    for (unsigned id = threadIdx.x; id < a.vocab; id += THREADS) {
        const key64 key = key_of(a.logits[id], id);
        nan |= isnan(a.logits[id]);
        best = key > best ? key : best;
    }
    nan = __any_sync(~0u, nan);
    best = max_key(nan ? ~0ull : best, s); // no float that is a number has this key
    return best;
}

// How many keys lie in each bucket of the digit at `shift`, of those that begin with `prefix`.
__device__ __forceinline__ void count_digits(const cuda_sample_next &a, sample_space *s,
                                             key64 prefix, int shift) {
    if (threadIdx.x < 256)
        s->counts[threadIdx.x] = 0;
    __syncthreads();
    for (unsigned id = threadIdx.x; id < a.vocab; id += THREADS) {
        const key64 key = key_of(a.logits[id], id);
        if (shift == 56 || key >> (shift + 8) == prefix)
            atomicAdd(&s->counts[key >> shift & 255], 1u);
    }
    __syncthreads();
}

// Keys from this one on are the k largest.
__device__ __forceinline__ key64 border_of(const cuda_sample_next &a, sample_space *s, unsigned k) {
    key64 prefix = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        count_digits(a, s, prefix, shift);
        if (threadIdx.x == 0) {
            unsigned bucket = 255, above = 0;
            for (; above + s->counts[bucket] < k; bucket--)
                above += s->counts[bucket];
            s->bucket = bucket, s->above = above, s->n = s->counts[bucket];
        }
        __syncthreads();
        prefix = prefix << 8 | s->bucket;
        k -= s->above;
        const bool all = s->n == k; // the whole bucket belongs to them
        __syncthreads();
        if (all)
            return prefix << shift;
    }
    return prefix;
}

// Descending; n is a power of two (Batcher 1968).
__device__ __forceinline__ void sort_keys(key64 *keys, unsigned n) {
    for (unsigned size = 2; size <= n; size *= 2)
        for (unsigned step = size / 2; step; step /= 2) {
            const unsigned i = threadIdx.x, other = i ^ step;
            if (i < n && other > i) {
                const key64 x = keys[i], y = keys[other];
                if ((i & size) == 0 ? x < y : x > y)
                    keys[i] = y, keys[other] = x;
            }
            __syncthreads();
        }
}

// The k best, sorted, in s->best.
__device__ __forceinline__ void select_best(const cuda_sample_next &a, sample_space *s,
                                            unsigned k) {
    const key64 border = border_of(a, s, k);
    unsigned size = 1;
    while (size < k)
        size *= 2;
    if (threadIdx.x < size)
        s->best[threadIdx.x] = 0;
    if (threadIdx.x == 0)
        s->n = 0;
    __syncthreads();
    for (unsigned id = threadIdx.x; id < a.vocab; id += THREADS) {
        const key64 key = key_of(a.logits[id], id);
        if (key >= border)
            s->best[atomicAdd(&s->n, 1u)] = key; // in any order: they are sorted next
    }
    __syncthreads();
    sort_keys(s->best, size);
}

__device__ __forceinline__ double weight_of(const cuda_sample_next &a, float logit, float top) {
    return logit == top ? 1 : exp(((double)logit - (double)top) / (double)a.temperature);
}

// One thread, in order: the same sum as on the CPU.
__device__ __forceinline__ unsigned draw(const cuda_sample_next &a, const sample_space *s,
                                         unsigned k, double uniform) {
    double mass = 0, held = 0;
    for (unsigned i = 0; i < k; i++)
        mass += s->weight[i];
    unsigned n = k;
    if (a.top_p < 1) {
        const double wanted = (double)a.top_p * mass;
        for (n = 0; n < k && (n == 0 || held < wanted); n++)
            held += s->weight[n];
        mass = held;
    }
    double left = uniform * mass;
    unsigned id = id_of(s->best[0]);
    for (unsigned i = 0; i < n; i++) {
        if (s->weight[i] > 0)
            id = id_of(s->best[i]);
        if (left < s->weight[i])
            break;
        left -= s->weight[i];
    }
    return id;
}

__global__ void __launch_bounds__(THREADS) sample_token(const cuda_sample_next a) {
    SHARED(sample_space, s);
    const int step = a.state->step, length = a.state->length;
    const double uniform = a.temperature > 0 ? a.draws[step] : 0;
    if (a.repeat_penalty != 1)
        penalize(a, length);
    const key64 best = best_of(a, s);
    const float top = unordered((unsigned)(best >> 32));
    int token = best == ~0ull || top == -INFINITY ? -1 : (int)id_of(best);
    if (a.temperature > 0 && token >= 0) {
        const unsigned k = a.top_k;
        select_best(a, s, k);
        if (threadIdx.x < k)
            s->weight[threadIdx.x] =
                weight_of(a, unordered((unsigned)(s->best[threadIdx.x] >> 32)), top);
        __syncthreads();
        if (threadIdx.x == 0)
            token = (int)draw(a, s, k, uniform);
    }
    if (threadIdx.x == 0) {
        a.history[length] = token;
        *a.token = token < 0 ? 0 : token;
        *a.position = length;
        a.state->step = step + 1;
        a.state->length = length + 1;
    }
}

const char *sample_next(const cuda_launch *l, const cuda_sample_next *a) {
    if (a->temperature > 0 && (a->top_k == 0 || a->top_k > CUDA_MAX_TOP_K || a->top_k >= a->vocab))
        return "the device draws from 1 to 1024 tokens, and not from all";
    return LAUNCH(sample_token, dim3(1), dim3(THREADS), sizeof(sample_space), l, *a);
}

} // namespace NIBBLE_CUDA
