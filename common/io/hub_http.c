#include "io/hub_http.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "core/file.h"
#include "core/memory.h"
#include "io/hub_cache.h"

enum { TRIES = 5, MAX_HOPS = 8, MAX_WAIT_MS = 60000, FIRST_WAIT_MS = 250 };

struct request {
    struct hub_http *http;
    const char *url;
    struct hub_sink *sink; // NULL: HEAD
    struct hub_reply reply;
    struct error *err;
    CURLcode code;
    bool started, sink_failed;
    char detail[CURL_ERROR_SIZE];
};

// ---- who we are --------------------------------------------------------------------------------

// $HF_TOKEN, else what `hf auth login` has left. No token is not an error.
static bool read_token(char **token, struct error *err) {
    char *path = hub_home_path("token", NULL), *text = NULL;
    bool ok = true;
    if (hub_env("HF_TOKEN"))
        ok = (text = memory_strdup(hub_env("HF_TOKEN"), err)) != NULL;
    else if (path && file_exists(path))
        ok = (text = file_read(path, 4096, NULL, err)) != NULL;
    free(path);
    size_t end = text ? strlen(text) : 0;
    while (end > 0 && strchr(" \t\r\n", text[end - 1]))
        text[--end] = '\0';
    for (size_t i = 0; i < end && ok; i++)
        if (text[i] <= ' ' || text[i] > '~') // a newline would start a header of its own
            ok = error_set(err, "HF_TOKEN: byte 0x%02x at %zu, expected 'hf_…'",
                           (unsigned char)text[i], i);
    if (ok && end)
        *token = text;
    else
        free(text);
    return ok;
}

static bool has_prefix(const char *s, const char *prefix) {
    return strncasecmp(s, prefix, strlen(prefix)) == 0;
}

bool hub_http_open(struct hub_http *http, const char *repo, struct error *err) {
    *http = (struct hub_http){0};
    const char *endpoint = hub_env("HF_ENDPOINT");
    if (!endpoint)
        endpoint = "https://huggingface.co";
    if (!has_prefix(endpoint, "https://") && !has_prefix(endpoint, "http://"))
        return error_set(err, "HF_ENDPOINT is '%s', expected http:// or https://", endpoint);
    size_t length = strlen(endpoint);
    while (endpoint[length - 1] == '/')
        length--;
    http->endpoint = memory_printf(err, "%.*s", (int)length, endpoint);
    http->page = memory_printf(err, "%.*s/%s", (int)length, endpoint, repo);
    if (!http->endpoint || !http->page || !read_token(&http->token, err))
        return false;
    http->curl = curl_easy_init();
    return http->curl || error_set(err, "libcurl does not start");
}

void hub_http_close(struct hub_http *http) {
    curl_easy_cleanup(http->curl);
    free(http->endpoint);
    free(http->page);
    free(http->token);
    *http = (struct hub_http){0};
}

// ---- one request -------------------------------------------------------------------------------

static void keep(char *to, size_t size, const char *value, size_t n) {
    if (n >= size)
        n = size - 1;
    memcpy(to, value, n);
    to[n] = '\0';
}

static size_t on_header(char *line, size_t one, size_t n, void *user) {
    struct request *r = user;
    struct hub_reply *a = &r->reply;
    const struct {
        const char *name;
        char *to;
        size_t size;
    } wanted[] = {
        {"etag:", a->etag, sizeof a->etag},
        {"x-linked-etag:", a->linked_etag, sizeof a->linked_etag},
        {"x-linked-size:", a->linked_size, sizeof a->linked_size},
        {"location:", a->location, sizeof a->location},
        {"content-range:", a->range, sizeof a->range},
        {"retry-after:", a->retry_after, sizeof a->retry_after},
    };
    if (n >= 5 && strncasecmp(line, "http/", 5) == 0)
        *a = (struct hub_reply){0}; // a new head: what came before was "100 Continue" or the like
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        size_t skip = strlen(wanted[i].name), end = n;
        if (n < skip || strncasecmp(line, wanted[i].name, skip) != 0)
            continue;
        while (skip < end && (line[skip] == ' ' || line[skip] == '\t'))
            skip++;
        while (end > skip && (unsigned char)line[end - 1] <= ' ')
            end--;
        keep(wanted[i].to, wanted[i].size, line + skip, end - skip);
    }
    return one * n;
}

// "bytes 100-199/200" must start where we asked. A 200 is the whole body, whatever we asked for.
static bool start_body(struct request *r, long status) {
    struct hub_sink *sink = r->sink;
    r->started = true;
    if (status != 206)
        return sink->position == 0 || sink->restart(sink, r->err);
    char *end = r->reply.range;
    if (has_prefix(end, "bytes ") && strtoull(end + 6, &end, 10) == sink->position && *end == '-')
        return true;
    error_set(r->err, "%s: the server sent '%s', expected the bytes from %llu on", r->url,
              r->reply.range, (unsigned long long)sink->position);
    sink->restart(sink, NULL); // so that the next run asks for all of it
    return false;
}

