#include "train/network.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "train/gemm.h"
#include "train/pages.h"
#include "train/vector.h"

// Logits are made for this many tokens at a time: 8 MiB for a vocabulary of 2048.
enum { HEAD_ROWS = 1024 };

// ---- memory -------------------------------------------------------------------------------------

// Hands out parts of one allocation; a first pass with base NULL only counts.
struct arena {
    float *base;
    size_t used;
    bool overflow;
};

static float *take(struct arena *a, size_t rows, size_t columns) {
    size_t n, at = a->used;
    a->overflow |= !size_mul(rows, columns, &n) || !size_add(n, 15, &n) ||
                   !size_add(a->used, n & ~(size_t)15, &a->used);
    return a->base && !a->overflow ? a->base + at : NULL;
}

static void take_state(struct arena *a, struct block_state *s, const struct train_shape *t,
                       size_t M, float *raw) {
    size_t QKV = (t->n_heads + 2 * t->n_kv_heads) * t->head_dim;
    s->n1 = take(a, M, t->hidden);
    s->r1 = take(a, M, 1);
    s->raw = t->qk_norm ? take(a, M, QKV) : raw;
    s->qkv = take(a, M, QKV);
    s->out = take(a, M, t->n_heads * t->head_dim);
    s->log_sum = take(a, M, t->n_heads);
    s->mid = take(a, M, t->hidden);
    s->n2 = take(a, M, t->hidden);
    s->r2 = take(a, M, 1);
    s->gate_up = take(a, M, 2 * t->intermediate);
}

static void take_all(struct network *net, struct arena *a) {
    const struct train_shape *t = &net->shape;
    struct block_scratch *s = &net->scratch;
    size_t M = net->max_windows * net->context, H = t->hidden, T = net->context;
    size_t Q = t->n_heads * t->head_dim, QKV = Q + 2 * t->n_kv_heads * t->head_dim;
    float *raw = take(a, M, QKV);
    for (size_t layer = 0; layer < t->n_layers; layer++) {
        if (layer == 0 || !net->recompute)
            take_state(a, &net->states[layer], t, M, raw);
        else
            net->states[layer] = net->states[0];
        net->states[layer].x = take(a, M, H);
    }
    s->act = take(a, M, t->intermediate);
    s->dact = take(a, M, t->intermediate);
    s->dn = take(a, M, H);
    s->dout = take(a, M, Q);
    s->dqkv = take(a, M, QKV);
    s->gemm.space = take(a, GEMM_SPACE, 1);
    s->attend = take(a, (size_t)s->attention.n_threads, train_attention_space(&s->attention));
    net->cosine = take(a, T, t->head_dim / 2);
    net->sine = take(a, T, t->head_dim / 2);
    net->x = take(a, M, H);
    net->xn = take(a, M, H);
    net->rn = take(a, M, 1);
    net->dx = take(a, M, H);
    net->logits = take(a, M < HEAD_ROWS ? M : HEAD_ROWS, t->vocab);
    net->losses = take(a, M, 1);
}

static void fill_angles(struct network *net) {
    size_t half = net->shape.head_dim / 2;
    for (size_t p = 0; p < net->context; p++)
        for (size_t i = 0; i < half; i++) {
            double angle = (double)p * pow(net->shape.rope_theta, -(double)i / (double)half);
            net->cosine[p * half + i] = (float)cos(angle);
            net->sine[p * half + i] = (float)sin(angle);
        }
    net->scratch.cosine = net->cosine;
    net->scratch.sine = net->sine;
}

bool network_init(struct network *net, const struct train_shape *shape, size_t n_windows,
                  size_t context, bool recompute, struct error *err) {
    *net = (struct network){.shape = *shape, .max_windows = n_windows, .context = context};
    net->recompute = recompute;
    size_t M;
    if (n_windows == 0 || context == 0 || !size_mul(n_windows, context, &M))
        return error_set(err, "a batch of %zu windows of %zu tokens", n_windows, context);
    net->scratch.shape = *shape;
    net->scratch.attention =
        (struct attention_shape){n_windows,         context,         shape->n_heads,
                                 shape->n_kv_heads, shape->head_dim, omp_get_max_threads()};
    if (!train_params_init(&net->params, shape, err))
        return false;
    size_t n = net->params.total;
    net->states = memory_alloc(shape->n_layers, sizeof *net->states, "layers", err);
    net->values = pages_alloc(n, "weights", err);
    net->grads = pages_alloc(n, "gradients", err);
    net->used = net->values;
    struct arena a = {0};
    if (net->states)
        take_all(net, &a);
    if (net->states && net->values && net->grads && !a.overflow)
        net->memory = pages_alloc(a.used, "activations", err);
    else if (a.overflow)
        error_set(err, "activations of %zu tokens overflow the address space", M);
    if (!net->memory) {
        network_free(net);
        return false;
    }
    a = (struct arena){.base = net->memory};
    take_all(net, &a);
    fill_angles(net);
    return true;
}

void network_allow_bf16(struct network *net) {
    net->scratch.gemm.bf16 = true;
}

void network_free(struct network *net) {
    if (net->used != net->values)
        free(net->used);
    free(net->values);
    free(net->grads);
    free(net->states);
    free(net->memory);
    train_params_free(&net->params);
    *net = (struct network){0};
}

