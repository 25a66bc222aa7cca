// A model's GGUF file, written for tests by rules of their own: not by the code that exports.
#ifndef NIBBLE_TESTS_GGUF_MODEL_H
#define NIBBLE_TESTS_GGUF_MODEL_H

#include "core/memory.h"
#include "gguf_bytes.h"
#include "io/json.h"
#include "model/arch.h"
#include "model/model.h"
#include "quant/format.h"

struct gguf_model_writer {
    const struct model *m;
    const char *arch;
    const struct quant_format *format; // of the matrices of the blocks; NULL: as they are
    struct gguf_bytes infos, data;
    uint64_t n_tensors;
};

static inline void model_put(struct gguf_model_writer *w, const char *name, size_t n, size_t k,
                             uint32_t type, const void *data, size_t bytes) {
    put_padding(&w->data, 32);
    put_tensor(&w->infos, name, k ? n : 0, k ? k : n, type, w->data.size);
    put_raw(&w->data, data, bytes);
    w->n_tensors++;
}

static inline const char *model_name(size_t layer, const char *part, const char *suffix) {
    static char name[128];
    if (layer == SIZE_MAX)
        snprintf(name, sizeof name, "%s%s", part, suffix);
    else
        snprintf(name, sizeof name, "blk.%zu.%s%s", layer, part, suffix);
    return name;
}

static inline void model_put_vector(struct gguf_model_writer *w, const char *name, const float *x,
                                    size_t n) {
    if (x)
        model_put(w, name, n, 0, 0, x, n * sizeof *x);
}

static inline void model_put_norm(struct gguf_model_writer *w, size_t layer, const char *part,
                                  const struct norm *n) {
    model_put_vector(w, model_name(layer, part, ".weight"), n->gain, w->m->config.hidden);
    model_put_vector(w, model_name(layer, part, ".bias"), n->bias, w->m->config.hidden);
}

// Row i of a head's D comes from its first half if i is even, from its second if it is odd.
static inline void interleave(char *out, const char *in, size_t rows, size_t d, size_t size) {
    for (size_t head = 0; head < rows; head += d)
        for (size_t pair = 0; pair < d / 2; pair++) {
            memcpy(out + (head + 2 * pair) * size, in + (head + pair) * size, size);
            memcpy(out + (head + 2 * pair + 1) * size, in + (head + d / 2 + pair) * size, size);
        }
}

static inline void model_put_linear(struct gguf_model_writer *w, size_t layer, const char *part,
                                    const struct linear *l) {
    const struct tensor *t = &l->w;
    if (!t->data)
        return;
    const struct quant_format *f = layer < SIZE_MAX && w->format ? w->format : t->format;
    size_t n = t->shape[0], k = t->shape[1], bytes, d = w->m->config.head_dim;
    struct error err = {0};
    cr_assert(f->gguf_type && f->bytes(f, n, k, &bytes));
    float *row = malloc(k * sizeof *row);
    char *data = calloc(1, bytes), *moved = malloc(bytes);
    for (size_t i = 0; i < n; i++) {
        t->format->dequantize_ref(t->format, t->data, n, k, i, 0, k, row);
        cr_assert(f->quantize(f, row, i, 1, n, k, &(struct quant_hints){0}, data, &err), "%s",
                  err.message);
    }
    bool turned = strcmp(w->arch, "llama") == 0 &&
                  (strcmp(part, "attn_q") == 0 || strcmp(part, "attn_k") == 0);
    if (turned)
        interleave(moved, data, n, d, bytes / n);
    model_put(w, model_name(layer, part, ".weight"), n, k, (uint32_t)f->gguf_type - 1,
              turned ? moved : data, bytes);
    if (l->bias && turned)
        interleave(moved, (char *)l->bias, n, d, sizeof(float));
    model_put_vector(w, model_name(layer, part, ".bias"),
                     l->bias && turned ? (float *)(void *)moved : l->bias, n);
    free(row);
    free(data);
    free(moved);
}

