// Which tensor of a GGUF file gets which type.
//
// A name such as Q4_K_M is a mix: most matrices in Q4_K, those that hurt most (the values' and the
// MLP's last matrix, in some layers) in Q6_K. The mixes and fallbacks here are llama-quantize's, so
// that a file of ours and one of its own are comparable tensor by tensor.
#ifndef NIBBLE_EXPORT_GGUF_TYPES_H
#define NIBBLE_EXPORT_GGUF_TYPES_H

#include "quant/format.h"

// Numbers of tensor types in a file (ggml's).
enum gguf_type_number {
    GGUF_TYPE_F32 = 0,
    GGUF_TYPE_F16 = 1,
    GGUF_TYPE_Q4_0 = 2,
    GGUF_TYPE_Q4_1 = 3,
    GGUF_TYPE_Q5_0 = 6,
    GGUF_TYPE_Q5_1 = 7,
    GGUF_TYPE_Q8_0 = 8,
    GGUF_TYPE_Q2_K = 10,
    GGUF_TYPE_Q3_K = 11,
    GGUF_TYPE_Q4_K = 12,
    GGUF_TYPE_Q5_K = 13,
    GGUF_TYPE_Q6_K = 14,
    GGUF_TYPE_IQ4_NL = 20,
    GGUF_TYPE_IQ4_XS = 23,
    GGUF_TYPE_BF16 = 30,
    GGUF_TYPE_MXFP4 = 39
};

struct gguf_preset {
    const char *name;           // "Q4_K_M"
    uint32_t file_type;         // general.file_type
    enum gguf_type_number base; // of most matrices
    const char *help;
};

// From the largest to the smallest; ends with a NULL name.
extern const struct gguf_preset gguf_presets[];
// By name, in any case; "Q4_K" means Q4_K_M and so on. NULL if unknown.
const struct gguf_preset *gguf_preset_find(const char *name, size_t size);
// The one whose name is spelled most like this, in any case (Levenshtein's distance).
const struct gguf_preset *gguf_preset_nearest(const char *name, size_t size);
// general.file_type of a file most of whose weights are in that type.
uint32_t gguf_file_type_of(enum gguf_type_number type);

// What a matrix does in the model.
enum gguf_role {
    GGUF_EMBEDDING,
    GGUF_OUTPUT,
    GGUF_Q,
    GGUF_K,
    GGUF_V,
    GGUF_QKV, // GPT-2's three in one
    GGUF_O,
    GGUF_GATE,
    GGUF_UP,
    GGUF_DOWN
};

// What the mixes ask about the model.
struct gguf_mix {
    size_t n_layers, heads_per_kv; // query heads that share a key/value head
    bool tied;                     // no output matrix: the embedding takes its type
    bool is_70b; // see gguf_mix_of: its small value matrices get more bits
};

// Of a model of that architecture (general.architecture) and these sizes.
struct gguf_mix gguf_mix_of(const char *arch, size_t n_layers, size_t n_heads, size_t n_kv_heads,
                            bool tied);

// The type of a matrix with rows of k weights, by the preset's mix. It may not fit k.
enum gguf_type_number gguf_mix_type(const struct gguf_preset *p, const struct gguf_mix *mix,
                                    enum gguf_role role, size_t layer, size_t k);
// The type itself if rows of k weights fit its blocks, else the one llama.cpp takes instead.
enum gguf_type_number gguf_fitting_type(enum gguf_type_number type, size_t k);
// Of a format that GGUF does not know, the type that is nearest: as many bits, a zero point where
// it has one, a curved grid for NF4's.
enum gguf_type_number gguf_nearest_type(const struct quant_format *f);

#endif
