#include "io/hub.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"
#include "io/hub_blob.h"
#include "io/hub_cache.h"
#include "io/hub_files.h"
#include "io/hub_http.h"
#include "io/json.h"

const struct hub_alias hub_aliases[] = {
    {"qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B-Instruct"},
    {"qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B-Instruct"},
    {"qwen2.5-3b", "Qwen/Qwen2.5-3B-Instruct"},
    {"qwen2.5-7b", "Qwen/Qwen2.5-7B-Instruct"},
    {"qwen3-0.6b", "Qwen/Qwen3-0.6B"},
    {"qwen3-1.7b", "Qwen/Qwen3-1.7B"},
    {"qwen3-4b", "Qwen/Qwen3-4B"},
    {"qwen3-8b", "Qwen/Qwen3-8B"},
    {"llama-3.2-1b", "meta-llama/Llama-3.2-1B-Instruct"},
    {"llama-3.2-3b", "meta-llama/Llama-3.2-3B-Instruct"},
    {"llama-3.2-1b-instruct", "meta-llama/Llama-3.2-1B-Instruct"},
    {"llama-3.2-3b-instruct", "meta-llama/Llama-3.2-3B-Instruct"},
    {"llama-3.1-8b", "meta-llama/Llama-3.1-8B-Instruct"},
    {"llama-2-7b", "meta-llama/Llama-2-7b-chat-hf"},
    {"mistral-7b", "mistralai/Mistral-7B-Instruct-v0.3"},
    {"gpt2", "openai-community/gpt2"},
    {"gpt2-medium", "openai-community/gpt2-medium"},
    {"gpt2-large", "openai-community/gpt2-large"},
    {"gpt2-xl", "openai-community/gpt2-xl"},
    {"tinyllama", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"},
    {"smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"},
    {"smollm2-360m", "HuggingFaceTB/SmolLM2-360M-Instruct"},
    {"smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct"},
};
const size_t hub_n_aliases = sizeof hub_aliases / sizeof *hub_aliases;

// The hub's own rule: letters, digits, '.', '_' and '-', but no ".." or "--" (which separates the
// organization in the cache's folder names), and neither '.' nor '-' at an end.
static bool is_name(const char *s, size_t n) {
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    if (n == 0 || n > 96 || strchr(".-", s[0]) || strchr(".-", s[n - 1]))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!strchr(allowed, s[i]) || (i > 0 && s[i] == s[i - 1] && strchr(".-", s[i])))
            return false;
    return true;
}

const char *hub_repo_of(const char *name) {
    for (size_t i = 0; i < hub_n_aliases; i++)
        if (strcasecmp(name, hub_aliases[i].alias) == 0)
            return hub_aliases[i].repo;
    const char *slash = strchr(name, '/');
    bool ok =
        slash && is_name(name, (size_t)(slash - name)) && is_name(slash + 1, strlen(slash + 1));
    return ok ? name : NULL;
}

static char *unknown(const char *name, struct error *err) {
    char known[640] = "";
    for (size_t i = 0, n = 0; i < hub_n_aliases && n < sizeof known; i++)
        n += (size_t)snprintf(known + n, sizeof known - n, ", %s", hub_aliases[i].alias);
    error_set(err, "model '%.100s': neither a folder, a file, org/name nor one of%s", name,
              known + 1);
    return NULL;
}

static bool is_offline(void) {
    const char *value = getenv("HF_HUB_OFFLINE");
    static const char *const yes[] = {"1", "true", "yes", "on"};
    for (size_t i = 0; value && i < sizeof yes / sizeof *yes; i++)
        if (strcasecmp(value, yes[i]) == 0)
            return true;
    return false;
}

// One download, from the repository's list of files to the reference that makes them usable.
struct job {
    const char *repo;
    struct hub_cache cache;
    struct hub_http http;
    cJSON *api; // GET /api/models/ORG/NAME/revision/main
    const cJSON *listed;
    char commit[HUB_COMMIT_SIZE];
    hub_progress *progress;
    void *user;
};

static bool ask_for_list(struct job *j, struct error *err) {
    size_t size;
    const char *commit = NULL;
    char *url = memory_printf(err, "%s/api/models/%s/revision/main", j->http.endpoint, j->repo);
    char *text = url ? hub_http_get_text(&j->http, url, (size_t)64 << 20, &size, err) : NULL;
    if (text)
        j->api = json_parse(text, size, url, err);
    j->listed = json_get(j->api, "siblings");
    bool ok = j->api && json_get_string(j->api, "sha", &commit, url, err);
    if (ok && (!commit || !hub_is_hash(commit, HUB_COMMIT_SIZE - 1) || !cJSON_IsArray(j->listed)))
        ok = error_set(err, "%s: no 'sha' of 40 hex digits and list of 'siblings'", url);
    if (ok)
        memcpy(j->commit, commit, HUB_COMMIT_SIZE);
    free(text);
    free(url);
    return ok;
}

