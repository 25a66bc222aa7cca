#include "kernels/cpu/matmul_weave.h"

#include "kernels/cpu/team.h"

enum { WEAVE_AHEAD = 1024 };       // bytes that are fetched before they are needed
enum { STRIPE_ROWS = 64 };         // rows a thread takes at a time: four blocks
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

struct stripes {
    const struct weave_job *jobs;
    size_t n_jobs;
    const struct weave_x *x;
};

static size_t stripes_of(const struct weave *w) {
    return (w->n + STRIPE_ROWS - 1) / STRIPE_ROWS;
}

static void multiply_stripe(void *context, size_t stripe) {
    const struct stripes *s = context;
    const struct weave_job *job = s->jobs;
    for (; stripe >= stripes_of(job->w); job++)
        stripe -= stripes_of(job->w);
    size_t row = stripe * STRIPE_ROWS, rows = min_size(STRIPE_ROWS, job->w->n - row);
    SIMD_CALL(weave_rows, job->w, s->x, row, rows, job->y, job->y_stride, job->bias);
}

void matmul_weave(const struct weave_job *jobs, size_t n_jobs, const struct weave_x *x) {
    struct stripes s = {jobs, n_jobs, x};
    size_t stripes = 0, work = 0;
    for (size_t i = 0; i < n_jobs; i++) {
        stripes += stripes_of(jobs[i].w);
        work += jobs[i].w->n * x->m * x->k;
    }
    if (work >= TEAM_MIN)
        team_run(stripes, multiply_stripe, &s);
    else
        for (size_t i = 0; i < stripes; i++)
            multiply_stripe(&s, i);
}
