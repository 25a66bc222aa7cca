// The products of gemm.h in AMX tiles: both matrices rounded to bfloat16, sums in float32. Three to
// four times as fast as float32 vectors at the bundled model's shapes (tools/bench_train.c).
// Training in mixed precision: Micikevicius et al. (2018); Kalamkar et al., "A study of BFLOAT16
// for deep learning training" (2019).
#ifndef NIBBLE_TRAIN_GEMM_TILES_H
#define NIBBLE_TRAIN_GEMM_TILES_H

#include "train/gemm.h"

// Whether this CPU has such tiles.
bool gemm_tiles_here(void);
// As gemm; one of the strides of a, and of b, must be 1.
void gemm_tiles(size_t M, size_t N, size_t K, struct gemm_view a, struct gemm_view b, bool add,
                float *c, size_t c_stride, float *space);

#endif
