// The parts of matmul_weave_tiles.c for a few tokens: 16 at a time, the rows of one tile. Units of
// fewer than 64 columns fill a part of a tile's columns.
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
    size_t scale_step; // bytes of scales and zeros of a unit
    struct row_vector rows[FEW_BLOCKS];
    struct k4_scales k4[FEW_BLOCKS];
    int8_t codes[FEW_BLOCKS][2 * TILE_BYTES] __attribute__((aligned(64)));
    int32_t products[FEW_BLOCKS][TILE * TILE] __attribute__((aligned(64)));
    float sums[FEW_BLOCKS][TILE * TILE] __attribute__((aligned(64)));
};

// The codes of a unit's columns of one block as tiles: unpacked, or where they lie. Those that come
// FEW_AHEAD bytes later are asked for, block by block: all four at once would have the rest wait.
INLINE const int8_t *few_codes(const int bits, const bool table, struct few *f, size_t r,
                               size_t unit) {
    const size_t from = unit * f->w->unit, to = min_size(from + f->w->unit, f->w->k_padded);
    const size_t bytes = WEAVE_ROWS * (size_t)(bits == 8 ? 8 : 4) / 8; // of a column
    const size_t ahead = from * bytes + FEW_AHEAD;
    const unsigned char *ask =
        f->rows[r].block + ahead + (ahead < f->w->block_bytes ? 0 : f->rows[r].jump);
#pragma GCC unroll 8
    for (size_t i = 0; i < (to - from) * bytes; i += 64)
        __builtin_prefetch(ask + i);
    if (bits == 8)
        return (const int8_t *)f->rows[r].block + from * WEAVE_ROWS;
    unpack_codes_of(bits, table, TILE_BYTES, f->w, &f->rows[r], from, to - from, f->codes[r]);
    return f->codes[r];
}

// sums += scales of both sides * products of a unit, for the rows of block r.
INLINE void few_add(const int bits, const enum weave_scale scales, const enum weave_zero zeros,
                    struct few *f, size_t r, size_t unit) {
    const struct weave *w = f->w;
    const struct weave_x *x = f->x;
    const struct row_vector *row = &f->rows[r];
    const bool offsets = zeros == WEAVE_ZERO_OFFSET || zeros == WEAVE_ZERO_K4;
    k4_step(&f->k4[r], scales, w, row, unit);
    const vec scale = unit_scales(scales, w, row, unit, &f->k4[r]);
    const vec code_of_0 = zeros == WEAVE_ZERO_GROUP ? unit_zeros(bits, w, row, unit) : (vec){0};
    const vec offset = offsets ? unit_offsets(zeros, w, row, unit, &f->k4[r]) : (vec){0};
    // The scales of the stream's next block: too few to be foreseen.
    __builtin_prefetch(row->block + w->block_bytes + row->jump + w->scales + unit * f->scale_step);
    for (size_t t = 0, at = unit; t < x->m; t++, at += x->units) {
        ivec sum;
        memcpy(&sum, f->products[r] + t * TILE, sizeof sum);
        vec v = __builtin_convertvector(sum, vec), before = vec_load(f->sums[r] + t * TILE);
        if (zeros == WEAVE_ZERO_GROUP)
            v -= code_of_0 * (float)x->sum[at];
        before += scale * x->scale[at] * v;
        if (offsets)
            before += offset * x->scaled_sum[at];
        vec_store(f->sums[r] + t * TILE, before);
    }
}

// Tile r = the unit's activations, in tiles 4 and, with 128 columns, 5, times `codes`, block r's. A
// macro, because tiles are numbered by constants; `two`: whether there are 128.
#define FEW_MULTIPLY(r)                                                                            \
    do {                                                                                           \
        tiles_read_memory();                                                                       \
        _tile_zero(r);                                                                             \
        _tile_loadd(6, codes, 64);                                                                 \
        _tile_dpbssd(r, 4, 6);                                                                     \
        if (two) {                                                                                 \
            _tile_loadd(7, codes + TILE_BYTES, 64);                                                \
            _tile_dpbssd(r, 5, 7);                                                                 \
        }                                                                                          \
    } while (0)

