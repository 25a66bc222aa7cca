// A plan as tables that people read: what becomes of each tensor, and what each type weighs and
// costs.
#ifndef NIBBLE_EXPORT_GGUF_REPORT_H
#define NIBBLE_EXPORT_GGUF_REPORT_H

#include <stdio.h>

#include "export/gguf_export.h"

// One line for each tensor, before anything is written: its name, shape, type and bytes; the type
// or format it stands for, where that is another; the sum.
bool gguf_print_tensors(const struct gguf_plan *plan, FILE *f, struct error *err);
// One line for each type and what it stands for, after writing: tensors, bytes, bits per weight,
// and the error its rounding made.
bool gguf_print_types(const struct gguf_plan *plan, FILE *f, struct error *err);

#endif
