// The numbers of a row as a list, for the views to walk through. Private to report/.
#ifndef NIBBLE_REPORT_RESULT_KEY_H
#define NIBBLE_REPORT_RESULT_KEY_H

#include "report/result.h"

#define X(key) +1
enum { RESULT_N_KEYS = RESULT_NUMBERS(X) };
#undef X

struct result_key {
    const char *name;
    size_t offset; // of the double in struct result_row
    bool whole;    // bytes and counts: printed as integers
};
extern const struct result_key result_keys[RESULT_N_KEYS];

static inline double result_number(const struct result_row *row, size_t offset) {
    return *(const double *)((const char *)row + offset);
}

// Whether the row has this number. NaN says no, but for the perplexity of a broken model: where
// tokens were scored, NaN is what came out.
bool result_measured(const struct result_row *row, size_t offset);

#endif
