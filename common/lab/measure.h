// Measuring one row: what a model in one configuration weighs, how fast it is, how good it is.
#ifndef NIBBLE_LAB_MEASURE_H
#define NIBBLE_LAB_MEASURE_H

#include "lab/lab.h"

// Fills the row (what is known from quantizing is the caller's to fill) and adds it to the table.
// The first row measured becomes the reference of the others. With --tokens: writes the logits
// instead and sets lab->done.
//
// Quality is the format's: scored in float32 arithmetic, so that it is the same on every machine.
// Speed and text are the engine's: m is woven for them (quant/woven.h), or, if it is lab->model, a
// view of it. --activations int8 scores what the engine computes too.
bool measure_row(struct lab *lab, struct model *m, struct result_row *row, struct error *err);

// Rows with this machine's read and copy bandwidth and arithmetic peaks.
bool measure_limits(struct result_table *table, struct error *err);

#endif
