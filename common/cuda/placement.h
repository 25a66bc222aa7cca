// A model on a GPU: its weights uploaded once, in the kernels' layout, and the device that
// model/device.h describes over them.
//
//     | CPU: embedding, layers 0 … L-N-1 | GPU: layers L-N … L-1, final norm, head |
//
// With all layers there (N = L), the embedding is too, and a step of decoding is one graph: token
// and position are read on the device, and sampling writes the next ones.
#ifndef NIBBLE_CUDA_PLACEMENT_H
#define NIBBLE_CUDA_PLACEMENT_H

#include "kernels/cuda/forward.h"
#include "model/device.h"

struct cuda_options {
    const struct cuda_backend *backend;
    size_t layers;    // N, at least 1; larger than L: all
    size_t positions; // that caches will have, for the plan; 0: the model's own limit, at most 2048
    int schedule;     // of the emulator, as in struct cuda_call
};

// What became of the weights.
struct cuda_report {
    size_t layers;       // placed
    size_t bytes;        // uploaded: weights, in their layout there
    size_t packed;       // matrices in the layout of kernels 6 to 11
    size_t as_they_are;  // matrices that kernels read as they lie in the file
    size_t to_float16;   // matrices in formats that no kernel reads, uploaded as float16
    const char *example; // the name of one such format, or NULL
};

// Uploads m's layers from L - N on, and what goes with them. Fails, with one line, if they do not
// fit (the line says how many layers would), or if the GPU's kernels cannot run this model.
bool cuda_place(struct model *m, const struct cuda_options *o, struct cuda_report *report,
                struct error *err);
// Gives back everything but the head: enough for model_logits, as a reference is asked.
void cuda_keep_head(struct model *m);
// The most memory of the GPU that this model has held at once, caches included, as the device
// counts it; 0 if it has none.
size_t cuda_peak_bytes(const struct model *m);

#endif
