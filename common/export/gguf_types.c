#include "export/gguf_types.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "io/gguf.h"

// ---- names ------------------------------------------------------------------------------------

const struct gguf_preset gguf_presets[] = {
    {"F32", 0, GGUF_TYPE_F32, "32 bits"},
    {"F16", 1, GGUF_TYPE_F16, "16 bits"},
    {"BF16", 32, GGUF_TYPE_BF16, "16 bits, the range of 32"},
    {"Q8_0", 7, GGUF_TYPE_Q8_0, "8.5 bits: nothing to see"},
    {"Q6_K", 18, GGUF_TYPE_Q6_K, "6.6 bits"},
    {"Q5_K_M", 17, GGUF_TYPE_Q5_K, "5.5 bits, sensitive matrices in Q6_K"},
    {"Q5_K_S", 16, GGUF_TYPE_Q5_K, "5.5 bits"},
    {"Q5_1", 9, GGUF_TYPE_Q5_1, "6 bits, with a minimum"},
    {"Q5_0", 8, GGUF_TYPE_Q5_0, "5.5 bits"},
    {"Q4_K_M", 15, GGUF_TYPE_Q4_K, "4.5 bits, sensitive matrices in Q6_K"},
    {"Q4_K_S", 14, GGUF_TYPE_Q4_K, "4.5 bits, a few matrices in Q5_K"},
    {"Q4_1", 3, GGUF_TYPE_Q4_1, "5 bits, with a minimum"},
    {"IQ4_NL", 25, GGUF_TYPE_IQ4_NL, "4.5 bits on a curved grid"},
    {"IQ4_XS", 30, GGUF_TYPE_IQ4_XS, "4.25 bits on a curved grid"},
    {"Q4_0", 2, GGUF_TYPE_Q4_0, "4.5 bits, the plainest"},
    {"MXFP4", 38, GGUF_TYPE_MXFP4, "4.25 bits: 4-bit floats, scales of 2^n; embedding in Q8_0"},
    {"Q3_K_L", 13, GGUF_TYPE_Q3_K, "3.4 bits, sensitive matrices in Q5_K"},
    {"Q3_K_M", 12, GGUF_TYPE_Q3_K, "3.4 bits, sensitive matrices in Q4_K and Q5_K"},
    {"Q3_K_S", 11, GGUF_TYPE_Q3_K, "3.4 bits"},
    {"Q2_K", 10, GGUF_TYPE_Q2_K, "2.6 bits, sensitive matrices in Q3_K and Q4_K"},
    {NULL, 0, GGUF_TYPE_F32, NULL},
};

static const struct {
    const char *name, *meant;
} aliases[] = {{"Q3_K", "Q3_K_M"}, {"Q4_K", "Q4_K_M"}, {"Q5_K", "Q5_K_M"}, {"MXFP4_MOE", "MXFP4"}};

static bool same_name(const char *name, const char *text, size_t size) {
    return strlen(name) == size && strncasecmp(name, text, size) == 0;
}

const struct gguf_preset *gguf_preset_find(const char *name, size_t size) {
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (same_name(aliases[i].name, name, size))
            return gguf_preset_find(aliases[i].meant, strlen(aliases[i].meant));
    for (const struct gguf_preset *p = gguf_presets; p->name; p++)
        if (same_name(p->name, name, size))
            return p;
    return NULL;
}

// Letters to insert, drop or change, row by row of the table.
static size_t distance(const char *text, size_t size, const char *name) {
    size_t n = strlen(name), row[16];
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; i < size; i++) {
        size_t diagonal = row[0]++;
        for (size_t j = 1; j <= n; j++) {
            size_t changed = diagonal + (toupper((unsigned char)text[i]) != name[j - 1]);
            size_t least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            diagonal = row[j];
            row[j] = changed < least ? changed : least;
        }
    }
    return row[n];
}

const struct gguf_preset *gguf_preset_nearest(const char *name, size_t size) {
    const struct gguf_preset *best = gguf_presets;
    for (const struct gguf_preset *p = gguf_presets; p->name; p++)
        if (distance(name, size, p->name) < distance(name, size, best->name))
            best = p;
    return best;
}

// Of the mixes with the same base, the table has the medium one first, but for Q3_K.
uint32_t gguf_file_type_of(enum gguf_type_number type) {
    if (type == GGUF_TYPE_Q3_K)
        return 12;
    for (const struct gguf_preset *p = gguf_presets; p->name; p++)
        if (p->base == type)
            return p->file_type;
    return 0;
}

// ---- mixes ------------------------------------------------------------------------------------

// What llama.cpp calls 70B: Llama 2 and 3 (the first Llama's 65 B shares no heads), and Qwen2 72B.
static bool is_70b(const char *arch, size_t n_layers, bool heads_share) {
    return n_layers == 80 &&
           ((strcmp(arch, "llama") == 0 && heads_share) || strcmp(arch, "qwen2") == 0);
}

struct gguf_mix gguf_mix_of(const char *arch, size_t n_layers, size_t n_heads, size_t n_kv_heads,
                            bool tied) {
    return (struct gguf_mix){n_layers, n_heads / n_kv_heads, tied,
                             is_70b(arch, n_layers, n_heads != n_kv_heads)};
}

static size_t block_of(enum gguf_type_number type) {
    return gguf_type_of((uint32_t)type)->block_weights;
}

static bool is(const struct gguf_preset *p, const char *name) {
    return strcmp(p->name, name) == 0;
}

