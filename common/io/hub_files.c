#include "io/hub_files.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

// Llama-3.1-405B has 191 shards; without a limit, a false index makes the search below quadratic.
enum { MAX_SHARDS = 2000, MAX_NAME = 200 };

static const char *const small_files[] = {
    "config.json",         "generation_config.json",
    "tokenizer.json",      "tokenizer_config.json",
    "vocab.json",          "merges.txt",
    "chat_template.jinja", "special_tokens_map.json",
};

void hub_names_free(struct hub_names *names) {
    for (size_t i = 0; i < names->n; i++)
        free(names->name[i]);
    free(names->name);
    *names = (struct hub_names){0};
}

bool hub_names_have(const struct hub_names *names, const char *name) {
    for (size_t i = names->n; i-- > 0;) // the latest first: an index repeats it hundreds of times
        if (strcmp(names->name[i], name) == 0)
            return true;
    return false;
}

static bool add(struct hub_names *names, const char *name, struct error *err) {
    char **longer = realloc(names->name, (names->n + 1) * sizeof *longer);
    if (!longer)
        return error_set(err, "out of memory for a list of files");
    names->name = longer;
    names->name[names->n] = memory_strdup(name, err);
    return names->name[names->n] && ++names->n;
}

static bool is_listed(const cJSON *listed, const char *name) {
    const cJSON *file;
    cJSON_ArrayForEach (file, listed) {
        const char *listed_name = cJSON_GetStringValue(json_get(file, "rfilename"));
        if (listed_name && strcmp(listed_name, name) == 0)
            return true;
    }
    return false;
}

bool hub_files_choose(const cJSON *listed, const char *repo, struct hub_names *out,
                      struct error *err) {
    for (size_t i = 0; i < sizeof small_files / sizeof *small_files; i++)
        if (is_listed(listed, small_files[i]) && !add(out, small_files[i], err))
            return false;
    const char *weights = is_listed(listed, HUB_SINGLE)  ? HUB_SINGLE
                          : is_listed(listed, HUB_INDEX) ? HUB_INDEX
                                                         : NULL;
    if (!weights)
        return error_set(err, "%s: no %s and no %s in the repository", repo, HUB_SINGLE, HUB_INDEX);
    if (!hub_names_have(out, "config.json"))
        return error_set(err, "%s: no config.json in the repository", repo);
    if (!hub_names_have(out, "tokenizer.json") &&
        !(hub_names_have(out, "vocab.json") && hub_names_have(out, "merges.txt")))
        return error_set(err, "%s: no tokenizer.json, nor vocab.json and merges.txt", repo);
    return add(out, weights, err);
}

// A plain name in the folder: it goes into paths and URLs as it is.
static bool is_plain(const char *name) {
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t n = strlen(name);
    return n > 0 && n <= MAX_NAME && strspn(name, allowed) == n && *name != '.';
}

bool hub_files_shards(const cJSON *index, const char *path, struct hub_names *out,
                      struct error *err) {
    const cJSON *map = json_get(index, "weight_map"), *tensor;
    if (!cJSON_IsObject(map) || !map->child)
        return error_set(err, "%s: no 'weight_map' of tensors to files", path);
    cJSON_ArrayForEach (tensor, map) {
        const char *name = cJSON_GetStringValue(tensor);
        if (!name || !is_plain(name))
            return error_set(err, "%s: '%s' is in '%s', expected a file name", path, tensor->string,
                             name ? name : "(not a string)");
        if (hub_names_have(out, name))
            continue;
        if (out->n == MAX_SHARDS)
            return error_set(err, "%s: more than %d shards", path, MAX_SHARDS);
        if (!add(out, name, err))
            return false;
    }
    return true;
}

bool hub_files_listed(const cJSON *listed, const char *repo, const struct hub_names *names,
                      struct error *err) {
    for (size_t i = 0; i < names->n; i++)
        if (!is_listed(listed, names->name[i]))
            return error_set(err, "%s: %s names '%s', which the repository does not have", repo,
                             HUB_INDEX, names->name[i]);
    return true;
}

bool hub_files_read(const char *name) {
    static const char weights[] = ".safetensors";
    size_t n = strlen(name), suffix = sizeof weights - 1;
    bool known =
        strcmp(name, HUB_INDEX) == 0 || (n > suffix && strcmp(name + n - suffix, weights) == 0);
    for (size_t i = 0; i < sizeof small_files / sizeof *small_files; i++)
        known |= strcmp(name, small_files[i]) == 0;
    return known;
}

static bool has(const char *folder, const char *name) {
    char *path = path_join(folder, name, NULL);
    bool there = path && file_exists(path);
    free(path);
    return there;
}

static bool shards_complete(const char *folder, struct error *err) {
    struct hub_names shards = {0};
    char *path = path_join(folder, HUB_INDEX, err);
    cJSON *index = path ? json_parse_file(path, err) : NULL;
    bool ok = index && hub_files_shards(index, path, &shards, err);
    for (size_t i = 0; i < shards.n && ok; i++)
        if (!has(folder, shards.name[i]))
            ok = error_set(err, "%s: no %s", folder, shards.name[i]);
    cJSON_Delete(index);
    hub_names_free(&shards);
    free(path);
    return ok;
}

bool hub_files_complete(const char *folder, struct error *err) {
    if (!has(folder, "config.json"))
        return error_set(err, "%s: no config.json", folder);
    if (!has(folder, "tokenizer.json") && !(has(folder, "vocab.json") && has(folder, "merges.txt")))
        return error_set(err, "%s: no tokenizer.json, nor vocab.json and merges.txt", folder);
    if (has(folder, HUB_SINGLE))
        return true;
    if (!has(folder, HUB_INDEX))
        return error_set(err, "%s: no %s and no %s", folder, HUB_SINGLE, HUB_INDEX);
    return shards_complete(folder, err);
}
