// What the tests of sensitivity share: a model, a text, the analysis of both.
#ifndef NIBBLE_TESTS_SENSITIVITY_DATA_H
#define NIBBLE_TESTS_SENSITIVITY_DATA_H

#include <criterion/criterion.h>
#include <string.h>

#include "core/random.h"
#include "eval/sensitivity.h"
#include "quant/format.h"

enum { TOKENS = 64, FORMATS = 4 };

static inline struct model *open_model(const char *folder) {
    struct error err = {0};
    struct model *m = model_load(folder, &err);
    cr_assert_not_null(m, "%s", err.message);
    return m;
}

static inline const int32_t *some_tokens(const struct model *m) {
    static int32_t tokens[TOKENS];
    struct random r = {11};
    for (size_t i = 0; i < TOKENS; i++)
        tokens[i] = (int32_t)random_below(&r, (uint32_t)m->config.vocab);
    return tokens;
}

static inline const struct quant_format *const *four_formats(void) {
    static const struct quant_format *f[FORMATS];
    static const char *const names[FORMATS] = {"int8", "int4-g32", "int4-g128", "int4"};
    for (size_t i = 0; i < FORMATS; i++)
        f[i] = quant_format_find(names[i]);
    return f;
}

// Of 64 tokens in those formats.
static inline struct sensitivity measure(const struct model *m, struct sensitivity_options o) {
    struct error err = {0};
    struct sensitivity s;
    o.tokens = o.window = TOKENS;
    cr_assert(sensitivity_measure(m, four_formats(), FORMATS, some_tokens(m), TOKENS, &o, &s, NULL,
                                  NULL, &err),
              "%s", err.message);
    return s;
}

// The first tensor whose name has that in it.
static inline size_t find(const struct sensitivity *s, const char *name) {
    size_t t = 0;
    while (t < s->n_tensors && !strstr(s->tensors[t].name, name))
        t++;
    cr_assert(t < s->n_tensors, "no tensor %s", name);
    return t;
}

#endif
