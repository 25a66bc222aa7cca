// config.json: the shape of a model, in both spellings (before and since transformers 5).
#ifndef NIBBLE_MODEL_CONFIG_H
#define NIBBLE_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/dtype.h"
#include "core/error.h"

enum { CONFIG_MAX_EOS = 16, CONFIG_MAX_HEAD_DIM = 1024 };

enum rope_kind { ROPE_NONE, ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3 };

struct rope_config {
    enum rope_kind kind;
    double theta;
    double factor;                            // linear, llama3
    double low_freq_factor, high_freq_factor; // llama3
    double original_context;                  // llama3
    float *factors; // [D/2] what each frequency is divided by, on top of that; NULL: nothing
};

struct arch; // model/arch.h

struct model_config {
    const struct arch *arch;
    size_t hidden;       // H
    size_t intermediate; // I
    size_t n_layers;     // L
    size_t n_heads;      // A
    size_t n_kv_heads;   // B
    size_t head_dim;     // D
    size_t vocab;        // V
    size_t max_context;  // max_position_embeddings
    float norm_eps;
    struct rope_config rope;
    bool attention_bias; // on q, k, v
    bool output_bias;    // on o
    bool mlp_bias;
    bool qk_norm;
    bool tied;                   // the head is the embedding
    size_t sliding_window;       // 0: none
    size_t window_from_layer;    // layers from here on use the window (Qwen2's max_window_layers)
    uint8_t *layer_windowed;     // [L] from layer_types, or NULL: window_from_layer decides
    enum dtype dtype;            // what the file says its weights are (information only)
    int32_t bos;                 // -1: none
    int32_t eos[CONFIG_MAX_EOS]; // config.json's and generation_config.json's
    size_t n_eos;
};

// Reads <folder>/config.json and, if present, generation_config.json.
bool model_config_read(struct model_config *c, const char *folder, struct error *err);
bool model_config_parse(struct model_config *c, const char *json, size_t size, const char *name,
                        struct error *err);
void model_config_free(struct model_config *c);
// What must be true of the sizes whatever file they come from; `name` begins the message.
bool model_config_check(const struct model_config *c, const char *name, struct error *err);
bool model_config_is_eos(const struct model_config *c, int32_t token);
// Whether this layer attends to only the last sliding_window positions.
bool model_config_layer_windowed(const struct model_config *c, size_t layer);

#endif
