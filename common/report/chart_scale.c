#include <float.h>
#include <math.h>

#include "report/chart_plot.h"

struct range {
    double low, high;
};

static void include(struct range *r, double v) {
    r->low = fmin(r->low, v);
    r->high = fmax(r->high, v);
}

static size_t n_x(const struct chart_series *s) {
    return s->kind == CHART_HISTOGRAM && s->n ? s->n + 1 : s->n;
}

static bool check_log(const struct chart *c, const struct chart_series *s, size_t i,
                      struct error *err) {
    double x = series_x(s, i);
    bool log_y = c->y_log && s->kind != CHART_RULE && s->kind != CHART_HISTOGRAM;
    if (c->x_log && !(x > 1e-300))
        return error_set(err, "chart '%s': x is %g on a logarithmic axis, expected more than 0",
                         c->title, x);
    if (log_y && !(s->y[i] > 1e-300))
        return error_set(err, "chart '%s': y is %g on a logarithmic axis, expected more than 0",
                         c->title, s->y[i]);
    return true;
}

static bool check_series(const struct chart *c, const struct chart_series *s, struct error *err) {
    bool needs_x = s->kind == CHART_HISTOGRAM || s->kind == CHART_RULE;
    if (s->n && ((needs_x && !s->x) || (s->kind != CHART_RULE && !s->y)))
        return error_set(err, "chart '%s': a series of %zu points without coordinates", c->title,
                         s->n);
    if (s->kind == CHART_BAR && c->categories && s->n > c->n_categories)
        return error_set(err, "chart '%s': %zu bars for %zu categories", c->title, s->n,
                         c->n_categories);
    return true;
}

static bool include_series(const struct chart *c, const struct chart_series *s, struct range *x,
                           struct range *y, struct error *err) {
    bool has_y = s->kind != CHART_RULE;
    for (size_t i = 0; i < n_x(s); i++) {
        bool counts = has_y && i < s->n; // a histogram's last edge has no count
        if (!chart_usable(series_x(s, i)) || (counts && !chart_usable(s->y[i])))
            continue;
        if (i < s->n && !check_log(c, s, i, err))
            return false;
        if (c->x_log && !(series_x(s, i) > 1e-300))
            continue;
        include(x, series_x(s, i));
        if (counts && !(c->y_log && s->y[i] <= 0))
            include(y, s->y[i]);
    }
    return true;
}

static bool any_kind(const struct chart *c, enum chart_kind kind) {
    for (size_t i = 0; i < c->n_series; i++)
        if (c->series[i].kind == kind && c->series[i].n)
            return true;
    return false;
}

// Group sizes and the like read best at 32, 64, 128.
static bool all_powers_of_two(const struct chart *c) {
    for (size_t s = 0; s < c->n_series; s++)
        for (size_t i = 0; i < n_x(&c->series[s]); i++) {
            int exponent;
            double x = series_x(&c->series[s], i);
            if (chart_usable(x) && frexp(x, &exponent) != 0.5)
                return false;
        }
    return true;
}

// Numbers of layers, say.
static bool all_whole(const struct chart *c) {
    for (size_t s = 0; s < c->n_series; s++)
        for (size_t i = 0; i < n_x(&c->series[s]); i++) {
            double x = series_x(&c->series[s], i);
            if (chart_usable(x) && x != floor(x))
                return false;
        }
    return true;
}

static void scale_x(const struct chart *c, const struct canvas *canvas, struct plot *p,
                    struct range r) {
    struct axis_wish wish = {.log = c->x_log, .n_ticks = canvas->width / 130};
    wish.n_ticks = wish.n_ticks < 2 ? 2 : wish.n_ticks > 10 ? 10 : wish.n_ticks;
    if (c->categories) {
        p->x = (struct axis){.min = -0.5, .max = (double)c->n_categories - 0.5};
        return;
    }
    wish.powers_of_two = c->x_log && all_powers_of_two(c);
    wish.whole = !any_kind(c, CHART_HISTOGRAM) && all_whole(c);
    bool flush = any_kind(c, CHART_HISTOGRAM); // its bars end at the frame
    double share = flush ? 0 : any_kind(c, CHART_SCATTER) ? 0.06 : 0.02;
    if (c->x_log) {
        double room = pow(r.high / r.low, share);
        p->x = axis_make(r.low / room, r.high * room, wish);
    } else {
        double room =
            any_kind(c, CHART_BAR) ? fmax(share * (r.high - r.low), 0.5) : share * (r.high - r.low);
        p->x = axis_make(r.low - room, r.high + room, wish);
    }
}

static void scale_y(const struct chart *c, const struct canvas *canvas, struct plot *p,
                    struct range r) {
    struct axis_wish wish = {.log = c->y_log, .round = true, .n_ticks = canvas->height / 100};
    wish.n_ticks = wish.n_ticks < 2 ? 2 : wish.n_ticks > 8 ? 8 : wish.n_ticks;
    wish.n_ticks += c->y_log ? 2 : 0; // decades are read off, not counted
    bool from_zero = any_kind(c, CHART_BAR) || any_kind(c, CHART_HISTOGRAM);
    if (c->y_log) {
        double room = pow(r.high / r.low, 0.05);
        if (from_zero)
            r.low /= 2; // the smallest bar keeps some height
        else
            r.low /= room;
        r.high *= room;
    } else {
        if (from_zero)
            include(&r, 0);
        // For the labels on top of bars; those of many bars are set upwards.
        double room = (c->n_categories > 12 ? 0.15 : 0.06) * (r.high - r.low);
        if (!from_zero || r.low < 0)
            r.low = r.low >= 0 && r.low < room ? 0 : r.low - room;
        r.high += r.high > 0 || !from_zero ? room : 0;
    }
    if (c->y_min != 0 || c->y_max != 0) {
        r = (struct range){c->y_min, c->y_max};
        wish.round = false;
    }
    p->y = axis_make(r.low, r.high, wish);
}

bool chart_scale(const struct chart *c, const struct canvas *canvas, struct plot *p,
                 struct error *err) {
    struct range x = {DBL_MAX, -DBL_MAX}, y = x;
    for (size_t i = 0; i < c->n_series; i++)
        if (!check_series(c, &c->series[i], err) || !include_series(c, &c->series[i], &x, &y, err))
            return false;
    if (x.low > x.high || y.low > y.high)
        return error_set(err, "chart '%s': no point to draw in %zu series", c->title, c->n_series);
    if (c->y_min != 0 || c->y_max != 0)
        if (!(c->y_min < c->y_max) || !chart_usable(c->y_min) || !chart_usable(c->y_max) ||
            (c->y_log && c->y_min <= 0))
            return error_set(err, "chart '%s': y from %g to %g is no range", c->title, c->y_min,
                             c->y_max);
    scale_x(c, canvas, p, x);
    scale_y(c, canvas, p, y);
    return true;
}