// GPT-2's q, k and v lie one after another already.
static inline void model_put_qkv(struct gguf_model_writer *w, size_t i, const struct layer *l) {
    struct linear all = l->q;
    size_t n = l->q.w.shape[0];
    float *bias = malloc(3 * n * sizeof *bias);
    memcpy(bias, l->q.bias, n * sizeof *bias);
    memcpy(bias + n, l->k.bias, n * sizeof *bias);
    memcpy(bias + 2 * n, l->v.bias, n * sizeof *bias);
    all.w.shape[0] = 3 * n;
    all.bias = bias;
    model_put_linear(w, i, "attn_qkv", &all);
    free(bias);
}

static inline void model_put_layer(struct gguf_model_writer *w, size_t i) {
    const struct layer *l = &w->m->layers[i];
    model_put_norm(w, i, "attn_norm", &l->attention_norm);
    model_put_norm(w, i, "ffn_norm", &l->mlp_norm);
    if (w->m->config.arch->fused_qkv) {
        model_put_qkv(w, i, l);
    } else {
        model_put_linear(w, i, "attn_q", &l->q);
        model_put_linear(w, i, "attn_k", &l->k);
        model_put_linear(w, i, "attn_v", &l->v);
    }
    model_put_vector(w, model_name(i, "attn_q_norm", ".weight"), l->q_norm, w->m->config.head_dim);
    model_put_vector(w, model_name(i, "attn_k_norm", ".weight"), l->k_norm, w->m->config.head_dim);
    model_put_linear(w, i, "attn_output", &l->o);
    model_put_linear(w, i, "ffn_gate", &l->gate);
    model_put_linear(w, i, "ffn_up", &l->up);
    model_put_linear(w, i, "ffn_down", &l->down);
}

static inline void model_put_tensors(struct gguf_model_writer *w) {
    const struct model *m = w->m;
    model_put_linear(w, SIZE_MAX, "token_embd", &m->embedding);
    model_put_linear(w, SIZE_MAX, "position_embd", &m->position_embedding);
    if (!m->config.tied)
        model_put_linear(w, SIZE_MAX, "output", &m->head);
    for (size_t i = 0; i < m->config.n_layers; i++)
        model_put_layer(w, i);
    model_put_norm(w, SIZE_MAX, "output_norm", &m->final_norm);
    if (m->config.rope.kind != ROPE_LLAMA3)
        return;
    float factors[CONFIG_MAX_HEAD_DIM];
    size_t d = m->config.head_dim;
    for (size_t i = 0; i < d / 2; i++)
        factors[i] = (float)(pow(m->config.rope.theta, -2.0 * (double)i / (double)d) /
                             (double)m->inv_freq[i]);
    model_put_vector(w, "rope_freqs.weight", factors, d / 2);
}

static inline void model_put_size(struct gguf_bytes *b, const char *arch, const char *name,
                                  size_t value) {
    char key[128];
    snprintf(key, sizeof key, "%s.%s", arch, name);
    put_key_u32(b, key, (uint32_t)value);
}

static inline uint64_t model_put_keys(struct gguf_bytes *b, const char *arch,
                                      const struct model_config *c) {
    char key[128];
    put_key_text(b, "general.architecture", arch);
    model_put_size(b, arch, "block_count", c->n_layers);
    model_put_size(b, arch, "embedding_length", c->hidden);
    model_put_size(b, arch, "feed_forward_length", c->intermediate);
    model_put_size(b, arch, "context_length", c->max_context);
    model_put_size(b, arch, "attention.head_count", c->n_heads);
    model_put_size(b, arch, "attention.head_count_kv", c->n_kv_heads);
    model_put_size(b, arch, "attention.key_length", c->head_dim);
    model_put_size(b, arch, "attention.value_length", c->head_dim);
    model_put_size(b, arch, "attention.sliding_window", c->sliding_window);
    snprintf(key, sizeof key, "%s.attention.%s", arch,
             c->arch->layernorm ? "layer_norm_epsilon" : "layer_norm_rms_epsilon");
    put_key_f32(b, key, c->norm_eps);
    snprintf(key, sizeof key, "%s.rope.freq_base", arch);
    put_key_f32(b, key, (float)c->rope.theta);
    return 12;
}

