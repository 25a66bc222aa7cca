// A small HTTP server on 127.0.0.1 for tests: one thread, one request per connection, in turn.
// It keeps a log, so that a test can see what was asked for and with which headers.
#ifndef NIBBLE_TESTS_HTTP_SERVER_H
#define NIBBLE_TESTS_HTTP_SERVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct http_request {
    char method[8], path[512];
    char headers[2048]; // as they came, one per line
};

enum { HTTP_LOG = 256 };

struct http_server {
    int listener, port;
    char url[64]; // "http://127.0.0.1:port"
    pthread_t thread;
    pthread_mutex_t mutex;
    struct http_request log[HTTP_LOG];
    size_t n_log;
    // Answers by writing to fd, which is closed afterwards.
    void (*handle)(void *user, int fd, const struct http_request *request);
    void *user;
};

void http_server_start(struct http_server *s,
                       void (*handle)(void *user, int fd, const struct http_request *request),
                       void *user);
void http_server_stop(struct http_server *s);

// The value of a header (name without the colon) in buffer, "" if absent.
const char *http_header(const struct http_request *r, const char *name, char *buffer, size_t size);

// How many requests so far had this method ("": any) and `part` in their path.
size_t http_count(struct http_server *s, const char *method, const char *part);
// The nth of those, from 0.
struct http_request http_nth(struct http_server *s, const char *method, const char *part, size_t n);

// The status line, `headers` (each ending in \r\n), "Connection: close" and a body.
void http_answer(int fd, int status, const char *headers, const void *body, size_t size);

#endif
