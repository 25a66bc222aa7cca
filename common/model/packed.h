// Quantized models on disk: a folder like the one the model was made from, with its config.json and
// tokenizer, and weights in one safetensors file that is mapped, not unpacked.
//
//     "__metadata__": {"format": "pt", "nibble": "2", "activations": "int8",
//                      "model.layers.0.mlp.up_proj.weight": "int4-g128 woven-16x4 [4864, 896]",
//                      "model.layers.0.mlp.down_proj.weight": "nf4 [896, 4864]"}
//     "model.layers.0.mlp.up_proj.weight": {"dtype": "U8", "shape": [2256896], …}
//
// A tensor with an entry in the metadata is a matrix in that format, at a multiple of 64 bytes in
// the file and padded to one. "woven-16x4": the very bytes that kernels/cpu/weave.h describes, 16
// rows of 4 columns as one line, which the kernels of every instruction set read; so they multiply
// what is mapped, and nothing is copied when a model starts. Without a layout (formats that no
// kernel reads, int8 where activations become int8 too, and all matrices of version "1"): the very
// bytes that quant/format.h describes.
//
// With three numbers ("int8 [3, 768, 768]") it is a stack of matrices, each padded: GPT-2's fused
// q, k and v. All others are what safetensors says they are. "activations" is there if linears
// quantize theirs.
#ifndef NIBBLE_MODEL_PACKED_H
#define NIBBLE_MODEL_PACKED_H

#include "model/model.h"
#include "quant/recipe.h"

enum { PACKED_ALIGN = 64 };
#define PACKED_VERSION "2"
#define PACKED_WOVEN "woven-16x4"

// Gives the matrices of a file that the metadata tells about their format, shape and dtype; leaves
// files of others alone. Nothing is believed: names, formats and sizes must fit.
bool packed_bind(struct safetensors *files, struct error *err);
// Matrix i of a bound tensor; number 0 of one that is no stack.
struct tensor packed_matrix(const struct tensor *stored, size_t i);
// Whether linears that can shall quantize their activations; fails if the file says what we don't
// know.
bool packed_activations(const struct safetensors *files, bool *int8, struct error *err);

// What a model's block formats are; weights is 0 if it has none.
struct packed_summary {
    const struct quant_format *format; // NULL: several
    size_t weights, bytes;
    bool int8_activations;
};
struct packed_summary packed_summarize(const struct model *m);

// Writes such a folder: m, which was loaded from the checkpoint in `from`, or quantized from one
// that was; and the recipe, if there is one. `folder` must not exist, or be empty; it appears when
// it is complete. Tensors are written from where they are, or woven on the way, one at a time.
// *file_bytes: the size of the weights' file; may be NULL.
bool packed_save(const struct model *m, const struct recipe *recipe, const char *from,
                 const char *folder, size_t *file_bytes, struct error *err);

#endif
