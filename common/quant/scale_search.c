#include "quant/scale_search.h"

#include "quant/format_shared.h"

// ---- what a scale costs -------------------------------------------------------------------------

// Of the d that a scale gives n weights, with r = w / scale - d, in steps: the sums that tell the
// error, and that of the best scale for the same d.
struct fit {
    double error;      // Σ q r² scale²
    double best_error; // of best_scale: (Σ q r² - (Σ q r d)² / Σ q d²) scale²
    double best_scale; // scale (1 + Σ q r d / Σ q d²)
};

typedef float lanes __attribute__((vector_size(32)));
typedef int32_t lane_masks __attribute__((vector_size(32)));
enum { LANES = 8 };
#define INLINE static inline __attribute__((always_inline))

INLINE lanes choose(lane_masks mask, lanes yes, lanes no) {
    return (lanes)(((lane_masks)yes & mask) | ((lane_masks)no & ~mask));
}

struct sums {
    lanes rr, rd, dd;
};

// Eight weights; q: their importance.
INLINE struct sums add_lanes(struct sums s, lanes w, lanes q, float inverse, float lo, float hi) {
    const lanes lowest = lo - (lanes){0}, highest = hi - (lanes){0};
    lanes x = w * inverse;
    lanes d = choose(x < lowest, lowest, x);
    d = choose(d > highest, highest, d);
    d = d + 0x1.8p23f - 0x1.8p23f; // to the nearest integer, see round_even
    lanes r = x - d, qd = q * d;
    s.rr += q * r * r;
    s.rd += qd * r;
    s.dd += qd * d;
    return s;
}

// In eight lanes, whatever the instruction set, and without fused multiply-adds: the same scales
// are found on every machine.
INLINE void sum_body(const float *w, const float *importance, size_t n, float inverse, float lo,
                     float hi, struct sums *out) {
    struct sums s = {0};
    const lanes one = (lanes){0} + 1.0f;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes x, q = one;
        memcpy(&x, w + i, sizeof x);
        if (importance)
            memcpy(&q, importance + i, sizeof q);
        s = add_lanes(s, x, q, inverse, lo, hi);
    }
    if (i < n) {
        lanes x = {0}, q = {0};
        memcpy(&x, w + i, (n - i) * sizeof *w);
        memcpy(&q, importance ? importance + i : (const float *)&one, (n - i) * sizeof *w);
        s = add_lanes(s, x, q, inverse, lo, hi);
    }
    *out = s;
}

static void sum_scalar(const float *w, const float *importance, size_t n, float inverse, float lo,
                       float hi, struct sums *s) {
    sum_body(w, importance, n, inverse, lo, hi, s);
}

FORMAT_TARGET_AVX2 static void sum_avx2(const float *w, const float *importance, size_t n,
                                        float inverse, float lo, float hi, struct sums *s) {
    sum_body(w, importance, n, inverse, lo, hi, s);
}

static double total(lanes v) {
    double sum = 0;
    for (size_t i = 0; i < LANES; i++)
        sum += (double)v[i];
    return sum;
}

struct group {
    const float *w, *importance;
    size_t n;
    bool vectors; // AVX2
};

// 1 / scale is finite.
static struct fit fit_scale(const struct group *g, double scale, int lo, int hi) {
    struct sums s;
    float inverse = (float)(1 / scale);
    (g->vectors ? sum_avx2 : sum_scalar)(g->w, g->importance, g->n, inverse, (float)lo, (float)hi,
                                         &s);
    double rr = total(s.rr), rd = total(s.rd), dd = total(s.dd);
    double better = dd > 0 ? rd / dd : 0; // of the scale, relative
    return (struct fit){.error = rr * scale * scale,
                        .best_error = (rr - better * rd) * scale * scale,
                        .best_scale = scale * (1 + better)};
}

// ---- the search ---------------------------------------------------------------------------------

