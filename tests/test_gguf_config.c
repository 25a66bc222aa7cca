// model/config_gguf, model/model_gguf: what the keys say, what they leave out, and what is refused.
#include <criterion/criterion.h>
#include <stdio.h>

#include "gguf_bytes.h"
#include "model/arch.h"
#include "model/model.h"
#include "temp.h"

// A llama of one layer: 64 wide, 4 heads of 16, 2 of keys and values, 96 in the MLP, 10 tokens.
enum { H = 64, HEADS = 4, KV = 2, D = 16, INNER = 96, VOCAB = 10 };

struct tiny {
    const char *arch;
    const char *without; // this key or tensor is left out
    const char *tensor;  // one more, [64, 64] …
    uint32_t type;       // … of this type
    uint64_t empty_rows; // … or of so many rows of no weights
    struct gguf_bytes keys;
    uint64_t n_keys;
};

static void key_u32(struct tiny *t, const char *name, uint32_t value) {
    char key[128];
    if (t->without && strcmp(t->without, name) == 0)
        return;
    snprintf(key, sizeof key, "%s.%s", t->arch, name);
    put_key_u32(&t->keys, key, value);
    t->n_keys++;
}

static const struct {
    const char *name;
    uint64_t rows, columns;
} tensors[] = {{"token_embd.weight", VOCAB, H},      {"output_norm.weight", 0, H},
               {"blk.0.attn_norm.weight", 0, H},     {"blk.0.ffn_norm.weight", 0, H},
               {"blk.0.attn_q.weight", HEADS *D, H}, {"blk.0.attn_k.weight", KV *D, H},
               {"blk.0.attn_v.weight", KV *D, H},    {"blk.0.attn_output.weight", H, HEADS *D},
               {"blk.0.ffn_gate.weight", INNER, H},  {"blk.0.ffn_up.weight", INNER, H},
               {"blk.0.ffn_down.weight", H, INNER}};

static size_t bytes_in_file(uint64_t rows, uint64_t columns, uint32_t type) {
    const struct gguf_type *t = gguf_type_of(type);
    return (rows ? rows : 1) * columns / t->block_weights * t->block_bytes;
}

static void put_one(struct gguf_bytes *infos, struct gguf_bytes *data, const char *name,
                    uint64_t rows, uint64_t columns, uint32_t type) {
    put_padding(data, 32);
    put_tensor(infos, name, rows, columns, type, data->size);
    put_zeros(data, bytes_in_file(rows, columns, type));
}

// The file; t->keys may hold more keys.
static struct gguf_bytes tiny_file(struct tiny *t) {
    struct gguf_bytes b = {0}, infos = {0}, data = {0};
    uint64_t n = 0;
    if (!t->arch)
        t->arch = "llama";
    put_key_text(&t->keys, "general.architecture", t->arch);
    t->n_keys++;
    key_u32(t, "block_count", 1);
    key_u32(t, "embedding_length", H);
    key_u32(t, "context_length", 128);
    key_u32(t, "feed_forward_length", INNER);
    key_u32(t, "attention.head_count", HEADS);
    key_u32(t, "attention.head_count_kv", KV);
    char eps[128];
    snprintf(eps, sizeof eps, "%s.attention.layer_norm_rms_epsilon", t->arch);
    if (!t->without || !strstr(eps, t->without))
        put_key_f32(&t->keys, eps, 1e-5f), t->n_keys++;
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        if (!t->without || strcmp(t->without, tensors[i].name) != 0)
            put_one(&infos, &data, tensors[i].name, tensors[i].rows, tensors[i].columns, 0), n++;
    if (t->empty_rows)
        put_one(&infos, &data, t->tensor, t->empty_rows, 0, t->type), n++;
    else if (t->tensor)
        put_one(&infos, &data, t->tensor, H, t->type == 0 ? H : 256, t->type), n++;
    put_header(&b, 3, n, t->n_keys);
    put_raw(&b, t->keys.data, t->keys.size);
    put_raw(&b, infos.data, infos.size);
    put_padding(&b, 32);
    put_raw(&b, data.data, data.size);
    free(t->keys.data);
    free(infos.data);
    free(data.data);
    return b;
}

