// The parts of matmul_tiles.c for a few tokens, at most 16, and bfloat16 weights. Turned around,
// the weights are tiles as they lie: 16 rows of 32 columns, a tile of activations holds pairs of
// columns of 16 tokens, and a tile of sums 16 rows of 16 tokens.
//
// Memory is the limit: while 16 rows are multiplied, the 16 that follow are fetched into the L2
// cache, from the first byte to the last.

// Tile s of activations: 32 columns.
static void tile_few_x(const struct tile_call *call, size_t s) {
    __m512i r[TILE];
    for (size_t t = 0; t < TILE; t++) {
        const float *x = call->x + t * call->x_stride + s * STEP;
        r[t] = t < call->m ? round_pair(vec_load(x), vec_load(x + LANES)) : _mm512_setzero_si512();
    }
    transpose_pairs(r, call->tiles + s * TILE_BYTES, 64);
}

// Rows [row, row + n) of a job, both multiples of 16.
static void multiply_few(const struct tile_call *call, const struct tile_job *job, size_t row,
                         size_t n) {
    const size_t k = call->k, row_bytes = k * sizeof *job->rows16;
    float sums[TILE][TILE] __attribute__((aligned(64))); // [rows][tokens]
    configure_tiles(TILE, 64);
    tiles_read_memory();
    for (size_t end = row + n; row < end; row += TILE) {
        const uint16_t *w = job->rows16 + row * k;
        const unsigned char *next = (const unsigned char *)(w + TILE * k);
        _tile_zero(0);
        for (size_t s = 0; s < call->steps; s++, w += STEP) {
#pragma GCC unroll 16
            for (size_t i = 0; i < TILE; i++, next += 64)
                __builtin_prefetch(next, 0, 2);
            _tile_loadd(1, w, row_bytes);
            _tile_loadd(2, call->tiles + s * TILE_BYTES, 64);
            _tile_dpbf16ps(0, 1, 2);
        }
        _tile_stored(0, sums, 64);
        for (size_t t = 0; t < call->m; t++)
            for (size_t i = 0; i < TILE; i++)
                job->y[t * job->y_stride + row + i] =
                    sums[i][t] + (job->bias ? job->bias[row + i] : 0.0f);
    }
    _tile_release();
}
