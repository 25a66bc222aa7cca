// Writing a plan: each tensor is put together row by row, on the way into its type.
#include "export/gguf_export.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "quant/woven.h"

// ---- rows where the file wants them -----------------------------------------------------------

// Row i of a tensor whose heads are interleaved: rows 2j and 2j + 1 of a head are its rows j and
// j + D/2. https://github.com/ggml-org/llama.cpp calls it permute.
static size_t source_row(const struct gguf_plan_tensor *t, size_t i) {
    if (!t->heads)
        return i;
    size_t d = t->n / t->heads, in_head = i % d;
    return i - in_head + in_head % 2 * (d / 2) + in_head / 2;
}

// The part that has that row, which is then counted from the part's start.
static const struct tensor *part_of(const struct gguf_plan_tensor *t, size_t *row) {
    size_t i = 0;
    while (*row >= t->parts[i]->shape[0])
        *row -= t->parts[i++]->shape[0];
    return t->parts[i];
}

static void read_rows(const void *context, size_t row, size_t count, float *out) {
    const struct gguf_plan_tensor *t = context;
    for (size_t i = 0; i < count; i++) {
        size_t from = source_row(t, row + i);
        const struct tensor *part = part_of(t, &from);
        quant_read(part, from, 0, t->k, out + i * t->k);
    }
}

static void read_vector(const struct gguf_plan_tensor *t, float *out) {
    size_t per_part = t->n / t->n_parts;
    for (size_t i = 0; i < t->n; i++) {
        size_t from = source_row(t, i);
        out[i] = t->vectors[from / per_part][from % per_part];
    }
}

// Bytes of a row in a format whose rows lie one after another; 0 in others.
static size_t row_bytes(const struct quant_format *f, size_t k) {
    if (f->span == SPAN_NONE && f->dtype != DTYPE_BLOCK)
        return k * dtype_size(f->dtype);
    return f->block_weights ? k / f->block_weights * f->block_bytes : 0;
}

// What has the right type already is copied, not quantized again.
static bool copy_rows(const struct gguf_plan_tensor *t, char *out, struct error *err) {
    size_t size = row_bytes(t->format, t->k), failed = 0;
#pragma omp parallel for schedule(static) reduction(+ : failed)
    for (size_t i = 0; i < t->n; i++) {
        size_t from = source_row(t, i);
        const struct tensor *part = part_of(t, &from);
        if (part->woven)
            failed += !woven_undo_row(part, from, out + i * size);
        else
            memcpy(out + i * size, (const char *)part->data + from * size, size);
    }
    return failed == 0 || error_set(err, "out of memory for a row");
}

static bool is_copy(const struct gguf_plan_tensor *t) {
    return t->parts[0]->format == t->format && row_bytes(t->format, t->k);
}

// Already as the file wants it, in one piece: written from where it lies.
static bool is_whole(const struct gguf_plan_tensor *t) {
    return is_copy(t) && t->n_parts == 1 && !t->heads && !t->parts[0]->woven;
}

// ---- one tensor after another -------------------------------------------------------------------

struct job {
    struct gguf_plan *plan;
    const struct gguf_export_options *options;
    struct gguf_writer w;
    char *buffer; // the largest tensor's bytes
    size_t done, total;
    struct error *err;
};

// What the recipe's own format would have lost.
static bool measure_asked(const struct gguf_plan_tensor *t, const struct matrix_source *source,
                          struct matrix_error *cost, struct error *err) {
    size_t bytes;
    if (!t->asked->bytes(t->asked, t->n, t->k, &bytes))
        return error_set(err, "[%zu, %zu] in %s overflows", t->n, t->k, t->asked->name);
    void *data = memory_alloc(bytes, 1, t->name, err);
    bool ok = data && matrix_quantize(source, t->asked, NULL, data, cost, err);
    free(data);
    return ok;
}

