#include "train/shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "io/json.h"

// Larger than anything this trainer will meet, small enough that products of two stay far from
// 2^64.
enum { MAX_SIZE = 1 << 20, MAX_LAYERS = 1024 };

struct size_key {
    const char *key;
    size_t *out;
    int64_t max;
};

static bool read_sizes(const cJSON *json, const struct size_key *keys, size_t n, const char *path,
                       struct error *err) {
    for (size_t i = 0; i < n; i++) {
        int64_t value = (int64_t)*keys[i].out;
        if (!json_get_int(json, keys[i].key, 1, keys[i].max, &value, path, err))
            return false;
        if (value == 0)
            return error_set(err, "%s: '%s' is missing", path, keys[i].key);
        *keys[i].out = (size_t)value;
    }
    return true;
}

static bool read_shape(struct train_shape *s, const cJSON *json, const char *path,
                       struct error *err) {
    struct size_key keys[] = {{"hidden_size", &s->hidden, MAX_SIZE},
                              {"intermediate_size", &s->intermediate, MAX_SIZE},
                              {"num_hidden_layers", &s->n_layers, MAX_LAYERS},
                              {"num_attention_heads", &s->n_heads, MAX_SIZE},
                              {"vocab_size", &s->vocab, MAX_SIZE}};
    s->max_context = 512;
    struct size_key optional[] = {{"num_key_value_heads", &s->n_kv_heads, MAX_SIZE},
                                  {"head_dim", &s->head_dim, 1024},
                                  {"max_position_embeddings", &s->max_context, MAX_SIZE}};
    const char *type = "qwen2";
    if (!read_sizes(json, keys, sizeof keys / sizeof *keys, path, err))
        return false;
    s->n_kv_heads = s->n_heads;
    s->head_dim = s->hidden / s->n_heads ? s->hidden / s->n_heads : 1;
    s->norm_eps = 1e-6;
    s->rope_theta = 10000.0;
    s->tied = true;
    s->eos = -1;
    const cJSON *rope = json_get(json, "rope_parameters");
    if (!read_sizes(json, optional, sizeof optional / sizeof *optional, path, err) ||
        !json_get_string(json, "model_type", &type, path, err) ||
        !json_get_number(json, "rms_norm_eps", &s->norm_eps, path, err) ||
        !json_get_number(json, "rope_theta", &s->rope_theta, path, err) ||
        !json_get_number(rope, "rope_theta", &s->rope_theta, path, err) ||
        !json_get_int(json, "eos_token_id", 0, MAX_SIZE, &s->eos, path, err) ||
        !json_get_bool(json, "tie_word_embeddings", &s->tied, path, err))
        return false;
    s->qk_norm = strcmp(type, "qwen3") == 0;
    s->qkv_bias = !s->qk_norm;
    if (s->qkv_bias && strcmp(type, "qwen2") != 0)
        return error_set(err, "%s: 'model_type' is '%s', expected qwen2 or qwen3", path, type);
    if (s->n_heads % s->n_kv_heads || s->head_dim % 2)
        return error_set(err,
                         "%s: %zu heads of %zu for %zu key/value heads: expected an even head "
                         "size and a whole number of heads for each",
                         path, s->n_heads, s->head_dim, s->n_kv_heads);
    if (!(s->norm_eps > 0 && s->norm_eps < 1) || !(s->rope_theta >= 1 && s->rope_theta < 1e12))
        return error_set(err, "%s: rms_norm_eps %g or rope_theta %g is out of range", path,
                         s->norm_eps, s->rope_theta);
    return true;
}

bool train_shape_read(struct train_shape *s, const char *path, struct error *err) {
    memset(s, 0, sizeof *s);
    cJSON *json = json_parse_file(path, err);
    bool ok = json && read_shape(s, json, path, err);
    cJSON_Delete(json);
    return ok;
}

bool train_shape_write(const struct train_shape *s, const char *path, struct error *err) {
    struct file_writer w;
    if (!file_writer_open(&w, path, err))
        return false;
    const char *type = s->qk_norm ? "qwen3" : "qwen2";
    fprintf(w.stream, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n",
            s->qk_norm ? "Qwen3ForCausalLM" : "Qwen2ForCausalLM", type);
    fprintf(w.stream, "  \"hidden_size\": %zu,\n  \"intermediate_size\": %zu,\n", s->hidden,
            s->intermediate);
    fprintf(w.stream, "  \"num_hidden_layers\": %zu,\n  \"num_attention_heads\": %zu,\n",
            s->n_layers, s->n_heads);
    fprintf(w.stream, "  \"num_key_value_heads\": %zu,\n  \"head_dim\": %zu,\n", s->n_kv_heads,
            s->head_dim);
    fprintf(w.stream, "  \"vocab_size\": %zu,\n  \"max_position_embeddings\": %zu,\n", s->vocab,
            s->max_context);
    fprintf(w.stream, "  \"hidden_act\": \"silu\",\n  \"rms_norm_eps\": %g,\n", s->norm_eps);
    // Both spellings: before and since transformers 5.
    fprintf(w.stream, "  \"rope_theta\": %.1f,\n  \"rope_scaling\": null,\n", s->rope_theta);
    fprintf(w.stream,
            "  \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": %.1f},\n",
            s->rope_theta);
    fprintf(w.stream, "  \"torch_dtype\": \"bfloat16\",\n  \"dtype\": \"bfloat16\",\n");
    if (s->qk_norm)
        fprintf(w.stream, "  \"attention_bias\": false,\n");
    fprintf(w.stream, "  \"attention_dropout\": 0.0,\n  \"initializer_range\": 0.02,\n");
    fprintf(w.stream, "  \"use_sliding_window\": false,\n  \"sliding_window\": null,\n");
    fprintf(w.stream, "  \"tie_word_embeddings\": %s,\n  \"use_cache\": true,\n",
            s->tied ? "true" : "false");
    fprintf(w.stream, "  \"bos_token_id\": null,\n");
    if (s->eos >= 0)
        fprintf(w.stream, "  \"eos_token_id\": %lld\n}\n", (long long)s->eos);
    else
        fprintf(w.stream, "  \"eos_token_id\": null\n}\n");
    return file_writer_commit(&w, err);
}
