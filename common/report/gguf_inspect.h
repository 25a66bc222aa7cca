// What is in a GGUF file (all parts of a split one), for people: its keys, its tensors with shape,
// type, bytes and bits per weight, and totals by type, as Markdown.
#ifndef NIBBLE_REPORT_GGUF_INSPECT_H
#define NIBBLE_REPORT_GGUF_INSPECT_H

#include <stdbool.h>
#include <stdio.h>

#include "core/error.h"

// path: a GGUF file, or any part of a split one; a folder stands for its checkpoint or else its
// only GGUF file, and a line says which where it has both or no checkpoint. Types and architectures
// that we cannot compute with are shown like all others. A checkpoint in safetensors (a file, or a
// folder) is shown, too; it has no keys.
bool gguf_inspect(const char *path, FILE *out, struct error *err);

#endif
