// Sizes of the packed layout (pack.c), for the packer and for the kernels' launches.
#ifndef NIBBLE_CUDA_PACKED_H
#define NIBBLE_CUDA_PACKED_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PACKED_ROWS = 16, PACKED_COLUMNS = 128 };

struct packed_shape {
    unsigned bits;           // of a code
    unsigned tiles, records; // rows of tiles; records in each
    unsigned sets;           // groups of scales in a record; 0: scales per row, or none
    bool zeros, row_scales;
    unsigned code_bytes, record_bytes;
    size_t scales, bytes; // offset of the scales per row; all
};

bool cuda_packed_shape(const struct cuda_matrix *w, struct packed_shape *s);

#ifdef __cplusplus
}
#endif

#endif
