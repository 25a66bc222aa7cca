// Architectures: each a table over one forward pass. To add one: its row and a line in arch.c. What
// the row cannot say (a new activation, a new norm) is a change to forward.c.
#ifndef NIBBLE_MODEL_ARCH_H
#define NIBBLE_MODEL_ARCH_H

#include "io/json.h"
#include "model/config.h"

// The parts of a layer, in the order they are loaded.
enum layer_part {
    PART_ATTENTION_NORM,
    PART_Q,
    PART_K,
    PART_V,
    PART_Q_NORM,
    PART_K_NORM,
    PART_O,
    PART_MLP_NORM,
    PART_GATE,
    PART_UP,
    PART_DOWN,
    PART_COUNT
};

struct arch {
    const char *name;             // "qwen2": JSON `arch`
    const char *architectures[2]; // config.json's architectures[0] that mean this one
    const char *model_type;       // config.json's model_type
    const char *prefixes[2];      // tensor names may begin with either ("transformer.", "")
    const char *embedding, *position_embedding, *final_norm; // after the prefix; NULL: none
    const char *head;                                        // never prefixed
    const char *layer;             // "layers", as in "model.layers.3.mlp.up_proj.weight"
    const char *parts[PART_COUNT]; // after the layer's prefix, without ".weight"; NULL: none
    bool fused_qkv;                // PART_Q names one matrix with q, k and v rows
    bool transposed;               // block weights are stored [K, N] (GPT-2's Conv1D)
    bool layernorm;                // LayerNorm with bias instead of RMSNorm
    bool gelu;                     // GELU MLP without a gate instead of SwiGLU
    // What this architecture reads differently from the common keys; NULL: nothing.
    bool (*read_config)(struct model_config *c, const cJSON *json, const char *name,
                        struct error *err);
};

extern const struct arch *const archs[]; // NULL-terminated

#endif
