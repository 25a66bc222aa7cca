#include "io/gguf_write.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are written as they lie");

// ---- a hash of what is written, to compare with what is read back ------------------------------

// Four chains of multiplications at once: as fast as memory. Not against malice.
static uint64_t hash_piece(uint64_t seed, const unsigned char *p, size_t n) {
    const uint64_t factor = 0x9e3779b97f4a7c15u;
    uint64_t lanes[4] = {seed, seed + 1, seed + 2, seed + 3}, word;
    for (; n >= 32; p += 32, n -= 32)
        for (int i = 0; i < 4; i++) {
            memcpy(&word, p + 8 * i, 8);
            lanes[i] = (lanes[i] ^ word) * factor;
            lanes[i] ^= lanes[i] >> 29;
        }
    for (; n; p++, n--)
        lanes[0] = (lanes[0] ^ *p) * factor;
    return ((lanes[0] * 3 + lanes[1]) * 5 + lanes[2]) * 7 + lanes[3];
}

enum { PIECE = 1 << 20 }; // a hash goes on from piece to piece, counted from the tensor's start

static uint64_t hash_bytes(const void *data, size_t n) {
    uint64_t hash = n;
    for (size_t i = 0; i < n; i += PIECE)
        hash = hash_piece(hash, (const unsigned char *)data + i, n - i < PIECE ? n - i : PIECE);
    return hash;
}

// The same of n bytes of a file.
static bool hash_file(int fd, uint64_t offset, size_t n, unsigned char *buffer, uint64_t *hash) {
    *hash = n;
    for (size_t i = 0; i < n; i += PIECE) {
        size_t size = n - i < PIECE ? n - i : PIECE, have = 0;
        while (have < size) {
            ssize_t got = pread(fd, buffer + have, size - have, (off_t)(offset + i + have));
            if (got <= 0)
                return false;
            have += (size_t)got;
        }
        *hash = hash_piece(*hash, buffer, size);
    }
    return true;
}

// ---- opening and closing ----------------------------------------------------------------------

bool gguf_writer_init(struct gguf_writer *w, struct error *err) {
    *w = (struct gguf_writer){0};
    w->keys = open_memstream(&w->key_bytes, &w->key_size);
    w->infos = open_memstream(&w->info_bytes, &w->info_size);
    if (w->keys && w->infos)
        return true;
    gguf_writer_abort(w);
    return error_set(err, "out of memory for a GGUF file's metadata");
}

bool gguf_writer_open(struct gguf_writer *w, const char *path, struct error *err) {
    if (!gguf_writer_init(w, err))
        return false;
    if (file_writer_open(&w->file, path, err) &&
        (w->file.temporary || error_set(err, "%s: not a regular file", path)))
        return true;
    gguf_writer_abort(w);
    return false;
}

static void close_memory(struct gguf_writer *w) {
    if (w->keys)
        fclose(w->keys);
    if (w->infos)
        fclose(w->infos);
    w->keys = w->infos = NULL;
}

void gguf_writer_abort(struct gguf_writer *w) {
    close_memory(w);
    free(w->key_bytes);
    free(w->info_bytes);
    free(w->tensors);
    file_writer_abort(&w->file);
    *w = (struct gguf_writer){0};
}

// ---- metadata ---------------------------------------------------------------------------------

static void put(FILE *f, const void *value, size_t size) {
    if (size)
        fwrite(value, 1, size, f);
}

static void put_u32(FILE *f, uint32_t value) {
    put(f, &value, sizeof value);
}

static void put_u64(FILE *f, uint64_t value) {
    put(f, &value, sizeof value);
}

static void put_text(FILE *f, const char *text, size_t size) {
    put_u64(f, size);
    put(f, text, size);
}

static void put_key(struct gguf_writer *w, const char *key, enum gguf_value_type type,
                    const void *value, size_t size) {
    w->n_keys++;
    put_text(w->keys, key, strlen(key));
    put_u32(w->keys, (uint32_t)type);
    put(w->keys, value, size);
}

void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t value) {
    put_key(w, key, GGUF_U32, &value, sizeof value);
}

void gguf_put_f32(struct gguf_writer *w, const char *key, float value) {
    put_key(w, key, GGUF_F32, &value, sizeof value);
}

void gguf_put_bool(struct gguf_writer *w, const char *key, bool value) {
    uint8_t byte = value;
    put_key(w, key, GGUF_BOOL, &byte, sizeof byte);
}

void gguf_put_string(struct gguf_writer *w, const char *key, const char *value) {
    put_key(w, key, GGUF_STRING, NULL, 0);
    put_text(w->keys, value, strlen(value));
}

static void put_array(struct gguf_writer *w, const char *key, enum gguf_value_type type,
                      const void *values, size_t n, size_t size) {
    put_key(w, key, GGUF_ARRAY, NULL, 0);
    put_u32(w->keys, (uint32_t)type);
    put_u64(w->keys, n);
    put(w->keys, values, size);
}

