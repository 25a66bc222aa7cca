// The parts of matmul_tiles.c that are written in vectors and tiles.
//
//     for each block of 256 columns:   unpack the panel's rows to tiles        (L2: 128 KB)
//         for each 32 tokens:          their tiles of these columns            (L1: 16 KB)
//             for each 32 rows:        4 tiles of sums += 8 steps of 4 products
//
// Sums wait in the panel's memory between two blocks of columns.
#include "pairs_simd.h"
#include "weave_unpack_simd.h"

struct tile_call {
    const struct tile_job *jobs;
    const float *x;
    size_t x_stride, m, k;
    size_t strips, steps; // 16 tokens each, 32 columns each
    unsigned char *tiles; // activations: [strips][steps] tiles
    bool failed;          // memory was short: set by any thread, never cleared
};

static size_t panels_of(const struct tile_job *job) {
    return (job->n + PANEL - 1) / PANEL;
}

// Tiles of 16 tokens: row t holds 32 columns of token t.
static void tile_x(const struct tile_call *call, size_t strip) {
    unsigned char *out = call->tiles + strip * call->steps * TILE_BYTES;
    for (size_t t = 0; t < TILE; t++) {
        size_t token = strip * TILE + t;
        const float *x = call->x + token * call->x_stride;
        for (size_t s = 0; s < call->steps; s++) {
            __m512i pair = _mm512_setzero_si512();
            size_t c = s * STEP;
            if (token < call->m)
                pair = round_pair(vec_load_part(x + c, call->k - c),
                                  c + LANES < call->k
                                      ? vec_load_part(x + c + LANES, call->k - c - LANES)
                                      : (vec){0});
            _mm512_store_si512(out + s * TILE_BYTES + t * 64, pair);
        }
    }
}

// 32 columns of a row of 16-bit floats; columns from `left` on are zeros.
INLINE __m512i load_halves(enum tile_kind kind, const uint16_t *p, size_t left) {
    __mmask32 mask = left >= STEP ? 0xffffffff : (1u << left) - 1;
    __m512i h = _mm512_maskz_loadu_epi16(mask, p);
    if (kind == TILE_BF16)
        return h;
    return round_pair((vec)_mm512_cvtph_ps(_mm512_castsi512_si256(h)),
                      (vec)_mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1)));
}

// Rows [row, row + 16), columns [col, col + 32 steps) of 16-bit weights. The next block of columns,
// or the next panel, is asked for meanwhile: it is needed when this one has been multiplied.
INLINE void unpack_halves(const struct tile_job *job, size_t k, size_t row, size_t col,
                          size_t steps, unsigned char *out) {
    size_t ahead = col + K_BLOCK < k ? K_BLOCK : PANEL * k - col;
    for (size_t s = 0; s < steps; s++, col += STEP) {
        __m512i r[16];
#pragma GCC unroll 16
        for (size_t i = 0; i < TILE; i++) {
            const uint16_t *p = job->rows16 + (row + i) * k + col;
            __builtin_prefetch(p + ahead, 0, 2);
            r[i] = row + i < job->n ? load_halves(job->kind, p, k - col) : _mm512_setzero_si512();
        }
        transpose_pairs(r, out + s * TILE_BYTES);
    }
}

// Whatever can be read as float32.
static void unpack_read(const struct tile_job *job, size_t k, size_t row, size_t col, size_t steps,
                        unsigned char *out) {
    float rows[TILE][256] __attribute__((aligned(64)));
    for (size_t done = 0; done < steps; done += 8) {
        size_t here = min_size(8, steps - done), c = col + done * STEP;
        for (size_t i = 0; i < TILE; i++) {
            memset(rows[i], 0, sizeof rows[i]);
            if (row + i < job->n)
                job->source->read(job->source->context, row + i, c, min_size(here * STEP, k - c),
                                  rows[i]);
        }
        for (size_t s = 0; s < here; s++) {
            __m512i r[16];
            for (size_t i = 0; i < TILE; i++)
                r[i] = round_pair(vec_load(rows[i] + s * STEP), vec_load(rows[i] + s * STEP + 16));
            transpose_pairs(r, out + (done + s) * TILE_BYTES);
        }
    }
}