// The first and the last eighth of the layers, and every third between.
static bool gets_more_bits(size_t layer, size_t n_layers) {
    size_t eighth = n_layers / 8;
    return layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2;
}

static bool is_iq4(const struct gguf_preset *p) {
    return p->base == GGUF_TYPE_IQ4_NL || p->base == GGUF_TYPE_IQ4_XS;
}

static enum gguf_type_number output_type(const struct gguf_preset *p, size_t k) {
    if (p->base == GGUF_TYPE_MXFP4 || p->base == GGUF_TYPE_Q8_0 || k % block_of(p->base))
        return GGUF_TYPE_Q8_0;
    return GGUF_TYPE_Q6_K;
}

// The values' matrix: small where heads share it, and everything that attention passes on.
static enum gguf_type_number value_type(const struct gguf_preset *p, const struct gguf_mix *mix,
                                        size_t layer) {
    enum gguf_type_number type = p->base;
    if (is(p, "Q2_K"))
        type = mix->heads_per_kv >= 4 ? GGUF_TYPE_Q4_K : GGUF_TYPE_Q3_K;
    else if (is(p, "Q3_K_M"))
        type = layer < 2 ? GGUF_TYPE_Q5_K : GGUF_TYPE_Q4_K;
    else if (is(p, "Q3_K_L") || (is_iq4(p) && mix->heads_per_kv >= 4) ||
             (is(p, "Q4_K_S") && layer < 4))
        type = GGUF_TYPE_Q5_K;
    else if ((is(p, "Q4_K_M") || is(p, "Q5_K_M")) && gets_more_bits(layer, mix->n_layers))
        type = GGUF_TYPE_Q6_K;
    if (mix->is_70b && (type == GGUF_TYPE_Q3_K || type == GGUF_TYPE_Q4_K))
        type = GGUF_TYPE_Q5_K;
    return type;
}

static enum gguf_type_number down_type(const struct gguf_preset *p, size_t n_layers, size_t layer) {
    if (is(p, "Q2_K"))
        return GGUF_TYPE_Q3_K;
    if (is(p, "Q3_K_M"))
        return layer < n_layers / 16 ? GGUF_TYPE_Q5_K : GGUF_TYPE_Q4_K;
    if (is(p, "Q3_K_L") || ((is_iq4(p) || is(p, "Q4_K_S")) && layer < n_layers / 8))
        return GGUF_TYPE_Q5_K;
    if ((is(p, "Q4_K_M") || is(p, "Q5_K_M")) && gets_more_bits(layer, n_layers))
        return GGUF_TYPE_Q6_K;
    return p->base;
}

static enum gguf_type_number attention_output_type(const struct gguf_preset *p) {
    return is(p, "Q2_K")     ? GGUF_TYPE_Q3_K
           : is(p, "Q3_K_M") ? GGUF_TYPE_Q4_K
           : is(p, "Q3_K_L") ? GGUF_TYPE_Q5_K
                             : p->base;
}

enum gguf_type_number gguf_mix_type(const struct gguf_preset *p, const struct gguf_mix *mix,
                                    enum gguf_role role, size_t layer, size_t k) {
    if (block_of(p->base) == 1)
        return p->base;
    switch (role) {
    case GGUF_OUTPUT:
        return output_type(p, k);
    case GGUF_EMBEDDING:
        if (mix->tied || p->base == GGUF_TYPE_MXFP4)
            return output_type(p, k);
        return p->base;
    case GGUF_V:
    case GGUF_QKV:
        return value_type(p, mix, layer);
    case GGUF_DOWN:
        return down_type(p, mix->n_layers, layer);
    case GGUF_O:
        return attention_output_type(p);
    default:
        return p->base;
    }
}

enum gguf_type_number gguf_fitting_type(enum gguf_type_number type, size_t k) {
    if (k % block_of(type) == 0)
        return type;
    switch (type) {
    case GGUF_TYPE_IQ4_XS:
        type = GGUF_TYPE_IQ4_NL;
        break;
    case GGUF_TYPE_Q2_K:
    case GGUF_TYPE_Q3_K:
        type = GGUF_TYPE_Q4_0;
        break;
    case GGUF_TYPE_Q4_K:
        type = GGUF_TYPE_Q5_0;
        break;
    case GGUF_TYPE_Q5_K:
        type = GGUF_TYPE_Q5_1;
        break;
    case GGUF_TYPE_Q6_K:
        type = GGUF_TYPE_Q8_0;
        break;
    default:
        break;
    }
    return k % block_of(type) == 0 ? type : GGUF_TYPE_F16;
}

enum gguf_type_number gguf_nearest_type(const struct quant_format *f) {
    if (f->bits >= 16)
        return f->bits > 16 ? GGUF_TYPE_F32 : GGUF_TYPE_F16;
    if (f->bits > 6)
        return GGUF_TYPE_Q8_0;
    if (f->bits == 6)
        return GGUF_TYPE_Q6_K;
    if (f->bits == 5)
        return f->zero_point ? GGUF_TYPE_Q5_1 : GGUF_TYPE_Q5_0;
    if (strcmp(f->name, "nf4") == 0) // a curved grid as well, in as many bits: 18 bytes for 32
        return GGUF_TYPE_IQ4_NL;
    if (f->bits == 4)
        return f->zero_point ? GGUF_TYPE_Q4_1 : GGUF_TYPE_Q4_0;
    return f->bits == 3 ? GGUF_TYPE_Q3_K : GGUF_TYPE_Q2_K;
}
