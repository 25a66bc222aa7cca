#include "http_server.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void send_all(int fd, const void *data, size_t size) {
    for (const char *p = data; size > 0;) {
        ssize_t n = send(fd, p, size, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        p += n;
        size -= (size_t)n;
    }
}

void http_answer(int fd, int status, const char *headers, const void *body, size_t size) {
    char head[2048];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\n%sConnection: close\r\n\r\n", status,
                     headers);
    send_all(fd, head, (size_t)n);
    send_all(fd, body, size);
}

static bool receive(int fd, struct http_request *r) {
    char text[4096];
    size_t n = 0;
    while (n + 1 < sizeof text) {
        ssize_t got = recv(fd, text + n, sizeof text - 1 - n, 0);
        if (got <= 0)
            return false;
        n += (size_t)got;
        text[n] = '\0';
        if (strstr(text, "\r\n\r\n"))
            break;
    }
    *r = (struct http_request){0};
    const char *line = strstr(text, "\r\n");
    if (!line || sscanf(text, "%7s %511s", r->method, r->path) != 2)
        return false;
    snprintf(r->headers, sizeof r->headers, "%s", line + 2);
    return true;
}

static void *serve(void *user) {
    struct http_server *s = user;
    for (int fd; (fd = accept(s->listener, NULL, NULL)) >= 0; close(fd)) {
        struct http_request r;
        if (!receive(fd, &r))
            continue;
        pthread_mutex_lock(&s->mutex);
        if (s->n_log < HTTP_LOG)
            s->log[s->n_log++] = r;
        pthread_mutex_unlock(&s->mutex);
        s->handle(s->user, fd, &r);
        // Closing with unread bytes would reset the connection and lose our answer.
        shutdown(fd, SHUT_WR);
        char rest[256];
        while (recv(fd, rest, sizeof rest, 0) > 0)
            ;
    }
    return NULL;
}

void http_server_start(struct http_server *s,
                       void (*handle)(void *user, int fd, const struct http_request *request),
                       void *user) {
    *s = (struct http_server){.handle = handle, .user = user};
    pthread_mutex_init(&s->mutex, NULL);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(s->listener >= 0 &&
              bind(s->listener, (struct sockaddr *)&address, sizeof address) == 0 &&
              listen(s->listener, 16) == 0 &&
              getsockname(s->listener, (struct sockaddr *)&address, &size) == 0);
    s->port = ntohs(address.sin_port);
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%d", s->port);
    cr_assert_eq(pthread_create(&s->thread, NULL, serve, s), 0);
}

void http_server_stop(struct http_server *s) {
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
    pthread_mutex_destroy(&s->mutex);
}

const char *http_header(const struct http_request *r, const char *name, char *buffer, size_t size) {
    size_t n = strlen(name);
    *buffer = '\0';
    for (const char *line = r->headers; *line;) {
        const char *end = strstr(line, "\r\n");
        if (!end)
            break;
        if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
            const char *value = line + n + 1 + strspn(line + n + 1, " ");
            snprintf(buffer, size, "%.*s", (int)(end - value), value);
            break;
        }
        line = end + 2;
    }
    return buffer;
}

static bool matches(const struct http_request *r, const char *method, const char *part) {
    return (!*method || strcmp(r->method, method) == 0) && strstr(r->path, part);
}

size_t http_count(struct http_server *s, const char *method, const char *part) {
    size_t n = 0;
    pthread_mutex_lock(&s->mutex);
    for (size_t i = 0; i < s->n_log; i++)
        n += matches(&s->log[i], method, part);
    pthread_mutex_unlock(&s->mutex);
    return n;
}

struct http_request http_nth(struct http_server *s, const char *method, const char *part,
                             size_t n) {
    struct http_request found = {0};
    pthread_mutex_lock(&s->mutex);
    for (size_t i = 0; i < s->n_log; i++)
        if (matches(&s->log[i], method, part) && n-- == 0)
            found = s->log[i];
    pthread_mutex_unlock(&s->mutex);
    return found;
}
