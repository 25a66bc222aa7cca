// The folder of one repository in the Hugging Face cache (see io/hub.h for its shape), shared with
// other programs: their downloads are found, ours are found by them.
#ifndef NIBBLE_IO_HUB_CACHE_H
#define NIBBLE_IO_HUB_CACHE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

enum { HUB_COMMIT_SIZE = 41, HUB_HASH_SIZE = 65 }; // with the NUL

struct hub_cache {
    char *root;
    char *folder; // <root>/models--ORG--NAME
    char *locks;  // <root>/.locks/models--ORG--NAME
};

// Touches no file. Close also after a failed open.
bool hub_cache_open(struct hub_cache *cache, const char *repo, struct error *err);
void hub_cache_close(struct hub_cache *cache);

// An environment variable; NULL where it is unset or empty.
const char *hub_env(const char *name);
// "name" in $HF_HOME, else ${XDG_CACHE_HOME:-~/.cache}/huggingface. The caller frees it; NULL with
// a message without any of them.
char *hub_home_path(const char *name, struct error *err);

// 40 (git's sha1) or 64 (sha256) lower-case hex digits.
bool hub_is_hash(const char *s, size_t digits);

// What refs/main says; false if it says nothing usable.
bool hub_cache_main(const struct hub_cache *cache, char commit[HUB_COMMIT_SIZE]);
bool hub_cache_set_main(const struct hub_cache *cache, const char *commit, struct error *err);

// Paths, which the caller frees.
char *hub_cache_snapshot(const struct hub_cache *cache, const char *commit, struct error *err);
char *hub_cache_blob(const struct hub_cache *cache, const char *hash, struct error *err);

// snapshots/COMMIT/FILE -> ../../blobs/HASH, replacing what was there.
bool hub_cache_link(const struct hub_cache *cache, const char *commit, const char *file,
                    const char *hash, struct error *err);

// Waits until no other process holds this blob's lock; released by closing *fd.
bool hub_cache_lock(const struct hub_cache *cache, const char *hash, int *fd, struct error *err);

#endif
