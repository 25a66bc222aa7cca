// Which layout a matrix gets on the GPU:
//
//     F16, INT8, INT4 with a scale per row or group of 32, 64, 128 …    packed
//     (kernels/cuda/pack.c) BF16                 the same, as float16: exact but for weights below
//     2^-14, off by 2^-25 Q4_0, Q8_0           are INT4 and INT8 in groups of 32: packed INT8 per
//     tensor      is INT8 per channel with equal scales: packed Q4_K, Q6_K, NF4, INT4 with zero
//     points per row                    as they lie in the file everything else      dequantized to
//     float16: packed, and larger than it was
//
// Matrices that read the same x and have one format become one, rows below rows: q, k and v of a
// small model are too few rows each to keep a GPU busy.
#include "cuda/weights.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "cuda/matrix.h"
#include "quant/woven.h"

// Kernel 1 has a grid line per row, of which there are 65,535.
enum { MAX_UNPACKED_ROWS = 32768 };

// ---- the arena ----------------------------------------------------------------------------------

void *cuda_arena_take(struct cuda_arena *a, size_t bytes, const char *what, struct error *err) {
    size_t free = 0, total = 0;
    void **arrays =
        memory_grow(a->arrays, a->n, &a->capacity, sizeof *arrays, "device arrays", err);
    if (!arrays)
        return NULL;
    a->arrays = arrays;
    void *p = a->b->allocate(bytes);
    if (!p) {
        a->b->memory(&free, &total);
        error_set(err,
                  "%s: %.2f GB do not fit, %.2f of the GPU's %.2f GB are free; expected fewer "
                  "--gpu-layers or a smaller --ctx",
                  what, (double)bytes / 1e9, (double)free / 1e9, (double)total / 1e9);
        return NULL;
    }
    a->arrays[a->n++] = p;
    a->bytes += bytes;
    return p;
}

void *cuda_arena_copy(struct cuda_arena *a, const void *from, size_t bytes, const char *what,
                      struct error *err) {
    void *p = cuda_arena_take(a, bytes, what, err);
    const char *failed = p ? a->b->upload(p, from, bytes) : NULL;
    if (failed)
        error_set(err, "%s: %s", what, failed);
    return failed ? NULL : p;
}

void cuda_arena_free(struct cuda_arena *a) {
    for (size_t i = 0; i < a->n; i++)
        a->b->release(a->arrays[i]);
    free(a->arrays);
    a->arrays = NULL;
    a->n = a->capacity = a->bytes = 0;
}

// ---- one matrix on the host ---------------------------------------------------------------------

// A matrix, and memory made for it; without memory it is a view of the model's.
struct host_matrix {
    struct cuda_matrix w;
    void *codes, *scales, *zeros; // owned, or NULL
    void *rows;                   // of a matrix that is woven in the model; owned, or NULL
    bool converted;               // to float16, from what no kernel reads
};

static void host_free(struct host_matrix *h) {
    free(h->codes);
    free(h->scales);
    free(h->zeros);
    free(h->rows);
    h->codes = h->scales = h->zeros = h->rows = NULL;
}

// Only what the layout's size depends on, the pointers standing for "there is one".
static void set_f16(struct cuda_matrix *w, const struct tensor *t) {
    *w = (struct cuda_matrix){.format = CUDA_F16,
                              .n = (unsigned)t->shape[0],
                              .k = (unsigned)t->shape[1],
                              .codes = t->data,
                              .row_bytes = 2 * t->shape[1]};
}

static bool fill_f16(struct host_matrix *h, const struct tensor *t, struct error *err) {
    size_t n = t->shape[0], k = t->shape[1];
    uint16_t *halves = h->codes = memory_alloc(n * k, sizeof *halves, "float16 weights", err);
    h->w.codes = halves;
    bool ok = halves != NULL;
#pragma omp parallel for schedule(static) reduction(&& : ok)
    for (size_t row = 0; row < n; row++) {
        float *values = ok ? malloc(k * sizeof *values) : NULL;
        ok = ok && values;
        if (ok)
            quant_read(t, row, 0, k, values);
        for (size_t i = 0; ok && i < k; i++)
            halves[row * k + i] = f32_to_f16(values[i]);
        free(values);
    }
    return ok || (*err->message ? false : error_set(err, "out of memory for float16 weights"));
}

