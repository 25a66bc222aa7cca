// The parts of matmul_weave_tiles.c that are written in vectors and tiles.
//
//     for each block of K_BLOCK columns:   the panel's codes to tiles          (L2)
//         for each 32 tokens:              their tiles of these columns        (L1)
//             for each 32 rows:            unit by unit: 4 tiles of int32 sums,
//                                          times scales, added to float32 sums (L2)
//
// Tiles and vectors work at the same time: the products of a unit are started before the sums of
// the unit before it are multiplied by their scales.
#include "weave_unpack_simd.h"

struct tiles_call {
    const struct weave_job *jobs;
    const struct weave_x *x;
    size_t strips, steps; // 16 tokens each, an even number; 64 columns each
    int8_t *tiles;        // activations: [strips][steps] tiles
    float *scales, *sums; // [units][strips * 16]: of the activations, and sums of their codes
    bool failed;          // memory was short: set by any thread, never cleared
};

enum { PANEL_TILES = PANEL / TILE, TILE_SUMS = TILE * TILE };

// One strip's activations: codes to tiles, what belongs to a unit side by side. Tokens behind the
// last are zeros.
static void tile_strip(const struct tiles_call *call, size_t strip) {
    const struct weave_x *x = call->x;
    for (size_t t = 0; t < TILE; t++) {
        size_t token = strip * TILE + t;
        bool real = token < x->m;
        int8_t *out = call->tiles + strip * call->steps * TILE_BYTES + t * 64;
        for (size_t s = 0; s < call->steps; s++) {
            if (real)
                memcpy(out + s * TILE_BYTES, x->q + token * x->q_stride + s * 64, 64);
            else
                memset(out + s * TILE_BYTES, 0, 64);
        }
        for (size_t u = 0; u < x->units; u++) {
            size_t at = u * call->strips * TILE + token;
            call->scales[at] = real ? x->scale[token * x->units + u] : 0.0f;
            call->sums[at] = real ? (float)x->sum[token * x->units + u] : 0.0f;
        }
    }
}

INLINE void unpack_codes_of(const int bits, const bool table, const struct weave *w,
                            const struct row_vector *rows, size_t col, size_t columns,
                            int8_t *out) {
    const ivec zero = (ivec){0} + zero_of(&w->kind, bits, table) * 0x01010101;
    for (size_t c = 0; c < columns; c += 16) {
        ivec quads[4];
        load_quads(bits, table, w, rows, (col + c) / 16, quads);
        for (size_t q = 0; q < 4; q++)
            _mm512_store_si512(out + c * 16 + q * 64,
                               _mm512_sub_epi8((__m512i)quads[q], (__m512i)zero));
    }
}

// Sixteen rows' codes of some columns as signed bytes, less what stands for 0 in all of them.
static void unpack_codes(const struct weave *w, const struct row_vector *rows, size_t col,
                         size_t columns, int8_t *out) {
    if (w->kind.table)
        unpack_codes_of(4, true, w, rows, col, columns, out);
    else if (w->kind.bits == 4)
        unpack_codes_of(4, false, w, rows, col, columns, out);
    else if (w->kind.bits == 5)
        unpack_codes_of(5, false, w, rows, col, columns, out);
    else if (w->kind.bits == 6)
        unpack_codes_of(6, false, w, rows, col, columns, out);
    else
        unpack_codes_of(8, false, w, rows, col, columns, out);
}

// 32 tokens times 32 rows, `steps` tiles of columns: tiles 0 to 3 are the sums.
INLINE void multiply_unit(const int8_t *a, size_t a_stride, const int8_t *b, size_t b_stride,
                          size_t steps) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t s = 0; s < steps; s++) {
        _tile_loadd(4, a + s * TILE_BYTES, 64);
        _tile_loadd(6, b + s * TILE_BYTES, 64);
        _tile_loadd(7, b + b_stride + s * TILE_BYTES, 64);
        _tile_dpbssd(0, 4, 6);
        _tile_dpbssd(1, 4, 7);
        _tile_loadd(5, a + a_stride + s * TILE_BYTES, 64);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbssd(3, 5, 7);
    }
}

INLINE void store_products(int32_t *to) {
    _tile_stored(0, to, 64);
    _tile_stored(1, to + TILE_SUMS, 64);
    _tile_stored(2, to + 2 * TILE_SUMS, 64);
    _tile_stored(3, to + 3 * TILE_SUMS, 64);
}

// y += scales of both sides * products, for the tokens of two strips and the rows of two tiles.
INLINE void add_unit(const enum weave_scale scales, const enum weave_zero zeros,
                     const struct tiles_call *call, const struct weave *w,
                     const struct row_vector rows[2], size_t unit, size_t strip,
                     const int32_t *products, float *y) {
    const float *x_scale = call->scales + (unit * call->strips + strip) * TILE;
    const float *x_sum = call->sums + (unit * call->strips + strip) * TILE;
    const struct k4_scales none = {0};
    for (size_t j = 0; j < 2; j++) {
        vec scale = unit_scales(scales, w, &rows[j], unit, &none);
        vec code_of_0 =
            zeros == WEAVE_ZERO_GROUP ? unit_zeros(w->kind.bits, w, &rows[j], unit) : (vec){0};
        for (size_t i = 0; i < 2; i++)
#pragma GCC unroll 4
            for (size_t t = 0; t < TILE; t++) {
                ivec sum;
                memcpy(&sum, products + ((i * 2 + j) * TILE + t) * TILE, sizeof sum);
                float *to = y + (i * PANEL_TILES + j) * TILE_SUMS + t * TILE;
                vec f = __builtin_convertvector(sum, vec), before = vec_load(to);
                if (zeros == WEAVE_ZERO_GROUP)
                    f -= code_of_0 * x_sum[i * TILE + t];
                before += scale * x_scale[i * TILE + t] * f;
                vec_store(to, before);
            }
    }
}