void gguf_put_f32_array(struct gguf_writer *w, const char *key, const float *values, size_t n) {
    put_array(w, key, GGUF_F32, values, n, n * sizeof *values);
}

void gguf_put_i32_array(struct gguf_writer *w, const char *key, const int32_t *values, size_t n) {
    put_array(w, key, GGUF_I32, values, n, n * sizeof *values);
}

void gguf_put_bool_array(struct gguf_writer *w, const char *key, const uint8_t *values, size_t n) {
    put_array(w, key, GGUF_BOOL, values, n, n * sizeof *values);
}

void gguf_put_string_array(struct gguf_writer *w, const char *key, size_t n) {
    put_array(w, key, GGUF_STRING, NULL, n, 0);
}

void gguf_put_value(struct gguf_writer *w, const char *key, const struct gguf_value *value) {
    if (value->is_array)
        put_array(w, key, value->type, value->data, value->n, value->bytes);
    else
        put_key(w, key, value->type, value->data, value->bytes);
}

void gguf_put_item(struct gguf_writer *w, const char *text, size_t size) {
    put_text(w->keys, text, size);
}

// ---- tensors ----------------------------------------------------------------------------------

static bool pad_up(size_t size, size_t *padded) {
    if (!size_add(size, GGUF_ALIGNMENT - 1, padded))
        return false;
    *padded -= *padded % GGUF_ALIGNMENT;
    return true;
}

static const char *path_of(const struct gguf_writer *w) {
    return w->file.path ? w->file.path : "GGUF";
}

static bool check_name(const struct gguf_writer *w, const char *name, struct error *err) {
    if (!*name || strlen(name) >= GGUF_NAME_SIZE)
        return error_set(err, "%s: tensor name '%s', expected 1 to %d bytes", path_of(w), name,
                         GGUF_NAME_SIZE - 1);
    for (size_t i = 0; i < w->n_tensors; i++)
        if (strcmp(w->tensors[i].name, name) == 0)
            return error_set(err, "%s: tensor '%s' twice", path_of(w), name);
    return true;
}

bool gguf_put_tensor(struct gguf_writer *w, const char *name, uint32_t type, const uint64_t *dims,
                     int n_dims, size_t bytes, struct error *err) {
    size_t padded, end;
    if (!check_name(w, name, err))
        return false;
    if (n_dims < 1 || n_dims > TENSOR_MAX_DIMS)
        return error_set(err, "%s: tensor '%s' has %d dimensions, expected 1 to %d", path_of(w),
                         name, n_dims, TENSOR_MAX_DIMS);
    if (!pad_up(bytes, &padded) || !size_add(w->data_size, padded, &end) || end > INT64_MAX)
        return error_set(err, "%s: tensor '%s': %zu bytes more than a file can hold", path_of(w),
                         name, bytes);
    struct gguf_out_tensor *list =
        memory_grow(w->tensors, w->n_tensors, &w->capacity, sizeof *list, "list of tensors", err);
    if (!list)
        return false;
    w->tensors = list;
    struct gguf_out_tensor *t = &list[w->n_tensors++];
    *t = (struct gguf_out_tensor){.offset = w->data_size, .bytes = bytes};
    strcpy(t->name, name);
    put_text(w->infos, name, strlen(name));
    put_u32(w->infos, (uint32_t)n_dims);
    put(w->infos, dims, (size_t)n_dims * sizeof *dims);
    put_u32(w->infos, type);
    put_u64(w->infos, t->offset);
    w->data_size = end;
    return true;
}

// ---- data -------------------------------------------------------------------------------------

static bool fail_write(const struct gguf_writer *w, struct error *err) {
    return error_set(err, "%s: cannot write %" PRIu64 " bytes: %s", w->file.path,
                     gguf_writer_size(w), strerror(errno));
}

static bool write_bytes(struct gguf_writer *w, const void *data, size_t n, struct error *err) {
    return fwrite(data, 1, n, w->file.stream) == n || fail_write(w, err);
}

static bool write_zeros(struct gguf_writer *w, size_t n, struct error *err) {
    static const char zeros[GGUF_ALIGNMENT];
    return write_bytes(w, zeros, n, err);
}

// "GGUF", the version and the two counts.
enum { FIXED_SIZE = 24 };

uint64_t gguf_writer_size(const struct gguf_writer *w) {
    size_t header = w->header_size;
    if (w->keys) { // flushing brings the sizes up to date
        fflush(w->keys);
        fflush(w->infos);
        if (!pad_up(FIXED_SIZE + w->key_size + w->info_size, &header))
            return UINT64_MAX;
    }
    return header + w->data_size;
}

