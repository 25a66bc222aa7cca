// The parts of attention_tiles.c that are written in vectors and tiles.
//
//     for each 128 keys:        keys and values to tiles of bfloat16              (L2)
//         for each 32 rows:     scores, 32 columns of d at a time                 (tiles)
//                               softmax: weights, to tiles again                  (vectors)
//                               sums of 32 columns += values · weights            (tiles)
//
// Everything stands on its side: a vector holds one key's scores for 16 rows, so that softmax's
// largest score and its sum need no step across a vector, and weights of two keys, interleaved, are
// what a product wants of its second operand (pairs_simd.h). Sums are turned around at the end.
#include "pairs_simd.h"

enum { KEY_STEPS = ATTENTION_TILES_KEYS / STEP };
_Static_assert(ATTENTION_TILES_KEYS % STEP == 0 && ATTENTION_TILES_ROWS % PAIR == 0, "whole tiles");
_Static_assert(ATTENTION_SEGMENT % ATTENTION_TILES_KEYS == 0, "keys of a block lie in one segment");

struct attention_tiles {
    unsigned char q[ATTENTION_FLOATS * 2]; // [rows / 32][d / 32][2 of rows] tiles
    unsigned char k[ATTENTION_TILES_KEYS * ATTENTION_TILES_D * 2]; // [keys / 32][d / 32][2 of keys]
    unsigned char
        v[ATTENTION_TILES_KEYS * ATTENTION_TILES_D * 2];    // [d / 32][keys / 32][2 of columns]
    unsigned char weights[ATTENTION_TILES_KEYS * PAIR * 2]; // [keys / 32][2 of rows]
    float scores[ATTENTION_TILES_KEYS][PAIR];
    float out[ATTENTION_FLOATS]; // [rows / 32][d][32]
} __attribute__((aligned(64)));

// Queries: pairs of columns, side by side for 16 rows. Zeros behind the last row.
static void tile_queries(const struct attention_block *b, unsigned char *out) {
    const size_t steps = b->d_padded / STEP;
    for (size_t row = 0; row < round_up(b->rows, PAIR); row += TILE)
        for (size_t s = 0; s < steps; s++) {
            __m512i r[TILE];
#pragma GCC unroll 16
            for (size_t i = 0; i < TILE; i++)
                r[i] = row + i < b->rows
                           ? round_part(b->q + (row + i) * b->d + s * STEP, b->d - s * STEP)
                           : _mm512_setzero_si512();
            transpose_pairs(r, out + (row / PAIR * steps + s) * STEP_BYTES + row % PAIR * 64, 64);
        }
}

// Keys from … to - 1 of those that begin at k, zeros instead of the others: 32 columns of one of
// them to a row.
static void tile_keys(const struct attention_block *b, const float *k, size_t from, size_t to,
                      unsigned char *out) {
    const size_t steps = b->d_padded / STEP;
    for (size_t p = 0; p < ATTENTION_TILES_KEYS; p++)
        for (size_t s = 0; s < steps; s++)
            _mm512_store_si512(out + (p / PAIR * steps + s) * STEP_BYTES + p % PAIR * 64,
                               p >= from && p < to
                                   ? round_part(k + p * b->d + s * STEP, b->d - s * STEP)
                                   : _mm512_setzero_si512());
}

// Values likewise: 32 keys of one column to a row.
static void tile_values(const struct attention_block *b, const float *v, size_t from, size_t to,
                        unsigned char *out) {
    const __m512i order = pair_order();
    for (size_t c = 0; c < b->d_padded; c += TILE)
        for (size_t p = 0; p < ATTENTION_TILES_KEYS; p += STEP) {
            __m512i r[TILE];
#pragma GCC unroll 16
            for (size_t i = 0; i < TILE; i++) {
                vec two[2] = {{0}};
#pragma GCC unroll 2
                for (size_t j = 0; j < 2; j++) {
                    size_t key = p + 2 * i + j;
                    if (key >= from && key < to && c < b->d)
                        two[j] = vec_load_part(v + key * b->d + c, b->d - c);
                }
                r[i] = _mm512_permutexvar_epi16(order, round_pair(two[0], two[1]));
            }
            transpose_pairs(r, out + (c / PAIR * KEY_STEPS + p / STEP) * STEP_BYTES + c % PAIR * 64,
                            64);
        }
}

