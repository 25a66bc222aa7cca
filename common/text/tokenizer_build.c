// From JSON to a tokenizer: the parts in the order they need each other.
#include "text/tokenizer_internal.h"

#include "core/memory.h"

static bool normalize_content(const struct tokenizer *t, const char *content, char **out,
                              struct error *err) {
    struct bytes text = {0}, next = {0};
    struct pattern_match match = {0};
    bool ok = bytes_append(&text, content, strlen(content), err) && pattern_match_init(&match, err);
    for (size_t i = 0; ok && i < t->n_normalizers; i++) {
        next.size = 0;
        ok = normalizer_apply(&t->normalizers[i], &match, text.data, text.size, &next, err);
        struct bytes swap = text;
        text = next, next = swap;
    }
    ok = ok && bytes_append(&text, "", 1, err);
    pattern_match_free(&match);
    bytes_free(&next);
    *out = text.data;
    return ok;
}

static bool read_flags(struct added_token *token, const cJSON *item, const char *name,
                       struct error *err) {
    return json_get_bool(item, "special", &token->special, name, err) &&
           json_get_bool(item, "single_word", &token->single_word, name, err) &&
           json_get_bool(item, "lstrip", &token->lstrip, name, err) &&
           json_get_bool(item, "rstrip", &token->rstrip, name, err) &&
           json_get_bool(item, "normalized", &token->normalized, name, err);
}

// A token that the model knows has the model's id; for others the file's is right.
static bool read_added_token(struct tokenizer *t, const cJSON *item, const char *name,
                             struct error *err) {
    const char *content = NULL;
    int64_t id = -1;
    if (!json_get_string(item, "content", &content, name, err) ||
        !json_get_int(item, "id", 0, VOCAB_MAX_ID, &id, name, err))
        return false;
    if (!content || id < 0)
        return error_set(err, "%s: an added token has no '%s'", name, content ? "id" : "content");
    if (!*content)
        return true;
    size_t size = strlen(content);
    int32_t known = vocab_find(&t->vocab, content, size);
    struct added_token *token = &t->added[t->n_added];
    *token = (struct added_token){.id = known >= 0 ? known : (int32_t)id, .normalized = true};
    if (!read_flags(token, item, name, err) ||
        !vocab_put(&t->added_ids, content, size, token->id, err))
        return false;
    t->n_added++;
    bool ok = token->normalized ? normalize_content(t, content, &token->content, err)
                                : (token->content = memory_strdup(content, err)) != NULL;
    struct token_set *set = token->normalized ? &t->after : &t->before;
    return ok && (!*token->content || token_set_put(set, token->content, strlen(token->content),
                                                    (uint32_t)t->n_added - 1, err));
}

static bool read_added_tokens(struct tokenizer *t, const cJSON *root, const char *name,
                              struct error *err) {
    const cJSON *list = json_get(root, "added_tokens"), *item;
    if (!list)
        return true;
    if (!cJSON_IsArray(list))
        return error_set(err, "%s: 'added_tokens' is not a list", name);
    t->added =
        memory_alloc((size_t)cJSON_GetArraySize(list), sizeof *t->added, "added tokens", err);
    if (!t->added)
        return false;
    cJSON_ArrayForEach (item, list)
        if (!read_added_token(t, item, name, err))
            return false;
    t->added_by_id = memory_alloc(t->added_ids.size, sizeof *t->added_by_id, "added tokens", err);
    for (size_t i = 0; t->added_by_id && i < t->n_added; i++)
        t->added_by_id[t->added[i].id] = (uint32_t)i + 1;
    return t->added_by_id;
}

// bos_token and eos_token are a string or an added token's object.
static const char *config_token(const cJSON *config, const char *key) {
    const cJSON *token = json_get(config, key);
    return cJSON_GetStringValue(cJSON_IsObject(token) ? json_get(token, "content") : token);
}

// A string, or a list of {name, template} of which "default" (else the first) is for chat.
static const char *config_template(const cJSON *config) {
    const cJSON *value = json_get(config, "chat_template"), *item;
    const char *found = NULL;
    if (!cJSON_IsArray(value))
        return cJSON_GetStringValue(value);
    cJSON_ArrayForEach (item, value) {
        const char *name = cJSON_GetStringValue(json_get(item, "name"));
        const char *text = cJSON_GetStringValue(json_get(item, "template"));
        if (text && (!found || (name && strcmp(name, "default") == 0)))
            found = text;
    }
    return found;
}

static bool read_config(struct tokenizer *t, const cJSON *config, const char *name,
                        struct error *err) {
    if (!config)
        return true;
    const char *bos = config_token(config, "bos_token"), *eos = config_token(config, "eos_token");
    const char *template = config_template(config);
    const char *pad = config_token(config, "pad_token");
    t->eos = eos ? tokenizer_id(t, eos) : -1;
    t->pad = pad ? tokenizer_id(t, pad) : -1;
    // Where the configuration says it, it overrules the post-processor.
    bool add_bos = false;
    if (!json_get_bool(config, "add_bos_token", &add_bos, name, err))
        return false;
    if (json_get(config, "add_bos_token"))
        t->bos = add_bos && bos ? tokenizer_id(t, bos) : -1;
    if ((bos && !(t->bos_text = memory_strdup(bos, err))) ||
        (eos && !(t->eos_text = memory_strdup(eos, err))))
        return false;
    return !template || (t->chat_template = memory_strdup(template, err));
}

struct tokenizer *tokenizer_build(const cJSON *root, const cJSON *config, const char *name,
                                  struct error *err) {
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        error_set(err, "%s: out of memory", name);
        return NULL;
    }
    t->bos = t->eos = t->pad = t->unk = -1;
    if (tokenizer_read_normalizer(t, json_get(root, "normalizer"), name, err) &&
        tokenizer_read_splitter(t, json_get(root, "pre_tokenizer"), name, err) &&
        tokenizer_read_decoder(t, json_get(root, "decoder"), name, err) &&
        tokenizer_read_model(t, json_get(root, "model"), name, err) &&
        tokenizer_read_processor(t, json_get(root, "post_processor"), name, err) &&
        read_added_tokens(t, root, name, err) && read_config(t, config, name, err))
        return t;
    tokenizer_free(t);
    return NULL;
}

struct tokenizer *tokenizer_parse(const char *json, size_t size, const char *config_json,
                                  size_t config_size, const char *name, struct error *err) {
    struct tokenizer *t = NULL;
    cJSON *root = json_parse(json, size, name, err), *config = NULL;
    if (root && (!config_json || (config = json_parse(config_json, config_size, name, err))))
        t = tokenizer_build(root, config, name, err);
    cJSON_Delete(root);
    cJSON_Delete(config);
    return t;
}
