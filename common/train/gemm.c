// The loops around the register tile, after Goto and van de Geijn, "Anatomy of high-performance
// matrix multiplication" (2008). B is cut into blocks of 256 × 2048 that are packed into panels as
// wide as the tile, so that the inner loop reads them in order; a panel (32 KiB) stays in L1 while
// it meets TASK_ROWS rows of A, the block (2 MiB) in L2. A is read where it lies: each of its
// elements is broadcast once per panel, and its rows come in whole cache lines.
//
//     packed B:   panel 0             panel 1
//                 k=0: b00 b01 … b0w | k=0: b0,w+1 …
//                 k=1: b10 b11 … b1w | …                (zeros beyond column N)
#include "train/gemm.h"

#include <stdint.h>
#include <string.h>

#include "train/gemm_kernel.h"
#include "train/gemm_tiles.h"

// A product of fewer multiplications (a few microseconds) is left to one thread.
enum { TASK_ROWS = 96, TASK_COLUMNS = 256, SHARED_WORK = 1 << 18 };

static size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

static size_t round_up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

// Along k first: in a transposed B those are neighbours.
static void pack_panel(size_t width, size_t columns, size_t K, struct gemm_view b, float *out) {
    for (size_t j = 0; j < width; j++)
        for (size_t k = 0; k < K; k++)
            out[k * width + j] = j < columns ? b.data[k * b.row + j * b.column] : 0.0f;
}

// One row of a B that lies by rows, into all panels: reads run along memory.
static void pack_row(size_t width, size_t N, size_t K, size_t k, struct gemm_view b, float *out) {
    const float *from = b.data + k * b.row;
    for (size_t j = 0; j < N; j += width) {
        size_t columns = min_size(width, N - j);
        float *to = out + j * K + k * width;
        memcpy(to, from + j, columns * sizeof *to);
        memset(to + columns, 0, (width - columns) * sizeof *to);
    }
}

// A as the tiles read it: where it lies (one panel), or copied into panels of as many rows as a
// tile.
struct row_panels {
    struct gemm_view view; // of the first panel
    size_t rows, stride;   // of a panel; floats from one to the next
};

static struct row_panels in_place(struct gemm_view a) {
    return (struct row_panels){a, SIZE_MAX, 0};
}

// Rows of c beyond the full tile are done by the smaller tiles; a tile that is too wide for c goes
// through a buffer.
static void multiply_panel(const struct gemm_kernel *kernel, size_t M, size_t columns, size_t K,
                           const struct row_panels *a, const float *panel, bool add, float *c,
                           size_t c_stride) {
    float buffer[GEMM_MAX_ROWS * GEMM_MAX_WIDTH];
    size_t width = kernel->width, a_row = a->view.row, a_column = a->view.column;
    for (size_t i = 0, t = 0; i < M; i += kernel->tiles[t].rows) {
        while (kernel->tiles[t].rows > M - i)
            t++;
        const float *from = a->view.data + i / a->rows * a->stride + i % a->rows * a_row;
        float *to = c + i * c_stride;
        size_t rows = kernel->tiles[t].rows;
        if (columns == width) {
            kernel->tiles[t].tile(K, from, a_row, a_column, panel, add, to, c_stride);
            continue;
        }
        for (size_t r = 0; add && r < rows; r++)
            memcpy(buffer + r * width, to + r * c_stride, columns * sizeof *c);
        kernel->tiles[t].tile(K, from, a_row, a_column, panel, add, buffer, width);
        for (size_t r = 0; r < rows; r++)
            memcpy(to + r * c_stride, buffer + r * width, columns * sizeof *c);
    }
}

size_t gemm_packed_size(size_t N, size_t K) {
    return round_up(N, GEMM_MAX_WIDTH) * K;
}

void gemm_pack(size_t N, size_t K, struct gemm_view b, float *packed) {
    size_t width = gemm_kernel_best()->width;
    if (b.column == 1) {
        for (size_t k = 0; k < K; k++)
            pack_row(width, N, K, k, b, packed);
        return;
    }
    for (size_t j = 0; j < N; j += width, packed += width * K, b.data += width * b.column)
        pack_panel(width, min_size(width, N - j), K, b, packed);
}

static void multiply_packed(const struct gemm_kernel *kernel, size_t M, size_t N, size_t K,
                            const struct row_panels *a, const float *packed, bool add, float *c,
                            size_t c_stride) {
    size_t width = kernel->width;
    for (size_t j = 0; j < N; j += width)
        multiply_panel(kernel, M, min_size(width, N - j), K, a, packed + j * K, add, c + j,
                       c_stride);
}

