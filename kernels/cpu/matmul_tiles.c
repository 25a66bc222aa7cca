#include "kernels/cpu/matmul_tiles.h"

#if defined(__x86_64__)
#include "kernels/cpu/panels.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/team.h"

enum {
    K_BLOCK = 256, // columns at a time: 32 tokens of them fill 16 KB of the L1 cache
    MIN_TOKENS = 8,
    FEW_STEPS = 32 // tiles of a few tokens' activations that a thread makes at a time
};

#include "amx_begin.h"
#include "tiles_simd.h"
#include "tiles_few_simd.h"
#include "amx_end.h"

bool matmul_tiles_wanted(size_t m) {
    return m >= MIN_TOKENS && kernels_level() >= LEVEL_AMX;
}

double matmul_tiles_operations(size_t steps) {
    return kernels_level() >= LEVEL_AMX ? tile_operations(steps) : 0;
}

static void convert_tokens(void *context, size_t pair) {
    tile_x(context, pair);
}

static void convert_few(void *context, size_t chunk) {
    const struct tile_call *call = context;
    for (size_t s = chunk * FEW_STEPS; s < min_size((chunk + 1) * FEW_STEPS, call->steps); s++)
        tile_few_x(call, s);
}

static void multiply_chunk(void *context, size_t chunk) {
    struct tile_call *call = context;
    const struct tile_job *job = call->jobs;
    for (; chunk >= panels_of(call, job); job++)
        chunk -= panels_of(call, job);
    size_t row = chunk * call->panel, n = min_size(call->panel, job->n - row);
    if (call->few)
        multiply_few(call, job, row, n);
    else
        multiply_panel(call, job, row, n);
}

// Whether the weights of all jobs are tiles as they lie, and one tile of activations is enough.
static bool few_wanted(const struct tile_job *jobs, size_t n_jobs, size_t m, size_t k) {
    bool wanted = m <= TILE && k % STEP == 0;
    for (size_t i = 0; i < n_jobs; i++)
        wanted = wanted && jobs[i].kind == TILE_BF16 && jobs[i].n % TILE == 0;
    return wanted;
}

bool matmul_tiles(const struct tile_job *jobs, size_t n_jobs, const float *x, size_t x_stride,
                  size_t m, size_t k) {
    struct tile_call call = {.jobs = jobs, .x = x, .x_stride = x_stride, .m = m, .k = k};
    call.few = few_wanted(jobs, n_jobs, m, k);
    call.pairs = (m + PAIR - 1) / PAIR;
    call.steps = (k + STEP - 1) / STEP;
    call.tiles = scratch_get(SCRATCH_ACTIVATIONS, call.pairs * call.steps * STEP_BYTES);
    size_t rows = 0, chunks = 0;
    for (size_t i = 0; i < n_jobs; i++)
        rows += jobs[i].n;
    call.panel = panel_rows(rows);
    for (size_t i = 0; i < n_jobs; i++)
        chunks += panels_of(&call, &jobs[i]);
    if (!call.tiles)
        return false;
    if (call.few)
        team_run((call.steps + FEW_STEPS - 1) / FEW_STEPS, convert_few, &call);
    else
        team_run(call.pairs, convert_tokens, &call);
    team_run(chunks, multiply_chunk, &call);
    return !call.failed;
}

#else

bool matmul_tiles_wanted(size_t m) {
    (void)m;
    return false;
}

bool matmul_tiles(const struct tile_job *jobs, size_t n_jobs, const float *x, size_t x_stride,
                  size_t m, size_t k) {
    (void)jobs, (void)n_jobs, (void)x, (void)x_stride, (void)m, (void)k;
    return false;
}

double matmul_tiles_operations(size_t steps) {
    (void)steps;
    return 0;
}

#endif