// Tiles 0 to 3 += two tiles of rows times two of columns, over `steps` times 32 of what they share.
INLINE void multiply_steps(const unsigned char *a, const unsigned char *b, size_t steps) {
    for (size_t s = 0; s < steps; s++, a += STEP_BYTES, b += STEP_BYTES)
        multiply_bf16(a, a + TILE_BYTES, b, b + TILE_BYTES);
}

static void tile_scores(struct attention_tiles *t, size_t keys, const unsigned char *q,
                        size_t steps) {
    tiles_read_memory();
    for (size_t p = 0; p < keys; p += PAIR) {
        zero_tiles();
        multiply_steps(t->k + p / PAIR * steps * STEP_BYTES, q, steps);
        store_square(t->scores[p], PAIR);
    }
    tiles_read_memory();
}

static void add_values(const struct attention_tiles *t, size_t keys, float *out, size_t d_padded) {
    tiles_read_memory();
    for (size_t c = 0; c < d_padded; c += PAIR) {
        load_square(out + c * PAIR, PAIR);
        multiply_steps(t->v + c / PAIR * KEY_STEPS * STEP_BYTES, t->weights, keys / STEP);
        store_square(out + c * PAIR, PAIR);
    }
    tiles_read_memory();
}

// Which of a block's keys 16 rows see: p from … to - 1; none if from >= to.
struct keys_seen {
    ivec from, to;
    size_t end; // of all that any of them sees; 0 if none does
    bool all;   // they all see all of them
};

// Rows [row, row + 16) and keys first … last, counted from start. Rows behind the last see none.
static struct keys_seen see_keys(const struct attention_block *b, size_t row, int32_t start,
                                 int32_t first, int32_t last) {
    struct keys_seen seen = {.all = true};
    for (size_t r = 0; r < TILE; r++) {
        int32_t from = 0, to = 0;
        if (row + r < b->rows) {
            const struct attention_query *q = &b->queries[(row + r) / b->n_heads];
            from = (q->first > first ? q->first : first) - start;
            to = q->last < first ? 0 : (q->last < last ? q->last : last) - start + 1;
        }
        seen.from[r] = from;
        seen.to[r] = to;
        seen.all = seen.all && from == 0 && to == ATTENTION_TILES_KEYS;
        seen.end = from < to && (size_t)to > seen.end ? (size_t)to : seen.end;
    }
    return seen;
}

// Scores that are not seen become -infinity.
static void hide_scores(float *scores, int32_t keys, const struct keys_seen *seen) {
    for (int32_t p = 0; p < keys; p++) {
        ivec shown = (seen->from <= p) & (seen->to > p);
        vec_store(scores + p * PAIR,
                  vec_select(shown, vec_load(scores + p * PAIR), vec_set(-INFINITY)));
    }
}