// A block's products are started, then the next block's codes unpacked and the block's products of
// the unit before scaled; the tile leaves when the next block's has been started.
INLINE void few_blocks_of(const int bits, const bool table, const enum weave_scale scales,
                          const enum weave_zero zeros, struct few *f) {
    const struct weave *w = f->w;
    const struct weave_x *x = f->x;
    const int8_t *codes = few_codes(bits, table, f, 0, 0);
    for (size_t u = 0; u < w->units; u++) {
        const size_t from = u * w->unit;
        const bool two = from + 64 < min_size(from + w->unit, w->k_padded);
        _tile_loadd(4, x->q + from, x->q_stride);
        if (two)
            _tile_loadd(5, x->q + from + 64, x->q_stride);
        FEW_MULTIPLY(0);
        codes = few_codes(bits, table, f, 1, u);
        if (u > 0)
            few_add(bits, scales, zeros, f, 0, u - 1);
        FEW_MULTIPLY(1);
        _tile_stored(0, f->products[0], 64);
        codes = few_codes(bits, table, f, 2, u);
        if (u > 0)
            few_add(bits, scales, zeros, f, 1, u - 1);
        FEW_MULTIPLY(2);
        _tile_stored(1, f->products[1], 64);
        codes = few_codes(bits, table, f, 3, u);
        if (u > 0)
            few_add(bits, scales, zeros, f, 2, u - 1);
        FEW_MULTIPLY(3);
        _tile_stored(2, f->products[2], 64);
        if (u + 1 < w->units)
            codes = few_codes(bits, table, f, 0, u + 1);
        if (u > 0)
            few_add(bits, scales, zeros, f, 3, u - 1);
        _tile_stored(3, f->products[3], 64);
    }
    for (size_t r = 0; r < FEW_BLOCKS; r++)
        few_add(bits, scales, zeros, f, r, w->units - 1);
}
#undef FEW_MULTIPLY

static void few_blocks(struct few *f) {
    const struct weave_kind *kind = &f->w->kind;
    const enum weave_scale scale = kind->scale;
    const enum weave_zero zero = kind->zero;
#define FEW_IF(b, s, z)                                                                            \
    else if (kind->bits == b && scale == s && zero == z) few_blocks_of(b, false, s, z, f)
    if (kind->table)
        few_blocks_of(4, true, scale, zero, f);
    FEW_IF(4, WEAVE_SCALE_F16, WEAVE_ZERO_ALL);
    FEW_IF(4, WEAVE_SCALE_F16, WEAVE_ZERO_GROUP);
    FEW_IF(4, WEAVE_SCALE_K4, WEAVE_ZERO_K4);
    FEW_IF(6, WEAVE_SCALE_K6, WEAVE_ZERO_ALL);
    FEW_IF(8, WEAVE_SCALE_F16, WEAVE_ZERO_ALL);
    FEW_IF(8, WEAVE_SCALE_ROW, WEAVE_ZERO_ALL);
    else if (kind->bits == 4) few_blocks_of(4, false, scale, zero, f);
    else if (kind->bits == 5) few_blocks_of(5, false, scale, zero, f);
    else if (kind->bits == 6) few_blocks_of(6, false, scale, zero, f);
    else few_blocks_of(8, false, scale, zero, f);
#undef FEW_IF
}

// Sixteen tokens at most: part of x, whose results begin at y. Blocks that are missing in the last
// four have the last one in their place, whose sums are dropped.
static void few_tokens(const struct weave_job *job, const struct weave_x *x, size_t row, size_t n,
                       float *y) {
    const struct weave *w = job->w;
    struct few f; // 16 KB that are written before they are read
    f.w = w;
    f.x = x;
    f.scale_step = (w->block_bytes - w->scales) / w->units;
    const size_t last = (row + n - 1) / WEAVE_ROWS;
    configure_tiles(x->m, min_size(w->unit, 64));
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
                store_rows(w, &f.rows[r], at, 1, &v, y + t * job->y_stride + at, 0, job->bias);
            }
    }
    _tile_release();
}

// `n` rows from `row` on, which is a multiple of 16; all tokens, as evenly as tiles of 16 allow.
// For the second tile the rows' weights are in the L2 cache.
static void few_rows(const struct weave_job *job, const struct weave_x *x, size_t row, size_t n) {
    const size_t tiles = (x->m + TILE - 1) / TILE, most = (x->m + tiles - 1) / tiles;
    for (size_t first = 0; first < x->m; first += most) {
        struct weave_x part = *x;
        part.m = min_size(most, x->m - first);
        part.q += first * x->q_stride;
        part.scale += first * x->units;
        part.sum += first * x->units;
        part.scaled_sum += first * x->units;
        few_tokens(job, &part, row, n, job->y + first * job->y_stride);
    }
}