bool network_set_transform(struct network *net, weight_transform *transform, const void *context,
                           struct error *err) {
    if (transform && net->used == net->values) {
        float *used = pages_alloc(net->params.total, "transformed weights", err);
        if (!used)
            return false;
        net->used = used;
    } else if (!transform && net->used != net->values) {
        free(net->used);
        net->used = net->values;
    }
    net->transform = transform;
    net->transform_context = context;
    return true;
}

// ---- forward and backward -----------------------------------------------------------------------

const float *network_weight(const struct network *net, size_t index) {
    return net->used + net->params.list[index].offset;
}

static void transform_weights(struct network *net) {
    for (size_t p = 0; net->transform && p < net->params.n; p++) {
        const struct train_param *param = &net->params.list[p];
        if (param->size)
            net->transform(net->transform_context, param, net->values + param->offset,
                           net->used + param->offset);
    }
}

static void embed(struct network *net, const int32_t *tokens, size_t M, float *x) {
    const float *table = network_weight(net, 0);
    size_t H = net->shape.hidden;
    for (size_t m = 0; m < M; m++)
        memcpy(x + m * H, table + (size_t)tokens[m] * H, H * sizeof *x);
}

// dtable[token] += dx. Tokens repeat, so threads share the columns, not the rows.
static void embed_grad(struct network *net, const int32_t *tokens, size_t M) {
    float *dtable = net->grads + net->params.list[0].offset;
    size_t H = net->shape.hidden, stripe = 64;
#pragma omp parallel for schedule(static) if (M * H >= TRAIN_SHARED)
    for (size_t begin = 0; begin < H; begin += stripe) {
        size_t end = begin + stripe < H ? begin + stripe : H;
        for (size_t m = 0; m < M; m++)
            for (size_t j = begin; j < end; j++)
                dtable[(size_t)tokens[m] * H + j] += net->dx[m * H + j];
    }
}

// Logits = xn headᵀ, the loss, and back to the gradient of xn (in scratch.dn), a part at a time.
static void head_loss(struct network *net, size_t M, loss_function *loss, const void *loss_context,
                      float weight, bool gradients) {
    size_t H = net->shape.hidden, V = net->shape.vocab, index = train_head(&net->params);
    const float *w = network_weight(net, index);
    float *dw = net->grads + net->params.list[index].offset;
    struct gemm_work work = net->scratch.gemm;
    for (size_t first = 0; first < M; first += HEAD_ROWS) {
        size_t n = M - first < HEAD_ROWS ? M - first : HEAD_ROWS;
        struct gemm_view xn = gemm_by_rows(net->xn + first * H, H);
        gemm(n, V, H, xn, gemm_by_columns(w, H), false, net->logits, V, work);
        loss(loss_context, first, n, V, weight, net->logits, net->losses + first);
        if (!gradients)
            continue;
        gemm(V, H, n, gemm_by_columns(net->logits, V), xn, true, dw, H, work);
        gemm(n, H, V, gemm_by_rows(net->logits, V), gemm_by_rows(w, H), false,
             net->scratch.dn + first * H, H, work);
    }
}

static void forward(struct network *net, const int32_t *tokens, size_t M) {
    size_t L = net->shape.n_layers;
    embed(net, tokens, M, net->states[0].x);
    for (size_t layer = 0; layer < L; layer++) {
        struct block_weights w = block_weights_of(&net->params, net->used, layer);
        float *out = layer + 1 < L ? net->states[layer + 1].x : net->x;
        block_forward(out, &w, &net->states[layer], &net->scratch);
    }
    train_rmsnorm(net->xn, net->rn, net->x, network_weight(net, train_final_norm(&net->params)), M,
                  net->shape.hidden, (float)net->shape.norm_eps);
}

static void backward(struct network *net, const int32_t *tokens, size_t M) {
    size_t norm = train_final_norm(&net->params);
    train_rmsnorm_grad(net->dx, net->grads + net->params.list[norm].offset, net->scratch.dn, net->x,
                       net->rn, network_weight(net, norm), M, net->shape.hidden, false);
    for (size_t layer = net->shape.n_layers; layer-- > 0;) {
        struct block_weights w = block_weights_of(&net->params, net->used, layer);
        struct block_weights grads = block_weights_of(&net->params, net->grads, layer);
        if (net->recompute) // states share their memory: the last layer's is what they hold
            block_forward(net->x, &w, &net->states[layer], &net->scratch);
        block_backward(net->dx, &w, &grads, &net->states[layer], &net->scratch);
    }
    embed_grad(net, tokens, M);
}

void network_clear_grads(struct network *net) {
    memset(net->grads, 0, net->params.total * sizeof *net->grads);
}

double network_loss(struct network *net, const int32_t *tokens, size_t n_windows, size_t context,
                    loss_function *loss, const void *loss_context, float weight, bool gradients) {
    size_t M = n_windows * context;
    net->scratch.attention.n_windows = n_windows;
    net->scratch.attention.context = context;
    transform_weights(net);
    forward(net, tokens, M);
    head_loss(net, M, loss, loss_context, weight, gradients);
    if (gradients)
        backward(net, tokens, M);
    double sum = 0.0;
    for (size_t m = 0; m < M; m++)
        sum += net->losses[m];
    return sum * weight;
}
