// Weights woven together: sixteen rows of a quantized matrix as one, in the order the kernels read.
//
// The codes of four neighbouring columns are four bytes, those of sixteen rows 64, a register and a
// cache line (a "quad"): one instruction multiplies them with the four int8 activations of those
// columns and adds up, for sixteen rows at once. The same 64 bytes are a row of an AMX tile.
//
//     byte        0   1   2   3   4   5   6   7       60  61  62  63
//     row         0   0   0   0   1   1   1   1   …   15  15  15  15
//     column      c  c+1 c+2 c+3  c  c+1 c+2 c+3  …   c  c+1 c+2 c+3
//
// Codes of four bits share a byte with the next quad: the line holds quad q below, q + 1 above.
// Fifth bits of eight quads share a line, bit q that of quad q; fifth and sixth bits of four quads,
// bits 2q and 2q + 1. A block of sixteen rows is, each plane on a cache line:
//
//     | low codes: k_padded / 4 quads | high bits | scales | zeros |      [block_bytes]
//
// It takes the bytes the format took, except that columns are padded to 32 and rows to 16. A weight
// is scale * (code - zero), or scale * table[code] or levels[code], or scale * code + offset:
//
//     scale   of a row: float32. Of a group: float16 or float32, 16 rows side by side. K4 and K6:
//             the two-level scales of GGUF's Q4_K/Q5_K and Q6_K, one float16 for 256 columns and
//             small integers.
//     zero    one for all, or one per group (4 or 8 bits), or a float16 offset per group.
//
// Files hold these bytes (model/packed.h): an order that differs in anything needs another name
// there.
#ifndef NIBBLE_WEAVE_H
#define NIBBLE_WEAVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WEAVE_ROWS = 16, WEAVE_COLUMNS = 32, WEAVE_SUPER = 256, WEAVE_UNIT_MAX = 128 };

enum weave_scale {
    WEAVE_SCALE_ROW,
    WEAVE_SCALE_F16,
    WEAVE_SCALE_F32,
    WEAVE_SCALE_K4,
    WEAVE_SCALE_K6
};
enum weave_zero { WEAVE_ZERO_ALL, WEAVE_ZERO_GROUP, WEAVE_ZERO_OFFSET, WEAVE_ZERO_K4 };

// What a format is made of: the part of a struct weave that does not depend on the matrix.
struct weave_kind {
    int bits;     // 4, 5 or 6: codes from 0; 8: codes from -128
    size_t group; // columns that share a scale (16 to 256); 0: the whole row
    enum weave_scale scale;
    enum weave_zero zero;
    int zero_code;       // for WEAVE_ZERO_ALL
    const int8_t *table; // [16] what codes of 4 bits stand for, or NULL
    // With a table and WEAVE_SCALE_F32 alone: codes stand for levels[16] times the scale, which
    // products take for step * table.
    const float *levels;
    float step;
};

struct weave {
    struct weave_kind kind;
    size_t n, k, k_padded;
    size_t unit, units; // columns that are summed as integers: the group, at most WEAVE_UNIT_MAX
    size_t groups;      // scales in a row
    size_t high, scales, zeros; // offsets of the planes in a block
    size_t block_bytes;         // of sixteen rows
    unsigned char *data;        // [n / 16, rounded up][block_bytes], on a cache line
};

// One row, spelled out: what is woven, and what comes back.
struct weave_row {
    uint8_t *codes;     // [k]; 8 bits: int8 as they are
    float row_scale;    // WEAVE_SCALE_ROW
    uint16_t *scales;   // [groups] float16; K4, K6: [k / 256] float16
    float *wide_scales; // [groups], WEAVE_SCALE_F32
    uint16_t *offsets;  // [groups] float16; K4: [k / 256], the scale of what is subtracted
    uint8_t *zeros;     // [groups]
    uint8_t *small, *small_offsets; // [k / 32] or, K6, [k / 16] as int8: the integers under scales
};

// Fills in all but data; false if a size overflows or the kind does not fit the matrix (K4 and K6
// need k to be a multiple of 256).
bool weave_layout(struct weave *w, const struct weave_kind *kind, size_t n, size_t k);
size_t weave_bytes(const struct weave *w);
// Space for a row of this layout; false when memory is short.
bool weave_row_init(struct weave_row *row, const struct weave *w);
void weave_row_free(struct weave_row *row);
// Row i into its block. The rows of a block are put one after another, by one thread, the first of
// them first: it clears the block.
void weave_put(const struct weave *w, size_t i, const struct weave_row *row);
void weave_get(const struct weave *w, size_t i, struct weave_row *row);
// Columns [col, col + count) of a row as float32, col a multiple of 256: bit for bit what the
// format it was made from gives.
void weave_read(const struct weave *w, size_t i, size_t col, size_t count, float *out);

#endif
