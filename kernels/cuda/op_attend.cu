// Attention without a matrix of scores (Dao et al. 2022): a running maximum, a running sum and a
// running weighted sum of values per query, rescaled when a larger score comes.
//
// Decoding: one query per head against a long cache, which is read once. A block takes a piece of
// the context and up to four query heads that share its keys (GQA), so that few sequences still
// keep every multiprocessor busy:
//
//     keys of a head  | piece 0     | piece 1     | piece 2     |      a block each
//     parts           (max, Σ, Σ·v) (max, Σ, Σ·v) (max, Σ, Σ·v)   ──▶  joined in this order
//
// Prefill: a warp takes 16 queries of one head, and both products, q · kᵀ and p · v, are the tensor
// cores'. The scores of a fragment are in the registers where the second product wants them.
//
// What this does not do: copy keys through shared memory. Four warps of a block read the same keys
// at about the same time, and L1 serves three of them.
#include "kernels/cuda/forward.cuh"

namespace NIBBLE_CUDA {

enum { WARPS = 4, HEADS = 4, KEYS = 4 };

__device__ __forceinline__ float larger(float a, float b) {
    return a > b ? a : b;
}

// ---- decoding -----------------------------------------------------------------------------------

// HEADS queries against keys, in one lane: pairs lane, lane + 32 … of the D / 2.
template <unsigned PAIRS> struct running {
    float largest[HEADS], total[HEADS];
    float2 sum[HEADS][PAIRS];
};

// Where the keys (or values) of this block's head and sequence begin.
__device__ __forceinline__ const __half2 *cache_of(const cuda_attend &a, const uint16_t *cache,
                                                   unsigned t, unsigned kv_head) {
    const size_t row = (size_t)a.batch.sequences[t] * a.kv_heads + kv_head;
    return (const __half2 *)(cache + row * a.capacity * a.d);
}

template <unsigned PAIRS>
__device__ __forceinline__ void load_queries(const cuda_attend &a, unsigned t, unsigned head0,
                                             unsigned n_heads, unsigned lane,
                                             float2 (&q)[HEADS][PAIRS]) {
    for (unsigned h = 0; h < HEADS; h++)
        for (unsigned j = 0; j < PAIRS; j++) {
            const unsigned pair = lane + 32 * j;
            const float *from = a.q + (size_t)t * a.q_stride + (head0 + h) * a.d + 2 * pair;
            q[h][j] = h < n_heads && 2 * pair < a.d
                          ? make_float2(from[0] * a.scale, from[1] * a.scale)
                          : make_float2(0, 0);
        }
}

// KEYS rows of the cache, in registers; behind `end` and behind D they are 0.
template <unsigned PAIRS>
__device__ __forceinline__ void load_rows(const __half2 *cache, unsigned half, unsigned key,
                                          unsigned end, unsigned lane, float2 (&out)[KEYS][PAIRS]) {
#pragma unroll
    for (unsigned i = 0; i < KEYS; i++)
#pragma unroll
        for (unsigned j = 0; j < PAIRS; j++)
            out[i][j] = key + i < end && lane + 32 * j < half
                            ? __half22float2(cache[(size_t)(key + i) * half + lane + 32 * j])
                            : make_float2(0, 0);
}

template <unsigned PAIRS>
__device__ __forceinline__ void
add_keys(running<PAIRS> &r, unsigned h, const float2 (&q)[HEADS][PAIRS],
         const float2 (&k)[KEYS][PAIRS], const float2 (&v)[KEYS][PAIRS], unsigned left) {
    float score[KEYS], largest = r.largest[h];
#pragma unroll
    for (unsigned i = 0; i < KEYS; i++) {
        float dot = 0;
#pragma unroll
        for (unsigned j = 0; j < PAIRS; j++)
            dot += q[h][j].x * k[i][j].x + q[h][j].y * k[i][j].y;
        score[i] = warp_sum(dot);
        if (i < left)
            largest = larger(score[i], largest);
    }
    const float keep = expf(r.largest[h] - largest); // exp(-inf) is 0: there was nothing
    r.total[h] *= keep;
#pragma unroll
    for (unsigned j = 0; j < PAIRS; j++)
        r.sum[h][j].x *= keep, r.sum[h][j].y *= keep;
#pragma unroll
    for (unsigned i = 0; i < KEYS; i++) {
        const float p = i < left ? expf(score[i] - largest) : 0;
        r.total[h] += p;
#pragma unroll
        for (unsigned j = 0; j < PAIRS; j++)
            r.sum[h][j].x += p * v[i][j].x, r.sum[h][j].y += p * v[i][j].y;
    }
    r.largest[h] = largest;
}

// Adds a part that `weight` brings to the common maximum; a part without keys has total 0.
__device__ __forceinline__ float weight_of(float largest, float total, float common) {
    return total == 0 ? 0 : expf(largest - common);
}

// The warps' parts, joined in their order: for head h the floats max, total, sum[D].
__device__ __forceinline__ void join(const float *parts, unsigned n, unsigned stride, unsigned d,
                                     unsigned thread, unsigned threads, __half *out,
                                     float *part_out) {
    float common = -INFINITY, total = 0;
    for (unsigned i = 0; i < n; i++)
        common = larger(parts[i * stride], common);
    for (unsigned i = 0; i < n; i++)
        total +=
            weight_of(parts[i * stride], parts[i * stride + 1], common) * parts[i * stride + 1];
    for (unsigned c = thread; c < d; c += threads) {
        float sum = 0;
        for (unsigned i = 0; i < n; i++)
            sum += weight_of(parts[i * stride], parts[i * stride + 1], common) *
                   parts[i * stride + 2 + c];
        if (out)
            out[c] = narrow(sum / total);
        else
            part_out[2 + c] = sum;
    }
    if (!out && thread == 0)
        part_out[0] = common, part_out[1] = total;
}

template <unsigned PAIRS>
__global__ void __launch_bounds__(32 * WARPS) attend_split(const cuda_attend a) {
    SHARED(float, shared); // [warp][HEADS][D + 2]
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, t = a.first + blockIdx.z;
    const unsigned group = a.heads / a.kv_heads, sets = (group + HEADS - 1) / HEADS;
    const unsigned kv_head = blockIdx.y / sets, first_head = blockIdx.y % sets * HEADS;
    const unsigned n_heads = min((unsigned)HEADS, group - first_head);
    const unsigned head0 = kv_head * group + first_head, part = a.d + 2;
    const int position = a.batch.positions[t], start = max(0, position + 1 - a.window);
    const unsigned keys = (unsigned)(position + 1 - start);
    const unsigned piece = (keys + a.splits - 1) / a.splits;
    const unsigned begin = (unsigned)start + min(keys, blockIdx.x * piece);
    const unsigned end = (unsigned)start + min(keys, (blockIdx.x + 1) * piece);
    const __half2 *k_rows = cache_of(a, a.keys, t, kv_head);
    const __half2 *v_rows = cache_of(a, a.values, t, kv_head);
    float2 q[HEADS][PAIRS], k[KEYS][PAIRS], v[KEYS][PAIRS];
    running<PAIRS> r;
    load_queries(a, t, head0, n_heads, lane, q);
    for (unsigned h = 0; h < HEADS; h++) {
        r.largest[h] = -INFINITY, r.total[h] = 0;
        for (unsigned j = 0; j < PAIRS; j++)
            r.sum[h][j] = make_float2(0, 0);
    }
    for (unsigned key = begin + warp * KEYS; key < end; key += WARPS * KEYS) {
        load_rows(k_rows, a.d / 2, key, end, lane, k);
        load_rows(v_rows, a.d / 2, key, end, lane, v);
#pragma unroll
        for (unsigned h = 0; h < HEADS; h++)
            if (h < n_heads)
                add_keys(r, h, q, k, v, end - key);
    }
#pragma unroll
    for (unsigned h = 0; h < HEADS; h++) {
        float *mine = shared + (warp * HEADS + h) * part;
        if (lane == 0)
            mine[0] = r.largest[h], mine[1] = r.total[h];
#pragma unroll
        for (unsigned j = 0; j < PAIRS; j++)
            if (2 * (lane + 32 * j) < a.d) {
                mine[2 + 2 * (lane + 32 * j)] = r.sum[h][j].x;
                mine[3 + 2 * (lane + 32 * j)] = r.sum[h][j].y;
            }
    }
    __syncthreads();
    for (unsigned h = warp; h < n_heads; h += WARPS) {
        const size_t row = ((size_t)blockIdx.z * a.splits + blockIdx.x) * a.heads + head0 + h;
        __half *out = (__half *)a.out + (size_t)t * a.out_stride + (head0 + h) * a.d;
        join(shared + h * part, WARPS, HEADS * part, a.d, lane, 32, a.splits == 1 ? out : nullptr,
             a.parts + row * part);
    }
}

__global__ void __launch_bounds__(32 * WARPS) attend_join(const cuda_attend a) {
    const unsigned head = blockIdx.x, t = blockIdx.y, part = a.d + 2;
    const float *parts = a.parts + ((size_t)t * a.splits * a.heads + head) * part;
    join(parts, a.splits, a.heads * part, a.d, threadIdx.x, 32 * WARPS,
         (__half *)a.out + (size_t)(a.first + t) * a.out_stride + head * a.d, nullptr);
}

template <unsigned PAIRS>
static const char *start_split(const cuda_launch *l, const cuda_attend *a) {
    const unsigned sets = divide_up(a->heads / a->kv_heads, HEADS);
    const char *failed =
        LAUNCH(attend_split<PAIRS>, dim3(a->splits, a->kv_heads * sets, a->count), dim3(32 * WARPS),
               WARPS * HEADS * (a->d + 2) * sizeof(float), l, *a);
    if (failed || a->splits == 1)
        return failed;
    return LAUNCH(attend_join, dim3(a->heads, a->count), dim3(32 * WARPS), 0, l, *a);
}

// ---- prefill ------------------------------------------------------------------------------------

// Two neighbours of a row of the cache as halves; 0 behind D.
__device__ __forceinline__ unsigned pair_at(const __half *row, unsigned col, unsigned d) {
    return col < d ? *(const unsigned *)(row + col) : 0;
}

// q of 16 rows as A fragments, D in steps of 16; rows behind `last` are the last one again.
template <unsigned STEPS>
__device__ __forceinline__ void load_tile(const cuda_attend &a, unsigned head, const unsigned *rows,
                                          unsigned lane, unsigned (&q)[STEPS][4]) {
#pragma unroll
    for (unsigned j = 0; j < STEPS; j++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            const unsigned col = 16 * j + i / 2 * 8 + lane % 4 * 2;
            const float *from = a.q + (size_t)rows[i % 2] * a.q_stride + head * a.d + col;
            q[j][i] = col < a.d ? narrow_pair(from[0], from[1]) : 0;
        }
}

// The largest (or the sum) over the four lanes that share a row of a C fragment.
__device__ __forceinline__ float quad_max(float v) {
    v = larger(__shfl_xor_sync(~0u, v, 1), v);
    return larger(__shfl_xor_sync(~0u, v, 2), v);
}
__device__ __forceinline__ float quad_sum(float v) {
    v += __shfl_xor_sync(~0u, v, 1);
    return v + __shfl_xor_sync(~0u, v, 2);
}

// Scores of 16 queries with 16 keys, masked; s[n] is the fragment of keys key0 + 8 n ….
template <unsigned STEPS>
__device__ __forceinline__ void score_keys(const cuda_attend &a, const unsigned (&q)[STEPS][4],
                                           const __half *keys, int key0, int last,
                                           const int *position, unsigned lane, float (&s)[2][4]) {
#pragma unroll
    for (int n = 0; n < 2; n++) {
        const __half *row = keys + (size_t)min(key0 + n * 8 + (int)lane / 4, last) * a.d;
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
        for (unsigned j = 0; j < STEPS; j++) {
            const unsigned col = 16 * j + lane % 4 * 2;
            const unsigned b[2] = {pair_at(row, col, a.d), pair_at(row, col + 8, a.d)};
            mma_16x8x16(s[n], q[j], b);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int key = key0 + n * 8 + (int)lane % 4 * 2 + i % 2, p = position[i / 2];
            s[n][i] = key <= p && key > p - a.window ? s[n][i] * a.scale : -INFINITY;
        }
    }
}

// Values of 16 keys, columns 8 j …, as a B fragment.
__device__ __forceinline__ void load_values(const cuda_attend &a, const __half *values, int key0,
                                            int last, unsigned j, unsigned lane, unsigned (&b)[2]) {
    const unsigned col = 8 * j + lane / 4;
    __half v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) { // behind the last key the cache may hold anything
        const int key = min(key0 + (int)lane % 4 * 2 + i % 2 + i / 2 * 8, last);
        v[i] = col < a.d ? values[(size_t)key * a.d + col] : narrow(0);
    }
    b[0] = bits_as<unsigned>(__halves2half2(v[0], v[1]));
    b[1] = bits_as<unsigned>(__halves2half2(v[2], v[3]));
}

