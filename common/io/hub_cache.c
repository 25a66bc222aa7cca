#include "io/hub_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"

const char *hub_env(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

char *hub_home_path(const char *name, struct error *err) {
    if (hub_env("HF_HOME"))
        return path_join(hub_env("HF_HOME"), name, err);
    if (hub_env("XDG_CACHE_HOME"))
        return memory_printf(err, "%s/huggingface/%s", hub_env("XDG_CACHE_HOME"), name);
    if (hub_env("HOME"))
        return memory_printf(err, "%s/.cache/huggingface/%s", hub_env("HOME"), name);
    error_set(err, "no place for models: set NIBBLE_MODELS, HF_HOME or HOME");
    return NULL;
}

static char *cache_root(struct error *err) {
    const char *folder = hub_env("NIBBLE_MODELS");
    folder = folder ? folder : hub_env("HF_HUB_CACHE");
    return folder ? memory_strdup(folder, err) : hub_home_path("hub", err);
}

bool hub_cache_open(struct hub_cache *cache, const char *repo, struct error *err) {
    *cache = (struct hub_cache){0};
    const char *slash = strchr(repo, '/');
    cache->root = cache_root(err);
    if (!cache->root)
        return false;
    int org = (int)(slash - repo);
    const char *name = slash + 1;
    cache->folder = memory_printf(err, "%s/models--%.*s--%s", cache->root, org, repo, name);
    cache->locks = memory_printf(err, "%s/.locks/models--%.*s--%s", cache->root, org, repo, name);
    return cache->folder && cache->locks;
}

void hub_cache_close(struct hub_cache *cache) {
    free(cache->root);
    free(cache->folder);
    free(cache->locks);
    *cache = (struct hub_cache){0};
}

bool hub_is_hash(const char *s, size_t digits) {
    return strlen(s) == digits && strspn(s, "0123456789abcdef") == digits;
}

bool hub_cache_main(const struct hub_cache *cache, char commit[HUB_COMMIT_SIZE]) {
    char *path = path_join(cache->folder, "refs/main", NULL);
    char *text = path ? file_read(path, 64, NULL, NULL) : NULL;
    if (text)
        text[strcspn(text, "\r\n")] = '\0';
    bool ok = text && hub_is_hash(text, HUB_COMMIT_SIZE - 1);
    if (ok)
        memcpy(commit, text, HUB_COMMIT_SIZE);
    free(text);
    free(path);
    return ok;
}

bool hub_cache_set_main(const struct hub_cache *cache, const char *commit, struct error *err) {
    struct file_writer w = {0};
    char *path = path_join(cache->folder, "refs/main", err);
    bool ok = path && folder_create_for(path, err) && file_writer_open(&w, path, err);
    if (ok) {
        fputs(commit, w.stream);
        ok = file_writer_commit(&w, err);
    }
    free(path);
    return ok;
}

char *hub_cache_snapshot(const struct hub_cache *cache, const char *commit, struct error *err) {
    return memory_printf(err, "%s/snapshots/%s", cache->folder, commit);
}

char *hub_cache_blob(const struct hub_cache *cache, const char *hash, struct error *err) {
    return memory_printf(err, "%s/blobs/%s", cache->folder, hash);
}

bool hub_cache_link(const struct hub_cache *cache, const char *commit, const char *file,
                    const char *hash, struct error *err) {
    char *path = memory_printf(err, "%s/snapshots/%s/%s", cache->folder, commit, file);
    char *temporary = path ? memory_printf(err, "%s.tmp.%ld", path, (long)getpid()) : NULL;
    char *target = memory_printf(err, "../../blobs/%s", hash);
    bool ok = path && temporary && target && folder_create_for(path, err);
    if (ok) {
        unlink(temporary); // of a process that had our number and died
        if (symlink(target, temporary) != 0 || rename(temporary, path) != 0) {
            ok = error_set(err, "%s: cannot link: %s", path, strerror(errno));
            unlink(temporary);
        }
    }
    free(target);
    free(temporary);
    free(path);
    return ok;
}

bool hub_cache_lock(const struct hub_cache *cache, const char *hash, int *fd, struct error *err) {
    char *path = memory_printf(err, "%s/%s.lock", cache->locks, hash);
    bool ok = path && folder_create_for(path, err);
    if (ok) {
        *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        int status;
        do
            status = *fd < 0 ? -1 : flock(*fd, LOCK_EX);
        while (status != 0 && errno == EINTR);
        if (status != 0)
            ok = error_set(err, "%s: cannot lock: %s", path, strerror(errno));
        if (!ok && *fd >= 0)
            close(*fd);
    }
    free(path);
    return ok;
}
