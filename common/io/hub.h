// Named models: an alias or org/name, found in the Hugging Face cache or downloaded into it.
//
//     <cache>/models--ORG--NAME/blobs/HASH            the bytes, named by their checksum
//                              /refs/main             the commit, 40 hex digits
//                              /snapshots/COMMIT/FILE -> ../../blobs/HASH
//
// https://huggingface.co/docs/hub/local-cache. The cache is $NIBBLE_MODELS, else $HF_HUB_CACHE,
// else $HF_HOME/hub, else ${XDG_CACHE_HOME:-~/.cache}/huggingface/hub. A download goes to
// blobs/HASH.incomplete, resumes with Range, is verified (sha256 of large files, git's sha1 of
// small ones) and only then renamed and linked: nothing half-downloaded is ever used.
#ifndef NIBBLE_IO_HUB_H
#define NIBBLE_IO_HUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

struct hub_alias {
    const char *alias; // "qwen2.5-3b"
    const char *repo;  // "Qwen/Qwen2.5-3B-Instruct"
};
extern const struct hub_alias hub_aliases[];
extern const size_t hub_n_aliases;

// Called now and then while a file is fetched; total is 0 while unknown. done == total at the end.
typedef void hub_progress(void *user, const char *file, uint64_t done, uint64_t total);

// The repository an alias stands for, the name itself if it looks like org/name, else NULL.
const char *hub_repo_of(const char *name);

// The folder of the model's snapshot, downloading what is missing (config, tokenizer, weights; not
// the repository's other formats). Honours HF_ENDPOINT, HF_TOKEN (or $HF_HOME/token) and
// HF_HUB_OFFLINE. A complete snapshot is used as it is, without asking for a newer one. The caller
// frees it. Errors name the URL and the way out (HF_TOKEN for gated models, waiting for 429,
// HF_HUB_OFFLINE).
char *hub_resolve(const char *name, hub_progress *progress, void *user, struct error *err);

#endif
