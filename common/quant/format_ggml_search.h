// Scales of least error for the groups of block formats.
//
// The search looks at 16 groups at once, side by side: lane g of a vector belongs to group g, so
// nothing is ever added up across a register, and every CPU finds the same numbers. For a scale s
// that is tried, each weight x takes its nearest code q. The least-squares scale for these codes,
// and its error, need no second look at the weights:
//
//     r = x - s q        s' = s + Σ r q / Σ q²        error = Σ r² - (Σ r q)² / Σ q²
//
// With a minimum, x = s q - m, the same is done for two unknowns. What is tried: first scales that
// give the largest weight a bit more or less than the last code, then what fitted best, again.
//
// In a super-block a group's scale is d times a small whole number, its level. Levels near the best
// ones of each group are tried, then d is fitted to all groups by least squares, and again.
#ifndef NIBBLE_QUANT_FORMAT_GGML_SEARCH_H
#define NIBBLE_QUANT_FORMAT_GGML_SEARCH_H

#include "quant/format_ggml.h"

enum { TILE = 16 }; // groups side by side

struct ggml_tile {
    int len; // weights of a group, at most 32
    bool weighted;
    _Alignas(64) float x[32][TILE];      // weight i of group g
    _Alignas(64) float weight[32][TILE]; // what its error counts, if weighted
};

// What codes are worth: whole numbers lo … hi, or n values in rising order.
struct ggml_grid {
    float lo, hi;
    int n;
    float values[16], middles[15]; // and what lies in the middle between two
};

struct ggml_effort {
    int tries;       // scales tried for each group,
    float from, to;  // which make the last code so many times the largest weight's
    bool both_signs; // once with each sign, where codes are not symmetric
    int refits;      // times the best one is tried again with its own codes
    int shrinks;     // times all is tried again with a minimum that is a tenth smaller
    int rounds;      // of levels and d, after the first
    int reach;       // levels tried on each side of the nearest one
};

// A super-block: how many groups share d and dmin, and what their levels may be.
struct ggml_kind {
    int groups; // 8 or 16
    struct ggml_grid grid;
    bool mins;     // levels 0 … level_max for scale and minimum; else
    int level_max; // -level_max - 1 … level_max for the scale
};

// Per group: scale d * level - dmin * min_level.
struct ggml_levels {
    float d[TILE], dmin[TILE]; // the same for all groups of a super-block; float16s
    float level[TILE], min_level[TILE];
    float error[TILE];
};

// `groups` groups of t->len neighbours from w on, and the importance of their columns (NULL: all
// alike), of which `largest` is the largest of the row.
void ggml_tile_load(struct ggml_tile *t, const float *w, const float *importance, float largest,
                    int len, int groups);

// The largest importance of a row's k columns, to be handed to ggml_tile_load.
float ggml_importance_largest(const float *importance, size_t k);

// Each group on its own: x ~ scale * code.
void ggml_search_scale(const struct ggml_tile *t, const struct ggml_grid *grid,
                       const struct ggml_effort *e, float scale[TILE]);
// x ~ scale * code - min, codes 0 … most; min >= 0 if positive.
void ggml_search_min(const struct ggml_tile *t, float most, bool positive,
                     const struct ggml_effort *e, float scale[TILE], float min[TILE]);
// The error of each group with these scales.
void ggml_search_error(const struct ggml_tile *t, const struct ggml_grid *grid,
                       const float scale[TILE], float error[TILE]);
// All of the tile's super-blocks.
void ggml_search_super(const struct ggml_tile *t, const struct ggml_kind *kind,
                       const struct ggml_effort *e, struct ggml_levels *best);

#endif