void gemm_packed(size_t M, size_t N, size_t K, struct gemm_view a, const float *packed, bool add,
                 float *c, size_t c_stride) {
    struct row_panels rows = in_place(a);
    multiply_packed(gemm_kernel_best(), M, N, K, &rows, packed, add, c, c_stride);
}

// An A that lies by columns (dyᵀ) has the few floats of a tile's rows pages apart from one k to the
// next. Copied, they are neighbours. COPY floats are moved at once, the next k's overwriting what
// was too much.
enum { COPY = 16, COPY_SPACE = TASK_ROWS * (GEMM_BLOCK_K + COPY) };

static struct row_panels copy_columns(size_t rows, size_t m, size_t K, struct gemm_view a,
                                      float *copy) {
    size_t stride = rows * K + COPY;
    for (size_t k = 0; k < K; k++)
        for (size_t i = 0; i < m; i += rows) {
            const float *from = a.data + k * a.column + i;
            float *to = copy + i / rows * stride + k * rows;
            if (m - i >= COPY)
                memcpy(to, from, COPY * sizeof *to);
            else
                memcpy(to, from, min_size(rows, m - i) * sizeof *to);
        }
    return (struct row_panels){gemm_by_columns(copy, rows), rows, stride};
}

// One task: rows [i, i + m) of c, columns [j, j + n) of the packed block.
static void multiply_task(const struct gemm_kernel *kernel, size_t m, size_t n, size_t K,
                          struct gemm_view a, const float *packed, bool add, float *c,
                          size_t c_stride) {
    float copy[COPY_SPACE];
    struct row_panels rows =
        a.row == 1 ? copy_columns(kernel->tiles[0].rows, m, K, a, copy) : in_place(a);
    multiply_packed(kernel, m, n, K, &rows, packed, add, c, c_stride);
}

// One block of B: packed by all threads, then met by all rows of A.
static void multiply_block(const struct gemm_kernel *kernel, size_t M, size_t N, size_t K,
                           struct gemm_view a, struct gemm_view b, bool add, float *c,
                           size_t c_stride, float *packed) {
    size_t width = kernel->width;
    size_t down = (M + TASK_ROWS - 1) / TASK_ROWS, across = (N + TASK_COLUMNS - 1) / TASK_COLUMNS;
#pragma omp parallel if (M * N * K >= SHARED_WORK)
    {
        if (b.column == 1) {
#pragma omp for schedule(static)
            for (size_t k = 0; k < K; k++)
                pack_row(width, N, K, k, b, packed);
        } else {
#pragma omp for schedule(static)
            for (size_t j = 0; j < N; j += width) {
                struct gemm_view panel = {b.data + j * b.column, b.row, b.column};
                pack_panel(width, min_size(width, N - j), K, panel, packed + j * K);
            }
        }
#pragma omp for schedule(dynamic) nowait
        for (size_t t = 0; t < down * across; t++) {
            size_t i = t / across * TASK_ROWS, j = t % across * TASK_COLUMNS;
            struct gemm_view rows = {a.data + i * a.row, a.row, a.column};
            multiply_task(kernel, min_size(TASK_ROWS, M - i), min_size(TASK_COLUMNS, N - j), K,
                          rows, packed + j * K, add, c + i * c_stride + j, c_stride);
        }
    }
}

void gemm(size_t M, size_t N, size_t K, struct gemm_view a, struct gemm_view b, bool add, float *c,
          size_t c_stride, struct gemm_work work) {
    if (work.bf16 && gemm_tiles_here()) {
        gemm_tiles(M, N, K, a, b, add, c, c_stride, work.space);
        return;
    }
    const struct gemm_kernel *kernel = gemm_kernel_best();
    for (size_t j = 0; j < N; j += GEMM_BLOCK_N)
        for (size_t k = 0; k < K; k += GEMM_BLOCK_K) {
            struct gemm_view a_block = {a.data + k * a.column, a.row, a.column};
            struct gemm_view b_block = {b.data + k * b.row + j * b.column, b.row, b.column};
            multiply_block(kernel, M, min_size(GEMM_BLOCK_N, N - j), min_size(GEMM_BLOCK_K, K - k),
                           a_block, b_block, add || k > 0, c + j, c_stride, work.space);
        }
}

void gemm_ref(size_t M, size_t N, size_t K, struct gemm_view a, struct gemm_view b, bool add,
              float *c, size_t c_stride) {
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++) {
            double sum = add ? c[i * c_stride + j] : 0.0;
            for (size_t k = 0; k < K; k++)
                sum += (double)a.data[i * a.row + k * a.column] * b.data[k * b.row + j * b.column];
            c[i * c_stride + j] = (float)sum;
        }
}