// Turns 16 rows' scores of all keys into weights, rounded, in tiles; the rows' sums so far are
// brought to the largest score, which may have grown.
static void softmax(float *scores, size_t keys, const struct keys_seen *seen, float *largest,
                    float *total, float *out, size_t d_padded, unsigned char *weights) {
    const __m512i order = pair_order();
    if (!seen->all)
        hide_scores(scores, (int32_t)keys, seen);
    vec old = vec_load(largest), most[4] = {old, old, old, old}, sum[4] = {{0}};
    for (size_t p = 0; p < keys; p += 4)
        for (size_t i = 0; i < 4; i++)
            most[i] = vec_max(vec_load(scores + (p + i) * PAIR), most[i]);
    vec now = vec_max(vec_max(most[0], most[1]), vec_max(most[2], most[3]));
    vec base = vec_select(now == vec_set(-INFINITY), vec_set(0), now); // nothing seen so far
    for (size_t p = 0; p < keys; p += 4) {
        vec e[4];
        for (size_t i = 0; i < 4; i++) {
            e[i] = vec_exp(vec_load(scores + (p + i) * PAIR) - base);
            sum[i] += e[i];
        }
        unsigned char *to = weights + p / STEP * STEP_BYTES + p % STEP / 2 * 64;
        _mm512_store_si512(to, _mm512_permutexvar_epi16(order, round_pair(e[0], e[1])));
        _mm512_store_si512(to + 64, _mm512_permutexvar_epi16(order, round_pair(e[2], e[3])));
    }
    vec shrink = vec_exp(old - base);
    vec_store(largest, now);
    vec_store(total, vec_load(total) * shrink + ((sum[0] + sum[1]) + (sum[2] + sum[3])));
    if (_mm512_cmp_ps_mask((__m512)old, (__m512)now, _CMP_NEQ_UQ))
        for (size_t c = 0; c < d_padded; c++)
            vec_store(out + c * PAIR, vec_load(out + c * PAIR) * shrink);
}

// Rows [row, row + 32) and the keys first … last, all in the block at start.
static void attend_rows(struct attention_tiles *t, const struct attention_block *b,
                        struct attention_sums *sums, size_t row, int32_t start, int32_t first,
                        int32_t last) {
    const struct keys_seen seen[2] = {see_keys(b, row, start, first, last),
                                      see_keys(b, row + TILE, start, first, last)};
    const size_t end = seen[0].end > seen[1].end ? seen[0].end : seen[1].end;
    if (end == 0) // they see none of these keys
        return;
    const size_t keys = round_up(end, STEP);
    float *out = t->out + row * b->d_padded;
    tile_scores(t, keys, t->q + row * b->d_padded * 2, b->d_padded / STEP);
    for (size_t i = 0; i < 2; i++)
        softmax(&t->scores[0][i * TILE], keys, &seen[i], sums->largest + row + i * TILE,
                sums->total + row + i * TILE, out + i * TILE, b->d_padded,
                t->weights + i * TILE_BYTES);
    add_values(t, keys, out, b->d_padded);
}

// Sums of 32 rows, turned around.
static void turn_sums(const float *from, size_t d_padded, float *to) {
    for (size_t r = 0; r < PAIR; r += TILE)
        for (size_t c = 0; c < d_padded; c += TILE) {
            __m512i columns[TILE];
#pragma GCC unroll 16
            for (size_t i = 0; i < TILE; i++)
                columns[i] = _mm512_load_si512(from + (c + i) * PAIR + r);
            transpose_pairs(columns, (unsigned char *)(to + r * d_padded + c),
                            d_padded * sizeof *to);
        }
}

// attention_tiles_segment
static void segment_in_tiles(const struct attention_block *b, struct attention_sums *sums,
                             int32_t first, int32_t last) {
    struct attention_tiles tiles;
    const size_t rows = round_up(b->rows, PAIR);
    memset(tiles.out, 0, rows * b->d_padded * sizeof *tiles.out);
    tile_queries(b, tiles.q);
    configure_tiles(TILE, 64);
    for (int32_t start = first - first % ATTENTION_TILES_KEYS; start <= last;
         start += ATTENTION_TILES_KEYS) {
        int32_t begin = first > start ? first : start,
                end = last - start < ATTENTION_TILES_KEYS ? last : start + ATTENTION_TILES_KEYS - 1;
        size_t from = (size_t)(begin - start), to = (size_t)(end - start) + 1;
        tile_keys(b, b->k + (size_t)start * b->d, from, to, tiles.k);
        tile_values(b, b->v + (size_t)start * b->d, from, to, tiles.v);
        for (size_t row = 0; row < rows; row += PAIR)
            attend_rows(&tiles, b, sums, row, start, begin, end);
    }
    _tile_release();
    for (size_t row = 0; row < rows; row += PAIR)
        turn_sums(tiles.out + row * b->d_padded, b->d_padded, sums->out + row * b->d_padded);
}