INLINE void multiply_32_of(const enum weave_scale scales, const enum weave_zero zeros,
                           const struct tiles_call *call, const struct weave *w,
                           const struct row_vector rows[2], size_t strip, size_t col, size_t end,
                           const int8_t *b, size_t b_stride, float *y) {
    int32_t products[2][4 * TILE_SUMS] __attribute__((aligned(64)));
    const size_t a_stride = call->steps * TILE_BYTES, steps = w->unit / 64;
    const int8_t *a = call->tiles + strip * a_stride + col * TILE;
    size_t first = col / w->unit, last = (end - 1) / w->unit, unit = first;
    for (; unit <= last; unit++) {
        size_t at = unit * w->unit - col, left = (end - col - at) / 64;
        multiply_unit(a + at * TILE, a_stride, b + at * TILE, b_stride, min_size(steps, left));
        if (unit > first)
            add_unit(scales, zeros, call, w, rows, unit - 1, strip, products[(unit - 1) % 2], y);
        store_products(products[unit % 2]);
    }
    add_unit(scales, zeros, call, w, rows, last, strip, products[last % 2], y);
}

static void multiply_32(const struct tiles_call *call, const struct weave *w,
                        const struct row_vector rows[2], size_t strip, size_t col, size_t end,
                        const int8_t *b, size_t b_stride, float *y) {
#define MULTIPLY_IF(s, z)                                                                          \
    if (w->kind.scale == s && w->kind.zero == z)                                                   \
    multiply_32_of(s, z, call, w, rows, strip, col, end, b, b_stride, y)
    MULTIPLY_IF(WEAVE_SCALE_F16, WEAVE_ZERO_ALL);
    MULTIPLY_IF(WEAVE_SCALE_F16, WEAVE_ZERO_GROUP);
    MULTIPLY_IF(WEAVE_SCALE_ROW, WEAVE_ZERO_ALL);
    MULTIPLY_IF(WEAVE_SCALE_ROW, WEAVE_ZERO_GROUP);
#undef MULTIPLY_IF
}

// The results of two strips and two tiles leave as soon as they are complete: 64 cache lines,
// written while the next tiles multiply. A panel's results at once would wait for memory (a fifth
// of the time).
static void store_32(const struct tiles_call *call, const struct weave_job *job,
                     const struct row_vector rows[2], size_t row, size_t strip, const float *sums) {
    size_t first = strip * TILE, m = min_size(2 * TILE, call->x->m - first);
    for (size_t t = 0; t < m; t++)
        for (size_t j = 0; j < 2; j++) {
            vec v = vec_load(sums + (t / TILE * PANEL_TILES + j) * TILE_SUMS + t % TILE * TILE);
            store_rows(job->w, &rows[j], row + j * TILE, 1, &v,
                       job->y + (first + t) * job->y_stride, job->y_stride, job->bias);
        }
}

// Rows [row, row + PANEL) of a job, all tokens.
static void multiply_panel(struct tiles_call *call, const struct weave_job *job, size_t row) {
    const struct weave *w = job->w;
    const size_t b_stride = K_BLOCK * TILE, y_floats = call->strips * PANEL_TILES * TILE_SUMS;
    int8_t *panel = scratch_get(SCRATCH_PANEL, PANEL_TILES * b_stride + y_floats * sizeof(float));
    if (!panel) {
        __atomic_store_n(&call->failed, true, __ATOMIC_RELAXED);
        return;
    }
    float *y = (float *)(void *)(panel + PANEL_TILES * b_stride);
    memset(y, 0, y_floats * sizeof *y);
    size_t tiles = (min_size(PANEL, w->n - row) + TILE - 1) / TILE;
    struct row_vector rows[PANEL_TILES] = {{0}};
    // An odd last tile has a partner, whose sums are dropped.
    for (size_t j = 0; j < PANEL_TILES; j++)
        rows[j].block = w->data + (row / TILE + min_size(j, tiles - 1)) * w->block_bytes;
    configure_tiles();
    for (size_t col = 0; col < w->k_padded; col += K_BLOCK) {
        size_t end = min_size(col + K_BLOCK, w->k_padded);
        for (size_t j = 0; j < round_up(tiles, 2); j++)
            unpack_codes(w, &rows[j], col, end - col, panel + j * b_stride);
        for (size_t strip = 0; strip < call->strips; strip += 2)
            for (size_t j = 0; j < tiles; j += 2) {
                float *sums = y + (strip * PANEL_TILES + j) * TILE_SUMS;
                multiply_32(call, w, rows + j, strip, col, end, panel + j * b_stride, b_stride,
                            sums);
                if (end == w->k_padded)
                    store_32(call, job, rows + j, row + j * TILE, strip, sums);
            }
    }
    _tile_release();
}

static double tile_operations(size_t steps) {
    configure_tiles();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
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
    enum { STRIP = 8 }; // tiles of a strip: 32 KB in all
    static const int8_t tiles[4 * STRIP * TILE_BYTES] __attribute__((aligned(64)));
    configure_tiles();
    for (size_t s = 0; s < steps; s += STRIP)
        multiply_unit(tiles, STRIP * TILE_BYTES, tiles + 2 * STRIP * TILE_BYTES, STRIP * TILE_BYTES,
                      STRIP);
    _tile_release();
    return 4 * 2.0 * TILE * TILE * 64 * (double)steps;
}