static size_t on_body(char *data, size_t one, size_t n, void *user) {
    struct request *r = user;
    long status = 0;
    curl_easy_getinfo(r->http->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status / 100 != 2 || !r->sink)
        return one * n; // an error page
    if ((r->started || start_body(r, status)) && r->sink->write(r->sink, data, n, r->err))
        return one * n;
    r->sink_failed = true;
    return 0;
}

// Scheme, host and port are equal.
static bool same_origin(const char *a, const char *b) {
    CURLU *url[2] = {curl_url(), curl_url()};
    bool same = url[0] && url[1] && curl_url_set(url[0], CURLUPART_URL, a, 0) == CURLUE_OK &&
                curl_url_set(url[1], CURLUPART_URL, b, 0) == CURLUE_OK;
    const CURLUPart parts[3] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
    for (int i = 0; i < 3 && same; i++) {
        char *part[2] = {NULL, NULL};
        for (int j = 0; j < 2; j++)
            curl_url_get(url[j], parts[i], &part[j], CURLU_DEFAULT_PORT);
        same = part[0] && part[1] && strcasecmp(part[0], part[1]) == 0;
        curl_free(part[0]);
        curl_free(part[1]);
    }
    curl_url_cleanup(url[0]);
    curl_url_cleanup(url[1]);
    return same;
}

// An https endpoint may not send us on to plain http.
static void allow_protocols(CURL *curl, const char *endpoint) {
    bool secure = has_prefix(endpoint, "https:");
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, secure ? "https" : "http,https");
#else
    long both = CURLPROTO_HTTP | CURLPROTO_HTTPS, https = CURLPROTO_HTTPS;
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS, secure ? https : both);
#endif
}

static void configure(struct request *r, const char *url) {
    CURL *curl = r->http->curl;
    curl_easy_reset(curl); // options only: connections stay
    allow_protocols(curl, r->http->endpoint);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "nibble");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 20L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 100L); // a stalled connection counts as dropped
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 30L);
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 262144L);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, r->detail);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, r);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, r);
    if (!r->sink)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    if (r->http->token && same_origin(url, r->http->endpoint)) {
        curl_easy_setopt(curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, r->http->token);
    }
    // RESUME_FROM would make libcurl refuse a server that ignores it; we start over instead.
    char range[32];
    snprintf(range, sizeof range, "%llu-", r->sink ? (unsigned long long)r->sink->position : 0);
    if (r->sink && r->sink->position)
        curl_easy_setopt(curl, CURLOPT_RANGE, range);
}

static bool is_redirect(long status) {
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

// A HEAD goes on only within the host, and only until it is told the checksum.
static bool follows(const struct request *r) {
    const struct hub_reply *a = &r->reply;
    if (r->code != CURLE_OK || !is_redirect(a->status))
        return false;
    return r->sink || (a->location[0] == '/' && a->location[1] != '/' && !*a->linked_etag);
}

static bool attempt(struct request *r) {
    char *url = memory_strdup(r->url, r->err);
    r->started = r->sink_failed = false;
    for (int hop = 0; url && hop <= MAX_HOPS; hop++) {
        r->reply = (struct hub_reply){0};
        *r->detail = '\0';
        configure(r, url);
        r->code = curl_easy_perform(r->http->curl);
        curl_off_t length = -1;
        char *next = NULL;
        curl_easy_getinfo(r->http->curl, CURLINFO_RESPONSE_CODE, &r->reply.status);
        curl_easy_getinfo(r->http->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
        curl_easy_getinfo(r->http->curl, CURLINFO_REDIRECT_URL, &next);
        r->reply.length = length;
        if (!next || !follows(r))
            break;
        free(url);
        url = memory_strdup(next, r->err);
    }
    curl_easy_reset(r->http->curl); // it must not outlive what it points to
    bool ok = url != NULL;
    free(url);
    return ok;
}

// ---- again, or not -----------------------------------------------------------------------------

static bool dropped(const struct request *r) {
    switch (r->code) {
    case CURLE_OK:
        return r->sink && r->reply.status / 100 == 2 && r->sink->position < r->sink->size;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    default:
        return false;
    }
}

static bool worth_repeating(const struct request *r) {
    if (r->sink_failed)
        return false;
    long status = r->reply.status;
    return dropped(r) || (r->code == CURLE_OK && (status == 429 || status / 100 == 5 ||
                                                  (status == 416 && r->sink && r->sink->position)));
}

// Retry-After is seconds or a date.
static long wait_ms(const struct request *r, int failures) {
    const char *after = r->reply.retry_after;
    long long ms = (long long)FIRST_WAIT_MS << (failures - 1);
    if (*after >= '0' && *after <= '9') {
        long seconds = strtol(after, NULL, 10);
        ms = seconds < MAX_WAIT_MS / 1000 ? seconds * 1000 : MAX_WAIT_MS;
    } else if (*after && curl_getdate(after, NULL) > 0)
        ms = ((long long)curl_getdate(after, NULL) - (long long)time(NULL)) * 1000;
    return ms < 0 ? 0 : ms > MAX_WAIT_MS ? MAX_WAIT_MS : (long)ms;
}

static void wait_before(const struct request *r, int failures) {
    long ms = wait_ms(r, failures);
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&t, &t) != 0)
        ;
}

