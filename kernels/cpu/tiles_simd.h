// The parts of matmul_tiles.c that are written in vectors and tiles.
//
//     for each block of K_BLOCK columns:   unpack the panel's rows to tiles     (L2)
//         for each 32 tokens:              their tiles of these columns         (L1)
//             for each 32 rows:            4 tiles of sums += steps of 4 products
//
// Sums wait in the panel's memory between two blocks of columns. What a step reads lies in the
// order it is read.
#include "pairs_simd.h"
#include "weave_unpack_simd.h"

enum {
    PANEL_PAIRS = PANEL / PAIR,
    BLOCK_STEPS = K_BLOCK / STEP,
    PANEL_WEIGHTS = PANEL_PAIRS * BLOCK_STEPS * STEP_BYTES,
    // To ask for with every step, so that the next pair's are there in time:
    SUM_LINES = 4 * PAIR_SUMS / 64 / BLOCK_STEPS,
    X_LINES = STEP_BYTES / 64 / PANEL_PAIRS, // all pairs of a whole panel have a part
    ASKING_PAIRS = 8                         // 4 of weights with each step
};
_Static_assert(2 * STEP == 64, "a step's 16-bit weights of a row are a cache line");
_Static_assert(K_BLOCK % WEAVE_SUPER == 0, "scales of 256 columns are opened at the first of them");

struct tile_call {
    const struct tile_job *jobs;
    const float *x;
    size_t x_stride, m, k;
    size_t panel;         // rows that a thread takes at a time
    size_t pairs, steps;  // 32 tokens each, 32 columns each
    unsigned char *tiles; // activations: [pairs][steps][2] tiles; few: [steps] of pairs of columns
    bool few;             // tiles_few_simd.h
    bool failed;          // memory was short: set by any thread, never cleared
};

static size_t panels_of(const struct tile_call *call, const struct tile_job *job) {
    return (job->n + call->panel - 1) / call->panel;
}

