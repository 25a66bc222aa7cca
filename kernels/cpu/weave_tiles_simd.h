// The parts of matmul_weave_tiles.c that are written in vectors and tiles.
//
//     for each block of K_BLOCK columns:   the panel's codes to tiles          (L2)
//         for each 32 tokens:              their tiles of these columns        (L1)
//             for each 32 rows:            unit by unit: 4 tiles of int32 sums,
//                                          times scales, added to float32 sums (L2)
//
// Tiles and vectors work at the same time: while a unit is multiplied, the sums of the unit before
// it are multiplied by their scales. What a unit reads lies in the order it is read, so that few
// registers point at it: a pointer fetched from memory would wait for stores that only look as if
// they overlapped it (their addresses agree in the last 12 bits).
#include "weave_unpack_simd.h"

enum {
    PANEL_PAIRS = PANEL / PAIR,
    PANEL_CODES = PANEL * K_BLOCK,
    BLOCK_STEPS = K_BLOCK / 64 // tiles of columns; a unit has one of them or two
};
_Static_assert(K_BLOCK % 128 == 0, "a unit lies in one block");

struct tiles_call {
    const struct weave_job *jobs;
    const struct weave_x *x;
    size_t panel;               // rows that a thread takes at a time
    size_t pairs, units, steps; // 32 tokens each; of columns; tiles of columns in a unit
    int8_t *tiles;              // activations: [pairs][units][steps][2] tiles
    float *scales, *code_sums;  // [pairs][units][32], of the activations
    bool failed;                // memory was short: set by any thread, never cleared
};

static size_t unit_bytes(const struct tiles_call *call) {
    return call->steps * 2 * TILE_BYTES;
}

// One pair's activations: codes to tiles, and what belongs to a unit side by side. Tokens and
// columns behind the last are zeros.
static void tile_tokens(const struct tiles_call *call, size_t pair) {
    const struct weave_x *x = call->x;
    const size_t columns = x->q_stride / 64, all = call->units * call->steps;
    for (size_t t = 0; t < PAIR; t++) {
        size_t token = pair * PAIR + t;
        bool real = token < x->m;
        int8_t *out = call->tiles + pair * call->units * unit_bytes(call) + t / TILE * TILE_BYTES +
                      t % TILE * 64;
        for (size_t s = 0; s < all; s++) {
            if (real && s < columns)
                memcpy(out + s * 2 * TILE_BYTES, x->q + token * x->q_stride + s * 64, 64);
            else
                memset(out + s * 2 * TILE_BYTES, 0, 64);
        }
        for (size_t u = 0; u < x->units; u++) {
            size_t at = (pair * call->units + u) * PAIR + t;
            call->scales[at] = real ? x->scale[token * x->units + u] : 0.0f;
            call->code_sums[at] = real ? (float)x->sum[token * x->units + u] : 0.0f;
        }
    }
}

// Sixteen rows' codes of some columns as signed bytes, less what stands for 0 in all of them: tiles
// of 64 columns, tile_stride bytes apart.
INLINE void unpack_codes_of(const int bits, const bool table, const size_t tile_stride,
                            const struct weave *w, const struct row_vector *rows, size_t col,
                            size_t columns, int8_t *out) {
    const __m512i zero = _mm512_set1_epi8((char)zero_of(&w->kind, bits, table));
    for (size_t c = 0; c < columns; c += 16) {
        ivec quads[4];
        load_quads(bits, table, w, rows, (col + c) / 16, quads);
        for (size_t q = 0; q < 4; q++)
            _mm512_store_si512(out + c / 64 * tile_stride + c % 64 * 16 + q * 64,
                               _mm512_sub_epi8((__m512i)quads[q], zero));
    }
}

// The same, whatever they are made of: every other tile from `out` on. Eight bits lie as tiles
// already, but a panel that is multiplied with many tokens wants to be in the L2 cache, in its
// order.
static void unpack_codes(const struct weave *w, const struct row_vector *rows, size_t col,
                         size_t columns, int8_t *out) {
    const size_t stride = 2 * TILE_BYTES;
    if (w->kind.bits == 4)
        unpack_codes_of(4, false, stride, w, rows, col, columns, out);
    else if (w->kind.bits == 5)
        unpack_codes_of(5, false, stride, w, rows, col, columns, out);
    else if (w->kind.bits == 6)
        unpack_codes_of(6, false, stride, w, rows, col, columns, out);
    else
        unpack_codes_of(8, false, stride, w, rows, col, columns, out);
}

// What a thread works on: some rows and a block of their columns.
struct panel {
    int8_t *codes;                                // [PANEL_PAIRS][BLOCK_STEPS][2] tiles
    float scales[PANEL_PAIRS][BLOCK_STEPS][PAIR]; // of the rows' units, of which there may be fewer
    float zeros[PANEL_PAIRS][BLOCK_STEPS][PAIR];  // codes that stand for 0 there
};