template <unsigned STEPS>
__global__ void __launch_bounds__(32 * WARPS) attend_tiles(const cuda_attend a) {
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, head = blockIdx.y;
    const unsigned t0 = a.first + (blockIdx.x * WARPS + warp) * 16, end = a.first + a.count;
    if (t0 >= end)
        return;
    const unsigned kv_head = head / (a.heads / a.kv_heads);
    const unsigned rows[2] = {min(t0 + lane / 4, end - 1), min(t0 + lane / 4 + 8, end - 1)};
    const int position[2] = {a.batch.positions[rows[0]], a.batch.positions[rows[1]]};
    const int last = a.batch.positions[min(t0 + 16, end) - 1];
    const int first = max(0, a.batch.positions[t0] + 1 - a.window);
    const __half *keys = (const __half *)cache_of(a, a.keys, t0, kv_head);
    const __half *values = (const __half *)cache_of(a, a.values, t0, kv_head);
    unsigned q[STEPS][4];
    float sum[2 * STEPS][4] = {}, largest[2] = {-INFINITY, -INFINITY}, total[2] = {};
    load_tile(a, head, rows, lane, q);
    for (int key0 = first & ~15; key0 <= last; key0 += 16) {
        float s[2][4];
        score_keys(a, q, keys, key0, last, position, lane, s);
        float keep[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float now =
                larger(larger(s[0][2 * r], s[0][2 * r + 1]), larger(s[1][2 * r], s[1][2 * r + 1]));
            now = larger(quad_max(now), largest[r]);
            const float base = now == -INFINITY ? 0 : now; // no key of this row yet
            keep[r] = expf(largest[r] - base);
            float here = 0;
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int i = 2 * r; i < 2 * r + 2; i++)
                    here += s[n][i] = expf(s[n][i] - base);
            total[r] = total[r] * keep[r] + quad_sum(here);
            largest[r] = now;
        }
        const unsigned p[4] = {narrow_pair(s[0][0], s[0][1]), narrow_pair(s[0][2], s[0][3]),
                               narrow_pair(s[1][0], s[1][1]), narrow_pair(s[1][2], s[1][3])};
#pragma unroll
        for (unsigned j = 0; j < 2 * STEPS; j++) {
            unsigned b[2];
            load_values(a, values, key0, last, j, lane, b);
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum[j][i] *= keep[i / 2];
            mma_16x8x16(sum[j], p, b);
        }
    }
