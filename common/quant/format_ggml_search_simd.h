// See format_ggml_search.h. Each search is compiled four times over: with weights and without, for
// whole numbers and for values from a table.
#include "quant/format_ggml_simd.h"

#define vec_inverse SIMD(vec_inverse)
#define scale_sums SIMD(scale_sums)
#define min_sums SIMD(min_sums)
#define sum_scale SIMD(sum_scale)
#define sum_min SIMD(sum_min)
#define min_error SIMD(min_error)
#define fit_scale SIMD(fit_scale)
#define fit_min SIMD(fit_min)
#define found SIMD(found)
#define keep_better SIMD(keep_better)
#define nearest_value SIMD(nearest_value)
#define search_scale_with SIMD(search_scale_with)
#define search_min_with SIMD(search_min_with)
#define choose_scale_levels SIMD(choose_scale_levels)
#define choose_min_levels SIMD(choose_min_levels)
#define nearest_level SIMD(nearest_level)

// 1 / x, 0 where there is none.
INLINE vec vec_inverse(vec x) {
    ivec none = (vec)((ivec)x & 0x7fffffff) < 0x1p-126f;
    return vec_select(none, vec_set(0), 1.0f / vec_select(none, vec_set(1), x));
}

struct found {
    vec scale, min, error;
};

INLINE void keep_better(struct found *best, vec scale, vec min, vec error) {
    ivec better = error < best->error;
    best->scale = vec_select(better, scale, best->scale);
    best->min = vec_select(better, min, best->min);
    best->error = vec_select(better, error, best->error);
}

// ---- x ~ scale * q -----------------------------------------------------------------------------

INLINE vec nearest_value(vec x, const struct ggml_grid *grid) {
    if (grid->n == 0)
        return vec_round(vec_clamp(x, grid->lo, grid->hi));
    vec v = vec_set(grid->values[0]);
    for (int i = 1; i < grid->n; i++)
        v = vec_select(x > grid->middles[i - 1], vec_set(grid->values[i]), v);
    return v;
}

struct scale_sums {
    vec qq, rq, rr;
};

INLINE struct scale_sums sum_scale(const struct ggml_tile *t, int g, const struct ggml_grid *grid,
                                   bool weighted, vec scale) {
    vec inverse = vec_inverse(scale), qq = {0}, rq = {0}, rr = {0};
    for (int i = 0; i < t->len; i++) {
        vec x = vec_load(&t->x[i][g]), q = nearest_value(x * inverse, grid), r = x - scale * q;
        vec wq = weighted ? vec_load(&t->weight[i][g]) * q : q;
        vec wr = weighted ? vec_load(&t->weight[i][g]) * r : r;
        qq += wq * q;
        rq += wr * q;
        rr += wr * r;
    }
    return (struct scale_sums){qq, rq, rr};
}

// Moves the scale to where it fits the codes; returns the error it leaves.
INLINE vec fit_scale(const struct scale_sums *s, vec *scale) {
    vec more = s->rq * vec_inverse(s->qq);
    *scale += more;
    return s->rr - more * s->rq;
}

INLINE void search_scale_with(const struct ggml_tile *t, const struct ggml_grid *grid,
                              bool weighted, const struct ggml_effort *e, float *scale) {
    for (int g = 0; g < TILE; g += LANES) {
        vec lo = {0}, hi = {0};
        for (int i = 0; i < t->len; i++) {
            lo = vec_min(lo, vec_load(&t->x[i][g]));
            hi = vec_max(hi, vec_load(&t->x[i][g]));
        }
        vec peak = vec_select(-lo > hi, lo, hi);
        struct found best = {peak / grid->lo, {0}, vec_set(INFINITY)};
        int tries = e->tries * (e->both_signs ? 2 : 1);
        for (int i = 0; i < tries + e->refits; i++) {
            float end = (i < e->tries ? grid->lo : grid->hi) * effort_factor(e, i % e->tries);
            vec s = i < tries ? peak / end : best.scale;
            struct scale_sums sums = sum_scale(t, g, grid, weighted, s);
            vec error = fit_scale(&sums, &s);
            keep_better(&best, s, best.min, error);
        }
        vec_store(scale + g, best.scale);
    }
}

