#include "model/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "io/json.h"
#include "model/arch.h"

// A size under the first of two keys that is there ("hidden_size", or GPT-2's "n_embd").
static bool read_size(const cJSON *json, const char *key, const char *other, int64_t fallback,
                      int64_t max, size_t *out, const char *name, struct error *err) {
    const char *found = json_get(json, key) || !other ? key : other;
    int64_t value = fallback;
    if (!json_get_int(json, found, 1, max, &value, name, err))
        return false;
    if (value < 0)
        return error_set(err, "%s: '%s' is missing", name, key);
    *out = (size_t)value;
    return true;
}

static bool find_arch(struct model_config *c, const cJSON *json, const char *name,
                      struct error *err) {
    const cJSON *first = cJSON_GetArrayItem(json_get(json, "architectures"), 0);
    const char *type = NULL, *wanted = cJSON_IsString(first) ? first->valuestring : NULL;
    if (!json_get_string(json, "model_type", &type, name, err))
        return false;
    for (const struct arch *const *a = archs; *a; a++)
        for (size_t i = 0; i < 2; i++) {
            const char *known = (*a)->architectures[i];
            if (wanted ? known && strcmp(known, wanted) == 0
                       : type && strcmp((*a)->model_type, type) == 0) {
                c->arch = *a;
                return true;
            }
        }
    return error_set(err,
                     "%s: architecture '%s' is not known, expected Qwen2ForCausalLM, "
                     "Qwen3ForCausalLM, LlamaForCausalLM, MistralForCausalLM or GPT2LMHeadModel",
                     name,
                     wanted ? wanted
                     : type ? type
                            : "(none)");
}

static bool read_sizes(struct model_config *c, const cJSON *json, const char *name,
                       struct error *err) {
    const int64_t wide = 1 << 24;
    if (!read_size(json, "hidden_size", "n_embd", -1, wide, &c->hidden, name, err) ||
        !read_size(json, "num_hidden_layers", "n_layer", -1, 4096, &c->n_layers, name, err) ||
        !read_size(json, "num_attention_heads", "n_head", -1, 65536, &c->n_heads, name, err) ||
        !read_size(json, "vocab_size", NULL, -1, wide, &c->vocab, name, err))
        return false;
    int64_t heads = (int64_t)c->n_heads, hidden = (int64_t)c->hidden;
    if (!read_size(json, "num_key_value_heads", NULL, heads, heads, &c->n_kv_heads, name, err) ||
        !read_size(json, "head_dim", NULL, hidden / heads ? hidden / heads : 1, CONFIG_MAX_HEAD_DIM,
                   &c->head_dim, name, err) ||
        !read_size(json, "intermediate_size", "n_inner", 4 * hidden, wide, &c->intermediate, name,
                   err) ||
        !read_size(json, "max_position_embeddings", "n_positions", 2048, wide, &c->max_context,
                   name, err))
        return false;
    return true;
}

static bool read_norm_eps(struct model_config *c, const cJSON *json, const char *name,
                          struct error *err) {
    double eps = c->arch->layernorm ? 1e-5 : 1e-6;
    const char *key = c->arch->layernorm ? "layer_norm_epsilon" : "rms_norm_eps";
    if (!json_get_number(json, key, &eps, name, err))
        return false;
    c->norm_eps = (float)eps;
    return eps >= 0 && eps < 1 ? true : error_set(err, "%s: '%s' is %g", name, key, eps);
}

static bool read_rope_kind(struct rope_config *r, const cJSON *scaling, const char *name,
                           struct error *err) {
    const char *kind = "default";
    if (!json_get_string(scaling, "type", &kind, name, err) ||
        !json_get_string(scaling, "rope_type", &kind, name, err))
        return false;
    r->kind = strcmp(kind, "default") == 0  ? ROPE_DEFAULT
              : strcmp(kind, "linear") == 0 ? ROPE_LINEAR
              : strcmp(kind, "llama3") == 0 ? ROPE_LLAMA3
                                            : ROPE_NONE;
    if (r->kind == ROPE_NONE)
        return error_set(err,
                         "%s: rope scaling '%s' is not supported, expected default, linear or "
                         "llama3",
                         name, kind);
    return true;
}

