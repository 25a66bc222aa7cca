// Blocks of A and B are rounded to bfloat16 and packed into tiles by all threads; then each task
// multiplies 128 rows by 256 columns of them, 32 × 32 at a time:
//
//     A: strips of 16 rows, a tile per 32 k      row i: k k k … k            (32)
//     B: strips of 16 columns, likewise          row p: (k k) (k k) … (k k)  (16 columns' pairs)
//
// Each matrix may lie along k or across it, and is wanted along k (A) or in pairs (B): the four
// ways are two of reading 16 lines, and transposing them or not.
#include "train/gemm_tiles.h"

#include "kernels/cpu/kernels.h"

#if defined(__x86_64__)
#include "kernels/cpu/amx_begin.h"
#include "kernels/cpu/pairs_simd.h"

enum {
    BLOCK_K = 512, // 32 rows and 32 columns of them fill 64 KB
    BLOCK = 1024,  // rows and columns packed at a time, 1 MiB each
    TASK_ROWS = 128,
    TASK_COLUMNS = 256,
    BLOCK_BYTES = BLOCK * BLOCK_K * 2
};
_Static_assert(2 * BLOCK_BYTES <= GEMM_SPACE * sizeof(float), "both blocks fit gemm's space");

// One operand, rows of A or columns of B: element k of line i is data[i * line + k * along].
struct lines {
    const float *data;
    size_t n, line, along;
    bool pairs; // wanted in pairs of k
};

// Two k of up to 16 lines; the second may be missing.
INLINE __m512i load_pair(const float *p, size_t along, size_t k, size_t n, __m512i order) {
    vec even = k > 0 ? vec_load_part(p, n) : (vec){0};
    vec odd = k > 1 ? vec_load_part(p + along, n) : (vec){0};
    return _mm512_permutexvar_epi16(order, round_pair(even, odd));
}

// Lines [first, first + 16) as the tiles of K k; those beyond the last are zeros.
static void pack_strip(const struct lines *from, size_t first, size_t K, unsigned char *out) {
    size_t n = first < from->n ? min_size(TILE, from->n - first) : 0;
    const float *data = from->data + first * from->line;
    __m512i order = pair_order();
    for (size_t k = 0; k < K; k += STEP, out += TILE_BYTES) {
        __m512i r[TILE];
        if (from->along == 1)
            for (size_t i = 0; i < TILE; i++)
                r[i] =
                    i < n ? round_part(data + i * from->line + k, K - k) : _mm512_setzero_si512();
        else
            for (size_t p = 0; p < TILE; p++)
                r[p] = load_pair(data + (k + 2 * p) * from->along, from->along,
                                 K > k + 2 * p ? K - k - 2 * p : 0, n, order);
        if ((from->along == 1) == from->pairs)
            transpose_pairs(r, out, 64);
        else
            for (size_t i = 0; i < TILE; i++)
                _mm512_storeu_si512(out + i * 64, r[i]);
    }
}

// c [32, 32] (+)= two strips of A times two of B, `strip` bytes each.
static void multiply_32(size_t strip, const unsigned char *a, const unsigned char *b, bool add,
                        float *c, size_t c_stride) {
    if (add)
        load_square(c, c_stride);
    else
        zero_tiles();
    for (size_t at = 0; at < strip; at += TILE_BYTES)
        multiply_bf16(a + at, a + strip + at, b + at, b + strip + at);
    store_square(c, c_stride);
}

// The same for the rows and columns at c's edges, of which there are fewer.
static void multiply_edge(size_t rows, size_t columns, size_t strip, const unsigned char *a,
                          const unsigned char *b, bool add, float *c, size_t c_stride) {
    float whole[2 * TILE * 2 * TILE];
    multiply_32(strip, a, b, false, whole, 2 * TILE);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) {
            float sum = whole[i * 2 * TILE + j];
            c[i * c_stride + j] = add ? c[i * c_stride + j] + sum : sum;
        }
}