// Q4_0 and Q8_0: a float16 scale and the codes of 32 weights, taken apart.
static void set_planes_of_blocks(struct cuda_matrix *w, const struct tensor *t) {
    bool q8 = w->format == CUDA_Q8_0;
    w->format = q8 ? CUDA_INT8 : CUDA_INT4;
    w->row_bytes = q8 ? w->k : w->k / 2;
    w->scales = t->data;
    w->group = 32;
    w->groups = w->k / 32;
}

static bool fill_planes_of_blocks(struct host_matrix *h, const struct tensor *t,
                                  struct error *err) {
    size_t codes = h->w.format == CUDA_INT8 ? 32 : 16, blocks = (size_t)h->w.n * h->w.groups;
    const uint8_t *from = t->data;
    h->codes = memory_alloc(blocks, codes, "codes", err);
    h->scales = memory_alloc(blocks, 2, "scales", err);
    for (size_t i = 0; h->codes && h->scales && i < blocks; i++, from += 2 + codes) {
        memcpy((uint8_t *)h->scales + 2 * i, from, 2);
        memcpy((uint8_t *)h->codes + codes * i, from + 2, codes);
    }
    h->w.codes = h->codes;
    h->w.scales = h->scales;
    return h->codes && h->scales;
}

// INT8 per tensor: its one scale for every row.
static bool set_int8_tensor(struct host_matrix *h, const struct tensor *t, bool fill,
                            struct error *err) {
    const int8_t *codes;
    const float *scale;
    size_t step, n = t->shape[0], k = t->shape[1];
    if (!quant_int8_planes(t, &codes, &scale, &step))
        return error_set(err, "%s: no planes of int8", t->name);
    h->w = (struct cuda_matrix){.format = CUDA_INT8,
                                .n = (unsigned)n,
                                .k = (unsigned)k,
                                .codes = codes,
                                .row_bytes = k,
                                .scales = scale,
                                .group = (unsigned)k,
                                .groups = 1,
                                .wide_scales = true};
    if (!fill)
        return true;
    float *scales = h->scales = memory_alloc(n, sizeof *scales, "scales", err);
    for (size_t i = 0; scales && i < n; i++)
        scales[i] = *scale;
    h->w.scales = scales;
    return scales != NULL;
}

// fill: with the weights; else only what sizes depend on.
static bool host_matrix(struct host_matrix *h, const struct linear *l, bool fill,
                        struct error *err) {
    struct tensor rows = l->w, *t = &rows;
    const struct quant_format *f = t->format;
    *h = (struct host_matrix){0};
    if (fill && t->woven && !(rows.data = h->rows = woven_undo(&l->w, err)))
        return false;
    rows.woven = false;
    if (f->span == SPAN_TENSOR && f->bits == 8)
        return set_int8_tensor(h, t, fill, err);
    bool readable = cuda_matrix_of(f, t->data, t->shape[0], t->shape[1], &h->w);
    if (!readable || h->w.format == CUDA_BF16) {
        h->converted = !readable && f->dtype != DTYPE_F32;
        set_f16(&h->w, t);
        return !fill || fill_f16(h, t, err);
    }
    if (h->w.format != CUDA_Q4_0 && h->w.format != CUDA_Q8_0)
        return true;
    set_planes_of_blocks(&h->w, t);
    return !fill || fill_planes_of_blocks(h, t, err);
}

// ---- several as one -----------------------------------------------------------------------------

static bool joins(const struct linear *a, const struct linear *b) {
    return a->w.format == b->w.format && a->w.shape[1] == b->w.shape[1] &&
           a->int8_activations == b->int8_activations;
}

// to, of `bytes` in all, becomes the arrays one after another.
static bool append(void **to, size_t bytes, size_t *used, const void *from, size_t size,
                   struct error *err) {
    if (!*to && !(*to = memory_alloc(bytes, 1, "joined weights", err)))
        return false;
    memcpy((char *)*to + *used, from, size);
    *used += size;
    return true;
}

