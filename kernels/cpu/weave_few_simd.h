// The parts of matmul_weave_tiles.c for a few tokens: at most 16, one tile of activations.
//
//     for each 64 rows, four streams of memory:   unit by unit: their codes to tiles (L1),
//         4 tiles of int32 sums, times scales, added to float32 sums (L1)
//
// Memory decides how fast this is, as long as unpacking and scaling take no longer than it does:
// vectors of integers and of floats, tiles and the memory all work at the same time, the floats on
// the unit before.

enum { FEW_BLOCKS = 4 };

// What the sums of FEW_BLOCKS blocks are made with.
struct few {
    const struct weave *w;
    const struct weave_x *x;
    struct row_vector rows[FEW_BLOCKS];
    int8_t codes[FEW_BLOCKS][2 * TILE_BYTES] __attribute__((aligned(64)));
    int32_t products[FEW_BLOCKS][TILE * TILE] __attribute__((aligned(64)));
    float sums[FEW_BLOCKS][TILE * TILE] __attribute__((aligned(64)));
};

// Tiles 0 to 3, sums, and 4, activations, have a row for each token; 5 to 7, codes, are full.
static void configure_few(size_t m) {
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = i < 5 ? (uint8_t)m : TILE;
    }
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

// The codes of a unit's columns of one block as tiles: unpacked, or where they lie.
INLINE const int8_t *few_codes(const int bits, const bool table, struct few *f, size_t r,
                               size_t from, size_t to) {
    if (bits == 8)
        return (const int8_t *)f->rows[r].block + from * WEAVE_ROWS;
    unpack_codes_of(bits, table, TILE_BYTES, f->w, &f->rows[r], from, to - from, f->codes[r]);
    return f->codes[r];
}

// A unit whose products are to be scaled.
struct few_unit {
    size_t unit, group; // group: its scales'
    size_t line, lines; // its first cache line of codes in a block; how many lines a token asks for
};

// sums += scales of both sides * products of a unit, for the rows of block r. Meanwhile memory is
// asked for, a little with every token: all at once would have the rest wait.
INLINE void few_add(const enum weave_scale scales, const enum weave_zero zeros, struct few *f,
                    size_t r, const struct few_unit *u) {
    const struct weave_x *x = f->x;
    const struct row_vector *row = &f->rows[r];
    const vec scale = scales == WEAVE_SCALE_ROW
                          ? vec_set(1.0f)
                          : half_lanes(row->block + f->w->scales + u->group * WEAVE_ROWS * 2);
    const vec code_of_0 =
        zeros == WEAVE_ZERO_GROUP ? unit_zeros(f->w->kind.bits, f->w, row, u->unit) : (vec){0};
    size_t ahead = u->line * 64 + FEW_AHEAD;
    const unsigned char *ask = row->block + ahead + (ahead < f->w->block_bytes ? 0 : row->jump);
    // The scales of the stream's next block: too few to be foreseen.
    __builtin_prefetch(row->block + f->w->block_bytes + row->jump + f->w->scales +
                       u->group * WEAVE_ROWS * 2);
    for (size_t t = 0, at = u->unit; t < x->m; t++, at += x->units) {
        ivec sum;
        memcpy(&sum, f->products[r] + t * TILE, sizeof sum);
        vec v = __builtin_convertvector(sum, vec), before = vec_load(f->sums[r] + t * TILE);
        if (zeros == WEAVE_ZERO_GROUP)
            v -= code_of_0 * (float)x->sum[at];
        before += scale * x->scale[at] * v;
        vec_store(f->sums[r] + t * TILE, before);
        for (size_t i = 0; i < u->lines; i++, ask += 64)
            __builtin_prefetch(ask);
    }
}