// rope_theta and rope_scaling, or all of it in rope_parameters (since transformers 5).
static bool read_rope(struct model_config *c, const cJSON *json, const char *name,
                      struct error *err) {
    struct rope_config *r = &c->rope;
    *r = (struct rope_config){.kind = ROPE_DEFAULT, .theta = 10000, .factor = 1};
    const cJSON *parameters = json_get(json, "rope_parameters");
    const cJSON *scaling = parameters ? parameters : json_get(json, "rope_scaling");
    if (!json_get_number(json, "rope_theta", &r->theta, name, err) ||
        !json_get_number(parameters, "rope_theta", &r->theta, name, err) ||
        !read_rope_kind(r, scaling, name, err))
        return false;
    double original = (double)c->max_context;
    r->low_freq_factor = r->high_freq_factor = 0;
    if (!json_get_number(scaling, "factor", &r->factor, name, err) ||
        !json_get_number(scaling, "low_freq_factor", &r->low_freq_factor, name, err) ||
        !json_get_number(scaling, "high_freq_factor", &r->high_freq_factor, name, err) ||
        !json_get_number(scaling, "original_max_position_embeddings", &original, name, err))
        return false;
    r->original_context = original;
    if (!(r->theta > 0) || !(r->factor > 0) ||
        (r->kind == ROPE_LLAMA3 &&
         !(r->low_freq_factor > 0 && r->high_freq_factor > r->low_freq_factor && original > 0)))
        return error_set(err, "%s: the rope parameters are out of range", name);
    return true;
}

static bool read_layer_types(struct model_config *c, const cJSON *types, const char *name,
                             struct error *err) {
    if ((size_t)cJSON_GetArraySize(types) != c->n_layers)
        return error_set(err, "%s: 'layer_types' has %d entries, expected %zu", name,
                         cJSON_GetArraySize(types), c->n_layers);
    c->layer_windowed = memory_alloc(c->n_layers, 1, name, err);
    if (!c->layer_windowed)
        return false;
    const cJSON *type;
    size_t i = 0;
    cJSON_ArrayForEach (type, types) {
        const char *s = cJSON_IsString(type) ? type->valuestring : "?";
        bool windowed = strcmp(s, "sliding_attention") == 0;
        if (!windowed && strcmp(s, "full_attention") != 0)
            return error_set(err, "%s: layer type '%s' is not supported", name, s);
        c->layer_windowed[i++] = windowed;
    }
    return true;
}

static bool read_window(struct model_config *c, const cJSON *json, const char *name,
                        struct error *err) {
    bool use = strcmp(c->arch->model_type, "mistral") == 0; // Qwen has a switch, Llama no window
    int64_t window = 0, from = 0;
    if (!json_get_bool(json, "use_sliding_window", &use, name, err) ||
        !json_get_int(json, "sliding_window", 0, INT32_MAX, &window, name, err) ||
        !json_get_int(json, "max_window_layers", 0, INT32_MAX, &from, name, err))
        return false;
    if (!use || !window)
        return true;
    c->sliding_window = (size_t)window;
    c->window_from_layer = (size_t)from;
    const cJSON *types = json_get(json, "layer_types");
    return !types || read_layer_types(c, types, name, err);
}

static bool add_eos(struct model_config *c, const cJSON *v, const char *name, struct error *err) {
    if (!cJSON_IsNumber(v) || !(v->valuedouble >= 0 && v->valuedouble < (double)(1 << 24)))
        return error_set(err, "%s: 'eos_token_id' is not a token id", name);
    int32_t id = (int32_t)v->valuedouble;
    if (!model_config_is_eos(c, id) && c->n_eos < CONFIG_MAX_EOS)
        c->eos[c->n_eos++] = id;
    return true;
}

// One id or a list of them, in config.json and again in generation_config.json.
static bool read_eos(struct model_config *c, const cJSON *json, const char *name,
                     struct error *err) {
    const cJSON *eos = json_get(json, "eos_token_id"), *one;
    if (!eos)
        return true;
    if (!cJSON_IsArray(eos))
        return add_eos(c, eos, name, err);
    cJSON_ArrayForEach (one, eos) {
        if (!add_eos(c, one, name, err))
            return false;
    }
    return true;
}

