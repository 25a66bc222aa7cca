// Which kernel multiplies: the best of the ladder for the matrix and the number of tokens.
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "cuda/state.h"

bool cuda_ok(const char *failed, struct error *err) {
    return !failed || error_set(err, "GPU: %s", failed);
}

static const struct cuda_kernel *rung(const struct cuda_backend *b, int number) {
    for (const struct cuda_kernel *const *k = b->kernels; *k; k++)
        if ((*k)->number == number && !*(*k)->variant)
            return *k;
    return NULL;
}

// Packed: stream-K, and from where its tiles end the kernel for batches. Others: read once per
// token while there are few, else once, to float16, and from there by cuBLAS.
static const struct cuda_kernel *choose(const struct cuda_backend *b, const struct cuda_matrix *w,
                                        unsigned m) {
    enum { FEW = 8 };
    const int packed[] = {8, 9, 0}, few[] = {5, 4, 0}, many[] = {1, 4, 0};
    const int *numbers = w->packed ? packed : m <= FEW ? few : many;
    for (; *numbers; numbers++) {
        const struct cuda_kernel *k = rung(b, *numbers);
        if (k && k->takes(w, m) && !(*numbers == 5 && m > 1))
            return k;
    }
    return NULL;
}

static void *workspace_of(const struct cuda_model *cm, unsigned n) {
    for (size_t i = 0; i < cm->n_workspaces; i++)
        if (cm->workspaces[i].n == n)
            return cm->workspaces[i].memory;
    return NULL;
}

static bool round_x(struct cuda_model *cm, const uint16_t *x, unsigned width, unsigned stride,
                    unsigned m, struct error *err) {
    struct cuda_round r = {
        .x = x, .out = cm->at_work.rounded, .rows = m, .width = width, .stride = stride};
    return cuda_ok(cm->b->ops->round(&cm->at, &r), err);
}

bool cuda_multiply(struct cuda_model *cm, const struct cuda_linear *l, const uint16_t *x,
                   unsigned x_stride, unsigned m, float *y, struct error *err) {
    bool rounded = false;
    for (size_t i = 0; i < l->n_parts; i++) {
        const struct cuda_part *p = &l->parts[i];
        const struct cuda_kernel *kernel = choose(cm->b, &p->w, m);
        if (!kernel)
            return error_set(err, "GPU: no kernel multiplies %u x %u weights for %u tokens", p->w.n,
                             p->w.k, m);
        if (p->int8 && !rounded && !round_x(cm, x, l->k, x_stride, m, err))
            return false;
        rounded |= p->int8;
        struct cuda_call call = {.w = p->w,
                                 .x = p->int8 ? cm->at_work.rounded : x,
                                 .y = y + p->row,
                                 .m = m,
                                 .x_stride = x_stride,
                                 .y_stride = l->n,
                                 .processors = cm->at.processors,
                                 .stream = cm->at.stream,
                                 .schedule = cm->at.schedule};
        call.workspace = p->w.packed ? workspace_of(cm, p->w.n) : cm->at_work.scratch;
        if (!cuda_ok(kernel->run(&call), err))
            return false;
    }
    return true;
}
