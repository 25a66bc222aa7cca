// Putting a model on the GPU: what will it take, does it fit, and then one layer after another.
#include "cuda/placement.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "cuda/state.h"
#include "model/arch.h"
#include "quant/format.h"

enum { MAX_HEAD_DIM = 256, DEFAULT_POSITIONS = 2048 };

// ---- the plan -----------------------------------------------------------------------------------

struct plan {
    size_t layer;    // bytes of the largest layer, its cache included
    size_t constant; // head, norms, activations, what products need besides
    size_t table;    // of the embedding, with all layers
};

static size_t most_columns(const struct model_config *c) {
    size_t q = c->n_heads * c->head_dim, most = c->hidden > q ? c->hidden : q;
    return most > c->intermediate ? most : c->intermediate;
}

// Arrays of a pass: bytes of each, in the order of struct cuda_buffers.
struct pass_sizes {
    size_t x, qkv, gate_up, angles, logits, parts, normed, attention, inner, rounded, batch, host;
};

static struct pass_sizes pass_sizes_of(const struct cuda_model *cm) {
    const struct model_config *c = &cm->m->config;
    size_t t = PASS_TOKENS, q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    size_t rows = t * c->hidden, logits = CUDA_LOGIT_ROWS * c->vocab;
    return (struct pass_sizes){
        .x = rows * sizeof(float),
        .qkv = t * (q + 2 * kv) * sizeof(float),
        .gate_up = t * c->intermediate * (c->arch->gelu ? 1 : 2) * sizeof(float),
        .angles = t * c->head_dim * sizeof(float),
        .logits = logits * sizeof(float),
        // at most four pieces per multiprocessor (cuda_attend_splits), all heads of each
        .parts =
            (4 * (size_t)cm->at.processors + t) * c->n_heads * (c->head_dim + 2) * sizeof(float),
        .normed = t * cuda_stride(c->hidden) * 2,
        .attention = t * cuda_stride(q) * 2,
        .inner = t * cuda_stride(c->intermediate) * 2,
        .rounded = t * cuda_stride(most_columns(c)) * 2,
        .batch = 3 * t * sizeof(int32_t),
        .host = (rows > logits ? rows : logits) * sizeof(float),
    };
}

static size_t sum_of(const struct pass_sizes *s) {
    return 3 * s->x + s->qkv + s->gate_up + s->angles + s->logits + s->parts + s->normed +
           s->attention + s->inner + s->rounded + s->batch;
}

static size_t layer_linears(const struct model *m, size_t i, const struct linear *out[4][3],
                            size_t n[4]) {
    const struct layer *l = &m->layers[i];
    const struct linear *all[4][3] = {
        {&l->q, &l->k, &l->v}, {&l->o}, {&l->gate, &l->up}, {&l->down}};
    const size_t counts[4] = {3, 1, 2, 1};
    memcpy(out, all, sizeof all);
    memcpy(n, counts, sizeof counts);
    if (m->config.arch->gelu) {
        out[2][0] = &l->up;
        n[2] = 1;
    }
    return 4;
}

static bool layer_bytes(const struct model *m, size_t i, size_t positions, size_t *bytes,
                        struct error *err) {
    const struct model_config *c = &m->config;
    const struct linear *l[4][3];
    size_t n[4], size;
    layer_linears(m, i, l, n);
    *bytes = 4 * c->hidden * sizeof(float) +
             2 * positions * c->n_kv_heads * c->head_dim * sizeof(uint16_t);
    for (size_t j = 0; j < 4; j++) {
        if (!cuda_linear_bytes(l[j], n[j], &size, err))
            return false;
        *bytes += size;
    }
    return true;
}

// The head may be the embedding's table as well: packed float16, read backwards.
static bool shares_table(const struct model *m) {
    const struct quant_format *f = m->embedding.w.format;
    return m->config.tied &&
           (f->dtype == DTYPE_F16 || f->dtype == DTYPE_BF16 || f->dtype == DTYPE_F32);
}

// The workspace of a matrix product is the larger the more tokens, up to 64; kernel 1's, which the
// rest share, is the matrix in float16.
static size_t workspace_bytes(const struct cuda_model *cm, const struct cuda_matrix *w,
                              int number) {
    size_t most = 0;
    for (const struct cuda_kernel *const *k = cm->b->kernels; *k; k++)
        for (unsigned m = 8; m <= 64; m *= 2) {
            struct cuda_call call = {
                .w = *w, .m = m, .x_stride = cuda_stride(w->k), .processors = cm->at.processors};
            if ((*k)->number != number || !(*k)->workspace || !(*k)->takes(w, m))
                continue;
            size_t bytes = (*k)->workspace(&call);
            most = bytes > most ? bytes : most;
        }
    return most;
}

