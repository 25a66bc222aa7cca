// HTTP for io/hub, through libcurl: retries, resuming, and a token that never leaves its host.
//
// Redirects are followed here rather than by libcurl, so that which host gets the token and which
// protocols are allowed does not depend on libcurl's version. TLS certificates are verified.
//     dropped connection, 5xx   again after 1/4 s, 1/2 s, 1 s, 2 s; progress starts the count anew
//     429                       again after Retry-After, at most a minute, 5 times
//     anything else             an error that names the URL and the way out
#ifndef NIBBLE_IO_HUB_HTTP_H
#define NIBBLE_IO_HUB_HTTP_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

struct hub_http {
    CURL *curl;     // one handle for all requests: it keeps connections open
    char *endpoint; // $HF_ENDPOINT, no slash at the end
    char *token;    // NULL: none
    char *page;     // the model's page, for messages
};

// The parts of an answer's head that matter; strings are "" where absent.
struct hub_reply {
    long status;
    char etag[256], linked_etag[256], linked_size[32], location[16], range[64], retry_after[64];
    int64_t length; // -1: unknown
};

// Where a body goes. The request asks for bytes from `position` on; write advances it.
struct hub_sink {
    bool (*write)(struct hub_sink *sink, const char *data, size_t n, struct error *err);
    // Forget everything and set position to 0: the server sends the body from its start.
    bool (*restart)(struct hub_sink *sink, struct error *err);
    uint64_t position, size; // size 0: unknown
};

bool hub_http_open(struct hub_http *http, const char *repo, struct error *err);
void hub_http_close(struct hub_http *http); // also after a failed open
// Redirects within the host are followed, others are the answer.
bool hub_http_head(struct hub_http *http, const char *url, struct hub_reply *reply,
                   struct error *err);
bool hub_http_get(struct hub_http *http, const char *url, struct hub_sink *sink, struct error *err);
// A body of at most max_size bytes as a string that the caller frees.
char *hub_http_get_text(struct hub_http *http, const char *url, size_t max_size, size_t *size,
                        struct error *err);

#endif
