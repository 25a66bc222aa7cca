#include "dot_simd.h"
#define attend_seen SIMD(attend_seen)
#define attend_largest SIMD(attend_largest)
#define attend_exp SIMD(attend_exp)
#define attend_softmax SIMD(attend_softmax)
#define attend_values_tile SIMD(attend_values_tile)
#define attend_values SIMD(attend_values)
#define attend_scores SIMD(attend_scores)
#define attend_keys SIMD(attend_keys)
#define attend_ask SIMD(attend_ask)
#define attend_together SIMD(attend_together)
#define attend_values_rows SIMD(attend_values_rows)

enum { SIMD(ATTEND_FEW) = 16 }; // keys

// Asks for the keys of the next tile, and for this one's values, which are wanted when
// the block's scores are known. Without, a thread reads 7 of the 17 GB/s it could.
INLINE void attend_ask(const struct attention_block *b, size_t position) {
    const float *k = b->k + (position + 4) * b->d, *v = b->v + position * b->d;
    for (size_t c = 0; c < 4 * b->d; c += 16) {
        __builtin_prefetch(k + c);
        __builtin_prefetch(v + c, 0, 2);
    }
}

// How many of the rows that are left go next: as evenly as DOT_X at most allows, 4 + 4 and not
// 6 + 2.
INLINE size_t attend_together(size_t left) {
    size_t groups = (left + DOT_X - 1) / DOT_X;
    return (left + groups - 1) / groups;
}

// scores[r][p] = q_r · k_(start + p) for p in from … to. Tiles of four keys may stick out: there
// the first or last key again, which softmax leaves out.
INLINE void attend_scores(float (*scores)[ATTENTION_KEYS], const struct attention_block *b,
                          size_t start, size_t from, size_t to) {
    for (size_t p = from / 4 * 4; p < to; p += 4) {
        const float *k[4];
        for (size_t j = 0; j < 4; j++) {
            size_t key = p + j < from ? from : min_size(p + j, to - 1);
            k[j] = b->k + (start + key) * b->d;
        }
        attend_ask(b, start + p);
        for (size_t r = 0, n; r < b->rows; r += n) {
            v4 sums[DOT_X];
            n = attend_together(b->rows - r);
            dot_tile(n, sums, b->q + r * b->d, b->d, k, b->d);
            for (size_t i = 0; i < n; i++)
                memcpy(&scores[r + i][p], &sums[i], sizeof sums[i]);
        }
    }
}

// Which of a block's keys a row sees: p from … to - 1; none if from >= to.
struct attend_seen {
    size_t from, to;
};

// The largest score so far. Keys that the row does not see get -infinity.
INLINE float attend_largest(float scores[ATTENTION_KEYS], struct attend_seen seen, float largest) {
    if (seen.from >= seen.to)
        return largest;
    for (size_t p = 0; p < seen.from; p++)
        scores[p] = -INFINITY;
    for (size_t p = seen.to; p < ATTENTION_KEYS; p++)
        scores[p] = -INFINITY;
    vec most = vec_set(largest);
    for (size_t p = 0; p < ATTENTION_KEYS; p += LANES)
        most = vec_max(vec_load(scores + p), most);
    return vec_largest(most);
}

// Turns scores into e^(score - largest) and returns their sum.
INLINE float attend_exp(float scores[ATTENTION_KEYS], struct attend_seen seen, float largest) {
    if (seen.from >= seen.to) {
        memset(scores, 0, ATTENTION_KEYS * sizeof *scores);
        return 0;
    }
    vec sum = {0};
    for (size_t p = 0; p < ATTENTION_KEYS; p += LANES) {
        vec e = vec_exp(vec_load(scores + p) - largest);
        vec_store(scores + p, e);
        sum += e;
    }
    return vec_sum(sum);
}

// Turns all rows' scores into weights; `shrink` is what their sums so far must be multiplied by,
// because the largest score may have grown. A step for all rows at a time, since a row's steps wait
// for each other.
INLINE void attend_softmax(float (*scores)[ATTENTION_KEYS], const struct attend_seen *seen,
                           size_t rows, struct attention_sums *sums, float *shrink) {
    float now[ATTENTION_ROWS];
    for (size_t r = 0; r < rows; r++)
        now[r] = attend_largest(scores[r], seen[r], sums->largest[r]);
    for (size_t r = 0; r < rows; r += LANES) {
        vec old = vec_load_part(sums->largest + r, rows - r),
            new = vec_load_part(now + r, rows - r);
        vec_store_part(shrink + r, vec_select(old == new, vec_set(1), vec_exp(old - new)),
                       rows - r);
    }
    for (size_t r = 0; r < rows; r++) {
        sums->total[r] = sums->total[r] * shrink[r] + attend_exp(scores[r], seen[r], now[r]);
        sums->largest[r] = now[r];
    }
}

// out[i][0 … columns] = out * shrink[i] + Σ weights[i][p] v_p, in registers over all keys;
// rows of weights are ATTENTION_KEYS apart.
INLINE void attend_values_tile(const bool ask, const int rows, const int vectors, float *out,
                               size_t out_stride, const float *shrink, const float *weights,
                               const float *v, size_t v_stride, size_t keys, size_t columns) {
    vec acc[DOT_X][4];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++)
            acc[i][j] = vec_load(out + (size_t)i * out_stride + j * LANES) * shrink[i];
    for (size_t p = 0; p < keys; p++) {
        vec value[4];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            value[j] = vec_load_part(v + p * v_stride + j * LANES, columns - (size_t)j * LANES);
        if (ask && rows >= 4) // with fewer rows it costs more than it saves
            for (int j = 0; j < vectors; j++)
                __builtin_prefetch(v + (p + SIMD(ATTEND_FEW)) * v_stride + j * LANES);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                acc[i][j] += weights[(size_t)i * ATTENTION_KEYS + p] * value[j];
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++)
            vec_store(out + (size_t)i * out_stride + j * LANES, acc[i][j]);
}