static struct model *tiny_model(struct tiny t, struct error *err) {
    struct gguf_bytes b = tiny_file(&t);
    const char *path = temp_file("tiny.gguf", b.data, b.size);
    free(b.data);
    return model_load(path, err);
}

static struct model *loaded(struct tiny t) {
    struct error err = {0};
    struct model *m = tiny_model(t, &err);
    cr_assert_not_null(m, "%s", err.message);
    return m;
}

static void expect_refused(struct tiny t, const char *part) {
    struct error err = {0};
    cr_assert_null(tiny_model(t, &err), "%s", part);
    cr_assert(strstr(err.message, part), "'%s' lacks '%s'", err.message, part);
    cr_assert(strstr(err.message, "/tiny.gguf: "), "%s", err.message);
}

Test(gguf_config, sizes_and_defaults) {
    struct model *m = loaded((struct tiny){0});
    const struct model_config *c = &m->config;
    cr_assert_str_eq(c->arch->name, "llama");
    cr_assert(c->hidden == H && c->n_layers == 1 && c->n_heads == HEADS && c->n_kv_heads == KV);
    cr_assert(c->intermediate == INNER && c->max_context == 128 && c->vocab == VOCAB);
    cr_assert(c->head_dim == D && c->norm_eps == 1e-5f && c->tied && c->bos == -1);
    cr_assert(c->rope.kind == ROPE_DEFAULT && c->rope.theta == 10000 && !c->rope.factors);
    cr_assert(!c->attention_bias && !c->output_bias && !c->mlp_bias && !c->qk_norm);
    cr_assert(c->sliding_window == 0 && c->n_eos == 0);
    model_free(m);
    // As many key/value heads as heads: here the tensors say otherwise.
    expect_refused(
        (struct tiny){.without = "attention.head_count_kv"},
        "tensor 'model.layers.0.self_attn.k_proj.weight' is [32, 64], expected [64, 64]");
}

// One more key in a tiny file.
static struct tiny with_u32(const char *key, uint32_t value) {
    struct tiny t = {.n_keys = 1};
    put_key_u32(&t.keys, key, value);
    return t;
}

static struct tiny with_f32(const char *key, float value) {
    struct tiny t = {.n_keys = 1};
    put_key_f32(&t.keys, key, value);
    return t;
}

static struct tiny with_text(const char *key, const char *value) {
    struct tiny t = {.n_keys = 1};
    put_key_text(&t.keys, key, value);
    return t;
}

Test(gguf_config, missing_keys_are_named) {
    static const char *const keys[] = {"block_count",          "embedding_length",
                                       "context_length",       "feed_forward_length",
                                       "attention.head_count", "attention.layer_norm_rms_epsilon"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char message[128];
        snprintf(message, sizeof message, "key 'llama.%s' is missing", keys[i]);
        expect_refused((struct tiny){.without = keys[i]}, message);
    }
}

Test(gguf_config, other_architectures_are_refused) {
    expect_refused((struct tiny){.arch = "phi3"},
                   "architecture 'phi3' is not known, expected llama, qwen2, qwen3 or gpt2");
    expect_refused((struct tiny){.arch = "mistral"}, "architecture 'mistral' is not known");
    expect_refused(with_u32("llama.expert_count", 8), "a mixture of 8 experts is not supported");
}

