// A tensor is a view: a type, a shape and a pointer into memory that someone else owns (a mapped
// file, or the struct that allocated it).
//
// Letters for dimensions, used in every header of the project:
//     T tokens in a batch      H hidden size        I MLP (intermediate) size   V vocabulary
//     L layers                 A attention heads    B key/value heads           D head dimension
//     N rows (outputs), K columns (inputs) of a weight matrix, M rows of activations
//     G weights that share one scale (a group)
#ifndef NIBBLE_CORE_TENSOR_H
#define NIBBLE_CORE_TENSOR_H

#include <stdbool.h>

#include "core/dtype.h"

enum { TENSOR_MAX_DIMS = 4 };

struct quant_format;

struct tensor {
    const char *name; // as in the file it came from; owned by whoever read that file
    const char *file; // that file's path, for messages; NULL if it was made here
    enum dtype dtype;
    const struct quant_format *format; // how `data` is read as a matrix; NULL if never asked
    bool woven; // a matrix whose rows lie as the CPU's kernels read them (quant/woven.h)
    int n_dims;
    size_t shape[TENSOR_MAX_DIMS]; // row-major, outermost first: [N, K] for a matrix
    size_t bytes;                  // at data; of a woven matrix, those that its format takes
    void *data;                    // read-only where the tensor is a view of a mapped file
};

#endif