static void SIMD(search_scale)(const struct ggml_tile *t, const struct ggml_grid *grid,
                               const struct ggml_effort *e, float *scale) {
    struct ggml_grid whole = {grid->lo, grid->hi, .n = 0};
    if (grid->n && t->weighted)
        search_scale_with(t, grid, true, e, scale);
    else if (grid->n)
        search_scale_with(t, grid, false, e, scale);
    else if (t->weighted)
        search_scale_with(t, &whole, true, e, scale);
    else
        search_scale_with(t, &whole, false, e, scale);
}

static void SIMD(search_error)(const struct ggml_tile *t, const struct ggml_grid *grid,
                               const float *scale, float *error) {
    for (int g = 0; g < TILE; g += LANES)
        vec_store(error + g, sum_scale(t, g, grid, t->weighted, vec_load(scale + g)).rr);
}

// ---- x ~ scale * q - min -----------------------------------------------------------------------

struct min_sums {
    vec w, q, qq, r, rq, rr;
};

INLINE struct min_sums sum_min(const struct ggml_tile *t, int g, float most, bool weighted,
                               vec scale, vec min) {
    vec inverse = vec_inverse(scale), zero = {0};
    struct min_sums s = {zero, zero, zero, zero, zero, zero};
    for (int i = 0; i < t->len; i++) {
        vec x = vec_load(&t->x[i][g]) + min, w = vec_set(1);
        vec q = vec_round(vec_clamp(x * inverse, 0, most)), r = x - scale * q;
        vec wq = q, wr = r;
        if (weighted) {
            w = vec_load(&t->weight[i][g]);
            wq *= w;
            wr *= w;
        }
        s.w += w;
        s.q += wq;
        s.qq += wq * q;
        s.r += wr;
        s.rq += wr * q;
        s.rr += wr * r;
    }
    return s;
}

// Only the error.
INLINE vec min_error(const struct ggml_tile *t, int g, float most, bool weighted, vec scale,
                     vec min) {
    vec inverse = vec_inverse(scale), rr = {0};
    for (int i = 0; i < t->len; i++) {
        vec x = vec_load(&t->x[i][g]) + min;
        vec r = x - scale * vec_round(vec_clamp(x * inverse, 0, most));
        rr += weighted ? vec_load(&t->weight[i][g]) * r * r : r * r;
    }
    return rr;
}

// Moves scale and min to where they fit the codes; returns the error they leave. If min must not be
// negative but would be, it is 0, and the scale alone is fitted to x = r - min + scale * q.
INLINE vec fit_min(const struct min_sums *s, bool positive, vec *scale, vec *min) {
    vec inverse = vec_inverse(s->w * s->qq - s->q * s->q);
    vec more = (s->w * s->rq - s->q * s->r) * inverse;
    vec down = (s->q * s->rq - s->qq * s->r) * inverse;
    vec error = s->rr - more * s->rq + down * s->r;
    if (positive) {
        ivec below = *min + down < 0;
        vec rq = s->rq - *min * s->q, alone = rq * vec_inverse(s->qq);
        vec rr = s->rr - *min * (2.0f * s->r - *min * s->w);
        more = vec_select(below, alone, more);
        down = vec_select(below, -*min, down);
        error = vec_select(below, rr - alone * rq, error);
    }
    *scale += more;
    *min += down;
    return error;
}

INLINE void search_min_with(const struct ggml_tile *t, float most, bool positive, bool weighted,
                            const struct ggml_effort *e, float *scale, float *min) {
    for (int g = 0; g < TILE; g += LANES) {
        vec lo = vec_load(&t->x[0][g]), hi = lo;
        for (int i = 1; i < t->len; i++) {
            lo = vec_min(lo, vec_load(&t->x[i][g]));
            hi = vec_max(hi, vec_load(&t->x[i][g]));
        }
        if (positive)
            lo = vec_min(lo, vec_set(0));
        vec range = hi - lo;
        struct found best = {range / most, -lo, vec_set(INFINITY)};
        int tries = e->tries * (1 + e->shrinks);
        for (int i = 0; i < tries + e->refits; i++) {
            bool again = i >= tries;
            vec s = again ? best.scale : range / (most * effort_factor(e, i % e->tries));
            vec m = again ? best.min : lo * (0.1f * (float)(i / e->tries) - 1.0f);
            struct min_sums sums = sum_min(t, g, most, weighted, s, m);
            vec error = fit_min(&sums, positive, &s, &m);
            keep_better(&best, s, m, error);
        }
        vec_store(scale + g, best.scale);
        vec_store(min + g, best.min);
    }
}