Test(gguf_config, heads_are_checked) {
    expect_refused(with_u32("llama.attention.key_length", 32), "[64, 64], expected [128, 64]");
    expect_refused(with_u32("llama.attention.value_length", 8),
                   "keys of 16 and values of 8 a head");
    expect_refused(with_u32("llama.attention.key_length", 4096), "is out of range");
    expect_refused(with_u32("llama.rope.dimension_count", 8),
                   "rotary embedding of 8 of a head's 16 dimensions is not supported");
    struct tiny t = {.without = "attention.head_count_kv", .n_keys = 1};
    put_key_u32(&t.keys, "llama.attention.head_count_kv", 3);
    expect_refused(t, "4 attention heads are no multiple of 3 key/value heads");
}

Test(gguf_config, a_number_for_every_layer_may_stand_for_one) {
    struct tiny t = {.without = "feed_forward_length", .n_keys = 1};
    put_key_array(&t.keys, "llama.feed_forward_length", GGUF_I32, 1);
    put_u32(&t.keys, INNER);
    struct model *m = loaded(t);
    cr_assert_eq(m->config.intermediate, INNER);
    model_free(m);
}

Test(gguf_config, rope_scaling) {
    struct tiny t = with_text("llama.rope.scaling.type", "linear");
    put_key_f32(&t.keys, "llama.rope.scaling.factor", 4);
    put_key_f32(&t.keys, "llama.rope.freq_base", 500000);
    t.n_keys += 2;
    struct model *m = loaded(t);
    cr_assert(m->config.rope.kind == ROPE_LINEAR && m->config.rope.factor == 4);
    cr_assert_float_eq(m->inv_freq[0], 0.25, 1e-7);
    cr_assert_float_eq(m->inv_freq[1], 0.25 * 0.1939224, 1e-6); // 500000^(-1/8)
    model_free(m);
    m = loaded(with_f32("llama.rope.scale_linear", 2));
    cr_assert(m->config.rope.kind == ROPE_LINEAR && m->config.rope.factor == 2);
    model_free(m);
    t = with_text("llama.rope.scaling.type", "none");
    put_key_f32(&t.keys, "llama.rope.scaling.factor", 4);
    t.n_keys++;
    m = loaded(t);
    cr_assert_eq(m->config.rope.kind, ROPE_DEFAULT);
    model_free(m);
    expect_refused(with_text("llama.rope.scaling.type", "yarn"),
                   "rope scaling 'yarn' is not supported, expected none or linear");
    expect_refused(with_f32("llama.rope.scaling.factor", -1), "the rope scaling factor is -1");
    expect_refused(with_f32("llama.rope.freq_base", 0), "the rope base is 0");
    expect_refused((struct tiny){.tensor = "rope_freqs.weight"}, "is no vector of 8 in F32");
}

Test(gguf_config, windows) {
    struct model *m = loaded(with_u32("llama.attention.sliding_window", 32));
    cr_assert(m->config.sliding_window == 32 && model_config_layer_windowed(&m->config, 0));
    model_free(m);
    struct tiny t = with_u32("llama.attention.sliding_window", 32);
    put_key_array(&t.keys, "llama.attention.sliding_window_pattern", GGUF_BOOL, 1);
    put_number(&t.keys, 0, 1);
    t.n_keys++;
    m = loaded(t);
    cr_assert_not(model_config_layer_windowed(&m->config, 0));
    model_free(m);
    t = with_u32("llama.attention.sliding_window", 32);
    put_key_array(&t.keys, "llama.attention.sliding_window_pattern", GGUF_BOOL, 2);
    put_number(&t.keys, 0, 2);
    t.n_keys++;
    expect_refused(t, "key 'llama.attention.sliding_window_pattern' is no array of 1 bool");
}

