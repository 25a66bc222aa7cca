// From a checkpoint's folder to a tokenizer.
#include "text/tokenizer_internal.h"

#include "core/file.h"
#include "core/memory.h"
#include "text/tokenizer_gguf.h"

enum { MAX_FILE = 256 << 20 };

// ---- vocab.json and merges.txt, made into the tokenizer.json they amount to

#define BYTE_LEVEL(regex)                                                                          \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": " regex "}"
#define REST "\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {}}"

// Only these two families shipped the pair without a tokenizer.json.
static const struct {
    const char *class, *json;
} recipes[] = {
    {"GPT2Tokenizer", "{\"pre_tokenizer\": " BYTE_LEVEL("true") ", " REST},
    {"Qwen2Tokenizer",
     "{\"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"Sequence\", "
     "\"pretokenizers\": [{\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": "
     "{\"Regex\": \"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
     "\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|"
     "\\\\s+(?!\\\\S)|\\\\s+\"}}, " BYTE_LEVEL("false") "]}, " REST},
};

// The class that tokenizer_config.json names, with or without "Fast"; GPT-2's if it names none.
static const char *recipe_for(const cJSON *config, const char *name, struct error *err) {
    const char *class = cJSON_GetStringValue(json_get(config, "tokenizer_class"));
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        size_t n = strlen(recipes[i].class);
        if (!class || strncmp(class, recipes[i].class, n) == 0)
            return recipes[i].json;
    }
    error_set(err,
              "%s: tokenizer_class '%s' without a tokenizer.json, expected GPT2Tokenizer or "
              "Qwen2Tokenizer",
              name, class);
    return NULL;
}

static cJSON *read_merges_txt(const char *path, struct error *err) {
    size_t size;
    char *text = file_read(path, MAX_FILE, &size, err), *rest = NULL;
    cJSON *list = text ? cJSON_CreateArray() : NULL;
    for (char *line = text ? strtok_r(text, "\r\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\r\n", &rest))
        if (strncmp(line, "#version", 8) != 0)
            cJSON_AddItemToArray(list, cJSON_CreateString(line));
    free(text);
    return list;
}

// {"50256": {"content": …}} in tokenizer_config.json; without it GPT-2's one special token.
static cJSON *old_added_tokens(const cJSON *config, const cJSON *vocab) {
    cJSON *list = cJSON_CreateArray();
    const cJSON *known = json_get(config, "added_tokens_decoder"), *item;
    if (!cJSON_IsObject(known)) // a list has no keys, which are the ids
        known = NULL;
    cJSON_ArrayForEach (item, known) {
        cJSON *token = cJSON_Duplicate(item, true);
        cJSON_AddNumberToObject(token, "id", strtod(item->string, NULL));
        cJSON_AddItemToArray(list, token);
    }
    const cJSON *id = json_get(vocab, "<|endoftext|>");
    if (!known && cJSON_IsNumber(id)) {
        cJSON *token = cJSON_CreateObject();
        cJSON_AddNumberToObject(token, "id", id->valuedouble);
        cJSON_AddStringToObject(token, "content", "<|endoftext|>");
        cJSON_AddBoolToObject(token, "normalized", false);
        cJSON_AddBoolToObject(token, "special", true);
        cJSON_AddItemToArray(list, token);
    }
    return list;
}

static cJSON *read_pair(const char *vocab_path, const char *merges_path, const cJSON *config,
                        struct error *err) {
    const char *recipe = recipe_for(config, vocab_path, err);
    cJSON *vocab = recipe ? json_parse_file(vocab_path, err) : NULL;
    cJSON *merges = vocab ? read_merges_txt(merges_path, err) : NULL;
    cJSON *root = merges ? json_parse(recipe, strlen(recipe), vocab_path, err) : NULL;
    if (!root) {
        cJSON_Delete(vocab);
        cJSON_Delete(merges);
        return NULL;
    }
    cJSON *model = cJSON_GetObjectItem(root, "model");
    cJSON_AddItemToObject(root, "added_tokens", old_added_tokens(config, vocab));
    cJSON_AddItemToObject(model, "vocab", vocab);
    cJSON_AddItemToObject(model, "merges", merges);
    return root;
}

// ---- the folder

struct folder {
    char *tokenizer, *config, *vocab, *merges, *template;
};

static bool folder_paths(struct folder *f, const char *folder, struct error *err) {
    f->tokenizer = path_join(folder, "tokenizer.json", err);
    f->config = path_join(folder, "tokenizer_config.json", err);
    f->vocab = path_join(folder, "vocab.json", err);
    f->merges = path_join(folder, "merges.txt", err);
    f->template = path_join(folder, "chat_template.jinja", err);
    return f->tokenizer && f->config && f->vocab && f->merges && f->template;
}

static void folder_free(struct folder *f) {
    free(f->tokenizer);
    free(f->config);
    free(f->vocab);
    free(f->merges);
    free(f->template);
}

static struct tokenizer *load(const struct folder *f, const char *folder, const cJSON *config,
                              struct error *err) {
    cJSON *root = NULL;
    const char *name = f->tokenizer;
    if (file_exists(f->tokenizer)) {
        root = json_parse_file(f->tokenizer, err);
    } else if (file_exists(f->vocab) && file_exists(f->merges)) {
        root = read_pair(f->vocab, f->merges, config, err);
        name = f->vocab;
    } else {
        error_set(err, "%s: no tokenizer.json, nor vocab.json and merges.txt", folder);
    }
    struct tokenizer *t = root ? tokenizer_build(root, config, name, err) : NULL;
    cJSON_Delete(root);
    if (!t || !file_exists(f->template))
        return t;
    free(t->chat_template); // the file of its own is the newer form
    t->chat_template = file_read(f->template, MAX_FILE, NULL, err);
    if (t->chat_template)
        return t;
    tokenizer_free(t);
    return NULL;
}

static struct tokenizer *load_file(const char *path, struct error *err) {
    struct gguf g;
    if (!gguf_open(&g, path, err))
        return NULL;
    struct tokenizer *t = tokenizer_from_gguf(&g, err);
    gguf_close(&g);
    return t;
}

struct tokenizer *tokenizer_load(const char *path, struct error *err) {
    if (file_exists(path))
        return load_file(path, err);
    struct folder f = {0};
    struct tokenizer *t = NULL;
    cJSON *config = NULL;
    if (folder_paths(&f, path, err) &&
        (!file_exists(f.config) || (config = json_parse_file(f.config, err))))
        t = load(&f, path, config, err);
    cJSON_Delete(config);
    folder_free(&f);
    return t;
}
