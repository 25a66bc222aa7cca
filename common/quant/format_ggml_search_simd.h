// See format_ggml_search.h.
#include "quant/format_ggml_simd.h"

#define vec_inverse SIMD(vec_inverse)
#define sums SIMD(sums)
#define scale_sums_of SIMD(scale_sums_of)
#define scale_sums SIMD(scale_sums)
#define min_sums_of SIMD(min_sums_of)
#define min_sums SIMD(min_sums)
#define min_error SIMD(min_error)
#define fit_scale SIMD(fit_scale)
#define fit_min SIMD(fit_min)
#define found SIMD(found)
#define keep_better SIMD(keep_better)
#define nearest_value SIMD(nearest_value)
#define level_pass SIMD(level_pass)

// 1 / x, 0 where there is none.
INLINE vec vec_inverse(vec x) {
    ivec none = (vec)((ivec)x & 0x7fffffff) < 0x1p-126f;
    return vec_select(none, vec_set(0), 1.0f / vec_select(none, vec_set(1), x));
}

// Σ over a group's weights; see format_ggml_search.h.
struct sums {
    vec w, q, qq, r, rq, rr;
};

INLINE vec nearest_value(vec x, const struct ggml_grid *grid) {
    if (grid->n == 0)
        return vec_round(vec_clamp(x, grid->lo, grid->hi));
    vec v = vec_set(grid->values[0]);
    for (int i = 1; i < grid->n; i++) {
        float a = grid->values[i - 1], b = grid->values[i];
        v = vec_select(x > (a + b) * 0.5f, vec_set(b), v);
    }
    return v;
}

INLINE struct sums scale_sums_of(const struct ggml_tile *t, int g, const struct ggml_grid *grid,
                                 vec scale, bool weighted) {
    struct sums s = {.w = {0}};
    vec inverse = vec_inverse(scale);
    for (int i = 0; i < t->len; i++) {
        vec x = vec_load(&t->x[i][g]), q = nearest_value(x * inverse, grid), r = x - scale * q;
        vec wq = weighted ? vec_load(&t->weight[i][g]) * q : q;
        vec wr = weighted ? vec_load(&t->weight[i][g]) * r : r;
        s.qq += wq * q;
        s.rq += wr * q;
        s.rr += wr * r;
    }
    return s;
}

static struct sums scale_sums(const struct ggml_tile *t, int g, const struct ggml_grid *grid,
                              vec scale) {
    return t->weighted ? scale_sums_of(t, g, grid, scale, true)
                       : scale_sums_of(t, g, grid, scale, false);
}

// The scale that fits the codes; returns the error it leaves.
INLINE vec fit_scale(const struct sums *s, vec *scale) {
    vec more = s->rq * vec_inverse(s->qq);
    *scale += more;
    return s->rr - more * s->rq;
}

INLINE struct sums min_sums_of(const struct ggml_tile *t, int g, float most, vec scale, vec min,
                               bool weighted) {
    struct sums s = {.w = {0}};
    vec inverse = vec_inverse(scale);
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

static struct sums min_sums(const struct ggml_tile *t, int g, float most, vec scale, vec min) {
    return t->weighted ? min_sums_of(t, g, most, scale, min, true)
                       : min_sums_of(t, g, most, scale, min, false);
}

// Only the error.
static vec min_error(const struct ggml_tile *t, int g, float most, vec scale, vec min) {
    vec inverse = vec_inverse(scale), rr = {0};
    for (int i = 0; i < t->len; i++) {
        vec x = vec_load(&t->x[i][g]) + min;
        vec r = x - scale * vec_round(vec_clamp(x * inverse, 0, most));
        rr += t->weighted ? vec_load(&t->weight[i][g]) * r * r : r * r;
    }
    return rr;
}

// Scale and min that fit the codes; returns the error they leave. A min that would be negative is 0
// if it must be positive: then x = r - min + scale * q is fitted by a scale alone.
INLINE vec fit_min(const struct sums *s, bool positive, vec *scale, vec *min) {
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

struct found {
    vec scale, min, error;
};

INLINE void keep_better(struct found *best, vec scale, vec min, vec error) {
    ivec better = error < best->error;
    best->scale = vec_select(better, scale, best->scale);
    best->min = vec_select(better, min, best->min);
    best->error = vec_select(better, error, best->error);
}

static void SIMD(search_scale)(const struct ggml_tile *t, const struct ggml_grid *grid,
                               const struct ggml_effort *e, float *scale) {
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
            struct sums found = scale_sums(t, g, grid, s);
            vec error = fit_scale(&found, &s);
            keep_better(&best, s, vec_set(0), error);
        }
        vec_store(scale + g, best.scale);
    }
}

static void SIMD(search_min)(const struct ggml_tile *t, float most, bool positive,
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
        for (int i = 0; i < e->tries + e->refits; i++) {
            vec s = i < e->tries ? range / (most * effort_factor(e, i)) : best.scale;
            vec m = i < e->tries ? -lo : best.min;
            struct sums found = min_sums(t, g, most, s, m);
            vec error = fit_min(&found, positive, &s, &m);
            keep_better(&best, s, m, error);
        }
        vec_store(scale + g, best.scale);
        vec_store(min + g, best.min);
    }
}

static void SIMD(search_error)(const struct ggml_tile *t, const struct ggml_grid *grid,
                               const float *scale, float *error) {
    for (int g = 0; g < TILE; g += LANES) {
        struct sums s = scale_sums(t, g, grid, vec_load(scale + g));
        vec_store(error + g, s.rr);
    }
}

// The levels around level and min_level that leave the least error, and what can be fitted to them.
static void SIMD(choose_levels)(const struct ggml_tile *t, const struct ggml_kind *kind, int reach,
                                struct ggml_levels *l, struct ggml_sums *out, float *scale,
                                float *min) {
    float lowest = kind->mins ? 0 : (float)-kind->level_max - 1, highest = (float)kind->level_max;
    for (int g = 0; g < TILE; g += LANES) {
        vec d = vec_load(l->d + g), dmin = vec_load(l->dmin + g);
        vec level = vec_load(l->level + g), min_level = vec_load(l->min_level + g);
        struct found best = {level, min_level, vec_set(INFINITY)};
        for (int a = -reach; a <= reach; a++) {
            vec tried = vec_clamp(level + (float)a, lowest, highest);
            for (int b = kind->mins ? -reach : 0; b <= (kind->mins ? reach : 0); b++) {
                vec min_tried = vec_clamp(min_level + (float)b, 0, highest);
                vec error = kind->mins ? min_error(t, g, kind->grid.hi, d * tried, dmin * min_tried)
                                       : scale_sums(t, g, &kind->grid, d * tried).rr;
                keep_better(&best, tried, min_tried, error);
            }
        }
        vec s = d * best.scale, m = dmin * best.min;
        struct sums sums =
            kind->mins ? min_sums(t, g, kind->grid.hi, s, m) : scale_sums(t, g, &kind->grid, s);
        if (kind->mins)
            fit_min(&sums, true, &s, &m);
        else
            fit_scale(&sums, &s);
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