#pragma unroll
    for (unsigned j = 0; j < 2 * STEPS; j++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            const unsigned t = t0 + lane / 4 + i / 2 * 8, col = 8 * j + lane % 4 * 2 + i % 2;
            if (t < end && col < a.d)
                ((__half *)a.out)[(size_t)t * a.out_stride + head * a.d + col] =
                    narrow(sum[j][i] / total[i / 2]);
        }
}

template <unsigned STEPS>
static const char *start_tiles(const cuda_launch *l, const cuda_attend *a) {
    return LAUNCH(attend_tiles<STEPS>, dim3(divide_up(a->count, 16 * WARPS), a->heads),
                  dim3(32 * WARPS), 0, l, *a);
}

const char *attend(const cuda_launch *l, const cuda_attend *a) {
    if (a->d > 256 || a->d % 2)
        return "attention heads are at most 256 wide, and even";
    if (a->tiles)
        return a->d <= 64    ? start_tiles<4>(l, a)
               : a->d <= 128 ? start_tiles<8>(l, a)
                             : start_tiles<16>(l, a);
    return a->d <= 64    ? start_split<1>(l, a)
           : a->d <= 128 ? start_split<2>(l, a)
                         : start_split<4>(l, a);
}

} // namespace NIBBLE_CUDA
