#include "kernels/cpu/matmul_weave_tiles.h"

#if defined(__x86_64__)
#include "kernels/cpu/panels.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/team.h"

enum {
    K_BLOCK = 1024,     // columns at a time: 32 tokens of them fill 32 KB of the L1 cache
    FEW_MIN = 5,        // fewer tokens are faster without tiles
    FEW_MIN_NARROW = 9, // the same where a unit fills half a tile …
    FEW_MIN_16 = 13,    // … or a quarter,
    FEW_MIN_BYTES = 7,  // or half a tile, but codes have eight bits, which need no unpacking
    FEW_MAX = 32,       // two tiles of tokens, where scales or tables keep more from int8 tiles
    FEW_AHEAD = 3072    // bytes that their weights are asked for ahead; 2048 was slower
};

#include "amx_begin.h"
#include "weave_tiles_simd.h"
#include "weave_few_simd.h"
#include "amx_end.h"

static bool fills_tiles(const struct weave *w) {
    return kernels_level() >= LEVEL_AMX && !w->kind.table && w->unit % 64 == 0 &&
           w->k_padded % 64 == 0 && w->kind.scale <= WEAVE_SCALE_F16 &&
           w->kind.zero <= WEAVE_ZERO_GROUP;
}

bool weave_tiles_wanted(const struct weave *w, size_t m) {
    return m > TILE && fills_tiles(w);
}

// At 8 tokens, without tiles and with them, beside a neighbour: Q4_0 1.3 and 1.5 ms, Q4_K 1.1 and
// 1.2, Q6_K 2.1 and 2.8 (at 12 3.2 and 3.5), but Q8_0 2.1 and 1.7.
// Two tiles of tokens beside what they would take in bfloat16, 32 tokens of 11008 x 2048: Q8_0 2.3
// and 2.6 ms, NF4 1.5 and 2.2, Q4_0 2.2 and 2.1; but Q6_K, units of 16 columns, 4.0 and 2.6.
bool weave_few_wanted(const struct weave *w, size_t m) {
    bool narrow = w->unit < 64;
    if (kernels_level() < LEVEL_AMX || (!narrow && (w->unit % 64 || w->k_padded % 64)))
        return false;
    size_t least = !narrow             ? FEW_MIN
                   : w->unit < 32      ? FEW_MIN_16
                   : w->kind.bits == 8 ? FEW_MIN_BYTES
                                       : FEW_MIN_NARROW;
    return m >= least && m <= (fills_tiles(w) || w->unit < 32 ? TILE : FEW_MAX);
}

void weave_few_rows(const struct weave_job *job, const struct weave_x *x, size_t row, size_t n) {
    few_rows(job, x, row, n);
}

double weave_tiles_operations(size_t steps) {
    return kernels_level() >= LEVEL_AMX ? tile_operations(steps) : 0;
}

double weave_tiles_fed_operations(size_t steps) {
    return kernels_level() >= LEVEL_AMX ? fed_operations(steps) : 0;
}

static void tile_chunk(void *context, size_t pair) {
    tile_tokens(context, pair);
}

static size_t panels_of(const struct tiles_call *call, const struct weave_job *job) {
    return (job->w->n + call->panel - 1) / call->panel;
}

static void multiply_chunk(void *context, size_t chunk) {
    struct tiles_call *call = context;
    const struct weave_job *job = call->jobs;
    for (; chunk >= panels_of(call, job); job++)
        chunk -= panels_of(call, job);
    size_t row = chunk * call->panel;
    multiply_panel(call, job, row, min_size(call->panel, job->w->n - row));
}

bool matmul_weave_tiles(const struct weave_job *jobs, size_t n_jobs, const struct weave_x *x) {
    struct tiles_call call = {.jobs = jobs, .x = x};
    call.pairs = (x->m + PAIR - 1) / PAIR;
    call.units = x->units;
    call.steps = x->unit / 64;
    size_t tiles = call.pairs * call.units * unit_bytes(&call),
           scales = call.pairs * call.units * PAIR, rows = 0, panels = 0;
    for (size_t i = 0; i < n_jobs; i++)
        rows += jobs[i].w->n;
    call.panel = panel_rows(rows);
    call.tiles = scratch_get(SCRATCH_ACTIVATIONS, tiles + 2 * scales * sizeof(float));
    if (!call.tiles)
        return false;
    call.scales = (float *)(void *)(call.tiles + tiles);
    call.code_sums = call.scales + scales;
    team_run(call.pairs, tile_chunk, &call);
    for (size_t i = 0; i < n_jobs; i++)
        panels += panels_of(&call, &jobs[i]);
    team_run(panels, multiply_chunk, &call);
    return !call.failed;
}

#else

bool weave_tiles_wanted(const struct weave *w, size_t m) {
    (void)w, (void)m;
    return false;
}

bool weave_few_wanted(const struct weave *w, size_t m) {
    (void)w, (void)m;
    return false;
}

void weave_few_rows(const struct weave_job *job, const struct weave_x *x, size_t row, size_t n) {
    (void)job, (void)x, (void)row, (void)n;
}

bool matmul_weave_tiles(const struct weave_job *jobs, size_t n_jobs, const struct weave_x *x) {
    (void)jobs, (void)n_jobs, (void)x;
    return false;
}

double weave_tiles_operations(size_t steps) {
    (void)steps;
    return 0;
}

double weave_tiles_fed_operations(size_t steps) {
    (void)steps;
    return 0;
}

#endif
