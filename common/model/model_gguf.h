// A model's weights from a GGUF file, as if they came from a checkpoint folder: under the names
// that Hugging Face checkpoints have, so that recipes and tables call them alike, each in the
// format the file has it in, and mapped.
//
// One thing is turned back: llama.cpp's architecture "llama" wants rotary pairs next to each other,
// and the rows of a head's two halves lie interleaved in q and k (and in their biases):
//
//     checkpoint   0 1 2 3 | 4 5 6 7        pair i is (i, i + D/2)
//     file         0 4 1 5 2 6 3 7          pair i is (2i, 2i + 1)
//
// Whole rows move, whatever their format. Those two matrices are the only ones that are copied.
#ifndef NIBBLE_MODEL_MODEL_GGUF_H
#define NIBBLE_MODEL_MODEL_GGUF_H

#include "io/gguf.h"
#include "model/config.h"

struct gguf_weight {
    struct tensor tensor; // owns its name
    bool owns_data;
    bool used; // gguf_weights_find has found it
};

struct gguf_weights {
    struct gguf file;
    size_t n;
    struct gguf_weight *weights; // sorted by name
};

// Opens the file and fills the config. A tensor that the architecture does not have, without
// weights, or in a type we cannot compute with, is an error: a model without it would be another
// one.
bool gguf_weights_open(struct gguf_weights *w, const char *path, struct model_config *c,
                       struct error *err);
void gguf_weights_close(struct gguf_weights *w);
// By the checkpoint's name; NULL if there is none.
const struct tensor *gguf_weights_find(const struct gguf_weights *w, const char *name);
// When the model is loaded: false, naming it, if there is a tensor that it has not asked for, such
// as a bias of k where q has none (and the config says that there are no biases).
bool gguf_weights_check_used(const struct gguf_weights *w, struct error *err);

// The config from the keys, with llama.cpp's defaults, and from which tensors there are: biases, an
// output matrix, factors of the rotary frequencies.
bool model_config_from_gguf(struct model_config *c, const struct gguf *g, struct error *err);

// The checkpoint's name for a tensor of a GGUF file; false if the architecture has none of that
// name. *interleaved: it is one of those whose rows are to be turned back.
enum { GGUF_SOURCE_NAME = 256 };
bool gguf_source_name(const struct model_config *c, const char *name, char out[GGUF_SOURCE_NAME],
                      bool *interleaved);

#endif
