#include "report/chart_axis.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// 1, 2 or 5 times a power of ten, so that about n steps make up the range.
static double round_step(double range, int n) {
    double raw = range / n, power = pow(10, floor(log10(raw))), share = raw / power;
    return power * (share < 1.5 ? 1 : share < 3.5 ? 2 : share < 7.5 ? 5 : 10);
}

double axis_place(const struct axis *a, double value) {
    if (a->log)
        return log(value / a->min) / log(a->max / a->min);
    return (value - a->min) / (a->max - a->min);
}

static void use_minus_sign(char *s) {
    if (*s != '-')
        return;
    char rest[32];
    strcpy(rest, s + 1);
    snprintf(s, 32, "−%.28s", rest);
}

void axis_number(double value, int decimals, char out[32]) {
    snprintf(out, 32, "%.*f", decimals, value == 0 ? 0 : value);
    use_minus_sign(out);
}

// "10⁻⁵"
static void append_power(char out[32], int exponent) {
    static const char *const digits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
    char plain[16];
    snprintf(plain, sizeof plain, "%d", exponent);
    strcat(out, "10");
    for (const char *c = plain; *c; c++)
        strcat(out, *c == '-' ? "⁻" : digits[*c - '0']);
}

static void format_scientific(double value, int decimals, char out[32]) {
    int exponent = (int)floor(log10(fabs(value)) + 1e-9);
    double mantissa = value / pow(10, exponent);
    if (fabs(mantissa) >= 10 - 0.5 * pow(10, -decimals)) { // not "10.0×10⁻⁵"
        mantissa /= 10;
        exponent++;
    }
    *out = '\0';
    if (decimals > 0 || fabs(mantissa - 1) > 1e-6) {
        snprintf(out, 12, "%.*f", decimals, mantissa);
        use_minus_sign(out);
        strcat(out, "×");
    }
    append_power(out, exponent);
}

static const struct {
    double factor;
    const char *suffix;
} scales[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}};

// The last scale that still keeps `magnitude` at ten or more is too small: 10k, but 9000.
static size_t scale_for(double magnitude) {
    size_t i = 0;
    while (scales[i].factor > 1 && magnitude < (scales[i].factor == 1e3 ? 1e4 : scales[i].factor))
        i++;
    return i;
}

static int decimals_of(double step) {
    int decimals = (int)ceil(-log10(step) - 1e-9);
    return decimals > 0 ? decimals : 0;
}

void axis_value_label(double value, char out[32]) {
    double magnitude = fabs(value);
    if (value != 0 && (magnitude < 1e-3 || magnitude >= 1e15)) {
        format_scientific(value, 1, out);
        return;
    }
    size_t s = scale_for(magnitude);
    double scaled = value / scales[s].factor;
    int decimals = value == 0 ? 0 : 2 - (int)floor(log10(fabs(scaled)));
    axis_number(scaled, decimals > 0 ? decimals : 0, out);
    strcat(out, scales[s].suffix);
}

static void add_tick(struct axis *a, double value) {
    double slack = 1e-9 * (a->log ? value : a->max - a->min);
    if (a->n_ticks < AXIS_MAX_TICKS && value >= a->min - slack && value <= a->max + slack)
        a->ticks[a->n_ticks++] = value;
}

// All in one unit (k, M, 10⁻⁵); a zero needs none.
static void label_linear(struct axis *a, double step) {
    double magnitude = fmax(fabs(a->min), fabs(a->max));
    bool powers = magnitude < 1e-3 || magnitude >= 1e15;
    int exponent = (int)floor(log10(magnitude) + 1e-9);
    size_t s = scale_for(magnitude);
    double unit = powers ? pow(10, exponent) : scales[s].factor;
    for (size_t i = 0; i < a->n_ticks; i++) {
        bool bare_zero = a->ticks[i] == 0 && (powers || scales[s].factor > 1);
        axis_number(a->ticks[i] / unit, bare_zero ? 0 : decimals_of(step / unit), a->labels[i]);
        if (bare_zero)
            continue;
        strcat(a->labels[i], powers ? "×" : scales[s].suffix);
        if (powers)
            append_power(a->labels[i], exponent);
    }
}