// Large or small, the blob is there under its verified hash when this returns true.
static bool fetch_blob(struct job *j, const char *file, const char *url,
                       const struct hub_blob *blob, struct error *err) {
    char *path = hub_cache_blob(&j->cache, blob->hash, err);
    int lock = -1;
    bool ok =
        path && folder_create_for(path, err) && hub_cache_lock(&j->cache, blob->hash, &lock, err);
    if (ok) {
        struct stat st; // only now: another process may have just finished it
        bool there = stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
                     (blob->size == 0 || (uint64_t)st.st_size == blob->size);
        ok = there || hub_blob_fetch(&j->http, url, blob, path, file, j->progress, j->user, err);
        close(lock);
    }
    free(path);
    return ok;
}

static bool fetch_file(struct job *j, const char *folder, const char *file, struct error *err) {
    struct hub_reply reply;
    struct hub_blob blob;
    char *url = NULL, *path = path_join(folder, file, err);
    bool ok = path != NULL;
    if (ok && !file_exists(path)) { // a snapshot's files never change
        url = memory_printf(err, "%s/%s/resolve/%s/%s", j->http.endpoint, j->repo, j->commit, file);
        ok = url && hub_http_head(&j->http, url, &reply, err) &&
             hub_blob_of_reply(&reply, url, &blob, err) && fetch_blob(j, file, url, &blob, err) &&
             hub_cache_link(&j->cache, j->commit, file, blob.hash, err);
    }
    free(path);
    free(url);
    return ok;
}

static bool fetch_files(struct job *j, const char *folder, const struct hub_names *names,
                        struct error *err) {
    for (size_t i = 0; i < names->n; i++)
        if (!fetch_file(j, folder, names->name[i], err))
            return false;
    return true;
}

static bool fetch_shards(struct job *j, const char *folder, struct error *err) {
    struct hub_names shards = {0};
    char *path = path_join(folder, HUB_INDEX, err);
    cJSON *index = path ? json_parse_file(path, err) : NULL;
    bool ok = index && hub_files_shards(index, path, &shards, err) &&
              hub_files_listed(j->listed, j->repo, &shards, err) &&
              fetch_files(j, folder, &shards, err);
    cJSON_Delete(index);
    hub_names_free(&shards);
    free(path);
    return ok;
}

static char *download(struct job *j, struct error *err) {
    struct hub_names names = {0};
    char *folder = NULL;
    bool ok = hub_http_open(&j->http, j->repo, err) && ask_for_list(j, err) &&
              hub_files_choose(j->listed, j->repo, &names, err) &&
              (folder = hub_cache_snapshot(&j->cache, j->commit, err)) &&
              fetch_files(j, folder, &names, err) &&
              (!hub_names_have(&names, HUB_INDEX) || fetch_shards(j, folder, err)) &&
              hub_files_complete(folder, err) && hub_cache_set_main(&j->cache, j->commit, err);
    hub_names_free(&names);
    cJSON_Delete(j->api);
    hub_http_close(&j->http);
    if (ok)
        return folder;
    free(folder);
    return NULL;
}

// The snapshot that refs/main points to, if it is whole; else why is filled.
static char *cached(const struct hub_cache *cache, struct error *why) {
    char commit[HUB_COMMIT_SIZE];
    if (!hub_cache_main(cache, commit)) {
        error_set(why, "%s: nothing there", cache->folder);
        return NULL;
    }
    char *folder = hub_cache_snapshot(cache, commit, why);
    if (folder && hub_files_complete(folder, why))
        return folder;
    free(folder);
    return NULL;
}

char *hub_resolve(const char *name, hub_progress *progress, void *user, struct error *err) {
    struct job job = {.repo = hub_repo_of(name), .progress = progress, .user = user};
    if (!job.repo)
        return unknown(name, err);
    char *folder = NULL;
    struct error why = {0};
    if (hub_cache_open(&job.cache, job.repo, err)) {
        folder = cached(&job.cache, &why);
        if (!folder && is_offline())
            error_set(err, "%s; HF_HUB_OFFLINE is set: unset it to download %s", why.message,
                      job.repo);
        else if (!folder)
            folder = download(&job, err);
    }
    hub_cache_close(&job.cache);
    return folder;
}