static bool read_ids(struct model_config *c, const cJSON *json, const char *name,
                     struct error *err) {
    int64_t bos = -1;
    const char *dtype = "float32";
    if (!json_get_int(json, "bos_token_id", 0, INT32_MAX, &bos, name, err) ||
        !json_get_string(json, "torch_dtype", &dtype, name, err) ||
        !json_get_string(json, "dtype", &dtype, name, err))
        return false;
    c->bos = (int32_t)bos;
    c->dtype = strcmp(dtype, "bfloat16") == 0  ? DTYPE_BF16
               : strcmp(dtype, "float16") == 0 ? DTYPE_F16
                                               : DTYPE_F32;
    return read_eos(c, json, name, err);
}

static bool check_activation(const struct model_config *c, const cJSON *json, const char *name,
                             struct error *err) {
    const char *activation = "silu";
    if (!c->arch->gelu && !json_get_string(json, "hidden_act", &activation, name, err))
        return false;
    if (strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0)
        return error_set(err, "%s: hidden_act is '%s', expected silu", name, activation);
    return true;
}

static bool parse_config(struct model_config *c, const cJSON *json, const char *name,
                         struct error *err) {
    if (!cJSON_IsObject(json))
        return error_set(err, "%s: not a JSON object", name);
    if (!find_arch(c, json, name, err) || !read_sizes(c, json, name, err) ||
        !read_norm_eps(c, json, name, err) || !read_rope(c, json, name, err))
        return false;
    c->tied = c->arch->gelu; // GPT-2 ties unless told otherwise, the others do not
    return json_get_bool(json, "tie_word_embeddings", &c->tied, name, err) &&
           check_activation(c, json, name, err) &&
           (!c->arch->read_config || c->arch->read_config(c, json, name, err)) &&
           model_config_check(c, name, err) && read_window(c, json, name, err) &&
           read_ids(c, json, name, err);
}

bool model_config_parse(struct model_config *c, const char *json, size_t size, const char *name,
                        struct error *err) {
    *c = (struct model_config){.bos = -1};
    cJSON *root = json_parse(json, size, name, err);
    bool ok = root && parse_config(c, root, name, err);
    cJSON_Delete(root);
    if (!ok)
        model_config_free(c);
    return ok;
}

// generation_config.json only adds end tokens (Qwen2.5: both <|im_end|> and <|endoftext|>).
static bool read_generation_config(struct model_config *c, const char *folder, struct error *err) {
    char *path = path_join(folder, "generation_config.json", err);
    bool ok = path != NULL;
    if (ok && file_exists(path)) {
        cJSON *json = json_parse_file(path, err);
        ok = json && read_eos(c, json, path, err);
        cJSON_Delete(json);
    }
    free(path);
    return ok;
}

bool model_config_read(struct model_config *c, const char *folder, struct error *err) {
    *c = (struct model_config){.bos = -1};
    if (!folder_exists(folder))
        return error_set(err, "%s: no such folder", folder);
    char *path = path_join(folder, "config.json", err);
    cJSON *json = path ? json_parse_file(path, err) : NULL;
    bool ok = json && parse_config(c, json, path, err) && read_generation_config(c, folder, err);
    cJSON_Delete(json);
    free(path);
    if (!ok)
        model_config_free(c);
    return ok;
}

bool model_config_check(const struct model_config *c, const char *name, struct error *err) {
    if (c->head_dim > CONFIG_MAX_HEAD_DIM) // where the file leaves it to hidden / heads
        return error_set(err, "%s: a hidden size of %zu in %zu heads, expected at most %d a head",
                         name, c->hidden, c->n_heads, CONFIG_MAX_HEAD_DIM);
    if (c->n_heads % c->n_kv_heads)
        return error_set(err, "%s: %zu attention heads are no multiple of %zu key/value heads",
                         name, c->n_heads, c->n_kv_heads);
    return c->rope.kind == ROPE_NONE || c->head_dim % 2 == 0 ||
           error_set(err, "%s: head_dim is %zu, expected an even number", name, c->head_dim);
}

void model_config_free(struct model_config *c) {
    free(c->layer_windowed);
    free(c->rope.factors);
    c->layer_windowed = NULL;
    c->rope.factors = NULL;
}

bool model_config_is_eos(const struct model_config *c, int32_t token) {
    for (size_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == token)
            return true;
    return false;
}

bool model_config_layer_windowed(const struct model_config *c, size_t layer) {
    if (!c->sliding_window)
        return false;
    return c->layer_windowed ? c->layer_windowed[layer] : layer >= c->window_from_layer;
}
