// One axis: its range, its ticks at round numbers, and where a value lies on it.
#ifndef NIBBLE_REPORT_CHART_AXIS_H
#define NIBBLE_REPORT_CHART_AXIS_H

#include <stdbool.h>
#include <stddef.h>

enum { AXIS_MAX_TICKS = 24, AXIS_MAX_MINOR = 100 };

struct axis {
    double min, max; // min < max; positive if log
    bool log;
    size_t n_ticks, n_minor;
    double ticks[AXIS_MAX_TICKS];
    char labels[AXIS_MAX_TICKS][32];
    double minor[AXIS_MAX_MINOR]; // log axes: 2 … 9 times the powers of ten
};

struct axis_wish {
    bool log;
    bool round;         // widen the range to whole ticks
    bool powers_of_two; // log axes: ticks at 32, 64, 128 …
    bool whole;         // linear axes: no ticks between whole numbers
    int n_ticks;        // about so many
};

// low <= high, finite, and positive if log; where they are equal the axis gets some room around.
struct axis axis_make(double low, double high, struct axis_wish wish);
// 0 at min, 1 at max.
double axis_place(const struct axis *a, double value);
// A number as a label: `decimals` digits behind the point, with a true minus sign.
void axis_number(double value, int decimals, char out[32]);
// Three significant digits, "12.3k", "2.1×10⁻⁶".
void axis_value_label(double value, char out[32]);

#endif
