#include "kernels/cpu/matmul_rows.h"

#include "core/dtype.h"
#include "kernels/cpu/team.h"

#define SIMD_BODY "rows_simd.h"
#include "simd.h"

// A thread takes about this many bytes at a time.
enum { CHUNK_BYTES = 128 << 10 };
#define TEAM_MIN ((size_t)1 << 17) // multiply-adds that are worth waking the team

void matmul_rows_ref(const struct rows_job *job, const float *x, size_t x_stride, size_t m,
                     size_t k) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < job->n; j++) {
            double sum = job->bias ? job->bias[j] : 0.0;
            for (size_t c = 0; c < k; c++) {
                uint16_t h;
                memcpy(&h, job->w + j * k + c, sizeof h);
                sum += (double)x[i * x_stride + c] * (job->bf16 ? bf16_to_f32(h) : f16_to_f32(h));
            }
            job->y[i * job->y_stride + j] = (float)sum;
        }
}

struct rows_call {
    const struct rows_job *jobs;
    const float *x;
    size_t x_stride, m, k, chunk; // rows of a chunk
};

static void multiply_chunk(void *context, size_t i) {
    const struct rows_call *call = context;
    const struct rows_job *job = call->jobs;
    for (; i >= (job->n + call->chunk - 1) / call->chunk; job++)
        i -= (job->n + call->chunk - 1) / call->chunk;
    size_t from = i * call->chunk, to = min_size(from + call->chunk, job->n);
    if (job->bf16)
        SIMD_CALL(rows_bf16, job, call->x, call->x_stride, call->m, call->k, from, to);
    else
        SIMD_CALL(rows_f16, job, call->x, call->x_stride, call->m, call->k, from, to);
}

void matmul_rows(const struct rows_job *jobs, size_t n_jobs, const float *x, size_t x_stride,
                 size_t m, size_t k) {
    struct rows_call call = {jobs, x, x_stride, m, k, 0};
    size_t chunks = 0, work = 0;
    call.chunk = round_up(CHUNK_BYTES / (2 * k + 1) + 1, 4);
    for (size_t i = 0; i < n_jobs; i++) {
        chunks += (jobs[i].n + call.chunk - 1) / call.chunk;
        work += jobs[i].n * k * m;
    }
    if (work >= TEAM_MIN)
        team_run(chunks, multiply_chunk, &call);
    else
        for (size_t i = 0; i < chunks; i++)
            multiply_chunk(&call, i);
}