// Columns [col, end) of the rows of tile j, whose block of sixteen is `rows`. The codes behind the
// last column are multiplied by zeros: any will do.
static void unpack_tile(struct panel *panel, const struct weave *w, const struct row_vector *rows,
                        size_t j, size_t col, size_t end) {
    const struct k4_scales none = {0};
    const size_t pair = j / 2, half = j % 2, first = col / w->unit;
    unpack_codes(w, rows, col, end - col,
                 panel->codes + (pair * BLOCK_STEPS * 2 + half) * TILE_BYTES);
    for (size_t u = first; u * w->unit < end; u++) {
        vec_store(panel->scales[pair][u - first] + half * TILE,
                  unit_scales(w->kind.scale, w, rows, u, &none));
        if (w->kind.zero == WEAVE_ZERO_GROUP)
            vec_store(panel->zeros[pair][u - first] + half * TILE,
                      unit_zeros(w->kind.bits, w, rows, u));
    }
}

// What 32 tokens and 32 rows need: a block's columns, a unit behind the other.
struct piece {
    const int8_t *a, *b;
    const float *x_scale, *x_sum; // [units][32] of the tokens: scales, sums of codes
    const float *scale, *zero;    // [units][32] of the rows
    float *sums;                  // [2 tiles of tokens][2 of rows]
};

