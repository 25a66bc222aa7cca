#include "fake_hub.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void hex_digest(const EVP_MD *md, const char *lead, size_t n_lead, const char *bytes,
                       size_t size, char hex[65]) {
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_DigestInit_ex(ctx, md, NULL);
    EVP_DigestUpdate(ctx, lead, n_lead);
    EVP_DigestUpdate(ctx, bytes, size);
    EVP_DigestFinal_ex(ctx, sum, &n);
    EVP_MD_CTX_free(ctx);
    for (unsigned i = 0; i < n; i++)
        snprintf(hex + 2 * i, 3, "%02x", sum[i]);
}

struct fake_file *fake_hub_find(struct fake_hub *h, const char *name) {
    for (size_t i = 0; i < h->n_files; i++)
        if (strcmp(h->files[i].name, name) == 0)
            return &h->files[i];
    return NULL;
}

void fake_hub_remove(struct fake_hub *h, const char *name) {
    struct fake_file *f = fake_hub_find(h, name);
    free(f->bytes);
    *f = h->files[--h->n_files];
}

struct fake_file *fake_hub_put(struct fake_hub *h, const char *name, const char *bytes, size_t size,
                               bool large) {
    if (fake_hub_find(h, name))
        fake_hub_remove(h, name);
    cr_assert(h->n_files < FAKE_FILES);
    struct fake_file *f = &h->files[h->n_files++];
    *f = (struct fake_file){name, malloc(size + 1), size, large, ""};
    memcpy(f->bytes, bytes, size);
    char lead[32];
    int n = snprintf(lead, sizeof lead, "blob %zu", size);
    if (large)
        hex_digest(EVP_sha256(), "", 0, bytes, size, f->hash);
    else
        hex_digest(EVP_sha1(), lead, (size_t)n + 1, bytes, size, f->hash);
    return f;
}

static bool faulty(struct fake_hub *h, int fd, const struct http_request *r) {
    if (!h->fault_path || h->n_faults == 0 || !strstr(r->path, h->fault_path))
        return false;
    h->n_faults -= h->n_faults > 0;
    http_answer(fd, h->fault_status, h->fault_headers ? h->fault_headers : "", "sorry", 5);
    return true;
}

static void list_files(struct fake_hub *h, int fd) {
    char body[4096];
    size_t n = (size_t)snprintf(body, sizeof body, "{\"sha\":\"%s\",\"siblings\":[", FAKE_COMMIT);
    for (size_t i = 0; i < h->n_files; i++)
        n += (size_t)snprintf(body + n, sizeof body - n, "%s{\"rfilename\":\"%s\"}", i ? "," : "",
                              h->files[i].name);
    n += (size_t)snprintf(body + n, sizeof body - n, "]}");
    http_answer(fd, 200, "Content-Type: application/json\r\n", h->api ? h->api : body,
                h->api ? strlen(h->api) : n);
}

static void on_hub(void *user, int fd, const struct http_request *r) {
    struct fake_hub *h = user;
    bool head = strcmp(r->method, "HEAD") == 0;
    if (faulty(h, fd, r))
        return;
    if (strcmp(r->path, "/api/models/org/tiny/revision/main") == 0) {
        list_files(h, fd);
        return;
    }
    const char *prefix = "/org/tiny/resolve/" FAKE_COMMIT "/", *moved = "/moved/";
    bool at_home = strncmp(r->path, prefix, strlen(prefix)) == 0;
    bool at_moved = strncmp(r->path, moved, strlen(moved)) == 0;
    const char *name = r->path + strlen(at_home ? prefix : moved);
    struct fake_file *f = at_home || at_moved ? fake_hub_find(h, name) : NULL;
    char headers[1024];
    if (!f) {
        http_answer(fd, 404, "", "no", 2);
    } else if (at_home && h->relative_redirect) {
        snprintf(headers, sizeof headers, "Location: /moved/%s\r\nETag: \"text\"\r\n", name);
        http_answer(fd, 307, headers, "", 0);
    } else if (f->large) {
        snprintf(headers, sizeof headers,
                 "Location: %s/cdn/%s\r\nX-Repo-Commit: %s\r\nX-Linked-Etag: \"%s\"\r\n"
                 "ETag: \"not this\"\r\nContent-Length: 17\r\n",
                 h->redirect_to ? h->redirect_to : h->cdn.url, name, FAKE_COMMIT, f->hash);
        if (!h->no_size)
            sprintf(headers + strlen(headers), "X-Linked-Size: %zu\r\n", f->size - h->understate);
        http_answer(fd, 302, headers, "Found. Redirecting", head ? 0 : 17);
    } else {
        snprintf(headers, sizeof headers, "ETag: W/\"%s\"\r\nContent-Length: %zu\r\n", f->hash,
                 f->size);
        http_answer(fd, 200, headers, f->bytes, head ? 0 : f->size);
    }
}