static bool explain_transport(struct request *r) {
    const char *what = *r->detail ? r->detail : curl_easy_strerror(r->code);
    if (r->code == CURLE_OK)
        what = "the connection was closed early";
    if (r->sink && r->sink->position)
        return error_set(r->err, "%s: %s after %llu bytes; run again to go on from there", r->url,
                         what, (unsigned long long)r->sink->position);
    return error_set(r->err, "%s: %s; HF_HUB_OFFLINE=1 uses only models already in the cache",
                     r->url, what);
}

static bool explain_status(struct request *r) {
    long status = r->reply.status;
    if (status == 401 || status == 403)
        return error_set(r->err,
                         "%s: HTTP %ld: gated, private or no such model: accept the licence at %s "
                         "and set HF_TOKEN%s",
                         r->url, status, r->http->page,
                         r->http->token ? " (the token in use has no access)" : "");
    if (status == 404)
        return error_set(r->err, "%s: HTTP 404: no such model or file, see %s", r->url,
                         r->http->page);
    if (status == 429)
        return error_set(r->err,
                         "%s: HTTP 429 after %d tries: too many requests: wait some minutes%s",
                         r->url, TRIES, r->http->token ? "" : ", or set HF_TOKEN");
    if (status / 100 == 5)
        return error_set(r->err, "%s: HTTP %ld after %d tries: the server's fault, try later",
                         r->url, status, TRIES);
    return error_set(r->err, "%s: HTTP %ld, expected 200", r->url, status);
}

static bool exchange(struct request *r) {
    uint64_t best = r->sink ? r->sink->position : 0;
    for (int failures = 0; failures < TRIES;) {
        struct hub_sink *sink = r->sink;
        if (sink && sink->position == 0 && !sink->restart(sink, r->err))
            return false;
        if (!attempt(r) || r->sink_failed)
            return false;
        if (!worth_repeating(r))
            break;
        if (r->reply.status == 416 && !sink->restart(sink, r->err))
            return false;
        if (sink && sink->position > best) {
            best = sink->position;
            failures = 0;
        }
        if (++failures < TRIES)
            wait_before(r, failures);
    }
    if (r->code != CURLE_OK || dropped(r))
        return explain_transport(r);
    bool elsewhere = !r->sink && is_redirect(r->reply.status);
    return r->reply.status / 100 == 2 || elsewhere || explain_status(r);
}

bool hub_http_head(struct hub_http *http, const char *url, struct hub_reply *reply,
                   struct error *err) {
    struct request r = {.http = http, .url = url, .err = err};
    bool ok = exchange(&r);
    *reply = r.reply;
    return ok;
}

bool hub_http_get(struct hub_http *http, const char *url, struct hub_sink *sink,
                  struct error *err) {
    struct request r = {.http = http, .url = url, .sink = sink, .err = err};
    return exchange(&r);
}

// ---- small bodies, in memory -------------------------------------------------------------------

// Its position stays 0: every attempt starts anew.
struct text_sink {
    struct hub_sink sink;
    const char *url;
    char *text;
    size_t size, max_size;
};

static bool text_write(struct hub_sink *sink, const char *data, size_t n, struct error *err) {
    struct text_sink *t = (struct text_sink *)sink;
    if (n > t->max_size - t->size)
        return error_set(err, "%s: more than %zu bytes", t->url, t->max_size);
    char *text = realloc(t->text, t->size + n + 1);
    if (!text)
        return error_set(err, "%s: out of memory for %zu bytes", t->url, t->size + n);
    memcpy(text + t->size, data, n);
    t->text = text;
    t->size += n;
    t->text[t->size] = '\0';
    return true;
}

static bool text_restart(struct hub_sink *sink, struct error *err) {
    (void)err;
    ((struct text_sink *)sink)->size = 0;
    return true;
}

char *hub_http_get_text(struct hub_http *http, const char *url, size_t max_size, size_t *size,
                        struct error *err) {
    struct text_sink t = {{.write = text_write, .restart = text_restart}, url, NULL, 0, max_size};
    if (hub_http_get(http, url, &t.sink, err) && text_write(&t.sink, "", 0, err)) {
        *size = t.size;
        return t.text;
    }
    free(t.text);
    return NULL;
}