// A quad, four columns of 16 rows, becomes two pairs.
INLINE void unpack_quad(ivec quad, vec scale, vec base, __m512i order, unsigned char *out) {
    vec f[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        f[i] = __builtin_convertvector(quad >> 8 * i & 255, vec) * scale + base;
    _mm512_store_si512(out, _mm512_permutexvar_epi16(order, round_pair(f[0], f[1])));
    _mm512_store_si512(out + 64, _mm512_permutexvar_epi16(order, round_pair(f[2], f[3])));
}

INLINE void unpack_woven_of(const int bits, const bool table, const struct weave *w, size_t row,
                            size_t col, size_t steps, unsigned char *out) {
    const struct row_vector rows = {w->data + row / WEAVE_ROWS * w->block_bytes, 0, 0};
    struct k4_scales k4;
    __m512i order = pair_order();
    float zero = (float)zero_of(&w->kind, bits, table);
    size_t end = col + steps * STEP;
    for (size_t c = col; c < end;) {
        size_t unit = c / w->unit, next = min_size((unit + 1) * w->unit, end);
        k4_step(&k4, w->kind.scale, w, &rows, unit);
        vec scale = unit_scales(w->kind.scale, w, &rows, unit, &k4), base = -scale * zero;
        if (w->kind.scale == WEAVE_SCALE_ROW) {
            scale = vec_load((const float *)(const void *)(rows.block + w->scales));
            base = -scale * zero;
        }
        if (w->kind.zero == WEAVE_ZERO_GROUP)
            base -= scale * unit_zeros(w->kind.bits, w, &rows, unit);
        else if (w->kind.zero != WEAVE_ZERO_ALL)
            base += unit_offsets(w->kind.zero, w, &rows, unit, &k4);
        for (; c < next; c += 16) {
            ivec quads[4];
            __builtin_prefetch(rows.block + (c + K_BLOCK) * WEAVE_ROWS * (bits == 8 ? 8 : 4) / 8, 0,
                               2);
            load_quads(bits, table, w, &rows, c / 16, quads);
            for (size_t q = 0; q < 4; q++)
                unpack_quad(quads[q], scale, base, order, out + (c - col) / 2 * 64 + q * 128);
        }
    }
}

static void unpack_woven(const struct weave *w, size_t row, size_t col, size_t steps,
                         unsigned char *out) {
    if (w->kind.bits == 4 && w->kind.table)
        unpack_woven_of(4, true, w, row, col, steps, out);
    else if (w->kind.bits == 4)
        unpack_woven_of(4, false, w, row, col, steps, out);
    else if (w->kind.bits == 5)
        unpack_woven_of(5, false, w, row, col, steps, out);
    else if (w->kind.bits == 6)
        unpack_woven_of(6, false, w, row, col, steps, out);
    else
        unpack_woven_of(8, false, w, row, col, steps, out);
}

static void unpack_panel(const struct tile_job *job, size_t k, size_t row, size_t col, size_t steps,
                         unsigned char *out) {
    if (job->kind == TILE_WOVEN)
        unpack_woven(job->weave, row, col, steps, out);
    else if (job->kind == TILE_READ)
        unpack_read(job, k, row, col, steps, out);
    else if (job->kind == TILE_BF16)
        unpack_halves(&(struct tile_job){.kind = TILE_BF16, .n = job->n, .rows16 = job->rows16}, k,
                      row, col, steps, out);
    else
        unpack_halves(&(struct tile_job){.kind = TILE_F16, .n = job->n, .rows16 = job->rows16}, k,
                      row, col, steps, out);
}

// c[0 … 1][0 … 1] (sums of 32 tokens and 32 rows) += a bᵀ; a strip's tiles are a_stride apart, b's
// of the next 16 rows b_stride, c's c_stride tokens and 1024 rows. Tiles are numbered by constants.
static void multiply_32(float *c, size_t c_stride, const unsigned char *a, size_t a_stride,
                        const unsigned char *b, size_t b_stride, size_t steps) {
    _tile_loadd(0, c, 64);
    _tile_loadd(1, c + 256, 64);
    _tile_loadd(2, c + c_stride, 64);
    _tile_loadd(3, c + c_stride + 256, 64);
    for (size_t s = 0; s < steps; s++) {
#pragma GCC unroll 16
        for (int i = 0; i < TILE; i++) { // weights come from the L2 cache: two steps ahead
            __builtin_prefetch(b + (s + 2) * TILE_BYTES + i * 64);
            __builtin_prefetch(b + b_stride + (s + 2) * TILE_BYTES + i * 64);
        }
        _tile_loadd(4, a + s * TILE_BYTES, 64);
        _tile_loadd(6, b + s * TILE_BYTES, 64);
        _tile_loadd(7, b + b_stride + s * TILE_BYTES, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + a_stride + s * TILE_BYTES, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, 64);
    _tile_stored(1, c + 256, 64);
    _tile_stored(2, c + c_stride, 64);
    _tile_stored(3, c + c_stride + 256, 64);
}

// The last 16 tokens.
static void multiply_16(float *c, const unsigned char *a, const unsigned char *b, size_t b_stride,
                        size_t steps) {
    _tile_loadd(0, c, 64);
    _tile_loadd(1, c + 256, 64);
    for (size_t s = 0; s < steps; s++) {
        _tile_loadd(4, a + s * TILE_BYTES, 64);
        _tile_loadd(6, b + s * TILE_BYTES, 64);
        _tile_loadd(7, b + b_stride + s * TILE_BYTES, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, c, 64);
    _tile_stored(1, c + 256, 64);
}

// y of two strips and two tiles of rows, from tiles of sums [strips][PANEL / 16], as soon as they
// are complete: 64 cache lines, written while the next tiles multiply.
static void store_32(const struct tile_call *call, const struct tile_job *job, size_t row,
                     size_t strip, const float *sums) {
    size_t first = strip * TILE, m = min_size(2 * TILE, call->m - first);
    for (size_t t = 0; t < m; t++)
        for (size_t at = row; at < min_size(row + 2 * TILE, job->n); at += TILE) {
            size_t tile = t / TILE * (PANEL / TILE) + (at - row) / TILE;
            vec v = vec_load(sums + (tile * TILE + t % TILE) * TILE);
            if (job->bias)
                v += vec_load_part(job->bias + at, job->n - at);
            vec_store_part(job->y + (first + t) * job->y_stride + at, v, job->n - at);
        }
}

static void multiply_panel(const struct tile_call *cc, const struct tile_job *job, size_t row) {
    const struct tile_call *call = cc;
    enum { BLOCK_STEPS = K_BLOCK / STEP, TILES = PANEL / TILE, SUMS = TILE * TILE };
    size_t weights = TILES * BLOCK_STEPS * TILE_BYTES;
    size_t sum_floats = call->strips * TILES * SUMS, b_stride = BLOCK_STEPS * TILE_BYTES;
    unsigned char *panel = scratch_get(SCRATCH_PANEL, weights + sum_floats * sizeof(float));
    if (!panel) {
        __atomic_store_n(&((struct tile_call *)(uintptr_t)cc)->failed, true, __ATOMIC_RELAXED);
        return;
    }
    float *sums = (float *)(void *)(panel + weights);
    memset(sums, 0, sum_floats * sizeof *sums);
    size_t tiles = round_up((min_size(PANEL, job->n - row) + TILE - 1) / TILE, 2);
    configure_tiles();
    for (size_t s = 0; s < call->steps; s += BLOCK_STEPS) {
        size_t steps = min_size(BLOCK_STEPS, call->steps - s);
        for (size_t j = 0; j < tiles; j++) {
            if (row + j * TILE < job->n)
                unpack_panel(job, call->k, row + j * TILE, s * STEP, steps, panel + j * b_stride);
            else
                memset(panel + j * b_stride, 0, b_stride);
        }
        for (size_t t = 0; t < call->strips; t += 2)
            for (size_t j = 0; j < tiles; j += 2) {
                const unsigned char *a = call->tiles + (t * call->steps + s) * TILE_BYTES;
                float *c = sums + (t * TILES + j) * SUMS;
                if (t + 1 < call->strips)
                    multiply_32(c, TILES * SUMS, a, call->steps * TILE_BYTES, panel + j * b_stride,
                                b_stride, steps);
                else
                    multiply_16(c, a, panel + j * b_stride, b_stride, steps);
                if (s + steps == call->steps)
                    store_32(call, job, row + j * TILE, t, c);
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
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 6);
        _tile_dpbf16ps(2, 4, 6);
        _tile_dpbf16ps(3, 4, 6);
    }
    _tile_release();
    return 4 * 2.0 * TILE * TILE * STEP * (double)steps;
}