static bool plan_constant(const struct cuda_model *cm, struct plan *plan, struct error *err) {
    const struct model *m = cm->m;
    const struct linear *head = &m->head;
    struct pass_sizes s = pass_sizes_of(cm);
    size_t bytes, places;
    if (!cuda_linear_bytes(&head, 1, &bytes, err) ||
        !cuda_table_bytes(&m->embedding, &plan->table, err) ||
        !cuda_table_bytes(&m->position_embedding, &places, err))
        return false;
    if (shares_table(m))
        plan->table = 0;
    plan->table += places;
    // Five shapes of matrices with a workspace each; 264 blocks of an H200 need 17 MB for one.
    struct cuda_matrix typical = {.format = CUDA_F16, .n = 256, .k = 256};
    plan->constant = bytes + sum_of(&s) + 5 * workspace_bytes(cm, &typical, 8);
    return true;
}

static bool make_plan(const struct cuda_model *cm, size_t positions, struct plan *plan,
                      struct error *err) {
    *plan = (struct plan){0};
    for (size_t i = 0, bytes; i < cm->m->config.n_layers; i++) {
        if (!layer_bytes(cm->m, i, positions, &bytes, err))
            return false;
        plan->layer = bytes > plan->layer ? bytes : plan->layer;
    }
    return plan_constant(cm, plan, err);
}

static size_t needed(const struct plan *p, size_t layers, size_t all) {
    return p->constant + layers * p->layer + (layers == all ? p->table : 0);
}

// A fiftieth stays free: allocations are rounded up, and the card may show a picture too.
static bool check_fits(const struct cuda_model *cm, const struct plan *p, size_t layers,
                       struct error *err) {
    size_t free = 0, total = 0, all = cm->m->config.n_layers, fits = layers;
    if (!cuda_ok(cm->b->memory(&free, &total), err))
        return false;
    while (fits > 0 && needed(p, fits, all) > free - free / 50)
        fits--;
    if (fits == layers)
        return true;
    char advice[96] = "not even one layer fits; expected --device cpu";
    if (fits)
        snprintf(advice, sizeof advice, "expected at most --gpu-layers %zu, or a smaller --ctx",
                 fits);
    return error_set(err,
                     "--device cuda: %zu of %zu layers need %.3f GB, and %.3f of the GPU's %.3f GB "
                     "are free; %s",
                     layers, all, (double)needed(p, layers, all) / 1e9, (double)free / 1e9,
                     (double)total / 1e9, advice);
}

// ---- uploading ----------------------------------------------------------------------------------

static bool copy_floats(struct cuda_arena *a, float **to, const float *from, size_t n,
                        struct error *err) {
    *to = from ? cuda_arena_copy(a, from, n * sizeof *from, "norms", err) : NULL;
    return !from || *to;
}

static bool upload_norm(struct cuda_arena *a, const struct norm *n, size_t width, float **gain,
                        float **bias, struct error *err) {
    return copy_floats(a, gain, n->gain, width, err) && copy_floats(a, bias, n->bias, width, err);
}

static bool upload_layer(struct cuda_model *cm, size_t i, struct cuda_report *r,
                         struct error *err) {
    const struct model_config *c = &cm->m->config;
    const struct layer *from = &cm->m->layers[i];
    struct cuda_layer *l = &cm->layers[i];
    struct cuda_linear *to[] = {&l->qkv, &l->o, &l->gate_up, &l->down};
    const struct linear *linears[4][3];
    struct cuda_arena *a = &cm->layer_memory;
    size_t n[4];
    layer_linears(cm->m, i, linears, n);
    for (size_t j = 0; j < 4; j++)
        if (!cuda_linear_upload(to[j], a, linears[j], n[j], r, err))
            return false;
    return upload_norm(a, &from->attention_norm, c->hidden, &l->gains[0], &l->biases[0], err) &&
           upload_norm(a, &from->mlp_norm, c->hidden, &l->gains[1], &l->biases[1], err) &&
           copy_floats(a, &l->q_gain, from->q_norm, c->head_dim, err) &&
           copy_floats(a, &l->k_gain, from->k_norm, c->head_dim, err);
}

