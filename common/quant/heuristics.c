#include "quant/heuristics.h"

#include "quant/recipe.h"

static const char VALUES[] = "*v_proj|attn_v|*c_attn|*attn_qkv";
static const char DOWNS[] = "*down_proj|ffn_down|mlp.c_proj";

bool heuristic_first_last(size_t layer, size_t n_layers) {
    return layer == 0 || layer + 1 == n_layers;
}

bool heuristic_k_m(const char *kind, size_t layer, size_t n_layers) {
    size_t eighth = n_layers / 8;
    if (pattern_match(VALUES, kind))
        return true;
    return pattern_match(DOWNS, kind) &&
           (layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2);
}