static void on_cdn(void *user, int fd, const struct http_request *r) {
    struct fake_hub *h = user;
    struct fake_file *f = fake_hub_find(h, r->path + strlen("/cdn/"));
    char buffer[128], headers[256];
    size_t start = 0;
    if (faulty(h, fd, r))
        return;
    bool part = !h->ignore_range &&
                sscanf(http_header(r, "Range", buffer, sizeof buffer), "bytes=%zu-", &start) == 1;
    if (!part)
        start = 0;
    if (!f || start >= f->size) {
        http_answer(fd, f ? 416 : 404, "", "", 0);
        return;
    }
    size_t said = h->lie_about_range ? start + 1 : start, end = f->size;
    int n = snprintf(headers, sizeof headers, "Content-Length: %zu\r\n", f->size - start);
    if (part)
        snprintf(headers + n, sizeof headers - (size_t)n, "Content-Range: bytes %zu-%zu/%zu\r\n",
                 said, f->size - 1, f->size);
    if (h->n_drops > 0 && h->drop_after < f->size) {
        h->n_drops--;
        end = h->drop_after > start ? h->drop_after : start;
    }
    if (h->at_most && end - start > h->at_most)
        end = start + h->at_most;
    char *bytes = malloc(f->size);
    memcpy(bytes, f->bytes, f->size);
    if (h->corrupt)
        bytes[f->size - 1] ^= 1;
    http_answer(fd, part ? 206 : 200, headers, bytes + start, end - start);
    free(bytes);
}

static void fill_with_a_model(struct fake_hub *h) {
    static const char index[] =
        "{\"metadata\":{\"total_size\":600000},\"weight_map\":{\"a\":\"" FAKE_SHARD_1
        "\",\"b\":\"" FAKE_SHARD_2 "\",\"c\":\"" FAKE_SHARD_1 "\"}}";
    char *shard = malloc(FAKE_SHARD_SIZE);
    for (size_t i = 0; i < FAKE_SHARD_SIZE; i++)
        shard[i] = (char)(i * 2654435761u >> 16);
    fake_hub_put(h, "config.json", "{\"model_type\":\"qwen2\"}", 22, false);
    fake_hub_put(h, "tokenizer.json", "{}", 2, false);
    fake_hub_put(h, "merges.txt", "", 0, false);
    fake_hub_put(h, "model.safetensors.index.json", index, sizeof index - 1, false);
    fake_hub_put(h, FAKE_SHARD_1, shard, FAKE_SHARD_SIZE, true);
    shard[0] ^= 1;
    fake_hub_put(h, FAKE_SHARD_2, shard, FAKE_SHARD_SIZE, true);
    fake_hub_put(h, "pytorch_model.bin", "no", 2, true);
    fake_hub_put(h, "original/consolidated.00.pth", "no", 2, true);
    fake_hub_put(h, "../../evil", "no", 2, false);
    free(shard);
}

void fake_hub_start(struct fake_hub *h) {
    *h = (struct fake_hub){0};
    strcpy(h->folder, "/tmp/nibble-hub-XXXXXX");
    cr_assert(mkdtemp(h->folder));
    http_server_start(&h->hub, on_hub, h);
    http_server_start(&h->cdn, on_cdn, h);
    fill_with_a_model(h);
    setenv("NIBBLE_MODELS", h->folder, 1);
    setenv("HF_ENDPOINT", h->hub.url, 1);
    setenv("HF_HOME", h->folder, 1); // no token of the machine's user
    setenv("no_proxy", "*", 1);
    unsetenv("HF_TOKEN");
    unsetenv("HF_HUB_OFFLINE");
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void fake_hub_stop(struct fake_hub *h) {
    http_server_stop(&h->hub);
    http_server_stop(&h->cdn);
    while (h->n_files > 0)
        fake_hub_remove(h, h->files[0].name);
    nftw(h->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

const char *fake_hub_cache(struct fake_hub *h, const char *rest) {
    static char path[512];
    snprintf(path, sizeof path, "%s/models--org--tiny/%s", h->folder, rest);
    return path;
}

size_t fake_hub_entries(struct fake_hub *h, const char *folder) {
    DIR *d = opendir(fake_hub_cache(h, folder));
    size_t n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += *e->d_name != '.';
    if (d)
        closedir(d);
    return n;
}