static size_t scale_bytes(const struct cuda_matrix *w) {
    return w->scales ? (size_t)w->groups * (w->wide_scales ? 4 : 2) : 0; // of a row
}

static bool join(struct host_matrix *all, const struct linear *const *l, size_t count,
                 struct error *err) {
    size_t rows = 0, codes = 0, scales = 0, zeros = 0;
    for (size_t i = 0; i < count; i++)
        rows += l[i]->w.shape[0];
    *all = (struct host_matrix){0};
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) {
        struct host_matrix one;
        ok = host_matrix(&one, l[i], true, err);
        const struct cuda_matrix *w = &one.w;
        all->w = one.w;
        all->converted = one.converted;
        ok = ok &&
             append(&all->codes, rows * w->row_bytes, &codes, w->codes, w->n * w->row_bytes, err);
        ok = ok && (!w->scales || append(&all->scales, rows * scale_bytes(w), &scales, w->scales,
                                         w->n * scale_bytes(w), err));
        ok = ok && (!w->zeros || append(&all->zeros, rows * w->zero_bytes, &zeros, w->zeros,
                                        w->n * w->zero_bytes, err));
        host_free(&one);
    }
    all->w.n = (unsigned)rows;
    all->w.codes = all->codes;
    all->w.scales = all->scales;
    all->w.zeros = all->zeros;
    return ok;
}

// The first `count` of n that become one matrix.
static size_t together(const struct linear *const *l, size_t n) {
    size_t count = 1;
    while (count < n && joins(l[0], l[count]))
        count++;
    return count;
}

// ---- sizes --------------------------------------------------------------------------------------

static size_t unpacked_bytes(const struct cuda_matrix *w) {
    return w->n * (w->row_bytes + scale_bytes(w) + (w->zeros ? w->zero_bytes : 0));
}

bool cuda_linear_bytes(const struct linear *const *l, size_t n, size_t *bytes, struct error *err) {
    *bytes = 0;
    for (size_t i = 0; i < n;) {
        struct host_matrix h;
        size_t count = together(l + i, n - i), size, rows = 0;
        if (!host_matrix(&h, l[i], false, err))
            return false;
        for (size_t j = i; j < i + count; j++)
            rows += l[j]->w.shape[0];
        h.w.n = (unsigned)rows;
        *bytes += cuda_pack_bytes(&h.w, &size) ? size : unpacked_bytes(&h.w);
        i += count;
    }
    for (size_t i = 0; i < n; i++)
        *bytes += l[i]->bias ? l[i]->w.shape[0] * sizeof(float) : 0;
    return true;
}

// ---- uploading ----------------------------------------------------------------------------------

static struct cuda_part *new_part(struct cuda_linear *out, struct error *err) {
    size_t capacity = out->n_parts;
    struct cuda_part *parts =
        memory_grow(out->parts, out->n_parts, &capacity, sizeof *parts, "matrices", err);
    if (!parts)
        return NULL;
    out->parts = parts;
    return &parts[out->n_parts++];
}

static bool upload_packed(struct cuda_matrix *w, struct cuda_arena *a, size_t bytes,
                          const char *name, struct error *err) {
    void *packed = memory_alloc(bytes, 1, "packed weights", err);
    if (!packed)
        return false;
    cuda_pack(w, packed);
    void *there = cuda_arena_copy(a, packed, bytes, name, err);
    free(packed);
    // The kernels read `packed` alone; scales and zeros still say whether there are any.
    w->codes = NULL;
    w->packed = there;
    w->scales = w->scales ? there : NULL;
    w->zeros = w->zeros ? there : NULL;
    return there != NULL;
}

static bool upload_planes(struct cuda_matrix *w, struct cuda_arena *a, const char *name,
                          struct error *err) {
    size_t scales = w->n * scale_bytes(w), zeros = w->n * w->zero_bytes;
    w->codes = cuda_arena_copy(a, w->codes, w->n * w->row_bytes, name, err);
    if (w->scales)
        w->scales = cuda_arena_copy(a, w->scales, scales, name, err);
    if (w->zeros)
        w->zeros = cuda_arena_copy(a, w->zeros, zeros, name, err);
    return w->codes && (!scales || w->scales) && (!zeros || w->zeros);
}