static void SIMD(search_min)(const struct ggml_tile *t, float most, bool positive,
                             const struct ggml_effort *e, float *scale, float *min) {
    if (t->weighted)
        search_min_with(t, most, positive, true, e, scale, min);
    else
        search_min_with(t, most, positive, false, e, scale, min);
}

// ---- super-blocks ------------------------------------------------------------------------------

INLINE vec nearest_level(vec scale, vec d, float lo, float hi) {
    return vec_round(vec_clamp(scale * vec_inverse(d), lo, hi));
}

// The levels near scale / d (and min / dmin) that leave the least error; scale and min then become
// what fits the codes best.
INLINE void choose_scale_levels(const struct ggml_tile *t, const struct ggml_grid *grid,
                                bool weighted, float highest, int reach, float *scale,
                                struct ggml_levels *l, struct ggml_sums *out) {
    for (int g = 0; g < TILE; g += LANES) {
        vec d = vec_load(l->d + g), zero = {0}, qq = zero, rq = zero;
        vec near = nearest_level(vec_load(scale + g), d, -highest - 1, highest);
        struct found best = {near, zero, vec_set(INFINITY)};
        for (int a = -reach; a <= reach; a++) {
            vec level = vec_clamp(near + (float)a, -highest - 1, highest);
            struct scale_sums sums = sum_scale(t, g, grid, weighted, d * level);
            ivec better = sums.rr < best.error;
            qq = vec_select(better, sums.qq, qq);
            rq = vec_select(better, sums.rq, rq);
            keep_better(&best, level, zero, sums.rr);
        }
        vec_store(l->level + g, best.scale);
        vec_store(l->min_level + g, zero);
        vec_store(l->error + g, best.error);
        vec_store(scale + g, d * best.scale + rq * vec_inverse(qq));
        vec_store(out->qq + g, qq);
        vec_store(out->rq + g, rq);
    }
}

INLINE void choose_min_levels(const struct ggml_tile *t, float most, bool weighted, float highest,
                              int reach, float *scale, float *min, struct ggml_levels *l,
                              struct ggml_sums *out) {
    for (int g = 0; g < TILE; g += LANES) {
        vec d = vec_load(l->d + g), dmin = vec_load(l->dmin + g);
        vec near = nearest_level(vec_load(scale + g), d, 0, highest);
        vec near_min = nearest_level(vec_load(min + g), dmin, 0, highest);
        struct found best = {near, near_min, vec_set(INFINITY)};
        for (int a = -reach; a <= reach; a++) {
            vec level = vec_clamp(near + (float)a, 0, highest);
            for (int b = -reach; b <= reach; b++) {
                vec min_level = vec_clamp(near_min + (float)b, 0, highest);
                vec error = min_error(t, g, most, weighted, d * level, dmin * min_level);
                keep_better(&best, level, min_level, error);
            }
        }
        vec s = d * best.scale, m = dmin * best.min;
        struct min_sums sums = sum_min(t, g, most, weighted, s, m);
        fit_min(&sums, true, &s, &m);
        vec_store(l->level + g, best.scale);
        vec_store(l->min_level + g, best.min);
        vec_store(l->error + g, best.error);
        vec_store(scale + g, s);
        vec_store(min + g, m);
        vec_store(out->w + g, sums.w);
        vec_store(out->q + g, sums.q);
        vec_store(out->qq + g, sums.qq);
        vec_store(out->r + g, sums.r);
        vec_store(out->rq + g, sums.rq);
    }
}

static void SIMD(choose_levels)(const struct ggml_tile *t, const struct ggml_kind *kind, int reach,
                                float *scale, float *min, struct ggml_levels *l,
                                struct ggml_sums *out) {
    struct ggml_grid whole = {kind->grid.lo, kind->grid.hi, .n = 0};
    float highest = (float)kind->level_max, most = kind->grid.hi;
    if (kind->mins && t->weighted)
        choose_min_levels(t, most, true, highest, reach, scale, min, l, out);
    else if (kind->mins)
        choose_min_levels(t, most, false, highest, reach, scale, min, l, out);
    else if (kind->grid.n)
        choose_scale_levels(t, &kind->grid, t->weighted, highest, reach, scale, l, out);
    else if (t->weighted)
        choose_scale_levels(t, &whole, true, highest, reach, scale, l, out);
    else
        choose_scale_levels(t, &whole, false, highest, reach, scale, l, out);
}
