// Checkpoints in safetensors: one file, or shards with an index, mapped and never copied.
//
//     u64 N | N bytes of JSON: {"name": {"dtype", "shape", "data_offsets": [begin, end]}, …} | data
//
// Offsets count from the start of the data. Everything is checked on opening: the header's length,
// dtypes, shapes against byte ranges, ranges against the file, holes and overlaps.
// https://github.com/huggingface/safetensors#format
#ifndef NIBBLE_IO_SAFETENSORS_H
#define NIBBLE_IO_SAFETENSORS_H

#include "core/error.h"
#include "core/file.h"
#include "core/tensor.h"

// A word on the file: "__metadata__": {"format": "pt"}.
struct safetensors_note {
    const char *key, *value;
};

struct safetensors {
    size_t n_tensors;
    struct tensor *tensors; // sorted by name; names are owned, data points into the mappings
    size_t n_mappings;
    struct mapping *mappings;
    char **paths; // [n_mappings]
    size_t n_notes;
    struct safetensors_note *notes; // of all files, in their order; owned
};

// folder has model.safetensors, or model.safetensors.index.json and the shards it names.
bool safetensors_open(struct safetensors *s, const char *folder, struct error *err);
// One file by its path.
bool safetensors_open_file(struct safetensors *s, const char *path, struct error *err);
void safetensors_close(struct safetensors *s);

// NULL if there is none of that name.
const struct tensor *safetensors_find(const struct safetensors *s, const char *name);

// The first note of that key; NULL if there is none.
const char *safetensors_note(const struct safetensors *s, const char *key);

// Gives back the pages under these bytes (mapping_drop) if they lie in one of the mapped files; any
// other memory, such as a copy made from them, is left alone.
void safetensors_drop(const struct safetensors *s, const void *p, size_t size);

// Parses one file that is already in memory, data[0..size), and adds its tensors to s (for tests
// and the fuzz target). `path` begins every message and must outlive s.
bool safetensors_parse(struct safetensors *s, const void *data, size_t size, const char *path,
                       struct error *err);

// Writes tensors (F32, F16, BF16, …: whatever dtype says) to one file, replacing it only when
// complete, with "format": "pt" as metadata, which transformers demands.
bool safetensors_write(const char *path, const struct tensor *tensors, size_t n, struct error *err);

// The same for tensors whose bytes are not all in memory at once: the header first (of `data`
// nothing is read), then the bytes of all tensors, one after another, in any pieces.
struct safetensors_writer {
    struct file_writer file;
    size_t missing; // bytes of tensors that are still to come
};
// align: the data begins at a multiple of this, a power of two from 8 on. notes: beside
// "format": "pt".
bool safetensors_writer_open(struct safetensors_writer *w, const char *path,
                             const struct tensor *tensors, size_t n,
                             const struct safetensors_note *notes, size_t n_notes, size_t align,
                             struct error *err);
// Errors of writing are kept for commit.
void safetensors_writer_add(struct safetensors_writer *w, const void *data, size_t size);
// Fails if bytes are missing, or were too many.
bool safetensors_writer_commit(struct safetensors_writer *w, struct error *err);
void safetensors_writer_abort(struct safetensors_writer *w); // safe after commit, and when zeroed

#endif
