#include "quant/format_ggml_search.h"

// What a pass over the groups leaves for fitting d and dmin; see format_ggml_search_simd.h.
struct ggml_sums {
    float w[TILE], q[TILE], qq[TILE], r[TILE], rq[TILE];
};

static float effort_factor(const struct ggml_effort *e, int i) {
    return e->tries > 1 ? e->from + (e->to - e->from) * (float)i / (float)(e->tries - 1) : 1;
}

#define SIMD_BODY "quant/format_ggml_search_simd.h"
#include "kernels/cpu/simd.h"

float ggml_importance_largest(const float *importance, size_t k) {
    float largest = 0;
    for (size_t i = 0; importance && i < k; i++)
        largest = importance[i] > largest && importance[i] <= FLT_MAX ? importance[i] : largest;
    return largest;
}

// Relative to the row's largest, so that sums neither overflow nor vanish. A column of no
// importance still counts a millionth: what calibration never saw may be needed.
static float relative(float importance, float largest) {
    bool valid = importance > 0 && importance <= largest;
    return (valid ? importance / largest : 0) + 0x1p-20f;
}

void ggml_tile_load(struct ggml_tile *t, const float *w, const float *importance, float largest,
                    int len, int groups) {
    t->len = len;
    t->weighted = importance && largest > 0;
    for (int g = 0; g < TILE; g++)
        for (int i = 0; i < len; i++)
            t->x[i][g] = g < groups ? w[g * len + i] : 0;
    for (int g = 0; t->weighted && g < TILE; g++)
        for (int i = 0; i < len; i++)
            t->weight[i][g] = g < groups ? relative(importance[g * len + i], largest) : 0;
}

void ggml_search_scale(const struct ggml_tile *t, const struct ggml_grid *grid,
                       const struct ggml_effort *e, float scale[TILE]) {
    SIMD_CALL(search_scale, t, grid, e, scale);
}

void ggml_search_min(const struct ggml_tile *t, float most, bool positive,
                     const struct ggml_effort *e, float scale[TILE], float min[TILE]) {
    SIMD_CALL(search_min, t, most, positive, e, scale, min);
}

void ggml_search_error(const struct ggml_tile *t, const struct ggml_grid *grid,
                       const float scale[TILE], float error[TILE]) {
    SIMD_CALL(search_error, t, grid, scale, error);
}

static void set_super(const struct ggml_kind *kind, struct ggml_levels *l, int first, double d,
                      double dmin) {
    float stored = ggml_round_f16((float)d), stored_min = ggml_round_f16((float)dmin);
    for (int g = first; g < first + kind->groups; g++) {
        l->d[g] = stored;
        l->dmin[g] = stored_min;
    }
}

// The smallest float16s are 2^-24 apart. There d is rounded up, never to 0: its last level must
// still reach the largest scale.
static float start_unit(float largest, int level_max) {
    float d = largest / (float)level_max;
    return d < 0x1p-20f ? ceilf(d * 0x1p24f) * 0x1p-24f : d;
}

// d and dmin that make the largest scale and minimum the last levels; a signed scale's last one is
// the negative one.
static void start_super(const struct ggml_kind *kind, const float *scale, const float *min,
                        struct ggml_levels *l, int first) {
    float largest = 0, largest_min = 0;
    for (int g = first; g < first + kind->groups; g++) {
        largest = fabsf(scale[g]) > fabsf(largest) ? scale[g] : largest;
        largest_min = fmaxf(largest_min, min[g]);
    }
    float d = start_unit(fabsf(largest), kind->mins ? kind->level_max : kind->level_max + 1);
    set_super(kind, l, first, kind->mins || largest < 0 ? d : -d,
              start_unit(largest_min, kind->level_max));
}

// Least squares over all groups of a super-block, codes and levels as they are:
//     r ~ more * level * q - more_min * min_level
static void refit_super(const struct ggml_kind *kind, const struct ggml_sums *s,
                        struct ggml_levels *l, int first) {
    double a = 0, b = 0, c = 0, u = 0, v = 0;
    for (int g = first; g < first + kind->groups; g++) {
        double level = l->level[g], min_level = l->min_level[g];
        a += level * level * s->qq[g];
        b -= level * min_level * s->q[g];
        c += min_level * min_level * s->w[g];
        u += level * s->rq[g];
        v -= min_level * s->r[g];
    }
    double determinant = a * c - b * b, d = l->d[first], dmin = l->dmin[first];
    if (determinant > 1e-9 * a * c) {
        d += (c * u - b * v) / determinant;
        dmin += (a * v - b * u) / determinant;
    } else if (a > 0) {
        d += u / a;
    }
    set_super(kind, l, first, d, dmin > 0 ? dmin : 0);
}

static void keep_better_super(const struct ggml_kind *kind, const struct ggml_levels *l,
                              struct ggml_levels *best, int first) {
    double error = 0, best_error = 0;
    for (int g = first; g < first + kind->groups; g++) {
        error += l->error[g];
        best_error += best->error[g];
    }
    for (int g = first; error < best_error && g < first + kind->groups; g++) {
        best->d[g] = l->d[g];
        best->dmin[g] = l->dmin[g];
        best->level[g] = l->level[g];
        best->min_level[g] = l->min_level[g];
        best->error[g] = l->error[g];
    }
}

void ggml_search_super(const struct ggml_tile *t, const struct ggml_kind *kind,
                       const struct ggml_effort *e, struct ggml_levels *best) {
    float scale[TILE], min[TILE] = {0};
    struct ggml_levels l = {0};
    struct ggml_sums s = {0};
    if (kind->mins)
        ggml_search_min(t, kind->grid.hi, true, e, scale, min);
    else
        ggml_search_scale(t, &kind->grid, e, scale);
    for (int g = 0; g < TILE; g += kind->groups)
        start_super(kind, scale, min, &l, g);
    for (int g = 0; g < TILE; g++)
        best->error[g] = INFINITY;
    for (int round = 0; round <= e->rounds; round++) {
        SIMD_CALL(choose_levels, t, kind, e->reach, scale, min, &l, &s);
        for (int g = 0; g < TILE; g += kind->groups) {
            keep_better_super(kind, &l, best, g);
            refit_super(kind, &s, &l, g);
        }
    }
}