static void multiply_task(size_t m, size_t n, size_t strip, const unsigned char *a,
                          const unsigned char *b, bool add, float *c, size_t c_stride) {
    configure_tiles(TILE, 64);
    for (size_t j = 0; j < n; j += 2 * TILE)
        for (size_t i = 0; i < m; i += 2 * TILE) {
            size_t rows = min_size(2 * TILE, m - i), columns = min_size(2 * TILE, n - j);
            const unsigned char *a_strips = a + i / TILE * strip, *b_strips = b + j / TILE * strip;
            float *to = c + i * c_stride + j;
            if (rows == 2 * TILE && columns == 2 * TILE)
                multiply_32(strip, a_strips, b_strips, add, to, c_stride);
            else
                multiply_edge(rows, columns, strip, a_strips, b_strips, add, to, c_stride);
        }
    _tile_release();
}
#include "kernels/cpu/amx_end.h"

bool gemm_tiles_here(void) {
    return kernels_level() >= LEVEL_AMX;
}

// c [a.n, b.n] (+)= a bᵀ over K ≤ BLOCK_K. B's block stays packed while the rows of A pass.
static void multiply_block(struct lines a, struct lines b, size_t K, bool add, bool pack_b,
                           float *c, size_t c_stride, unsigned char *space) {
    unsigned char *a_tiles = space, *b_tiles = space + BLOCK_BYTES;
    size_t strip = round_up(K, STEP) / STEP * TILE_BYTES;
    size_t a_strips = round_up(a.n, 2 * TILE) / TILE, b_strips = round_up(b.n, 2 * TILE) / TILE;
    size_t down = (a.n + TASK_ROWS - 1) / TASK_ROWS;
    size_t across = (b.n + TASK_COLUMNS - 1) / TASK_COLUMNS;
#pragma omp parallel
    {
#pragma omp for schedule(static) nowait
        for (size_t i = 0; i < a_strips; i++)
            pack_strip(&a, i * TILE, K, a_tiles + i * strip);
#pragma omp for schedule(static)
        for (size_t j = 0; j < (pack_b ? b_strips : 0); j++)
            pack_strip(&b, j * TILE, K, b_tiles + j * strip);
#pragma omp for schedule(dynamic) nowait
        for (size_t t = 0; t < down * across; t++) {
            size_t i = t / across * TASK_ROWS, j = t % across * TASK_COLUMNS;
            multiply_task(min_size(TASK_ROWS, a.n - i), min_size(TASK_COLUMNS, b.n - j), strip,
                          a_tiles + i / TILE * strip, b_tiles + j / TILE * strip, add,
                          c + i * c_stride + j, c_stride);
        }
    }
}

void gemm_tiles(size_t M, size_t N, size_t K, struct gemm_view a, struct gemm_view b, bool add,
                float *c, size_t c_stride, float *space) {
    for (size_t j = 0; j < N; j += BLOCK)
        for (size_t k = 0; k < K; k += BLOCK_K)
            for (size_t i = 0; i < M; i += BLOCK) {
                struct lines rows = {a.data + i * a.row + k * a.column, min_size(BLOCK, M - i),
                                     a.row, a.column, false};
                struct lines columns = {b.data + k * b.row + j * b.column, min_size(BLOCK, N - j),
                                        b.column, b.row, true};
                multiply_block(rows, columns, min_size(BLOCK_K, K - k), add || k > 0, i == 0,
                               c + i * c_stride + j, c_stride, (unsigned char *)(void *)space);
            }
}

#else

bool gemm_tiles_here(void) {
    return false;
}

void gemm_tiles(size_t M, size_t N, size_t K, struct gemm_view a, struct gemm_view b, bool add,
                float *c, size_t c_stride, float *space) {
    (void)M, (void)N, (void)K, (void)a, (void)b, (void)add, (void)c, (void)c_stride, (void)space;
}
#endif
