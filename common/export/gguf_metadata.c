// What a GGUF file says about the model itself.
#include <stdio.h>
#include <string.h>

#include "export/gguf_export.h"
#include "model/arch.h"

enum { QUANTIZATION_VERSION = 2 }; // of ggml's blocks

// "qwen2.attention.head_count"; valid until the next call.
static const char *key(const struct gguf_plan *plan, const char *name) {
    static _Thread_local char text[96];
    snprintf(text, sizeof text, "%s.%s", plan->arch, name);
    return text;
}

static void put_rope(struct gguf_writer *w, const struct gguf_plan *plan) {
    const struct model_config *c = &plan->model->config;
    if (c->rope.kind == ROPE_NONE)
        return;
    gguf_put_u32(w, key(plan, "rope.dimension_count"), (uint32_t)c->head_dim);
    gguf_put_f32(w, key(plan, "rope.freq_base"), (float)c->rope.theta);
    if (c->rope.kind != ROPE_LINEAR) // llama3's factors are a tensor
        return;
    gguf_put_string(w, key(plan, "rope.scaling.type"), "linear");
    gguf_put_f32(w, key(plan, "rope.scaling.factor"), (float)c->rope.factor);
}

// llama.cpp has no window for these architectures and ignores the keys; we read them back.
static void put_window(struct gguf_writer *w, const struct gguf_plan *plan) {
    const struct model_config *c = &plan->model->config;
    uint8_t windowed[4096];
    bool all = true;
    if (!c->sliding_window)
        return;
    for (size_t i = 0; i < c->n_layers; i++)
        all &= windowed[i] = model_config_layer_windowed(c, i);
    gguf_put_u32(w, key(plan, "attention.sliding_window"), (uint32_t)c->sliding_window);
    if (!all)
        gguf_put_bool_array(w, key(plan, "attention.sliding_window_pattern"), windowed,
                            c->n_layers);
}

static void put_shape(struct gguf_writer *w, const struct gguf_plan *plan) {
    const struct model_config *c = &plan->model->config;
    gguf_put_u32(w, key(plan, "block_count"), (uint32_t)c->n_layers);
    gguf_put_u32(w, key(plan, "context_length"), (uint32_t)c->max_context);
    gguf_put_u32(w, key(plan, "embedding_length"), (uint32_t)c->hidden);
    gguf_put_u32(w, key(plan, "feed_forward_length"), (uint32_t)c->intermediate);
    gguf_put_u32(w, key(plan, "vocab_size"), (uint32_t)c->vocab);
    gguf_put_u32(w, key(plan, "attention.head_count"), (uint32_t)c->n_heads);
    gguf_put_u32(w, key(plan, "attention.head_count_kv"), (uint32_t)c->n_kv_heads);
    gguf_put_u32(w, key(plan, "attention.key_length"), (uint32_t)c->head_dim);
    gguf_put_u32(w, key(plan, "attention.value_length"), (uint32_t)c->head_dim);
    gguf_put_f32(w,
                 key(plan, c->arch->layernorm ? "attention.layer_norm_epsilon"
                                              : "attention.layer_norm_rms_epsilon"),
                 c->norm_eps);
}

// What depends on how the file is quantized.
static void put_types(struct gguf_writer *w, const struct gguf_plan *plan) {
    gguf_put_u32(w, "general.file_type", plan->file_type);
    gguf_put_u32(w, "general.quantization_version", QUANTIZATION_VERSION);
}

static bool is_written_anew(const char *name) {
    return strcmp(name, "general.file_type") == 0 ||
           strcmp(name, "general.quantization_version") == 0 ||
           strcmp(name, "general.alignment") == 0 || strncmp(name, "split.", 6) == 0;
}

void gguf_put_same(struct gguf_writer *w, const struct gguf_plan *plan, const struct gguf *from) {
    for (size_t i = 0; i < from->n_keys; i++)
        if (!is_written_anew(from->keys[i].name))
            gguf_put_value(w, from->keys[i].name, &from->keys[i].value);
    put_types(w, plan);
}

void gguf_put_model(struct gguf_writer *w, const struct gguf_plan *plan, const char *name) {
    gguf_put_string(w, "general.architecture", plan->arch);
    gguf_put_string(w, "general.type", "model");
    gguf_put_string(w, "general.name", name);
    put_types(w, plan);
    put_shape(w, plan);
    put_rope(w, plan);
    put_window(w, plan);
}
