// A hub with one small model, org/tiny, whose faults a test chooses. It lists two shards, which it
// serves from another port ("the CDN"), as the real one does.
#ifndef NIBBLE_TESTS_FAKE_HUB_H
#define NIBBLE_TESTS_FAKE_HUB_H

#include "http_server.h"

#define FAKE_COMMIT "0123456789abcdef0123456789abcdef01234567"
#define FAKE_SHARD_1 "model-00001-of-00002.safetensors"
#define FAKE_SHARD_2 "model-00002-of-00002.safetensors"

enum { FAKE_FILES = 16, FAKE_SHARD_SIZE = 300000 };

struct fake_file {
    const char *name;
    char *bytes;
    size_t size;
    bool large;    // lies on the CDN, known by its sha256; else served at once, known by git's sha1
    char hash[65]; // what the hub says it is
};

struct fake_hub {
    struct http_server hub, cdn;
    struct fake_file files[FAKE_FILES];
    size_t n_files;
    const char *fault_path; // where the status below is given; NULL: nowhere
    int fault_status, n_faults;
    const char *fault_headers;
    size_t drop_after; // the CDN hangs up after so many bytes of the file...
    int n_drops;       // ...so many times
    size_t at_most;    // the CDN hangs up after so many bytes of each answer; 0: never
    bool ignore_range; // the CDN answers 200 to any request
    bool lie_about_range;
    bool corrupt; // the CDN changes a byte
    bool relative_redirect, no_size;
    size_t understate;       // X-Linked-Size is so much too small
    const char *redirect_to; // instead of the CDN
    const char *api;         // instead of the list of files
    char folder[64];         // $NIBBLE_MODELS: an own temporary folder
};

// Starts it and points the environment at it.
void fake_hub_start(struct fake_hub *h);
void fake_hub_stop(struct fake_hub *h); // and removes the folder

struct fake_file *fake_hub_put(struct fake_hub *h, const char *name, const char *bytes, size_t size,
                               bool large);
struct fake_file *fake_hub_find(struct fake_hub *h, const char *name);
void fake_hub_remove(struct fake_hub *h, const char *name);

// "<$NIBBLE_MODELS>/models--org--tiny/<rest>" in a static buffer.
const char *fake_hub_cache(struct fake_hub *h, const char *rest);
// Entries of a folder of the cache, . and .. not counted; 0 if it is not there.
size_t fake_hub_entries(struct fake_hub *h, const char *folder);

#endif
