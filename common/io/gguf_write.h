// Writing GGUF files (version 3), streamed: metadata first, then one tensor after another.
//
//     "GGUF" | u32 3 | u64 tensors | u64 keys
//     per key:    string key, u32 type, value
//     per tensor: string name, u32 dimensions, u64 each (innermost first), u32 type, u64 offset
//     zeros up to a multiple of 32 | data
//     string = u64 length + bytes; all numbers little-endian
//
// Offsets count from the start of the data; each is the sum of the sizes before it, every one
// rounded up to 32: readers insist on that order without gaps. The file takes its name when it is
// complete and has been read back (see file_writer); until then, nothing is there.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#ifndef NIBBLE_IO_GGUF_WRITE_H
#define NIBBLE_IO_GGUF_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/error.h"
#include "core/file.h"
#include "io/gguf.h"

enum { GGUF_NAME_SIZE = 64 }; // of a tensor's name, its NUL included; llama.cpp takes no longer one

struct gguf_out_tensor {
    char name[GGUF_NAME_SIZE];
    uint64_t offset; // from the start of the data
    size_t bytes;
    uint64_t hash; // of what was written
};

struct gguf_writer {
    struct file_writer file;
    FILE *keys, *infos; // in memory: what goes before the data
    char *key_bytes, *info_bytes;
    size_t key_size, info_size;
    uint64_t n_keys;
    struct gguf_out_tensor *tensors;
    size_t n_tensors, capacity, next; // next: the tensor whose data comes next
    uint64_t header_size, data_size;
    uint64_t header_hash;
};

// In memory only: to find out how large the file would be.
bool gguf_writer_init(struct gguf_writer *w, struct error *err);
// Writes go to a temporary file, see core/file.h.
bool gguf_writer_open(struct gguf_writer *w, const char *path, struct error *err);
// Removes what was written; safe after commit, and on a zeroed struct.
void gguf_writer_abort(struct gguf_writer *w);

// Metadata, in any order; each key once. Running out of memory is found by gguf_writer_begin.
void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t value);
void gguf_put_f32(struct gguf_writer *w, const char *key, float value);
void gguf_put_bool(struct gguf_writer *w, const char *key, bool value);
void gguf_put_string(struct gguf_writer *w, const char *key, const char *value);
void gguf_put_f32_array(struct gguf_writer *w, const char *key, const float *values, size_t n);
void gguf_put_i32_array(struct gguf_writer *w, const char *key, const int32_t *values, size_t n);
void gguf_put_bool_array(struct gguf_writer *w, const char *key, const uint8_t *values, size_t n);
// An array of n strings: the n calls of gguf_put_item that must follow.
void gguf_put_string_array(struct gguf_writer *w, const char *key, size_t n);
void gguf_put_item(struct gguf_writer *w, const char *text, size_t size);
// A value or an array as another file has it.
void gguf_put_value(struct gguf_writer *w, const char *key, const struct gguf_value *value);

// The next tensor's head. dims: innermost first, so a matrix [N, K] is {K, N}. False if the name is
// too long or there twice, or the file would be larger than 2^63 bytes.
bool gguf_put_tensor(struct gguf_writer *w, const char *name, uint32_t type, const uint64_t *dims,
                     int n_dims, size_t bytes, struct error *err);

// All heads are known: writes them. Where the file system can, it reserves the whole file, so that
// a disk that is too small is noticed now.
bool gguf_writer_begin(struct gguf_writer *w, struct error *err);
// Of the whole file, by what has been put so far.
uint64_t gguf_writer_size(const struct gguf_writer *w);
// The next tensor's data, all of it, in the order of the heads.
bool gguf_write_tensor(struct gguf_writer *w, const void *data, size_t bytes, struct error *err);
// When all data is there: flushes it, reads the file back and compares it with what was written,
// then gives it its name. Frees everything in any case.
bool gguf_writer_commit(struct gguf_writer *w, struct error *err);

#endif
