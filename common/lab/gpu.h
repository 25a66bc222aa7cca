// --device cuda: which GPU, and a row's model on it. For this folder.
#ifndef NIBBLE_LAB_GPU_H
#define NIBBLE_LAB_GPU_H

#include "lab/lab.h"

// Finds the GPU, or with --emulate the emulator, and names it in the table; one line if there is
// none.
bool gpu_open(struct lab *lab, struct error *err);
// m's layers (the last --gpu-layers of them) on the GPU. Says so where a format has no kernel
// there.
bool gpu_place(struct lab *lab, struct model *m, const char *config, struct error *err);
// The row is measured: its VRAM, and the memory given back. The reference keeps its head.
void gpu_leave(struct lab *lab, struct model *m, struct result_row *row);

#endif
