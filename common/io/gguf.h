// GGUF, the file format of llama.cpp: metadata and tensors in one file, mapped and never copied.
//
//     "GGUF" | u32 version | u64 tensors | u64 keys              all little-endian
//     keys times      string key | u32 type | value
//     tensors times   string name | u32 dims | u64 extents[dims], innermost first | u32 type
//                     | u64 offset
//     padding to general.alignment (32) | data, each tensor at its offset from here
//
// A string is a u64 length and its bytes; an array is a u32 item type, a u64 count and the items.
// Versions 2 and 3 are the same bytes. A model may be split into NAME-00001-of-0000N.gguf and so
// on. Nothing in a file is believed: counts, lengths, types, extents, offsets, overlaps, names that
// occur twice and the parts of a split are checked on opening, so that what follows need not.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#ifndef NIBBLE_IO_GGUF_H
#define NIBBLE_IO_GGUF_H

#include "core/error.h"
#include "core/file.h"
#include "core/tensor.h"

enum { GGUF_VERSION = 3, GGUF_ALIGNMENT = 32 }; // what is written; the alignment unless a key says

// ---- types ------------------------------------------------------------------------------------

// Of a metadata value; the numbers are those in the file.
enum gguf_value_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_VALUE_TYPES
};
const char *gguf_value_type_name(enum gguf_value_type t); // "u32", "string"
// Bytes of one value in the file; 0 for strings and arrays.
size_t gguf_value_size(enum gguf_value_type t);

// Of a tensor. A row is extent / block_weights blocks of block_bytes.
struct gguf_type {
    const char *name; // "Q4_K"; NULL: no type has this number
    size_t block_weights, block_bytes;
};
// The type with this number in a file, whether or not we can compute with it; NULL if unknown.
const struct gguf_type *gguf_type_of(uint32_t number);

// ---- a file -------------------------------------------------------------------------------------

// A value, or the items of an array, where they lie in the file.
struct gguf_value {
    enum gguf_value_type type; // of the value; of the items, if it is an array
    bool is_array;
    size_t n; // items; 1 for a value
    const unsigned char *data;
    size_t bytes;
};

struct gguf_key {
    char *name;
    struct gguf_value value;
};

struct gguf_tensor {
    struct tensor view; // shape outermost first; format NULL where we cannot compute with the type
    uint32_t type;      // as in the file
    size_t part;        // the file it is in
};

struct gguf_part {
    char *path;
    struct mapping mapping;
};

struct gguf {
    uint32_t version;
    size_t alignment;
    size_t n_keys, key_capacity;
    struct gguf_key *keys; // as in the file; of a split, the first part's
    size_t n_tensors, tensor_capacity;
    struct gguf_tensor *tensors;        // as in the file, one part after another
    const struct gguf_tensor **by_name; // [n_tensors], sorted
    size_t n_parts;
    struct gguf_part *parts;
    const char *path; // of the first part: begins every message
};

// Opens a file, and where it is one part of a split, all of them.
bool gguf_open(struct gguf *g, const char *path, struct error *err);
void gguf_close(struct gguf *g);
// One file that is already in memory, which must outlive g (for tests and the fuzz target), as must
// path. Of a split, this part alone.
bool gguf_parse(struct gguf *g, const void *data, size_t size, const char *path, struct error *err);

// NULL if there is none of that name.
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);
const struct gguf_value *gguf_find(const struct gguf *g, const char *key);
// Gives back the pages under these bytes (mapping_drop) if they lie in one of the files.
void gguf_drop(const struct gguf *g, const void *p, size_t size);

// The GGUF file in this folder if there is just one (or one that is split: its first part); the
// caller frees it. NULL without a message if there is none, with one if there are several.
char *gguf_in_folder(const char *folder, struct error *err);
// Whether `path` is this GGUF file, or a part of it if it is split, by whatever name.
bool gguf_has_part(const char *gguf, const char *path);
// Whether the file begins as a GGUF file does.
bool gguf_is_file(const char *path);

// ---- values -------------------------------------------------------------------------------------

// Bytes in the file, without a NUL behind them.
struct gguf_string {
    const char *text;
    size_t size;
};

// Each leaves *out alone when the key is absent (callers set the default first) and fails with
// "<file>: key '<key>' is <found>, expected <type>" when the value is of another type.
bool gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct error *err);
// A whole number of any width in [min, max]. An array of numbers that are all the same will do:
// some files list a number for every layer.
bool gguf_get_int(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                  struct error *err);
bool gguf_get_number(const struct gguf *g, const char *key, double *out, struct error *err);
bool gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out,
                     struct error *err);
// An array of strings, or of numbers (item GGUF_STRING, or any number type).
bool gguf_get_array(const struct gguf *g, const char *key, enum gguf_value_type item,
                    const struct gguf_value **out, struct error *err);

bool gguf_string_is(struct gguf_string s, const char *text);
// Number i of an array of numbers.
double gguf_item_number(const struct gguf_value *v, size_t i);
// The string at *at, which then moves on to the next; begin with the array's data.
struct gguf_string gguf_next_string(const unsigned char **at);

#endif
