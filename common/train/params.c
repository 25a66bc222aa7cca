#include "train/shape.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/memory.h"

// Places one parameter behind those before it. columns 0: a vector; present false: size 0.
static bool place(struct train_params *p, struct train_param *param, bool present, size_t rows,
                  size_t columns) {
    param->n_dims = columns ? 2 : 1;
    param->shape[0] = rows;
    param->shape[1] = columns ? columns : 1;
    param->offset = p->total;
    return !present || (size_mul(rows, param->shape[1], &param->size) &&
                        size_add(p->total, param->size, &p->total));
}

static bool place_layer(struct train_params *p, const struct train_shape *s, size_t layer) {
    static const char *const names[TRAIN_LAYER_KINDS] = {"input_layernorm.weight",
                                                         "self_attn.q_proj.weight",
                                                         "self_attn.k_proj.weight",
                                                         "self_attn.v_proj.weight",
                                                         "self_attn.q_proj.bias",
                                                         "self_attn.k_proj.bias",
                                                         "self_attn.v_proj.bias",
                                                         "self_attn.q_norm.weight",
                                                         "self_attn.k_norm.weight",
                                                         "self_attn.o_proj.weight",
                                                         "post_attention_layernorm.weight",
                                                         "mlp.gate_proj.weight",
                                                         "mlp.up_proj.weight",
                                                         "mlp.down_proj.weight"};
    size_t H = s->hidden, I = s->intermediate, D = s->head_dim;
    size_t Q = s->n_heads * D, K = s->n_kv_heads * D;
    const struct {
        bool present;
        size_t rows, columns;
    } sizes[TRAIN_LAYER_KINDS] = {
        [TRAIN_NORM1] = {true, H, 0},
        [TRAIN_Q] = {true, Q, H},
        [TRAIN_K] = {true, K, H},
        [TRAIN_V] = {true, K, H},
        [TRAIN_Q_BIAS] = {s->qkv_bias, Q, 0},
        [TRAIN_K_BIAS] = {s->qkv_bias, K, 0},
        [TRAIN_V_BIAS] = {s->qkv_bias, K, 0},
        [TRAIN_Q_NORM] = {s->qk_norm, D, 0},
        [TRAIN_K_NORM] = {s->qk_norm, D, 0},
        [TRAIN_O] = {true, H, Q},
        [TRAIN_NORM2] = {true, H, 0},
        [TRAIN_GATE] = {true, I, H},
        [TRAIN_UP] = {true, I, H},
        [TRAIN_DOWN] = {true, H, I},
    };
    for (int k = 0; k < TRAIN_LAYER_KINDS; k++) {
        struct train_param *param = &p->list[train_layer_param(layer, (enum train_kind)k)];
        snprintf(param->name, sizeof param->name, "model.layers.%zu.%s", layer, names[k]);
        param->is_residual = k == TRAIN_O || k == TRAIN_DOWN;
        if (!place(p, param, sizes[k].present, sizes[k].rows, sizes[k].columns))
            return false;
    }
    return true;
}

bool train_params_init(struct train_params *p, const struct train_shape *s, struct error *err) {
    *p = (struct train_params){.n = 3 + s->n_layers * TRAIN_LAYER_KINDS};
    p->list = memory_alloc(p->n, sizeof *p->list, "parameters", err);
    if (!p->list)
        return false;
    struct train_param *norm = &p->list[p->n - 2], *head = &p->list[p->n - 1];
    snprintf(p->list[0].name, sizeof p->list[0].name, "model.embed_tokens.weight");
    snprintf(norm->name, sizeof norm->name, "model.norm.weight");
    snprintf(head->name, sizeof head->name, "lm_head.weight");
    bool ok = place(p, &p->list[0], true, s->vocab, s->hidden);
    for (size_t layer = 0; layer < s->n_layers; layer++)
        ok = ok && place_layer(p, s, layer);
    ok = ok && place(p, norm, true, s->hidden, 0) && place(p, head, !s->tied, s->vocab, s->hidden);
    if (!ok) {
        train_params_free(p);
        return error_set(err, "the model's size overflows the address space");
    }
    return true;
}

void train_params_free(struct train_params *p) {
    free(p->list);
    *p = (struct train_params){0};
}
