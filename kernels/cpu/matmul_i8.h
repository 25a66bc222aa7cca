// What matmul_i8.c hands to the versions of matmul_i8_simd.h.
#ifndef NIBBLE_MATMUL_I8_H
#define NIBBLE_MATMUL_I8_H

enum {
    I8_CHUNK = 4096, // columns at a time: six rows of q fit the L1 cache beside four of w
    I8_PANEL = 64,   // rows of w at a time
    I8_TILE = 6      // most rows of q at a time
};

#endif
