// Dot products of a few rows with a few rows, held in registers: the core of matmul and attention.
//
//              w[0]  w[1]  w[2]  w[3]         Per LANES columns, DOT_X + 4 loads feed
//     x row 0   ·     ·     ·     ·           4 * DOT_X multiply-adds, each into its own
//     x row 1   ·     ·     ·     ·           register. A sum's order depends on the number
//     …                                       of columns alone, not on its place in the tile.
#define dot_tile SIMD(dot_tile)
#define dot_tile_of SIMD(dot_tile_of)
#define dot_step SIMD(dot_step)
#undef DOT_X
#if LANES == 16 || defined(__aarch64__)
#define DOT_X 6 // 24 sums, 4 of w, 1 of x: 29 of 32 registers
#else
#define DOT_X 3 // 12 sums, 3 of x, 1 of w at a time: all 16 registers
#endif

// The next `left` (at most LANES) columns.
INLINE void dot_step(const int rows, vec acc[DOT_X][4], const float *x, size_t x_stride,
                     const float *const w[4], size_t c, size_t left) {
    vec wc[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++)
        wc[j] = vec_load_part(w[j] + c, left);
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
        vec xc = vec_load_part(x + (size_t)i * x_stride + c, left);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            acc[i][j] += xc * wc[j];
    }
}

INLINE void dot_tile_of(const int rows, v4 *sums, const float *x, size_t x_stride,
                        const float *const w[4], size_t columns) {
    vec acc[DOT_X][4] = {0};
    size_t c = 0;
    for (; c + LANES <= columns; c += LANES)
        dot_step(rows, acc, x, x_stride, w, c, LANES);
    if (c < columns)
        dot_step(rows, acc, x, x_stride, w, c, columns - c);
    for (int i = 0; i < rows; i++)
        sums[i] = vec_sum4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
}

// sums[i][j] = Σ x[i * x_stride + c] * w[j][c] over the columns, for rows <= DOT_X rows of x.
INLINE void dot_tile(size_t rows, v4 sums[DOT_X], const float *x, size_t x_stride,
                     const float *const w[4], size_t columns) {
#define DOT_CASE(n)                                                                                \
    case n:                                                                                        \
        dot_tile_of(n, sums, x, x_stride, w, columns);                                             \
        break
    switch (rows) {
        DOT_CASE(2);
        DOT_CASE(3);
#if DOT_X == 6
        DOT_CASE(4);
        DOT_CASE(5);
        DOT_CASE(6);
#endif
    default:
        dot_tile_of(1, sums, x, x_stride, w, columns);
    }
#undef DOT_CASE
}
