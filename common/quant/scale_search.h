// The scale (and zero point) of a group that lose the least, instead of those that the largest
// weights set.
//
// A scale that reaches the largest weight makes the steps coarse for all others. A smaller one cuts
// the largest weight off and serves the rest better; how much smaller is best depends on the
// weights, so some are tried. For codes once chosen, the best scale is a formula (least squares),
// and with that scale the codes are chosen again.
//
// The error is Σ importance (w - ŵ)², of what the stored scale gives; never more than it was.
#ifndef NIBBLE_QUANT_SCALE_SEARCH_H
#define NIBBLE_QUANT_SCALE_SEARCH_H

#include <stdbool.h>
#include <stddef.h>

// The codes that a group may use, and what they mean: ŵ = scale * d, d = code - zero in lo … hi.
struct quant_grid {
    float scale; // as stored; negative where that lets the largest weight have the code lo
    int zero;
    int lo, hi;
};

// grid: what plain rounding would use, replaced if there is a better one. Symmetric grids (zero
// stays as it is) get their lo from the caller: the lowest that can be stored.
// importance: [n] or NULL: all alike. scale_bytes: of a stored scale, 2 or 4.
void quant_grid_search(const float *w, const float *importance, size_t n, bool zero_point,
                       size_t scale_bytes, struct quant_grid *grid);

#endif
