// --bench --ladder: what each step of kernels/cpu/ladder makes of one matrix.
#ifndef NIBBLE_PHASE3_LADDER_H
#define NIBBLE_PHASE3_LADDER_H

#include "lab/lab.h"

// Adds the table's rows: what memory allows, then every step, on one thread or all, that --config
// does not leave out. The matrix has n rows of k columns, a multiple of 128, in copies of together
// 1.2 GB, or as many as there are runs. A step's time is taken after its product was compared with
// the reference; if they differ that is a failure.
bool ladder_measure(struct lab *lab, size_t n, size_t k, struct error *err);
// Whether a row of the table has this name.
bool ladder_has(const char *config);

#endif
