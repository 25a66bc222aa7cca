// A block of attention in AMX tiles of bfloat16; what attention.c does with it is the same as in
// vectors of float32.
#include "kernels/cpu/attention.h"

#if defined(__x86_64__)
#include "amx_begin.h"
#include "attention_tiles_simd.h"
#include "amx_end.h"

size_t attention_tiles_rows(size_t d) {
    if (kernels_level() < LEVEL_AMX || d > ATTENTION_TILES_D)
        return 0;
    size_t fit = ATTENTION_FLOATS / round_up(d, STEP) / PAIR * PAIR;
    return min_size(ATTENTION_TILES_ROWS, fit);
}

void attention_tiles_segment(const struct attention_block *b, struct attention_sums *sums,
                             int32_t first, int32_t last) {
    segment_in_tiles(b, sums, first, last);
}

#else

size_t attention_tiles_rows(size_t d) {
    (void)d;
    return 0;
}

void attention_tiles_segment(const struct attention_block *b, struct attention_sums *sums,
                             int32_t first, int32_t last) {
    (void)b, (void)sums, (void)first, (void)last;
}

#endif
