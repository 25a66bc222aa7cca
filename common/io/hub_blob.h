// One file of the hub, into blobs/HASH: resumed, verified, and only then given its name.
#ifndef NIBBLE_IO_HUB_BLOB_H
#define NIBBLE_IO_HUB_BLOB_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "io/hub.h"
#include "io/hub_cache.h"
#include "io/hub_http.h"

struct hub_blob {
    char hash[HUB_HASH_SIZE];
    uint64_t size; // 0: unknown
};

// What a HEAD's answer promises. The hash comes from X-Linked-Etag (large files: sha256) or ETag
// (small ones: git's sha1 of "blob <size>\0" and the bytes), W/ and quotes taken off.
bool hub_blob_of_reply(const struct hub_reply *reply, const char *url, struct hub_blob *blob,
                       struct error *err);
// The file's bytes have this hash. False with an empty message: they have another.
bool hub_blob_matches(const char *path, const char *hash, struct error *err);
// Downloads url into `path` through "<path>.incomplete", which other runs resume. The caller holds
// the blob's lock.
bool hub_blob_fetch(struct hub_http *http, const char *url, const struct hub_blob *blob,
                    const char *path, const char *file, hub_progress *progress, void *user,
                    struct error *err);

#endif
