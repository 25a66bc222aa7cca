// A super-block of 256 weights, taken apart: what the searches find and the formats pack.
#ifndef NIBBLE_QUANT_FORMAT_GGML_K_H
#define NIBBLE_QUANT_FORMAT_GGML_K_H

#include <stdint.h>

enum { SUPER = 256, SUPER_GROUPS = 16 }; // weights, and the most groups they are divided in

struct ggml_super {
    float d, dmin;           // as read back from their float16s
    int scale[SUPER_GROUPS]; // of group g: d * scale[g]
    int min[SUPER_GROUPS];   // what is subtracted from it: dmin * min[g]
    uint8_t codes[SUPER];    // 0 … 2^bits - 1
};

#endif
