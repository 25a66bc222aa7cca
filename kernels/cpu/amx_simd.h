// The tiles of AMX: how products set them up, and what they share.
enum {
    TILE = 16, // rows of a tile; 16 of 64 bytes, whatever they hold
    TILE_BYTES = 1024,
    PAIR = 2 * TILE,        // tokens, or rows, of two tiles
    PAIR_SUMS = PAIR * PAIR // [2 tiles of tokens][2 of rows], in tiles 0 to 3
};

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

// Tiles 0 to 5 have a row for each of 1 to 16 tokens. Tiles 4 and 5 have `bytes` of them (a
// multiple of 4, at most 64), and tiles 6 and 7 a row for each four of these. The barrier keeps the
// configuration in memory: gcc 12 believes that the instruction reads less of it than it does.
static void configure_tiles(size_t tokens, size_t bytes) {
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = i == 4 || i == 5 ? (uint16_t)bytes : 64;
        config.rows[i] = (uint8_t)(i < 6 ? tokens : bytes / 4);
    }
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

// What has been stored is in memory: gcc 12 does not know that loading a tile reads it.
INLINE void tiles_read_memory(void) {
    __asm__ volatile("" : : : "memory");
}

// Tiles 0 to 3. Tiles are numbered by constants, so there is no loop.
INLINE void zero_tiles(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

// One behind the other.
INLINE void store_tiles(void *to) {
    _tile_stored(0, to, 64);
    _tile_stored(1, (char *)to + TILE_BYTES, 64);
    _tile_stored(2, (char *)to + 2 * TILE_BYTES, 64);
    _tile_stored(3, (char *)to + 3 * TILE_BYTES, 64);
}

// As 32 rows of 32 floats of a matrix whose rows are `stride` floats apart.
INLINE void load_square(const float *c, size_t stride) {
    _tile_loadd(0, c, stride * sizeof *c);
    _tile_loadd(1, c + TILE, stride * sizeof *c);
    _tile_loadd(2, c + TILE * stride, stride * sizeof *c);
    _tile_loadd(3, c + TILE * stride + TILE, stride * sizeof *c);
}

INLINE void store_square(float *c, size_t stride) {
    _tile_stored(0, c, stride * sizeof *c);
    _tile_stored(1, c + TILE, stride * sizeof *c);
    _tile_stored(2, c + TILE * stride, stride * sizeof *c);
    _tile_stored(3, c + TILE * stride + TILE, stride * sizeof *c);
}

// Tiles 0 to 3 += two tiles of rows times two of columns, in bfloat16.
INLINE void multiply_bf16(const unsigned char *a0, const unsigned char *a1, const unsigned char *b0,
                          const unsigned char *b1) {
    _tile_loadd(4, a0, 64);
    _tile_loadd(6, b0, 64);
    _tile_loadd(7, b1, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a1, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

// Whether m tokens times n rows of results go around the cache, when a whole pair of tiles is
// written at y: more than half of an L2 cache of 2 MB would push out what is being multiplied.
// Stores that go around write whole lines without reading them first: with 512 tokens and 2048 x
// 2048 weights, 0.2 instead of 1.0 of 4 ms (one thread of a Xeon with AMX).
INLINE bool goes_around_cache(size_t m, size_t n, const float *y, size_t y_stride) {
    return m * n > TILES_CACHED_RESULTS && (uintptr_t)y % 64 == 0 && y_stride % TILE == 0;
}
