#include "train/shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "model/arch.h"
#include "model/config.h"

enum { LARGEST_CONFIG = 1 << 20 };

// What the forward pass can run but the backward pass does not know is refused, not left out.
static bool check_config(const struct model_config *c, const char *path, struct error *err) {
    bool qwen2 = strcmp(c->arch->name, "qwen2") == 0, qwen3 = strcmp(c->arch->name, "qwen3") == 0;
    if (!qwen2 && !qwen3)
        return error_set(err, "%s: architecture '%s', expected qwen2 or qwen3", path,
                         c->arch->name);
    if (c->rope.kind != ROPE_DEFAULT || c->sliding_window || c->output_bias || c->mlp_bias)
        return error_set(
            err, "%s: rope scaling, sliding windows and biases beyond Qwen2's are not trained",
            path);
    if (!(c->norm_eps > 0) || c->rope.theta < 1 || c->rope.theta >= 1e12)
        return error_set(err, "%s: rms_norm_eps %g or rope_theta %g is out of range", path,
                         (double)c->norm_eps, c->rope.theta);
    return true;
}

bool train_shape_read(struct train_shape *s, const char *path, struct error *err) {
    struct model_config c;
    size_t size;
    char *json = file_read(path, LARGEST_CONFIG, &size, err);
    bool ok = json && model_config_parse(&c, json, size, path, err);
    free(json);
    if (!ok)
        return false;
    *s = (struct train_shape){
        .hidden = c.hidden,
        .intermediate = c.intermediate,
        .n_layers = c.n_layers,
        .n_heads = c.n_heads,
        .n_kv_heads = c.n_kv_heads,
        .head_dim = c.head_dim,
        .vocab = c.vocab,
        .max_context = c.max_context,
        .norm_eps = (double)c.norm_eps,
        .rope_theta = c.rope.theta,
        .qkv_bias = c.attention_bias,
        .qk_norm = c.qk_norm,
        .tied = c.tied,
        .eos = c.n_eos ? c.eos[0] : -1,
    };
    ok = check_config(&c, path, err);
    model_config_free(&c);
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