struct candidate {
    double error, scale;
    int zero, lo, hi;
};

// Keeps the better one of *best and the least squares of this scale's codes.
static bool try_scale(const struct group *g, double scale, int zero, int lo, int hi,
                      struct candidate *best) {
    if (!(fabs(scale) > FLT_MIN))
        return false;
    struct fit fit = fit_scale(g, scale, lo, hi);
    if (!(fit.best_error < best->error))
        return false;
    *best = (struct candidate){fit.best_error, fit.best_scale, zero, lo, hi};
    return true;
}

// The outermost code stands for 1.14 down to 0.09 of the largest weight; with more than 16 codes,
// where cutting off much never pays, down to 0.51 in finer steps. Ten times as many tries lower the
// error of groups of 128 by less than 1 % more (8 bits: by 5 %).
enum { TRIES = 22, FEW_CODES = 16 };

static double shrink(int i, int codes) {
    return 1.14 - (codes > FEW_CODES ? 0.03 : 0.05) * i;
}

static void search_symmetric(const struct group *g, double extreme, struct candidate *best) {
    int zero = best->zero, lo = best->lo, hi = best->hi;
    for (int i = 0; i < TRIES; i++) {
        double reached = extreme * shrink(i, hi - lo + 1);
        try_scale(g, reached / hi, zero, lo, hi, best);
        if (lo != -hi) // there is one code more on that side
            try_scale(g, reached / lo, zero, lo, hi, best);
    }
}

// A grid from about lo to about hi, 0 among its values.
static bool try_range(const struct group *g, double lo, double hi, int codes,
                      struct candidate *best) {
    double scale = (hi - lo) / (codes - 1);
    int zero = scale > 0 ? (int)lrint(-lo / scale) : 0;
    return try_scale(g, scale, zero, -zero, codes - 1 - zero, best);
}

// Both ends together, then each alone.
static void search_range(const struct group *g, struct quant_range range, int codes,
                         struct candidate *best) {
    double lo = range.lo, hi = range.hi;
    for (int end = 0; end < 3; end++) {
        double from_lo = lo, from_hi = hi;
        for (int i = 0; i < TRIES; i++) {
            double to_lo = end != 1 ? from_lo * shrink(i, codes) : lo;
            double to_hi = end != 2 ? from_hi * shrink(i, codes) : hi;
            if (try_range(g, to_lo, to_hi, codes, best)) {
                lo = to_lo;
                hi = to_hi;
            }
        }
    }
}

// Codes for the best scale so far, the best scale for these codes, and so on.
static void refine(const struct group *g, struct candidate *best) {
    enum { ROUNDS = 4 };
    for (int i = 0; i < ROUNDS; i++)
        if (!try_scale(g, best->scale, best->zero, best->lo, best->hi, best))
            return;
}

void quant_grid_search(const float *w, const float *importance, size_t n, bool zero_point,
                       size_t scale_bytes, struct quant_grid *grid) {
    if (grid->scale < FLT_MIN) // 0, or its inverse may be infinite
        return;
    const struct group g = {w, importance, n, kernels_isa() >= ISA_AVX2};
    const struct quant_range range = quant_range(w, n);
    struct candidate best = {INFINITY, grid->scale, grid->zero, grid->lo, grid->hi};
    if (zero_point)
        search_range(&g, range, grid->hi - grid->lo + 1, &best);
    else
        search_symmetric(&g, range.hi > -range.lo ? range.hi : range.lo, &best);
    refine(&g, &best);
    float scale = (float)best.scale,
          stored = copysignf(scale_round(scale_bytes, fabsf(scale)), scale);
    double before = fit_scale(&g, grid->scale, grid->lo, grid->hi).error;
    if (isfinite(stored) && stored != 0 && fit_scale(&g, stored, best.lo, best.hi).error < before)
        *grid = (struct quant_grid){stored, best.zero, best.lo, best.hi};
}