// The tokenizer.json of the folder as GGUF keys.
static inline uint64_t model_put_tokenizer(struct gguf_bytes *b, const char *folder,
                                           const char *pre, size_t vocab) {
    char path[2048];
    struct error err = {0};
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    cJSON *root = json_parse_file(path, &err);
    cr_assert_not_null(root, "%s", err.message);
    const cJSON *model = json_get(root, "model"), *merges = json_get(model, "merges"), *item;
    const char **tokens = calloc(vocab, sizeof *tokens);
    int32_t *types = calloc(vocab, sizeof *types);
    cJSON_ArrayForEach (item, json_get(model, "vocab")) {
        tokens[(size_t)item->valuedouble] = item->string;
        types[(size_t)item->valuedouble] = 1;
    }
    cJSON_ArrayForEach (item, json_get(root, "added_tokens")) {
        size_t id = (size_t)json_get(item, "id")->valuedouble;
        tokens[id] = json_get(item, "content")->valuestring;
        types[id] = cJSON_IsTrue(json_get(item, "special")) ? 3 : 4;
    }
    put_key_text(b, "tokenizer.ggml.model", "gpt2");
    put_key_text(b, "tokenizer.ggml.pre", pre);
    put_key_array(b, "tokenizer.ggml.tokens", GGUF_STRING, vocab);
    for (size_t i = 0; i < vocab; i++) {
        char unused[32];
        snprintf(unused, sizeof unused, "[PAD%zu]", i);
        put_text(b, tokens[i] ? tokens[i] : unused);
    }
    put_key_array(b, "tokenizer.ggml.token_type", GGUF_I32, vocab);
    for (size_t i = 0; i < vocab; i++)
        put_u32(b, types[i] ? (uint32_t)types[i] : 5);
    put_key_array(b, "tokenizer.ggml.merges", GGUF_STRING, (uint64_t)cJSON_GetArraySize(merges));
    cJSON_ArrayForEach (item, merges) {
        char both[1024];
        if (cJSON_IsArray(item))
            snprintf(both, sizeof both, "%s %s", cJSON_GetArrayItem(item, 0)->valuestring,
                     cJSON_GetArrayItem(item, 1)->valuestring);
        put_text(b, cJSON_IsArray(item) ? both : item->valuestring);
    }
    free(tokens);
    free(types);
    cJSON_Delete(root);
    return 5;
}

// The file's bytes; the caller frees data. pre NULL: without a tokenizer.
static inline struct gguf_bytes gguf_of_model(const struct model *m, const char *folder,
                                              const char *pre, const struct quant_format *format) {
    const char *name = m->config.arch->name;
    struct gguf_model_writer w = {
        .m = m, .arch = strcmp(name, "mistral") == 0 ? "llama" : name, .format = format};
    struct gguf_bytes keys = {0}, file = {0};
    uint64_t n_keys = model_put_keys(&keys, w.arch, &m->config);
    if (pre)
        n_keys += model_put_tokenizer(&keys, folder, pre, m->config.vocab);
    model_put_tensors(&w);
    put_header(&file, GGUF_VERSION, w.n_tensors, n_keys);
    put_raw(&file, keys.data, keys.size);
    put_raw(&file, w.infos.data, w.infos.size);
    put_padding(&file, GGUF_ALIGNMENT);
    put_raw(&file, w.data.data, w.data.size);
    free(keys.data);
    free(w.infos.data);
    free(w.data.data);
    return file;
}

#endif
