#include "kernels/cpu/matmul_weave.h"

#include "kernels/cpu/matmul_weave_tiles.h"
#include "kernels/cpu/team.h"

enum { WEAVE_AHEAD = 1024 }; // bytes that are fetched before they are needed
// A thread takes whole stripes of 64 rows, four blocks, about 256 KB at a time: what it asks for
// beyond a stripe is mostly its own next one, and with many tokens they stay in its L2 cache.
enum { STRIPE_ROWS = 64, CHUNK_BYTES = 256 << 10, CHUNKS_MIN = 32 };
#define TEAM_MIN ((size_t)1 << 17) // multiply-adds that are worth waking the team

#define SIMD_VNNI
#define SIMD_BODY "weave_simd.h"
#include "simd.h"

void matmul_weave_ref(const struct weave_job *job, const struct weave_x *x) {
    const struct weave *w = job->w;
    for (size_t j = 0; j < w->n; j++)
        for (size_t i = 0; i < x->m; i++) {
            double sum = job->bias ? job->bias[j] : 0.0;
            float part[WEAVE_SUPER];
            for (size_t col = 0; col < w->k; col += WEAVE_SUPER) {
                size_t count = min_size(WEAVE_SUPER, w->k - col);
                weave_read(w, j, col, count, part);
                for (size_t c = 0; c < count; c++) {
                    double scale = x->scale[i * x->units + (col + c) / x->unit];
                    sum += scale * x->q[i * x->q_stride + col + c] * part[c];
                }
            }
            job->y[i * job->y_stride + j] = (float)sum;
        }
}

struct chunks {
    const struct weave_job *jobs;
    size_t n_jobs;
    const struct weave_x *x;
};

// Small matrices are divided further, so that the threads end together; a stripe of many tokens and
// long rows too, to single blocks, unless tiles want all four.
static size_t chunk_rows(const struct weave *w, size_t m) {
    bool whole = m < 8 || weave_few_wanted(w, m) ||
                 STRIPE_ROWS / WEAVE_ROWS * w->block_bytes <= CHUNK_BYTES;
    size_t stripe = whole ? STRIPE_ROWS : WEAVE_ROWS;
    size_t fit = CHUNK_BYTES / (stripe / WEAVE_ROWS * w->block_bytes);
    size_t most = w->n / (stripe * CHUNKS_MIN), stripes = min_size(fit, most);
    return stripe * (stripes ? stripes : 1);
}

static size_t chunks_of(const struct weave *w, size_t m) {
    return (w->n + chunk_rows(w, m) - 1) / chunk_rows(w, m);
}

static void multiply_chunk(void *context, size_t chunk) {
    const struct chunks *s = context;
    const struct weave_job *job = s->jobs;
    for (; chunk >= chunks_of(job->w, s->x->m); job++)
        chunk -= chunks_of(job->w, s->x->m);
    size_t most = chunk_rows(job->w, s->x->m);
    size_t row = chunk * most, rows = min_size(most, job->w->n - row);
    if (weave_few_wanted(job->w, s->x->m))
        weave_few_rows(job, s->x, row, rows);
    else
        SIMD_CALL(weave_rows, job->w, s->x, row, rows, job->y, job->y_stride, job->bias);
}

void matmul_weave(const struct weave_job *jobs, size_t n_jobs, const struct weave_x *x) {
    struct chunks s = {jobs, n_jobs, x};
    size_t chunks = 0, work = 0;
    bool tiles = true;
    for (size_t i = 0; i < n_jobs; i++)
        tiles = tiles && weave_tiles_wanted(jobs[i].w, x->m);
    if (tiles && matmul_weave_tiles(jobs, n_jobs, x))
        return;
    for (size_t i = 0; i < n_jobs; i++) {
        chunks += chunks_of(jobs[i].w, x->m);
        work += jobs[i].w->n * x->m * x->k;
    }
    if (work >= TEAM_MIN)
        team_run(chunks, multiply_chunk, &s);
    else
        for (size_t i = 0; i < chunks; i++)
            multiply_chunk(&s, i);
}