INLINE void attend_values_rows(const bool ask, size_t rows, const int vectors, float *out,
                               size_t out_stride, const float *shrink, const float *weights,
                               const float *v, size_t v_stride, size_t keys, size_t columns) {
#define VALUES_CASE(n)                                                                             \
    case n:                                                                                        \
        attend_values_tile(ask, n, vectors, out, out_stride, shrink, weights, v, v_stride, keys,   \
                           columns);                                                               \
        break
    switch (rows) {
        VALUES_CASE(2);
        VALUES_CASE(3);
#if DOT_X == 6
        VALUES_CASE(4);
        VALUES_CASE(5);
        VALUES_CASE(6);
#endif
    default:
        attend_values_tile(ask, 1, vectors, out, out_stride, shrink, weights, v, v_stride, keys,
                           columns);
    }
#undef VALUES_CASE
}

// A few tiles of rows take a few keys at a time, so that their values are in the L1 cache when the
// second tile comes to them: 15.0 GB/s a thread instead of 12.5 for 8 rows of 128. One tile needs
// no step, and in prefill's many the sums come and go more often than the values. Whole groups of
// four vectors go the fast way; what is left of d, one vector at a time.
INLINE void attend_values(const struct attention_block *b, struct attention_sums *sums,
                          const float *shrink, const float *weights, const float *v, size_t keys) {
    const bool steps = b->rows > DOT_X && b->rows <= ATTENTION_ROWS / 4;
    static const float ones[] = {1, 1, 1, 1, 1, 1};
    for (size_t p = 0, few; p < keys; p += few) {
        few = steps ? min_size(SIMD(ATTEND_FEW), keys - p) : keys;
        for (size_t c = 0, columns; c < b->d; c += columns) {
            columns = c + 4 * LANES <= b->d ? 4 * LANES : min_size(LANES, b->d - c);
            for (size_t r = 0, n; r < b->rows; r += n) {
                n = attend_together(b->rows - r);
                float *out = sums->out + r * b->d_padded + c;
                const float *w = weights + r * ATTENTION_KEYS + p, *s = p ? ones : shrink + r;
                const float *values = v + p * b->d + c;
                if (columns < 4 * LANES)
                    attend_values_rows(false, n, 1, out, b->d_padded, s, w, values, b->d, few,
                                       columns);
                else if (steps)
                    attend_values_rows(true, n, 4, out, b->d_padded, s, w, values, b->d, few,
                                       columns);
                else
                    attend_values_rows(false, n, 4, out, b->d_padded, s, w, values, b->d, few,
                                       columns);
            }
        }
    }
}

// Cached positions first … last, all in the block of ATTENTION_KEYS that begins at start. Scores
// are kept by p = position - start, so that sums over them do not depend on where `first` is.
INLINE void attend_keys(const struct attention_block *b, struct attention_sums *sums, int32_t start,
                        int32_t first, int32_t last) {
    float scores[ATTENTION_ROWS][ATTENTION_KEYS] __attribute__((aligned(64)));
    float shrink[ATTENTION_ROWS];
    struct attend_seen seen[ATTENTION_ROWS];
    size_t from = (size_t)(first - start), to = (size_t)(last - start) + 1;
    attend_scores(scores, b, (size_t)start, from, to);
    for (size_t r = 0; r < b->rows; r++) {
        const struct attention_query *q = &b->queries[r / b->n_heads];
        size_t row_from = q->first > first ? (size_t)((int64_t)q->first - start) : from;
        size_t row_to = q->last < last ? (size_t)((int64_t)q->last - start + 1) : to;
        seen[r] = (struct attend_seen){row_from, q->last < start ? 0 : row_to};
    }
    attend_softmax(scores, seen, b->rows, sums, shrink);
    const float *v = b->v + ((size_t)start + from) * b->d;
    attend_values(b, sums, shrink, &scores[0][from], v, to - from);
}

// y = x * factor
static void SIMD(attend_scale)(float *y, const float *x, size_t n, float factor) {
    for (size_t i = 0; i < n; i += LANES)
        vec_store_part(y + i, vec_load_part(x + i, n - i) * factor, n - i);
}

// a = a * of_a + b * of_b
static void SIMD(attend_add)(float *a, float of_a, const float *b, float of_b, size_t n) {
    for (size_t i = 0; i < n; i += LANES)
        vec_store_part(
            a + i, vec_load_part(a + i, n - i) * of_a + vec_load_part(b + i, n - i) * of_b, n - i);
}

// The part of the block's work that lies in cached positions first … last, added to fresh sums.
static void SIMD(attend_segment)(const struct attention_block *b, struct attention_sums *sums,
                                 int32_t first, int32_t last) {
    for (int32_t start = first - first % ATTENTION_KEYS; start <= last; start += ATTENTION_KEYS) {
        int32_t end = last - start < ATTENTION_KEYS ? last : start + ATTENTION_KEYS - 1;
        attend_keys(b, sums, start, first > start ? first : start, end);
    }
}
