// The keys are "<architecture>.<name>"; what they leave out is what llama.cpp assumes then.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "model/arch.h"
#include "model/model_gguf.h"

enum { WIDE = 1 << 24 }; // no dimension is larger

struct source {
    const struct gguf *file;
    const struct arch *arch;
    struct error *err;
};

// "llama.block_count"; the buffer is the caller's.
static const char *key_of(const struct source *s, const char *name, char buffer[128]) {
    snprintf(buffer, 128, "%s.%s", s->arch->name, name);
    return buffer;
}

// fallback 0: the key must be there.
static bool read_size(const struct source *s, const char *name, int64_t fallback, int64_t max,
                      size_t *out) {
    char key[128];
    int64_t value = fallback;
    if (!gguf_get_int(s->file, key_of(s, name, key), 1, max, &value, s->err))
        return false;
    if (!value)
        return error_set(s->err, "%s: key '%s' is missing", s->file->path, key);
    *out = (size_t)value;
    return true;
}

static bool read_number(const struct source *s, const char *name, double *out) {
    char key[128];
    return gguf_get_number(s->file, key_of(s, name, key), out, s->err);
}

static bool has_tensor(const struct source *s, const char *name) {
    return gguf_find_tensor(s->file, name) != NULL;
}

// ---- what model it is --------------------------------------------------------------------------

static bool find_arch(struct source *s) {
    struct gguf_string wanted = {0};
    if (!gguf_get_string(s->file, "general.architecture", &wanted, s->err))
        return false;
    for (const struct arch *const *a = archs; *a; a++)
        if (gguf_string_is(wanted, (*a)->name) && strcmp((*a)->name, "mistral") != 0)
            s->arch = *a;
    return s->arch || error_set(s->err,
                                "%s: architecture '%.*s' is not known, expected llama, qwen2, "
                                "qwen3 or gpt2",
                                s->file->path, (int)(wanted.size < 64 ? wanted.size : 64),
                                wanted.text ? wanted.text : "");
}

static bool read_vocab_size(const struct source *s, struct model_config *c) {
    const struct gguf_tensor *t = gguf_find_tensor(s->file, "token_embd.weight");
    if (!t || t->view.n_dims != 2 || !t->view.shape[0] || t->view.shape[0] > WIDE)
        return error_set(s->err, "%s: tensor 'token_embd.weight' is %s, expected [vocabulary, %zu]",
                         s->file->path, t ? "no matrix" : "missing", c->hidden);
    c->vocab = t->view.shape[0];
    return true;
}

static bool read_sizes(const struct source *s, struct model_config *c) {
    if (!read_size(s, "embedding_length", 0, WIDE, &c->hidden) ||
        !read_size(s, "block_count", 0, 4096, &c->n_layers) ||
        !read_size(s, "attention.head_count", 0, 65536, &c->n_heads) ||
        !read_size(s, "feed_forward_length", 0, WIDE, &c->intermediate) ||
        !read_size(s, "context_length", 0, INT32_MAX, &c->max_context))
        return false;
    int64_t heads = (int64_t)c->n_heads, dim = (int64_t)(c->hidden / c->n_heads);
    size_t value_dim = 0;
    if (!read_size(s, "attention.head_count_kv", heads, heads, &c->n_kv_heads) ||
        !read_size(s, "attention.key_length", dim ? dim : 1, CONFIG_MAX_HEAD_DIM, &c->head_dim) ||
        !read_size(s, "attention.value_length", (int64_t)c->head_dim, WIDE, &value_dim))
        return false;
    if (value_dim != c->head_dim)
        return error_set(s->err, "%s: keys of %zu and values of %zu a head, expected the same",
                         s->file->path, c->head_dim, value_dim);
    return read_vocab_size(s, c);
}

