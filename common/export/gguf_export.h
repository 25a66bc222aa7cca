// A model as a GGUF file that llama.cpp runs: what will be in it (the plan), then the file.
//
// The plan says for every tensor its name, shape, type and bytes before anything is written.
// Writing streams: one tensor at a time is put together, quantized by all threads and written, so
// that memory is what the largest tensor needs, whatever the model's size.
#ifndef NIBBLE_EXPORT_GGUF_EXPORT_H
#define NIBBLE_EXPORT_GGUF_EXPORT_H

#include "export/gguf_types.h"
#include "io/gguf_write.h"
#include "model/model.h"
#include "quant/matrix.h"
#include "quant/recipe.h"
#include "text/tokenizer.h"

struct gguf_plan_tensor {
    char name[GGUF_NAME_SIZE]; // "blk.0.attn_q.weight"
    const char *source;        // the checkpoint's name; "" where there is none
    size_t n, k;               // a matrix [n, k]; k 0: a vector of n
    // Where the rows come from: one matrix, or GPT-2's q, k and v one after another; of a vector
    // the same in floats.
    const struct tensor *parts[3];
    const float *vectors[3];
    size_t n_parts;
    // Heads whose two halves are interleaved, row by row, as llama.cpp's rotary embedding of the
    // architecture "llama" wants them; 0: rows stay where they are.
    size_t heads;
    enum gguf_role role; // of a matrix
    size_t layer;

    const struct quant_format *asked;  // what a recipe said, or the checkpoint has
    enum gguf_type_number wanted;      // by the mix, or the type nearest to `asked`
    const struct quant_format *format; // what it becomes: `wanted`, or what fits the rows instead
    size_t bytes;
    bool search; // the recipe says so

    // Found when it is written; all 0 for vectors.
    struct matrix_error cost;       // of `format`
    struct matrix_error asked_cost; // of `asked`, where GGUF has no type for it
};

struct gguf_plan {
    const struct model *model;
    const char *arch; // "llama" for Mistral
    struct gguf_plan_tensor *tensors;
    size_t n_tensors, capacity;
    uint32_t file_type;
    float *rope_factors; // [D/2] what each frequency is divided by (llama3); or NULL
};

// Matrices by a preset's mix, norms and biases in float32. only, skip: patterns of the checkpoint's
// names, or NULL; matrices that they leave out stay as they are. The model must outlive the plan.
bool gguf_plan_preset(struct gguf_plan *plan, const struct model *m,
                      const struct gguf_preset *preset, const char *only, const char *skip,
                      struct error *err);
// Matrices by a recipe. What it keeps stays as the checkpoint has it (or becomes float16, if GGUF
// has no such type); formats that GGUF has not become the nearest type.
bool gguf_plan_recipe(struct gguf_plan *plan, const struct model *m, const struct recipe *recipe,
                      struct error *err);
void gguf_plan_free(struct gguf_plan *plan);

// Of the matrices of the blocks, and of the embedding and the head where they are quantized.
struct gguf_plan_size {
    size_t weights, bytes;
    size_t asked_bytes; // in the formats that the recipe says; bytes where there is none
};
void gguf_plan_sizes(const struct gguf_plan *plan, struct gguf_plan_size *size);

// Bytes of the file that would be written.
bool gguf_plan_file_size(const struct gguf_plan *plan, const struct tokenizer *tokenizer,
                         const char *name, size_t *bytes, struct error *err);

struct gguf_export_options {
    const char *name; // general.name
    bool search;      // look for scales of least error (quant_hints)
    void (*progress)(void *user, size_t done, size_t total, const char *tensor); // bytes; or NULL
    void *user;
};

// Writes the file (a model that came from a GGUF file needs no tokenizer): to a temporary one
// first, which is read back and then renamed. *file_bytes (may be NULL) gets its size. Fills the
// tensors' costs.
bool gguf_export(struct gguf_plan *plan, const struct tokenizer *tokenizer,
                 const struct gguf_export_options *options, const char *path, size_t *file_bytes,
                 struct error *err);

// The parts of it (gguf_metadata.c, gguf_vocabulary.c).
void gguf_put_model(struct gguf_writer *w, const struct gguf_plan *plan, const char *name);
void gguf_put_same(struct gguf_writer *w, const struct gguf_plan *plan, const struct gguf *from);
bool gguf_put_tokenizer(struct gguf_writer *w, const struct tokenizer *t,
                        const struct model_config *c, struct error *err);

#endif