INLINE void few_blocks_of(const int bits, const bool table, const enum weave_scale scales,
                          const enum weave_zero zeros, struct few *f) {
    const struct weave *w = f->w;
    const struct weave_x *x = f->x;
    const size_t unit_lines = w->unit * WEAVE_ROWS * (size_t)(bits == 8 ? 8 : 4) / 512;
    struct few_unit before = {.lines = (unit_lines + x->m - 1) / x->m};
    for (size_t u = 0; u < w->units; u++) {
        const size_t from = u * w->unit, to = min_size(from + w->unit, w->k_padded);
        const int8_t *codes[FEW_BLOCKS];
#pragma GCC unroll 4
        for (size_t r = 0; r < FEW_BLOCKS; r++)
            codes[r] = few_codes(bits, table, f, r, from, to);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (size_t c = from, at = 0; c < to; c += 64, at += TILE_BYTES) {
            _tile_loadd(4, x->q + c, x->q_stride);
            _tile_loadd(5, codes[0] + at, 64);
            _tile_dpbssd(0, 4, 5);
            _tile_loadd(6, codes[1] + at, 64);
            _tile_dpbssd(1, 4, 6);
            _tile_loadd(7, codes[2] + at, 64);
            _tile_dpbssd(2, 4, 7);
            _tile_loadd(5, codes[3] + at, 64);
            _tile_dpbssd(3, 4, 5);
        }
        for (size_t r = 0; u > 0 && r < FEW_BLOCKS; r++)
            few_add(scales, zeros, f, r, &before);
        _tile_stored(0, f->products[0], 64);
        _tile_stored(1, f->products[1], 64);
        _tile_stored(2, f->products[2], 64);
        _tile_stored(3, f->products[3], 64);
        before.unit = u;
        before.group = w->kind.group ? from / w->kind.group : 0;
        before.line = u * unit_lines;
    }
    for (size_t r = 0; r < FEW_BLOCKS; r++)
        few_add(scales, zeros, f, r, &before);
}

static void few_blocks(struct few *f) {
    const struct weave_kind *kind = &f->w->kind;
#define FEW_IF(b, s, z)                                                                            \
    if (kind->bits == b && !kind->table && kind->scale == s && kind->zero == z) {                  \
        few_blocks_of(b, false, s, z, f);                                                          \
        return;                                                                                    \
    }
    FEW_IF(4, WEAVE_SCALE_F16, WEAVE_ZERO_ALL)
    FEW_IF(4, WEAVE_SCALE_F16, WEAVE_ZERO_GROUP)
    FEW_IF(8, WEAVE_SCALE_F16, WEAVE_ZERO_ALL)
    FEW_IF(8, WEAVE_SCALE_ROW, WEAVE_ZERO_ALL)
#undef FEW_IF
    if (kind->table)
        few_blocks_of(4, true, kind->scale, kind->zero, f);
    else if (kind->bits == 4)
        few_blocks_of(4, false, kind->scale, kind->zero, f);
    else if (kind->bits == 5)
        few_blocks_of(5, false, kind->scale, kind->zero, f);
    else if (kind->bits == 6)
        few_blocks_of(6, false, kind->scale, kind->zero, f);
    else
        few_blocks_of(8, false, kind->scale, kind->zero, f);
}

// `n` rows from `row` on, a multiple of 16; all tokens. Blocks that are missing in the last four
// have the last one in their place, whose sums are dropped.
static void few_rows(const struct weave_job *job, const struct weave_x *x, size_t row, size_t n) {
    const struct weave *w = job->w;
    struct few f = {.w = w, .x = x};
    const size_t last = (row + n - 1) / WEAVE_ROWS;
    configure_few(x->m);
    for (size_t block = row / WEAVE_ROWS; block <= last; block += FEW_BLOCKS) {
        for (size_t r = 0; r < FEW_BLOCKS; r++)
            f.rows[r] = (struct row_vector){w->data + min_size(block + r, last) * w->block_bytes, 0,
                                            (FEW_BLOCKS - 1) * w->block_bytes};
        memset(f.sums, 0, sizeof f.sums);
        few_blocks(&f);
        for (size_t r = 0; r < min_size(FEW_BLOCKS, last - block + 1); r++)
            for (size_t t = 0; t < x->m; t++) {
                const vec v = vec_load(f.sums[r] + t * TILE);
                const size_t at = (block + r) * WEAVE_ROWS;
                store_rows(w, &f.rows[r], at, 1, &v, job->y + t * job->y_stride + at, 0, job->bias);
            }
    }
    _tile_release();
}