static bool read_norm_eps(const struct source *s, struct model_config *c) {
    char key[128];
    double eps = -1;
    const char *name =
        s->arch->layernorm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    if (!gguf_get_number(s->file, key_of(s, name, key), &eps, s->err))
        return false;
    c->norm_eps = (float)eps;
    return (eps >= 0 && eps < 1) || error_set(s->err, "%s: key '%s' is %s", s->file->path, key,
                                              gguf_find(s->file, key) ? "out of range" : "missing");
}

// What the architectures here may have and our forward pass has not.
static bool check_known(const struct source *s) {
    char key[128];
    int64_t experts = 0;
    if (!gguf_get_int(s->file, key_of(s, "expert_count", key), 0, INT32_MAX, &experts, s->err))
        return false;
    return !experts || error_set(s->err, "%s: a mixture of %d experts is not supported",
                                 s->file->path, (int)experts);
}

// The tensors tell; the keys do not.
static void find_biases(const struct source *s, struct model_config *c) {
    c->attention_bias =
        has_tensor(s, s->arch->fused_qkv ? "blk.0.attn_qkv.bias" : "blk.0.attn_q.bias");
    c->output_bias = has_tensor(s, "blk.0.attn_output.bias");
    c->mlp_bias = has_tensor(s, "blk.0.ffn_up.bias");
    c->qk_norm = s->arch->parts[PART_Q_NORM] != NULL;
    c->tied = !has_tensor(s, "output.weight");
}

// ---- positions ---------------------------------------------------------------------------------

// Llama 3's scaling is a vector of what each frequency is divided by.
static bool read_rope_factors(const struct source *s, struct model_config *c) {
    const struct gguf_tensor *t = gguf_find_tensor(s->file, "rope_freqs.weight");
    size_t half = c->head_dim / 2;
    if (!t)
        return true;
    if (t->view.n_dims != 1 || t->view.shape[0] != half || t->view.dtype != DTYPE_F32)
        return error_set(s->err, "%s: tensor 'rope_freqs.weight' is no vector of %zu in F32",
                         s->file->path, half);
    if (!(c->rope.factors = memory_alloc(half, sizeof(float), "rotary factors", s->err)))
        return false;
    memcpy(c->rope.factors, t->view.data, t->view.bytes);
    for (size_t i = 0; i < half; i++)
        if (!(c->rope.factors[i] > 0 && isfinite(c->rope.factors[i])))
            return error_set(s->err,
                             "%s: tensor 'rope_freqs.weight' has %g at %zu, expected more "
                             "than 0",
                             s->file->path, (double)c->rope.factors[i], i);
    return true;
}

static bool read_rope_scaling(const struct source *s, struct rope_config *r) {
    struct gguf_string type = {"linear", 6};
    char key[128];
    double factor = 0;
    if (!gguf_get_string(s->file, key_of(s, "rope.scaling.type", key), &type, s->err) ||
        !read_number(s, "rope.scale_linear", &factor) || // what older files call it
        !read_number(s, "rope.scaling.factor", &factor))
        return false;
    if (gguf_string_is(type, "none"))
        return true;
    if (!gguf_string_is(type, "linear"))
        return error_set(s->err,
                         "%s: rope scaling '%.*s' is not supported, expected none or linear",
                         s->file->path, (int)(type.size < 64 ? type.size : 64), type.text);
    if (!(factor >= 0))
        return error_set(s->err, "%s: the rope scaling factor is %g", s->file->path, factor);
    if (factor != 0 && factor != 1) {
        r->kind = ROPE_LINEAR;
        r->factor = factor;
    }
    return true;
}

static bool read_rope(const struct source *s, struct model_config *c) {
    struct rope_config *r = &c->rope;
    size_t dims = 0;
    *r = (struct rope_config){.kind = ROPE_DEFAULT, .theta = 10000, .factor = 1};
    if (s->arch->position_embedding) {
        r->kind = ROPE_NONE;
        return true;
    }
    if (!read_number(s, "rope.freq_base", &r->theta) || !read_rope_scaling(s, r) ||
        !read_size(s, "rope.dimension_count", (int64_t)c->head_dim, WIDE, &dims))
        return false;
    if (!(r->theta > 0))
        return error_set(s->err, "%s: the rope base is %g", s->file->path, r->theta);
    if (dims != c->head_dim)
        return error_set(s->err,
                         "%s: rotary embedding of %zu of a head's %zu dimensions is not "
                         "supported",
                         s->file->path, dims, c->head_dim);
    return read_rope_factors(s, c);
}

