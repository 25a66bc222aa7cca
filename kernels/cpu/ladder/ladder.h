// The ladder: one product y = W x, a token's, in steps from unpacking everything to the kernel that
// models run on. W is INT4 in groups of 128. Every step is the one before with one idea more; its
// number is the row of `phase3 --bench --ladder` and the section of write-up 6a.
#ifndef NIBBLE_CPU_LADDER_H
#define NIBBLE_CPU_LADDER_H

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/matmul_weave.h"

enum { LADDER_GROUP = 128 };

// The layouts a step can read.
enum ladder_layout {
    LADDER_F16,    // the weights before they were quantized
    LADDER_PACKED, // as quantizing leaves them
    LADDER_WOVEN
};

struct ladder {
    size_t n, k;                 // k is a multiple of LADDER_GROUP
    const uint16_t *f16;         // [n, k]
    const uint8_t *codes;        // [n, k / 2] blocks of 32: byte j holds weight j below j + 16
    const uint16_t *scales;      // [n, k / LADDER_GROUP] float16; w = scale * (code - 8)
    struct weight_source packed; // reads codes and scales, many weights at a time
    struct weave woven;          // the same codes and scales
    const float *x;              // [k]
    struct weave_x q;            // x in int8, made anew by the steps that round x
    float *unpacked;             // [n, k], for step 1
    float *y;                    // [n]
};

struct ladder_step {
    const char *name; // "2 unpack each weight"
    enum ladder_layout layout;
    bool all_threads; // else to be timed on one thread
    bool rounds_x;    // multiplies x in int8, a scale for each group
    // False with a message when memory is short.
    bool (*multiply)(struct ladder *l, struct error *err);
};

// In the order of the story, behind the lines to beat; the last name is NULL.
extern const struct ladder_step ladder_steps[];

#endif