// Rows [row, …) of a matrix that stays as it lies.
static struct cuda_matrix rows_of(const struct cuda_matrix *w, unsigned row, unsigned n) {
    struct cuda_matrix part = *w;
    part.n = n;
    part.codes = (const char *)w->codes + row * w->row_bytes;
    part.scales = w->scales ? (const char *)w->scales + row * scale_bytes(w) : NULL;
    part.zeros = w->zeros ? w->zeros + row * w->zero_bytes : NULL;
    return part;
}

static bool upload(struct cuda_linear *out, struct cuda_arena *a, const struct host_matrix *h,
                   const struct linear *l, struct cuda_report *report, struct error *err) {
    size_t bytes;
    bool packed = cuda_pack_bytes(&h->w, &bytes);
    if (h->converted)
        report->to_float16++, report->example = l->w.format->name;
    else if (packed)
        report->packed++;
    else
        report->as_they_are++;
    for (unsigned row = 0, n; row < h->w.n; row += n) {
        n = packed || h->w.n - row < MAX_UNPACKED_ROWS ? h->w.n - row : MAX_UNPACKED_ROWS;
        struct cuda_part *part = new_part(out, err);
        if (!part)
            return false;
        *part = (struct cuda_part){
            .w = rows_of(&h->w, row, n), .row = out->n + row, .int8 = l->int8_activations};
        if (!(packed ? upload_packed(&part->w, a, bytes, l->w.name, err)
                     : upload_planes(&part->w, a, l->w.name, err)))
            return false;
    }
    out->n += h->w.n;
    return true;
}

static bool upload_bias(struct cuda_linear *out, struct cuda_arena *a,
                        const struct linear *const *l, size_t n, struct error *err) {
    bool any = false;
    for (size_t i = 0; i < n; i++)
        any |= l[i]->bias != NULL;
    if (!any)
        return true;
    float *bias = memory_alloc(out->n, sizeof *bias, "biases", err), *to = bias;
    for (size_t i = 0; bias && i < n; to += l[i++]->w.shape[0])
        if (l[i]->bias)
            memcpy(to, l[i]->bias, l[i]->w.shape[0] * sizeof *bias);
    out->bias = bias ? cuda_arena_copy(a, bias, out->n * sizeof *bias, "biases", err) : NULL;
    free(bias);
    return out->bias != NULL;
}

bool cuda_linear_upload(struct cuda_linear *out, struct cuda_arena *a,
                        const struct linear *const *l, size_t n, struct cuda_report *report,
                        struct error *err) {
    *out = (struct cuda_linear){.k = (unsigned)l[0]->w.shape[1]};
    for (size_t i = 0; i < n;) {
        struct host_matrix h;
        size_t count = together(l + i, n - i);
        bool ok = count > 1 ? join(&h, l + i, count, err) : host_matrix(&h, l[i], true, err);
        ok = ok && upload(out, a, &h, l[i], report, err);
        host_free(&h);
        if (!ok)
            return false;
        i += count;
    }
    return upload_bias(out, a, l, n, err);
}

void cuda_linear_free(struct cuda_linear *l) {
    free(l->parts);
    *l = (struct cuda_linear){0};
}

bool cuda_table_bytes(const struct linear *l, size_t *bytes, struct error *err) {
    struct host_matrix h;
    *bytes = 0;
    if (!l->w.data)
        return true;
    if (!host_matrix(&h, l, false, err))
        return false;
    *bytes = unpacked_bytes(&h.w);
    return true;
}

bool cuda_table_upload(struct cuda_matrix *out, struct cuda_arena *a, const struct linear *l,
                       bool float16, struct error *err) {
    struct host_matrix h;
    bool ok = host_matrix(&h, l, true, err);
    if (ok && float16 && h.w.format != CUDA_F16) {
        host_free(&h);
        set_f16(&h.w, &l->w);
        ok = fill_f16(&h, &l->w, err);
    }
    *out = h.w;
    ok = ok && upload_planes(out, a, l->w.name, err);
    host_free(&h);
    return ok;
}