static bool upload_head(struct cuda_model *cm, struct cuda_report *r, struct error *err) {
    const struct model *m = cm->m;
    const struct linear *head = &m->head;
    struct cuda_arena *a = &cm->head_memory;
    if (!cuda_linear_upload(&cm->head, a, &head, 1, r, err) ||
        !upload_norm(a, &m->final_norm, m->config.hidden, &cm->final_gain, &cm->final_bias, err))
        return false;
    if (m->inv_freq && !copy_floats(a, &cm->inv_freq, m->inv_freq, m->config.head_dim / 2, err))
        return false;
    if (cm->place.first_layer > 0)
        return true;
    if (shares_table(m))
        cm->table = cm->head.parts[0].w;
    else if (!cuda_table_upload(&cm->table, &cm->layer_memory, &m->embedding, false, err))
        return false;
    return !m->position_embedding.w.data ||
           cuda_table_upload(&cm->places, &cm->layer_memory, &m->position_embedding, true, err);
}

// ---- activations --------------------------------------------------------------------------------

static bool take(struct cuda_model *cm, void *pointer, size_t bytes, struct error *err) {
    void *p = cuda_arena_take(&cm->pass_memory, bytes, "activations", err);
    memcpy(pointer, &p, sizeof p);
    return p != NULL;
}

static bool pass_init(struct cuda_model *cm, struct error *err) {
    struct cuda_buffers *w = &cm->at_work;
    struct pass_sizes s = pass_sizes_of(cm);
    w->host = cm->b->allocate_host(s.host);
    w->host_batch = cm->b->allocate_host(s.batch);
    if (!w->host || !w->host_batch)
        return error_set(err, "out of memory for %zu pinned bytes", s.host);
    return take(cm, &w->x, s.x, err) && take(cm, &w->sum, s.x, err) &&
           take(cm, &w->hidden, s.x, err) && take(cm, &w->qkv, s.qkv, err) &&
           take(cm, &w->gate_up, s.gate_up, err) && take(cm, &w->angles, s.angles, err) &&
           take(cm, &w->logits, s.logits, err) && take(cm, &w->parts, s.parts, err) &&
           take(cm, &w->normed, s.normed, err) && take(cm, &w->attention, s.attention, err) &&
           take(cm, &w->inner, s.inner, err) && take(cm, &w->rounded, s.rounded, err) &&
           take(cm, &w->batch, s.batch, err);
}

static bool add_workspace(struct cuda_model *cm, const struct cuda_matrix *w, struct error *err) {
    for (size_t i = 0; i < cm->n_workspaces; i++)
        if (cm->workspaces[i].n == w->n)
            return true;
    size_t capacity = cm->n_workspaces;
    struct cuda_workspace *grown =
        memory_grow(cm->workspaces, cm->n_workspaces, &capacity, sizeof *grown, "workspaces", err);
    if (!grown)
        return false;
    cm->workspaces = grown;
    grown[cm->n_workspaces] = (struct cuda_workspace){.n = w->n};
    return take(cm, &grown[cm->n_workspaces++].memory, workspace_bytes(cm, w, 8), err);
}

// What the products with these matrices need besides; *scratch becomes what those need together
// that are not packed.
static bool add_workspaces(struct cuda_model *cm, const struct cuda_linear *l, size_t *scratch,
                           struct error *err) {
    for (size_t i = 0; i < l->n_parts; i++) {
        const struct cuda_matrix *w = &l->parts[i].w;
        size_t bytes = w->packed ? 0 : workspace_bytes(cm, w, 1);
        *scratch = bytes > *scratch ? bytes : *scratch;
        if (w->packed && !add_workspace(cm, w, err))
            return false;
    }
    return true;
}

static bool workspaces_init(struct cuda_model *cm, struct error *err) {
    size_t scratch = 0;
    bool ok = add_workspaces(cm, &cm->head, &scratch, err);
    for (size_t i = cm->place.first_layer; ok && i < cm->m->config.n_layers; i++) {
        const struct cuda_layer *l = &cm->layers[i];
        ok = add_workspaces(cm, &l->qkv, &scratch, err) &&
             add_workspaces(cm, &l->o, &scratch, err) &&
             add_workspaces(cm, &l->gate_up, &scratch, err) &&
             add_workspaces(cm, &l->down, &scratch, err);
    }
    return ok && (!scratch || take(cm, &cm->at_work.scratch, scratch, err));
}

