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

// Rounds x to int8 itself, and makes use of it: there is no float16 in its product.
enum { INT8_KERNEL = 11 };

// Packed: stream-K, and from where its tiles end the kernel for batches; with int8 activations the
// one for these, but not for the few tokens of a decode step, where reading weights is all that
// takes time and its blocks of 128 tokens would be empty. Others: read once per token while there
// are few, else once, to float16, and from there by cuBLAS.
static const struct cuda_kernel *choose(const struct cuda_backend *b, const struct cuda_part *p,
                                        unsigned m) {
    enum { FEW = 8 };
    const int packed[] = {8, 9, 0}, int8[] = {INT8_KERNEL, 8, 9, 0}, few[] = {5, 4, 0},
              many[] = {1, 4, 0};
    const int *numbers = m <= FEW ? few : many;
    if (p->w.packed)
        numbers = p->int8 && m > FEW ? int8 : packed;
    for (; *numbers; numbers++) {
        const struct cuda_kernel *k = rung(b, *numbers);
        if (k && k->takes(&p->w, m) && !(*numbers == 5 && m > 1))
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

// Kernel 11 keeps its x where rounded x would be: a byte and not a half for each value, and four
// for the scale of each row.
_Static_assert(PASS_TOKENS % 128 == 0, "kernel 11 has room for whole blocks of 128 rows");
static void *workspace_for(const struct cuda_model *cm, const struct cuda_kernel *kernel,
                           const struct cuda_matrix *w) {
    if (kernel->number == INT8_KERNEL)
        return cm->at_work.rounded;
    return w->packed ? workspace_of(cm, w->n) : cm->at_work.scratch;
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
        const struct cuda_kernel *kernel = choose(cm->b, p, m);
        if (!kernel)
            return error_set(err, "GPU: no kernel multiplies %u x %u weights for %u tokens", p->w.n,
                             p->w.k, m);
        const bool round = p->int8 && kernel->number != INT8_KERNEL;
        if (round && !rounded && !round_x(cm, x, l->k, x_stride, m, err))
            return false;
        rounded |= round;
        struct cuda_call call = {.w = p->w,
                                 .x = round ? cm->at_work.rounded : x,
                                 .y = y + p->row,
                                 .m = m,
                                 .x_stride = x_stride,
                                 .y_stride = l->n,
                                 .processors = cm->at.processors,
                                 .stream = cm->at.stream,
                                 .schedule = cm->at.schedule};
        call.workspace = workspace_for(cm, kernel, &p->w);
        if (!cuda_ok(kernel->run(&call), err))
            return false;
        rounded &= kernel->number != INT8_KERNEL; // which wrote over it
    }
    return true;
}