// Everything before the data, in one piece.
static unsigned char *make_header(struct gguf_writer *w, size_t *size, struct error *err) {
    const uint64_t counts[2] = {w->n_tensors, w->n_keys};
    const uint32_t version = GGUF_VERSION;
    if (!pad_up(FIXED_SIZE + w->key_size + w->info_size, size)) {
        error_set(err, "%s: the metadata is too large", w->file.path);
        return NULL;
    }
    unsigned char *header = memory_alloc(*size, 1, "GGUF header", err), *at = header;
    if (!header)
        return NULL;
    memcpy(at, "GGUF", 4);
    memcpy(at + 4, &version, sizeof version);
    memcpy(at + 8, counts, sizeof counts);
    memcpy(at + FIXED_SIZE, w->key_bytes, w->key_size);
    memcpy(at + FIXED_SIZE + w->key_size, w->info_bytes, w->info_size);
    return header;
}

// Reserving tells now what would come after minutes of work. Not every file system can.
static bool reserve(const struct gguf_writer *w, struct error *err) {
    if (fallocate(fileno(w->file.stream), 0, 0, (off_t)gguf_writer_size(w)) == 0 ||
        (errno != ENOSPC && errno != EFBIG && errno != EDQUOT))
        return true;
    return fail_write(w, err);
}

bool gguf_writer_begin(struct gguf_writer *w, struct error *err) {
    bool failed = ferror(w->keys) || ferror(w->infos);
    close_memory(w); // which is when the sizes are final
    size_t size;
    unsigned char *header =
        failed || !w->key_bytes || !w->info_bytes ? NULL : make_header(w, &size, err);
    if (!header)
        return failed ? error_set(err, "%s: out of memory for the metadata", w->file.path) : false;
    w->header_size = size;
    w->header_hash = hash_bytes(header, size);
    bool ok = reserve(w, err) && write_bytes(w, header, size, err);
    free(header);
    return ok;
}

bool gguf_write_tensor(struct gguf_writer *w, const void *data, size_t bytes, struct error *err) {
    if (w->next == w->n_tensors)
        return error_set(err, "%s: %zu bytes more than the tensors have", w->file.path, bytes);
    struct gguf_out_tensor *t = &w->tensors[w->next];
    if (t->bytes != bytes)
        return error_set(err, "%s: %zu bytes for tensor '%s', expected %zu", w->file.path, bytes,
                         t->name, t->bytes);
    size_t padded;
    t->hash = hash_bytes(data, bytes);
    w->next++;
    return pad_up(bytes, &padded) && write_bytes(w, data, bytes, err) &&
           write_zeros(w, padded - bytes, err);
}

// ---- reading back -----------------------------------------------------------------------------

static bool compare(const struct gguf_writer *w, int fd, unsigned char *buffer, struct error *err) {
    uint64_t hash;
    off_t size = lseek(fd, 0, SEEK_END);
    if (size < 0 || (uint64_t)size != gguf_writer_size(w))
        return error_set(err, "%s: read back %lld bytes, wrote %" PRIu64, w->file.path,
                         (long long)size, gguf_writer_size(w));
    if (!hash_file(fd, 0, w->header_size, buffer, &hash) || hash != w->header_hash)
        return error_set(err, "%s: the metadata reads back as something else", w->file.path);
    for (size_t i = 0; i < w->n_tensors; i++) {
        const struct gguf_out_tensor *t = &w->tensors[i];
        if (!hash_file(fd, w->header_size + t->offset, t->bytes, buffer, &hash) || hash != t->hash)
            return error_set(err, "%s: tensor '%s' reads back as something else", w->file.path,
                             t->name);
    }
    return true;
}

// As any reader finds it.
static bool reads(const struct gguf_writer *w, struct error *err) {
    struct gguf g;
    struct error why = {0};
    if (!gguf_open(&g, w->file.temporary, &why))
        return error_set(err, "%s: does not read back: %s", w->file.path, why.message);
    bool same = g.n_keys == w->n_keys && g.n_tensors == w->n_tensors;
    gguf_close(&g);
    return same || error_set(err, "%s: reads back with other keys or tensors", w->file.path);
}

static bool read_back(const struct gguf_writer *w, struct error *err) {
    int fd = open(w->file.temporary, O_RDONLY | O_CLOEXEC);
    unsigned char *buffer = memory_alloc(PIECE, 1, "reading back", err);
    bool ok = buffer && (fd >= 0 || error_set(err, "%s: cannot be read back: %s", w->file.path,
                                              strerror(errno)));
    ok = ok && compare(w, fd, buffer, err) && reads(w, err);
    if (fd >= 0)
        close(fd);
    free(buffer);
    return ok;
}

bool gguf_writer_commit(struct gguf_writer *w, struct error *err) {
    bool ok = w->next == w->n_tensors || error_set(err, "%s: data of %zu tensors, expected %zu",
                                                   w->file.path, w->next, w->n_tensors);
    ok = ok && (fflush(w->file.stream) == 0 || fail_write(w, err)) && read_back(w, err) &&
         file_writer_commit(&w->file, err);
    gguf_writer_abort(w);
    return ok;
}