// Tiles of 16 tokens: row t holds 32 columns of token t. Those behind the last are zeros.
static void tile_x(const struct tile_call *call, size_t pair) {
    for (size_t t = 0; t < PAIR; t++) {
        size_t token = pair * PAIR + t;
        const float *x = call->x + token * call->x_stride;
        unsigned char *out = call->tiles + pair * call->steps * STEP_BYTES + t * 64;
        for (size_t s = 0; s < call->steps; s++) {
            _mm512_store_si512(out + s * STEP_BYTES,
                               token < call->m ? round_part(x + s * STEP, call->k - s * STEP)
                                               : _mm512_setzero_si512());
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

// Rows [row, row + 16), columns [col, col + 32 steps) of 16-bit weights. Those `ahead` of them are
// asked for, too, if products do not ask for them (ask_ahead).
INLINE void unpack_halves(const struct tile_job *job, size_t k, size_t ahead, size_t row,
                          size_t col, size_t steps, unsigned char *out) {
    for (size_t s = 0; s < steps; s++, col += STEP) {
        __m512i r[16];
#pragma GCC unroll 16
        for (size_t i = 0; i < TILE; i++) {
            const uint16_t *p = job->rows16 + (row + i) * k + col;
            if (ahead)
                __builtin_prefetch(p + ahead, 0, 2);
            r[i] = row + i < job->n ? load_halves(job->kind, p, k - col) : _mm512_setzero_si512();
        }
        transpose_pairs(r, out + s * STEP_BYTES, 64);
    }
}

// Whatever can be read as float32.
static void unpack_read(const struct tile_job *job, size_t k, size_t row, size_t col, size_t steps,
                        unsigned char *out) {
    float rows[TILE][K_BLOCK] __attribute__((aligned(64)));
    for (size_t i = 0; i < TILE; i++) {
        memset(rows[i], 0, sizeof rows[i]);
        if (row + i < job->n)
            job->source->read(job->source->context, row + i, col, min_size(steps * STEP, k - col),
                              rows[i]);
    }
    for (size_t s = 0; s < steps; s++) {
        __m512i r[16];
        for (size_t i = 0; i < TILE; i++)
            r[i] = round_pair(vec_load(rows[i] + s * STEP), vec_load(rows[i] + s * STEP + 16));
        transpose_pairs(r, out + s * STEP_BYTES, 64);
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
                unpack_quad(quads[q], scale, base, order,
                            out + (c - col) / STEP * STEP_BYTES + c % STEP / 2 * 64 + q * 128);
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

// Whether there are enough products with a block of weights to spread asking for the next one over.
static bool products_ask(const struct tile_call *call) {
    return call->pairs >= ASKING_PAIRS;
}

static void unpack_panel(const struct tile_call *call, const struct tile_job *job, size_t row,
                         size_t col, size_t steps, unsigned char *out) {
    const size_t k = call->k, next = col + K_BLOCK < k ? K_BLOCK : call->panel * k - col;
    const size_t ahead = products_ask(call) ? 0 : next;
    if (job->kind == TILE_WOVEN)
        unpack_woven(job->weave, row, col, steps, out);
    else if (job->kind == TILE_READ)
        unpack_read(job, k, row, col, steps, out);
    else if (job->kind == TILE_BF16)
        unpack_halves(&(struct tile_job){.kind = TILE_BF16, .n = job->n, .rows16 = job->rows16}, k,
                      ahead, row, col, steps, out);
    else
        unpack_halves(&(struct tile_job){.kind = TILE_F16, .n = job->n, .rows16 = job->rows16}, k,
                      ahead, row, col, steps, out);
}

// What is asked for while a pair is multiplied, a little with each step.
struct ahead {
    const unsigned char *x;       // the next tokens' activations
    const unsigned char *weights; // of the next block of columns, or of the next panel
    size_t rows, stride;          // how many of its rows; bytes between them
};

// The share of the next block's weights that belongs to the product of `pair` with rows `row` on. A
// thread that asks for all of them when it unpacks waits for them: 1.05 to 1.08 times as slow.
// Formats other than 16-bit rows lie in the order they are read, and need it less.
static struct ahead ask_ahead(const struct tile_call *call, const struct tile_job *job, size_t pair,
                              size_t row, size_t next_step) {
    struct ahead ahead = {.stride = call->k * sizeof *job->rows16};
    const size_t share = (PAIR + call->pairs - 1) / call->pairs;
    size_t first = row + pair * share;
    if (next_step == call->steps) {
        first += call->panel;
        next_step = 0;
    }
    bool in_rows = job->kind == TILE_BF16 || job->kind == TILE_F16;
    if (products_ask(call) && in_rows && pair * share < PAIR && first + share <= job->n) {
        ahead.rows = share;
        ahead.weights = (const unsigned char *)(job->rows16 + first * call->k + next_step * STEP);
    }
    return ahead;
}

// Sums of 32 tokens and 32 rows, [2 tiles of tokens][2 of rows], += a bᵀ; of the first block of
// columns, = a bᵀ. Products wait for their sums, so the next pair's, which follow, are asked for
// before; the next tokens' activations too, which often come from the L3 cache. The panel streams
// from the L2 cache as fast as it is needed, because nothing but loads and products is under way:
// asking for it made it slower.
static void multiply_pair(bool first, float *sums, const unsigned char *a, const unsigned char *b,
                          size_t steps, struct ahead ahead) {
    const unsigned char *next_sums = (const unsigned char *)(sums + PAIR_SUMS);
    tiles_read_memory();
    if (first) {
        zero_tiles();
    } else {
        _tile_loadd(0, sums, 64);
        _tile_loadd(1, sums + 256, 64);
        _tile_loadd(2, sums + 512, 64);
        _tile_loadd(3, sums + 768, 64);
    }
    for (size_t s = 0; s < steps; s++, a += STEP_BYTES, b += STEP_BYTES) {
#pragma GCC unroll 8
        for (size_t i = 0; i < SUM_LINES; i++, next_sums += 64)
            __builtin_prefetch(next_sums, 1);
#pragma GCC unroll 4
        for (size_t i = 0; i < X_LINES; i++, ahead.x += 64)
            __builtin_prefetch(ahead.x, 0, 2);
        for (size_t i = 0; i < ahead.rows; i++)
            __builtin_prefetch(ahead.weights + s * 64 + i * ahead.stride, 0, 2);
        multiply_bf16(a, a + TILE_BYTES, b, b + TILE_BYTES);
    }
    store_tiles(sums);
}

// The last tokens, if they are no more than 16: a tile of none would be multiplied for nothing.
static void multiply_half(bool first, float *sums, const unsigned char *a, const unsigned char *b,
                          size_t steps) {
    tiles_read_memory();
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
    } else {
        _tile_loadd(0, sums, 64);
        _tile_loadd(1, sums + 256, 64);
    }
    for (size_t s = 0; s < steps; s++, a += STEP_BYTES, b += STEP_BYTES) {
        _tile_loadd(4, a, 64);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + TILE_BYTES, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + 256, 64);
}

// The results of 32 tokens and 32 rows leave as soon as they are complete: 64 cache lines, written
// while the next tiles multiply.
static void store_pair(const struct tile_call *call, const struct tile_job *job, size_t row,
                       size_t pair, const float *sums) {
    const size_t first = pair * PAIR;
    float *y = job->y + first * job->y_stride;
    const bool around =
        row + PAIR <= job->n && goes_around_cache(call->m, job->n, y + row, job->y_stride);
    for (size_t t = 0; t < min_size(PAIR, call->m - first); t++, y += job->y_stride)
        for (size_t j = 0, at = row; j < 2 && at < job->n; j++, at += TILE) {
            vec v = vec_load(sums + ((t / TILE * 2 + j) * TILE + t % TILE) * TILE);
            if (job->bias)
                v += vec_load_part(job->bias + at, job->n - at);
            if (around)
                _mm512_stream_ps(y + at, v);
            else
                vec_store_part(y + at, v, job->n - at);
        }
}

// Rows [row, row + n) of a job, at most PANEL; all tokens.
static void multiply_panel(struct tile_call *call, const struct tile_job *job, size_t row,
                           size_t n) {
    const size_t row_pairs = call->panel / PAIR, sum_floats = call->pairs * row_pairs * PAIR_SUMS;
    unsigned char *panel = scratch_get(SCRATCH_PANEL, PANEL_WEIGHTS + sum_floats * sizeof(float));
    if (!panel) {
        __atomic_store_n(&call->failed, true, __ATOMIC_RELAXED);
        return;
    }
    float *sums = (float *)(void *)(panel + PANEL_WEIGHTS);
    const size_t pairs = (n + PAIR - 1) / PAIR;
    configure_tiles(TILE, 64);
    for (size_t s = 0; s < call->steps; s += BLOCK_STEPS) {
        const size_t steps = min_size(BLOCK_STEPS, call->steps - s);
        for (size_t j = 0; j < 2 * pairs; j++) {
            unsigned char *out = panel + j / 2 * BLOCK_STEPS * STEP_BYTES + j % 2 * TILE_BYTES;
            if (row + j * TILE < job->n)
                unpack_panel(call, job, row + j * TILE, s * STEP, steps, out);
            else
                for (size_t i = 0; i < steps; i++)
                    memset(out + i * STEP_BYTES, 0, TILE_BYTES);
        }
        for (size_t t = 0; t < call->pairs; t++)
            for (size_t j = 0; j < pairs; j++) {
                const unsigned char *a = call->tiles + (t * call->steps + s) * STEP_BYTES;
                const unsigned char *b = panel + j * BLOCK_STEPS * STEP_BYTES;
                float *c = sums + (t * row_pairs + j) * PAIR_SUMS;
                struct ahead ahead = ask_ahead(call, job, t, row + j * PAIR, s + steps);
                ahead.x = a + call->steps * STEP_BYTES + j * steps * X_LINES * 64;
                if (call->m - t * PAIR > TILE)
                    multiply_pair(s == 0, c, a, b, steps, ahead);
                else
                    multiply_half(s == 0, c, a, b, steps);
                if (s + steps == call->steps)
                    store_pair(call, job, row + j * PAIR, t, c);
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
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 6);
        _tile_dpbf16ps(2, 4, 6);
        _tile_dpbf16ps(3, 4, 6);
    }
    _tile_release();
    return 4 * 2.0 * TILE * TILE * STEP * (double)steps;
}
