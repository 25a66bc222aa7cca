#include "io/hub_blob.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"

enum { CHUNK = 1 << 20, SHA1_DIGITS = 40, SHA256_DIGITS = 64 };

static bool digits_to_size(const char *s, uint64_t *out) {
    size_t n = strlen(s);
    if (n == 0 || n > 15 || strspn(s, "0123456789") != n)
        return false;
    *out = strtoull(s, NULL, 10);
    return true;
}

bool hub_blob_of_reply(const struct hub_reply *reply, const char *url, struct hub_blob *blob,
                       struct error *err) {
    *blob = (struct hub_blob){0};
    const char *tag = *reply->linked_etag ? reply->linked_etag : reply->etag;
    const char *start = strncmp(tag, "W/", 2) == 0 ? tag + 2 : tag;
    if (*start == '"')
        start++;
    size_t n = strcspn(start, "\"");
    if (n < sizeof blob->hash)
        for (size_t i = 0; i < n; i++)
            blob->hash[i] = (char)tolower((unsigned char)start[i]);
    if (!hub_is_hash(blob->hash, SHA256_DIGITS) && !hub_is_hash(blob->hash, SHA1_DIGITS))
        return error_set(err, "%s: ETag '%s', expected a sha256 or a git sha1", url, tag);
    // A redirect's Content-Length is its own.
    if (!digits_to_size(reply->linked_size, &blob->size) && reply->status == 200 &&
        reply->length > 0)
        blob->size = (uint64_t)reply->length;
    return true;
}

// ---- checksums ---------------------------------------------------------------------------------

static bool digest(EVP_MD_CTX *ctx, int fd, const char *path, struct error *err) {
    unsigned char *chunk = memory_alloc(CHUNK, 1, path, err);
    bool ok = chunk != NULL;
    for (ssize_t n = 1; ok && n != 0;) {
        n = read(fd, chunk, CHUNK);
        if (n < 0)
            ok = errno == EINTR || error_set(err, "%s: cannot read: %s", path, strerror(errno));
        else if (EVP_DigestUpdate(ctx, chunk, (size_t)n) != 1)
            ok = error_set(err, "%s: libcrypto cannot digest", path);
    }
    free(chunk);
    return ok;
}

static bool digest_start(EVP_MD_CTX *ctx, bool sha256, uint64_t size) {
    if (!ctx || EVP_DigestInit_ex(ctx, sha256 ? EVP_sha256() : EVP_sha1(), NULL) != 1)
        return false;
    char lead[32];
    int n = snprintf(lead, sizeof lead, "blob %llu", (unsigned long long)size);
    return sha256 || EVP_DigestUpdate(ctx, lead, (size_t)n + 1) == 1; // with its NUL
}

static bool digest_is(EVP_MD_CTX *ctx, const char *hash) {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char hex[2 * EVP_MAX_MD_SIZE + 1] = "";
    if (EVP_DigestFinal_ex(ctx, bytes, &n) != 1)
        return false;
    for (unsigned i = 0; i < n; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    return strcmp(hex, hash) == 0;
}

bool hub_blob_matches(const char *path, const char *hash, struct error *err) {
    struct stat st;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = false;
    if (fd < 0 || fstat(fd, &st) != 0)
        error_set(err, "%s: %s", path, strerror(errno));
    else if (!digest_start(ctx, strlen(hash) == SHA256_DIGITS, (uint64_t)st.st_size))
        error_set(err, "%s: libcrypto cannot digest", path);
    else
        ok = digest(ctx, fd, path, err) && digest_is(ctx, hash);
    if (fd >= 0)
        close(fd);
    EVP_MD_CTX_free(ctx);
    return ok;
}

// ---- downloading -------------------------------------------------------------------------------

struct blob_sink {
    struct hub_sink sink;
    int fd;
    const char *path; // of the incomplete file
    const char *file;
    hub_progress *progress;
    void *user;
    uint64_t shown;
};

static void show(struct blob_sink *s, bool now) {
    uint64_t done = s->sink.position;
    if (!s->progress || (!now && done - s->shown < CHUNK && done >= s->shown))
        return;
    s->shown = done;
    s->progress(s->user, s->file, done, s->sink.size);
}

static bool blob_write(struct hub_sink *sink, const char *data, size_t n, struct error *err) {
    struct blob_sink *s = (struct blob_sink *)sink;
    if (sink->size && n > sink->size - sink->position)
        return error_set(err, "%s: more than the %llu bytes that were promised", s->file,
                         (unsigned long long)sink->size);
    while (n > 0) {
        ssize_t written = pwrite(s->fd, data, n, (off_t)sink->position);
        if (written < 0 && errno != EINTR)
            return error_set(err, "%s: cannot write after %llu of %llu bytes: %s", s->path,
                             (unsigned long long)sink->position, (unsigned long long)sink->size,
                             strerror(errno));
        if (written > 0) {
            data += written;
            n -= (size_t)written;
            sink->position += (uint64_t)written;
        }
    }
    show(s, false);
    return true;
}

static bool blob_restart(struct hub_sink *sink, struct error *err) {
    struct blob_sink *s = (struct blob_sink *)sink;
    sink->position = 0;
    return ftruncate(s->fd, 0) == 0 ||
           error_set(err, "%s: cannot empty: %s", s->path, strerror(errno));
}

static bool open_incomplete(struct blob_sink *s, struct error *err) {
    struct stat st;
    s->fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (s->fd < 0 || fstat(s->fd, &st) != 0)
        return error_set(err, "%s: cannot write: %s", s->path, strerror(errno));
    s->sink.position = (uint64_t)st.st_size;
    if (s->sink.size && s->sink.position > s->sink.size)
        return blob_restart(&s->sink, err);
    return true;
}

// Fetches what is missing and verifies the whole. A wrong file that began with an earlier run's
// bytes gets a second chance from its start: the fault may have been theirs.
static bool fill(struct hub_http *http, const char *url, const char *hash, struct blob_sink *s,
                 struct error *err) {
    bool resumed = s->sink.position > 0;
    show(s, true);
    if (!(s->sink.size && s->sink.position == s->sink.size) &&
        !hub_http_get(http, url, &s->sink, err))
        return false;
    struct error wrong = {0};
    if (hub_blob_matches(s->path, hash, &wrong))
        return true;
    if (*wrong.message)
        return error_set(err, "%s", wrong.message);
    if (resumed)
        return blob_restart(&s->sink, err) && fill(http, url, hash, s, err);
    unlink(s->path);
    return error_set(err, "%s: the bytes received do not have the checksum %s; deleted", url, hash);
}

bool hub_blob_fetch(struct hub_http *http, const char *url, const struct hub_blob *blob,
                    const char *path, const char *file, hub_progress *progress, void *user,
                    struct error *err) {
    struct blob_sink s = {{.write = blob_write, .restart = blob_restart, .size = blob->size},
                          -1,
                          NULL,
                          file,
                          progress,
                          user,
                          0};
    char *incomplete = memory_printf(err, "%s.incomplete", path);
    s.path = incomplete;
    bool ok = incomplete && open_incomplete(&s, err) && fill(http, url, blob->hash, &s, err);
    // The name promises the bytes: they reach the disk before it does.
    if (ok && (fsync(s.fd) != 0 || rename(incomplete, path) != 0))
        ok = error_set(err, "%s: cannot write: %s", path, strerror(errno));
    if (ok) {
        s.sink.size = s.sink.position;
        show(&s, true);
    }
    if (s.fd >= 0)
        close(s.fd);
    free(incomplete);
    return ok;
}