// By id, and by what the tokens are called: chat models were taught more ends than a file names.
Test(gguf_config, every_end_of_a_text_is_known) {
    struct tiny t = with_u32("tokenizer.ggml.eos_token_id", 2);
    put_key_u32(&t.keys, "tokenizer.ggml.eot_token_id", 99); // outside the vocabulary
    put_key_u32(&t.keys, "tokenizer.ggml.bos_token_id", 1);
    put_key_array(&t.keys, "tokenizer.ggml.tokens", GGUF_STRING, VOCAB);
    for (int i = 0; i < VOCAB; i++)
        put_text(&t.keys, i == 7 ? "<|im_end|>" : "x");
    t.n_keys += 3;
    struct model *m = loaded(t);
    cr_assert(m->config.n_eos == 2 && m->config.bos == 1);
    cr_assert(model_config_is_eos(&m->config, 2) && model_config_is_eos(&m->config, 7));
    model_free(m);
}

Test(gguf_config, tensors_decide_what_the_model_has) {
    struct model *m = loaded((struct tiny){0});
    cr_assert(m->config.tied && m->head.w.data == m->embedding.w.data);
    cr_assert_str_eq(m->layers[0].q.w.name, "model.layers.0.self_attn.q_proj.weight");
    cr_assert_str_eq(m->embedding.w.name, "model.embed_tokens.weight");
    model_free(m);
    expect_refused((struct tiny){.tensor = "output.weight"},
                   "tensor 'lm_head.weight' is [64, 64], expected [10, 64]");
    expect_refused((struct tiny){.tensor = "blk.0.attn_q.bias"},
                   "tensor 'model.layers.0.self_attn.q_proj.bias' is [64, 64], expected [64]");
}

Test(gguf_config, tensors_that_are_missing_or_too_many_are_named) {
    expect_refused((struct tiny){.without = "blk.0.ffn_up.weight"},
                   "tensor 'model.layers.0.mlp.up_proj.weight' is missing, expected [96, 64]");
    expect_refused((struct tiny){.without = "token_embd.weight"},
                   "tensor 'token_embd.weight' is missing");
    static const char *const strange[] = {
        "blk.0.ffn_gate_inp.weight", "blk.1.attn_q.weight", "blk.00.attn_q.weight",
        "blk.0.attn_qkv.weight",     "blk.0.attn_q.scale",  "blk.0.attn_q_norm.weight",
        "position_embd.weight",      "blk.x.attn_q.weight", "blk.-1.attn_q.weight"};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        char message[128];
        snprintf(message, sizeof message, "tensor '%s' is none of a llama model's with 1 layers",
                 strange[i]);
        expect_refused((struct tiny){.tensor = strange[i]}, message);
    }
}

// Whether there are biases is told by one matrix (of q, k and v by q): one without that is not
// lost.
Test(gguf_config, tensors_that_belong_to_nothing_are_named) {
    static const char *const lonely[][2] = {
        {"blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias"},
        {"blk.0.ffn_down.bias", "model.layers.0.mlp.down_proj.bias"},
        {"blk.0.attn_norm.bias", "model.layers.0.input_layernorm.bias"},
        {"output.bias", "lm_head.bias"}};
    for (size_t i = 0; i < 4; i++) {
        char message[128];
        snprintf(message, sizeof message,
                 "tensor '%s' would be ignored: this model computes without it", lonely[i][1]);
        expect_refused((struct tiny){.tensor = lonely[i][0]}, message);
    }
}

// q's rows are moved one by one: 2^60 of them would take years.
Test(gguf_config, tensors_without_weights_are_named, .timeout = 60) {
    expect_refused((struct tiny){.without = "blk.0.attn_q.weight",
                                 .tensor = "blk.0.attn_q.weight",
                                 .empty_rows = 1ull << 60},
                   "tensor 'blk.0.attn_q.weight' has no weights");
}

Test(gguf_config, types_that_are_not_supported_are_named) {
    expect_refused((struct tiny){.without = "blk.0.ffn_up.weight",
                                 .tensor = "blk.0.ffn_up.weight",
                                 .type = 16},
                   "tensor 'blk.0.ffn_up.weight' is of type IQ2_XXS, which is not supported");
    expect_refused(
        (struct tiny){.without = "output_norm.weight", .tensor = "output_norm.weight", .type = 12},
        "expected [64]");
}
