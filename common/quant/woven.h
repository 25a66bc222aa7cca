// Matrices in the order the CPU's kernels read them (kernels/cpu/weave.h).
//
// A woven matrix takes the bytes it took and still is a struct tensor: its format is a copy of the
// one it had, whose dequantize reads the new order and gives the same bits. So whoever asks the
// format for a row need not know. Whoever reads blocks or planes themselves (a file writer, another
// device) wants matrices as they were: weave a model just before running it on the CPU.
#ifndef NIBBLE_QUANT_WOVEN_H
#define NIBBLE_QUANT_WOVEN_H

#include "core/tensor.h"
#include "model/model.h"
#include "quant/format.h"
#include "kernels/cpu/weave.h"

struct woven {
    struct quant_format format; // first: its functions find the rest by it
    const struct quant_format *base;
    struct weave weave;
};

// How rows of k weights in this format are woven; false if they are not: floats stay as they are,
// and rare formats are unpacked to float32 for each product.
bool woven_kind(const struct quant_format *f, size_t k, struct weave_kind *kind);

// The matrix woven, in memory of its own. `drop`: pages of w that were read are given back, so that
// two copies never exist; w's data is lost then, unless it is a mapped file. NULL with a message.
struct woven *woven_make(const struct tensor *w, bool drop, struct error *err);
void woven_free(struct woven *w);

// Makes the model as fast as the kernels allow: every matrix that can be is woven, except those with
// int8_activations, and all may round what they multiply (rounds_x). Memory of its own that a
// matrix had is given back; a shared one stays as it was. Results differ from those of the model as
// it was by the rounding of activations: about 0.5 % of each product's norm in units of 128.
bool model_weave(struct model *m, struct error *err);

#endif
