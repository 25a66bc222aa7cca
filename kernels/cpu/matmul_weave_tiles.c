#include "kernels/cpu/matmul_weave_tiles.h"

#if defined(__x86_64__)
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/team.h"

enum {
    K_BLOCK = 512, // columns at a time: 32 tokens of them fill 16 KB of the L1 cache
    PANEL = 128,   // rows a thread takes at a time: 64 KB of a block's codes
    MIN_TOKENS = 24
};

#include "amx_begin.h"
#include "weave_tiles_simd.h"
#include "amx_end.h"

bool weave_tiles_wanted(const struct weave *w, size_t m) {
    return m >= MIN_TOKENS && kernels_level() >= LEVEL_AMX && w->unit % 64 == 0 &&
           w->k_padded % 64 == 0 && w->kind.scale <= WEAVE_SCALE_F16 &&
           w->kind.zero <= WEAVE_ZERO_GROUP;
}

double weave_tiles_operations(size_t steps) {
    return kernels_level() >= LEVEL_AMX ? tile_operations(steps) : 0;
}

double weave_tiles_fed_operations(size_t steps) {
    return kernels_level() >= LEVEL_AMX ? fed_operations(steps) : 0;
}

static void convert_strip(void *context, size_t strip) {
    tile_strip(context, strip);
}

static size_t panels_of(const struct weave_job *job) {
    return (job->w->n + PANEL - 1) / PANEL;
}

static void multiply_chunk(void *context, size_t chunk) {
    struct tiles_call *call = context;
    const struct weave_job *job = call->jobs;
    for (; chunk >= panels_of(job); job++)
        chunk -= panels_of(job);
    multiply_panel(call, job, chunk * PANEL);
}

bool matmul_weave_tiles(const struct weave_job *jobs, size_t n_jobs, const struct weave_x *x) {
    struct tiles_call call = {.jobs = jobs, .x = x};
    call.strips = round_up((x->m + TILE - 1) / TILE, 2);
    call.steps = x->q_stride / 64;
    size_t tiles = call.strips * call.steps * TILE_BYTES, units = x->units * call.strips * TILE;
    size_t chunks = 0;
    for (size_t i = 0; i < n_jobs; i++)
        chunks += panels_of(&jobs[i]);
    call.tiles = scratch_get(SCRATCH_ACTIVATIONS, tiles + 2 * units * sizeof(float));
    if (!call.tiles)
        return false;
    call.scales = (float *)(void *)(call.tiles + tiles);
    call.sums = call.scales + units;
    team_run(call.strips, convert_strip, &call);
    team_run(chunks, multiply_chunk, &call);
    return !call.failed;
}

#else

bool weave_tiles_wanted(const struct weave *w, size_t m) {
    (void)w, (void)m;
    return false;
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