static bool make_matrix(struct job *job, struct gguf_plan_tensor *t, struct error *err) {
    if (is_copy(t))
        return copy_rows(t, job->buffer, err);
    const struct matrix_source source = {t->n, t->k, t, read_rows};
    const struct quant_hints hints = {.search = job->options->search || t->search};
    if (t->asked && !t->asked->gguf_type && !measure_asked(t, &source, &t->asked_cost, err))
        return false;
    return matrix_quantize(&source, t->format, &hints, job->buffer, &t->cost, err);
}

static bool write_tensor(struct job *job, struct gguf_plan_tensor *t) {
    struct error why = {0};
    const void *data = job->buffer;
    if (job->options->progress)
        job->options->progress(job->options->user, job->done, job->total, t->name);
    if (!t->k)
        read_vector(t, (float *)job->buffer);
    else if (is_whole(t))
        data = t->parts[0]->data;
    else if (!make_matrix(job, t, &why))
        return error_set(job->err, "%s: tensor '%s': %s",
                         t->parts[0]->file ? t->parts[0]->file : "model", t->source, why.message);
    if (!gguf_write_tensor(&job->w, data, t->bytes, job->err))
        return false;
    for (size_t i = 0; t->k && i < t->n_parts; i++)
        model_drop(job->plan->model, t->parts[i]->data, woven_bytes(t->parts[i]));
    job->done += t->bytes;
    return true;
}

// A model that came from a GGUF file keeps all that the file says, also what we do not know.
static bool put_keys(struct gguf_writer *w, const struct gguf_plan *plan,
                     const struct tokenizer *tokenizer, const char *name, struct error *err) {
    const struct model *m = plan->model;
    if (m->gguf) {
        gguf_put_same(w, plan, &m->gguf->file);
        return true;
    }
    gguf_put_model(w, plan, name);
    return gguf_put_tokenizer(w, tokenizer, &m->config, err);
}

static bool put_infos(struct gguf_writer *w, const struct gguf_plan *plan, struct error *err) {
    for (size_t i = 0; i < plan->n_tensors; i++) {
        const struct gguf_plan_tensor *t = &plan->tensors[i];
        const uint64_t dims[2] = {t->k ? t->k : t->n, t->n};
        uint32_t type = (uint32_t)(t->format->gguf_type - 1);
        if (!gguf_put_tensor(w, t->name, type, dims, t->k ? 2 : 1, t->bytes, err))
            return false;
    }
    return true;
}

bool gguf_plan_file_size(const struct gguf_plan *plan, const struct tokenizer *tokenizer,
                         const char *name, size_t *bytes, struct error *err) {
    struct gguf_writer w;
    if (!gguf_writer_init(&w, err))
        return false;
    bool ok = put_keys(&w, plan, tokenizer, name, err) && put_infos(&w, plan, err);
    *bytes = gguf_writer_size(&w);
    gguf_writer_abort(&w);
    return ok;
}

static bool make_buffer(struct job *job) {
    size_t largest = 0;
    for (size_t i = 0; i < job->plan->n_tensors; i++) {
        const struct gguf_plan_tensor *t = &job->plan->tensors[i];
        if (t->bytes > largest && !(t->k && is_whole(t)))
            largest = t->bytes;
        job->total += t->bytes;
    }
    job->buffer = memory_alloc(largest, 1, "the largest tensor", job->err);
    return job->buffer;
}

bool gguf_export(struct gguf_plan *plan, const struct tokenizer *tokenizer,
                 const struct gguf_export_options *options, const char *path, size_t *file_bytes,
                 struct error *err) {
    struct job job = {.plan = plan, .options = options, .err = err};
    if (!gguf_writer_open(&job.w, path, err))
        return false;
    bool ok = put_keys(&job.w, plan, tokenizer, options->name, err) &&
              put_infos(&job.w, plan, err) && make_buffer(&job) && gguf_writer_begin(&job.w, err);
    for (size_t i = 0; ok && i < plan->n_tensors; i++)
        ok = write_tensor(&job, &plan->tensors[i]);
    if (ok && file_bytes)
        *file_bytes = gguf_writer_size(&job.w);
    ok = ok && gguf_writer_commit(&job.w, err);
    gguf_writer_abort(&job.w);
    free(job.buffer);
    return ok;
}