// A window for all layers, or for those that are true in a list of them.
static bool read_window(const struct source *s, struct model_config *c) {
    char key[128];
    int64_t window = 0;
    if (!gguf_get_int(s->file, key_of(s, "attention.sliding_window", key), 0, INT32_MAX, &window,
                      s->err))
        return false;
    c->sliding_window = (size_t)window;
    const struct gguf_value *list =
        gguf_find(s->file, key_of(s, "attention.sliding_window_pattern", key));
    if (!window || !list)
        return true;
    if (!list->is_array || list->type != GGUF_BOOL || list->n != c->n_layers)
        return error_set(s->err, "%s: key '%s' is no array of %zu bool", s->file->path, key,
                         c->n_layers);
    if (!(c->layer_windowed = memory_alloc(c->n_layers, 1, key, s->err)))
        return false;
    for (size_t i = 0; i < c->n_layers; i++)
        c->layer_windowed[i] = list->data[i] != 0;
    return true;
}

// ---- special tokens ----------------------------------------------------------------------------

static void add_eos(struct model_config *c, int64_t id) {
    if (id >= 0 && !model_config_is_eos(c, (int32_t)id) && c->n_eos < CONFIG_MAX_EOS)
        c->eos[c->n_eos++] = (int32_t)id;
}

static bool ends_a_text(struct gguf_string token) {
    static const char *const ends[] = {"<|im_end|>",    "<|endoftext|>",   "<|eot_id|>",
                                       "<|eom_id|>",    "<|end_of_text|>", "<|end|>",
                                       "<end_of_turn>", "<|return|>"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (gguf_string_is(token, ends[i]))
            return true;
    return false;
}

// A file names one or two end tokens; a model may have been taught more.
static bool find_ends(const struct source *s, struct model_config *c) {
    const struct gguf_value *tokens = NULL;
    if (!gguf_get_array(s->file, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, s->err))
        return false;
    const unsigned char *at = tokens ? tokens->data : NULL;
    for (size_t i = 0; tokens && i < tokens->n && i < c->vocab; i++)
        if (ends_a_text(gguf_next_string(&at)))
            add_eos(c, (int64_t)i);
    return true;
}

static bool read_ids(const struct source *s, struct model_config *c) {
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    int64_t bos = -1;
    if (!gguf_get_int(s->file, "tokenizer.ggml.bos_token_id", 0, UINT32_MAX, &bos, s->err))
        return false;
    c->bos = bos < (int64_t)c->vocab ? (int32_t)bos : -1;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        int64_t id = -1; // one outside the vocabulary means none
        if (!gguf_get_int(s->file, ends[i], 0, UINT32_MAX, &id, s->err))
            return false;
        add_eos(c, id < (int64_t)c->vocab ? id : -1);
    }
    return find_ends(s, c);
}

bool model_config_from_gguf(struct model_config *c, const struct gguf *g, struct error *err) {
    struct source s = {.file = g, .err = err};
    *c = (struct model_config){.bos = -1};
    if (!g->n_tensors)
        return error_set(err, "%s: has no tensors, only metadata; expected a model", g->path);
    if (!find_arch(&s))
        return false;
    c->arch = s.arch;
    c->dtype = DTYPE_F16;
    bool ok = check_known(&s) && read_sizes(&s, c) && read_norm_eps(&s, c) && read_rope(&s, c) &&
              model_config_check(c, g->path, err) && read_window(&s, c) && read_ids(&s, c);
    if (!ok) {
        model_config_free(c);
        return false;
    }
    find_biases(&s, c);
    return true;
}
