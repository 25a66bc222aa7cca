// Matrices in the order the CPU's kernels read them (kernels/cpu/weave.h): the same for every
// instruction set, so that a file in this order serves them all.
//
// A woven matrix still is a struct tensor in its format, with `woven` set. Whoever asks quant_read
// for a row gets the same bits and need not know. Whoever reads blocks or planes themselves (a GGUF
// file, another device) undoes it first. Models are woven just before they run on the CPU, and
// saved woven (model/packed.h).
#ifndef NIBBLE_QUANT_WOVEN_H
#define NIBBLE_QUANT_WOVEN_H

#include "core/tensor.h"
#include "model/model.h"
#include "quant/format.h"
#include "kernels/cpu/weave.h"

// How rows of k weights in this format are woven; false if they are not: floats stay as they are,
// and rare formats are unpacked to float32 for each product.
bool woven_kind(const struct quant_format *f, size_t k, struct weave_kind *kind);
// How w is woven, or would be; `data` is that of w if it is. False if its format is not, or its
// size overflows; true for every w that is woven.
bool woven_layout(const struct tensor *w, struct weave *out);
// Bytes at w->data, woven or not.
size_t woven_bytes(const struct tensor *w);

// w, which is not woven, woven in memory of its own: *out, to be freed with woven_free. `drop`:
// pages of w that were read are given back, so that two copies never exist; w's data is lost then,
// unless it is a mapped file. False with a message.
bool woven_make(const struct tensor *w, bool drop, struct weave *out, struct error *err);
void woven_free(struct weave *w);
// The other way: woven w's rows as its format has them, bit for bit what was woven. The caller
// frees the w->bytes; NULL with a message.
void *woven_undo(const struct tensor *w, struct error *err);
// One row of them to `out`, for formats of blocks; false when memory is short.
bool woven_undo_row(const struct tensor *w, size_t row, void *out);

// Makes the model as fast as the kernels allow: every matrix that can be is woven, except those
// with int8_activations, and all may round what they multiply (rounds_x). Those of a file in this
// order are multiplied where they are mapped. Memory of its own that a matrix had is given back; a
// shared one stays as it was. Results differ from those of the model as it was by the rounding of
// activations: 0.6 % of a product's norm for normal
// numbers in units of 128, and with NF4, whose values are rounded, too, 0.8 %.
bool model_weave(struct model *m, struct error *err);

#endif