static void linear_ticks(struct axis *a, const struct axis_wish *wish) {
    double step = round_step(a->max - a->min, wish->n_ticks);
    step = wish->whole ? fmax(step, 1) : step;
    double first = ceil(a->min / step - 1e-9), last = floor(a->max / step + 1e-9);
    for (double i = first; i <= last && i < first + AXIS_MAX_TICKS; i++)
        add_tick(a, i * step);
    label_linear(a, step);
}

static struct axis linear_axis(double low, double high, struct axis_wish wish) {
    double magnitude = fmax(fabs(low), fabs(high));
    if (high - low <= 1e-9 * magnitude || magnitude < 1e-290) {
        double room = magnitude < 1e-290 ? 1 : 0.1 * magnitude;
        low -= room;
        high += room;
    }
    struct axis a = {.min = low, .max = high};
    if (wish.round) {
        double step = round_step(high - low, wish.n_ticks);
        a.min = step * floor(low / step + 1e-9);
        a.max = step * ceil(high / step - 1e-9);
    }
    linear_ticks(&a, &wish);
    return a;
}

static void label_log(struct axis *a) {
    bool plain = a->min >= 0.9e-3 && a->max <= 1.1e5;
    for (size_t i = 0; i < a->n_ticks; i++) {
        double v = a->ticks[i];
        if (plain)
            axis_number(v, decimals_of(pow(10, floor(log10(v) + 1e-9))), a->labels[i]);
        else
            format_scientific(v, 0, a->labels[i]);
    }
}

static void two_ticks(struct axis *a, int n) {
    int first = (int)ceil(log2(a->min) - 1e-9), last = (int)floor(log2(a->max) + 1e-9);
    int stride = (last - first) / n + 1;
    for (int e = first; e <= last; e += stride)
        add_tick(a, exp2(e));
    for (size_t i = 0; i < a->n_ticks; i++)
        snprintf(a->labels[i], sizeof a->labels[i], "%.6g", a->ticks[i]);
}

// Powers of ten; over less than two decades also their double and fivefold; over less than that,
// round steps as on a linear axis.
static void ten_ticks(struct axis *a, int n) {
    double decades = log10(a->max / a->min);
    int first = (int)floor(log10(a->min) + 1e-9), last = (int)floor(log10(a->max) + 1e-9);
    int stride = (last - first) / (n + 1) + 1;
    for (int e = first; e <= last; e += stride)
        for (int m = 1; m <= (decades < 2 ? 5 : 1); m += m == 2 ? 3 : 1)
            add_tick(a, m * pow(10, e));
    for (int e = first; decades < 6 && e <= last; e++)
        for (int m = 2; m <= 9; m++)
            if (a->n_minor < AXIS_MAX_MINOR && m * pow(10, e) > a->min && m * pow(10, e) < a->max)
                a->minor[a->n_minor++] = m * pow(10, e);
    if (a->n_ticks >= 2) {
        label_log(a);
        return;
    }
    a->n_ticks = a->n_minor = 0;
    linear_ticks(a, &(struct axis_wish){.n_ticks = n});
}

// The next 1, 2 or 5 times a power of ten below.
static double round_down(double value) {
    double power = pow(10, floor(log10(value) + 1e-9)), share = value / power * (1 + 1e-9);
    return power * (share >= 5 ? 5 : share >= 2 ? 2 : 1);
}

static struct axis log_axis(double low, double high, struct axis_wish wish) {
    if (high <= low * (1 + 1e-9)) {
        low /= 2;
        high *= 2;
    }
    struct axis a = {.min = low, .max = high, .log = true};
    if (wish.round) {
        a.min = round_down(low);
        a.max = 10 / round_down(10 / high);
    }
    if (wish.powers_of_two)
        two_ticks(&a, wish.n_ticks);
    else
        ten_ticks(&a, wish.n_ticks);
    return a;
}

struct axis axis_make(double low, double high, struct axis_wish wish) {
    return wish.log ? log_axis(low, high, wish) : linear_axis(low, high, wish);
}
