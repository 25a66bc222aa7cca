#include "model/arch.h"

#include <string.h>

// Llama's names, which Mistral, Qwen2 and Qwen3 kept.
#define LLAMA_NAMES                                                                                \
    .prefixes = {"model.", ""}, .embedding = "embed_tokens", .final_norm = "norm",                 \
    .head = "lm_head", .layer = "layers"
#define LLAMA_PARTS                                                                                \
    [PART_ATTENTION_NORM] = "input_layernorm", [PART_Q] = "self_attn.q_proj",                      \
    [PART_K] = "self_attn.k_proj", [PART_V] = "self_attn.v_proj", [PART_O] = "self_attn.o_proj",   \
    [PART_MLP_NORM] = "post_attention_layernorm", [PART_GATE] = "mlp.gate_proj",                   \
    [PART_UP] = "mlp.up_proj", [PART_DOWN] = "mlp.down_proj"

static bool read_llama(struct model_config *c, const cJSON *json, const char *name,
                       struct error *err) {
    bool attention_bias = false;
    if (!json_get_bool(json, "attention_bias", &attention_bias, name, err) ||
        !json_get_bool(json, "mlp_bias", &c->mlp_bias, name, err))
        return false;
    c->attention_bias = c->output_bias = attention_bias;
    return true;
}

static bool read_qwen2(struct model_config *c, const cJSON *json, const char *name,
                       struct error *err) {
    (void)json, (void)name, (void)err;
    c->attention_bias = true; // q, k and v; never o
    return true;
}

static bool read_qwen3(struct model_config *c, const cJSON *json, const char *name,
                       struct error *err) {
    if (!json_get(json, "head_dim"))
        c->head_dim = 128; // not hidden / heads: the class's own default
    c->qk_norm = true;
    return read_llama(c, json, name, err);
}

static bool read_gpt2(struct model_config *c, const cJSON *json, const char *name,
                      struct error *err) {
    const char *activation = "gelu_new";
    if (!json_get_string(json, "activation_function", &activation, name, err))
        return false;
    if (strcmp(activation, "gelu_new") != 0 && strcmp(activation, "gelu_pytorch_tanh") != 0)
        return error_set(err, "%s: activation_function is '%s', expected gelu_new", name,
                         activation);
    bool inverse = false, scaled = true;
    if (!json_get_bool(json, "scale_attn_weights", &scaled, name, err) ||
        !json_get_bool(json, "scale_attn_by_inverse_layer_idx", &inverse, name, err))
        return false;
    if (!scaled || inverse)
        return error_set(err, "%s: attention scaled by layer, or not at all, is not supported",
                         name);
    c->attention_bias = c->output_bias = c->mlp_bias = true;
    c->rope.kind = ROPE_NONE;
    return true;
}

static const struct arch arch_qwen2 = {
    .name = "qwen2",
    .architectures = {"Qwen2ForCausalLM"},
    .model_type = "qwen2",
    LLAMA_NAMES,
    .parts = {LLAMA_PARTS},
    .read_config = read_qwen2,
};

static const struct arch arch_qwen3 = {
    .name = "qwen3",
    .architectures = {"Qwen3ForCausalLM"},
    .model_type = "qwen3",
    LLAMA_NAMES,
    .parts = {LLAMA_PARTS, [PART_Q_NORM] = "self_attn.q_norm", [PART_K_NORM] = "self_attn.k_norm"},
    .read_config = read_qwen3,
};

static const struct arch arch_llama = {
    .name = "llama",
    .architectures = {"LlamaForCausalLM"},
    .model_type = "llama",
    LLAMA_NAMES,
    .parts = {LLAMA_PARTS},
    .read_config = read_llama,
};

static const struct arch arch_mistral = {
    .name = "mistral",
    .architectures = {"MistralForCausalLM"},
    .model_type = "mistral",
    LLAMA_NAMES,
    .parts = {LLAMA_PARTS},
};

static const struct arch arch_gpt2 = {
    .name = "gpt2",
    .architectures = {"GPT2LMHeadModel"},
    .model_type = "gpt2",
    .prefixes = {"transformer.", ""},
    .embedding = "wte",
    .position_embedding = "wpe",
    .final_norm = "ln_f",
    .head = "lm_head",
    .layer = "h",
    .parts = {[PART_ATTENTION_NORM] = "ln_1",
              [PART_Q] = "attn.c_attn",
              [PART_O] = "attn.c_proj",
              [PART_MLP_NORM] = "ln_2",
              [PART_UP] = "mlp.c_fc",
              [PART_DOWN] = "mlp.c_proj"},
    .fused_qkv = true,
    .transposed = true,
    .layernorm = true,
    .gelu = true,
    .read_config = read_gpt2,
};

const struct arch *const archs[] = {&arch_qwen2,   &arch_qwen3, &arch_llama,
                                    &arch_mistral, &arch_gpt2,  NULL};