// ---- placing ------------------------------------------------------------------------------------

void cuda_note_peak(struct cuda_model *cm) {
    size_t free = 0, total = 0;
    if (!cm->b->memory(&free, &total) && free < cm->free_before &&
        cm->free_before - free > cm->peak_bytes)
        cm->peak_bytes = cm->free_before - free;
}

size_t cuda_peak_bytes(const struct model *m) {
    return m->placed ? cuda_model_of(m)->peak_bytes : 0;
}

static bool check_shape(const struct model_config *c, struct error *err) {
    if (c->head_dim % 2 || c->head_dim > MAX_HEAD_DIM)
        return error_set(err, "--device cuda: heads are %zu wide, expected an even number up to %d",
                         c->head_dim, MAX_HEAD_DIM);
    return c->n_heads % c->n_kv_heads == 0 ||
           error_set(err, "--device cuda: %zu heads share %zu of keys, expected a multiple",
                     c->n_heads, c->n_kv_heads);
}

static bool place(struct cuda_model *cm, const struct cuda_options *o, struct cuda_report *report,
                  struct error *err) {
    const struct model_config *c = &cm->m->config;
    struct cuda_description d;
    size_t layers = o->layers < c->n_layers ? o->layers : c->n_layers, total;
    size_t positions = o->positions ? o->positions : DEFAULT_POSITIONS;
    struct plan plan;
    if (positions > c->max_context)
        positions = c->max_context;
    if (!check_shape(c, err) || !cuda_ok(cm->b->describe(&d), err) ||
        !cuda_ok(cm->b->memory(&cm->free_before, &total), err))
        return false;
    cm->at = (struct cuda_launch){cm->b->stream_open(), o->schedule, d.processors};
    cm->place.first_layer = c->n_layers - layers;
    cm->layers = memory_alloc(c->n_layers, sizeof *cm->layers, "layers", err);
    if (!cm->layers || !make_plan(cm, positions, &plan, err) ||
        !check_fits(cm, &plan, layers, err) || !pass_init(cm, err) || !upload_head(cm, report, err))
        return false;
    for (size_t i = cm->place.first_layer; i < c->n_layers; i++)
        if (!upload_layer(cm, i, report, err))
            return false;
    report->layers = layers;
    report->bytes = cm->layer_memory.bytes + cm->head_memory.bytes;
    bool ok = workspaces_init(cm, err);
    cuda_note_peak(cm);
    return ok;
}

bool cuda_place(struct model *m, const struct cuda_options *o, struct cuda_report *report,
                struct error *err) {
    struct cuda_model *cm = memory_alloc(1, sizeof *cm, "model on the GPU", err);
    *report = (struct cuda_report){0};
    if (!cm)
        return false;
    model_detach(m);
    cm->place.device = &device_cuda;
    cm->m = m;
    cm->b = o->backend;
    cm->layer_memory.b = cm->head_memory.b = cm->pass_memory.b = o->backend;
    m->placed = &cm->place;
    bool ok = place(cm, o, report, err);
    if (!ok)
        model_detach(m);
    return ok;
}

static void free_layers(struct cuda_model *cm) {
    for (size_t i = 0; cm->layers && i < cm->m->config.n_layers; i++) {
        struct cuda_layer *l = &cm->layers[i];
        cuda_linear_free(&l->qkv);
        cuda_linear_free(&l->o);
        cuda_linear_free(&l->gate_up);
        cuda_linear_free(&l->down);
    }
    free(cm->layers);
    cm->layers = NULL;
    cuda_arena_free(&cm->layer_memory);
}

void cuda_keep_head(struct model *m) {
    if (!m->placed)
        return;
    free_layers(cuda_model_of(m));
    m->placed->first_layer = m->config.n_layers;
}

void cuda_detach(struct model *m) {
    struct cuda_model *cm = cuda_model_of(m);
    free_layers(cm);
    cuda_linear_free(&cm->head);
    cuda_arena_free(&cm->head_memory);
    cuda_arena_free(&cm->pass_memory);
    if (cm->at_work.host)
        cm->b->release_host(cm->at_work.host);
    if (cm->at_work.host_batch)
        cm->b->release_host(cm->at_work.host_batch);
    cm->b->stream_close(cm->at.stream);
    free(cm->workspaces);
    free(cm);
    m->placed = NULL;
}