// A unit's products, in tiles 0 to 3.
INLINE void multiply_unit(const size_t steps, struct piece *p) {
    zero_tiles();
#pragma GCC unroll 2
    for (size_t s = 0; s < steps; s++, p->a += 2 * TILE_BYTES, p->b += 2 * TILE_BYTES) {
        _tile_loadd(4, p->a, 64);
        _tile_loadd(6, p->b, 64);
        _tile_loadd(7, p->b + TILE_BYTES, 64);
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_loadd(5, p->a + TILE_BYTES, 64);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
}

// sums += scales of both sides * products, for tile i of the tokens and j of the rows. Meanwhile a
// tile of the next unit's codes is asked for, a line with every token: behind so many additions,
// its loads would be seen too late.
INLINE void add_tile(const enum weave_zero zeros, const struct piece *p, const int32_t *products,
                     const size_t i, const size_t j) {
    const size_t at = (2 * i + j) * TILE * TILE;
    const vec scale = vec_load(p->scale + j * TILE);
    const vec code_of_0 = zeros == WEAVE_ZERO_GROUP ? vec_load(p->zero + j * TILE) : (vec){0};
#pragma GCC unroll 16
    for (size_t t = 0; t < TILE; t++) {
        ivec sum;
        memcpy(&sum, products + at + t * TILE, sizeof sum);
        vec f = __builtin_convertvector(sum, vec), before = vec_load(p->sums + at + t * TILE);
        if (zeros == WEAVE_ZERO_GROUP)
            f -= code_of_0 * p->x_sum[i * TILE + t];
        before += scale * p->x_scale[i * TILE + t] * f;
        vec_store(p->sums + at + t * TILE, before);
        __builtin_prefetch(p->b + (2 * i + j) * TILE_BYTES + t * 64);
    }
}

// sums += a bᵀ, scaled. Floats wait for products, with which they share a port, but not for stores
// of tiles. The next unit's products do wait for these. So the additions of the unit before fill
// the time that a unit's four tiles take to leave.
INLINE void multiply_pair_of(const enum weave_zero zeros, const size_t steps, size_t units,
                             struct piece p) {
    int32_t products[PAIR_SUMS] __attribute__((aligned(64)));
    tiles_read_memory();
    multiply_unit(steps, &p);
    store_tiles(products);
    for (size_t u = 1; u < units; u++) {
        multiply_unit(steps, &p);
        add_tile(zeros, &p, products, 0, 0);
        _tile_stored(0, products, 64);
        add_tile(zeros, &p, products, 0, 1);
        _tile_stored(1, products + 256, 64);
        add_tile(zeros, &p, products, 1, 0);
        _tile_stored(2, products + 512, 64);
        add_tile(zeros, &p, products, 1, 1);
        _tile_stored(3, products + 768, 64);
        p.x_scale += PAIR;
        p.x_sum += PAIR;
        p.scale += PAIR;
        p.zero += PAIR;
    }
    add_tile(zeros, &p, products, 0, 0);
    add_tile(zeros, &p, products, 0, 1);
    add_tile(zeros, &p, products, 1, 0);
    add_tile(zeros, &p, products, 1, 1);
}

static void multiply_pair(const enum weave_zero zeros, size_t steps, size_t units,
                          const struct piece *p) {
    if (steps == 2 && zeros == WEAVE_ZERO_ALL)
        multiply_pair_of(WEAVE_ZERO_ALL, 2, units, *p);
    else if (steps == 2)
        multiply_pair_of(WEAVE_ZERO_GROUP, 2, units, *p);
    else if (zeros == WEAVE_ZERO_ALL)
        multiply_pair_of(WEAVE_ZERO_ALL, 1, units, *p);
    else
        multiply_pair_of(WEAVE_ZERO_GROUP, 1, units, *p);
}

// The results of 32 tokens and 32 rows leave as soon as they are complete: 64 cache lines, written
// while the next tiles multiply.
static void store_pair(const struct weave_job *job, size_t m, const struct row_vector rows[2],
                       size_t row, size_t pair, const float *sums) {
    const size_t first = pair * PAIR, n = job->w->n;
    float *y = job->y + first * job->y_stride + row;
    const bool around = row + PAIR <= n && goes_around_cache(m, n, y, job->y_stride);
    for (size_t t = 0; t < min_size(PAIR, m - first); t++, y += job->y_stride)
        for (size_t j = 0; j < 2; j++) {
            vec v = vec_load(sums + ((t / TILE * 2 + j) * TILE + t % TILE) * TILE);
            if (around)
                _mm512_stream_ps(y + j * TILE,
                                 row_results(job->w, &rows[j], row + j * TILE, v, job->bias));
            else
                store_rows(job->w, &rows[j], row + j * TILE, 1, &v, y + j * TILE, 0, job->bias);
        }
}

// Rows [row, row + n) of a job, at most PANEL; all tokens.
static void multiply_panel(struct tiles_call *call, const struct weave_job *job, size_t row,
                           size_t n) {
    const struct weave *w = job->w;
    const size_t row_pairs = call->panel / PAIR, floats = call->pairs * row_pairs * PAIR_SUMS;
    struct panel panel;
    panel.codes = scratch_get(SCRATCH_PANEL, PANEL_CODES + floats * sizeof(float));
    if (!panel.codes) {
        __atomic_store_n(&call->failed, true, __ATOMIC_RELAXED);
        return;
    }
    float *all_sums = (float *)(void *)(panel.codes + PANEL_CODES);
    size_t tiles = (n + TILE - 1) / TILE;
    struct row_vector rows[2 * PANEL_PAIRS] = {{0}};
    // An odd last tile has a partner, whose sums are dropped.
    for (size_t j = 0; j < 2 * PANEL_PAIRS; j++)
        rows[j].block = w->data + (row / TILE + min_size(j, tiles - 1)) * w->block_bytes;
    configure_tiles(TILE, 64);
    for (size_t col = 0; col < w->k_padded; col += K_BLOCK) {
        size_t end = min_size(col + K_BLOCK, w->k_padded), first = col / w->unit;
        size_t units = (end - col + w->unit - 1) / w->unit;
        for (size_t j = 0; j < round_up(tiles, 2); j++)
            unpack_tile(&panel, w, &rows[j], j, col, end);
        for (size_t pair = 0; pair < call->pairs; pair++)
            for (size_t j = 0; j < tiles; j += 2) {
                size_t at = pair * call->units + first;
                float *sums = all_sums + (pair * row_pairs + j / 2) * PAIR_SUMS;
                const struct piece piece = {.a = call->tiles + at * unit_bytes(call),
                                            .b = panel.codes + j * BLOCK_STEPS * TILE_BYTES,
                                            .x_scale = call->scales + at * PAIR,
                                            .x_sum = call->code_sums + at * PAIR,
                                            .scale = panel.scales[j / 2][0],
                                            .zero = panel.zeros[j / 2][0],
                                            .sums = sums};
                if (col == 0)
                    memset(sums, 0, PAIR_SUMS * sizeof *sums);
                multiply_pair(w->kind.zero, call->steps, units, &piece);
                if (end == w->k_padded)
                    store_pair(job, call->x->m, rows + j, row + j * TILE, pair, sums);
            }
    }
    _tile_release();
    _mm_sfence(); // what went around the cache is there before others are told
}

static double tile_operations(size_t steps) {
    configure_tiles(TILE, 64);
    zero_tiles();
    _tile_zero(4);
    _tile_zero(6);
    for (size_t s = 0; s < steps; s++) {
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 6);
        _tile_dpbssd(2, 4, 6);
        _tile_dpbssd(3, 4, 6);
    }
    _tile_release();
    return 4 * 2.0 * TILE * TILE * 64 * (double)steps;
}

static double fed_operations(size_t steps) {
    static const int8_t tiles[8 * TILE_BYTES] __attribute__((aligned(64)));
    configure_tiles(TILE, 64);
    for (size_t s = 0; s < steps; s += 2) {
        struct piece p = {.a = tiles, .b = tiles + 4 * TILE_BYTES};
        multiply_unit(2, &p);
    }
    _tile_release();
    return 4 * 2.0 * TILE * TILE * 64 * (double)steps;
}
