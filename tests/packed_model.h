// What the tests of saved models share: models, their logits, a folder to save to.
#ifndef NIBBLE_TESTS_PACKED_MODEL_H
#define NIBBLE_TESTS_PACKED_MODEL_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "model/packed.h"
#include "quant/quantize.h"
#include "temp.h"

static inline struct model *load(const char *folder) {
    struct error err = {0};
    struct model *m = model_load(folder, &err);
    cr_assert(m, "%s", err.message);
    return m;
}

static inline struct model *quantized(const struct model *m, const char *recipe_text, bool int8,
                                      struct recipe *recipe) {
    struct quantize_stats stats;
    struct error err = {0};
    cr_assert(recipe_parse(recipe, recipe_text, "recipe", &err), "%s", err.message);
    struct model *q = model_quantize(m, recipe, int8, &stats, NULL, NULL, &err);
    cr_assert(q, "%s", err.message);
    return q;
}

enum { TOKENS = 12 };

static inline float *logits_new(const struct model *m) {
    struct kv_cache kv;
    struct error err = {0};
    int32_t tokens[TOKENS], positions[TOKENS];
    for (int32_t i = 0; i < TOKENS; i++) {
        tokens[i] = 7 * i % (int32_t)m->config.vocab;
        positions[i] = i;
    }
    struct batch b = {.n = TOKENS, .tokens = tokens, .positions = positions};
    float *logits = memory_alloc(TOKENS * m->config.vocab, sizeof *logits, "logits", &err);
    cr_assert(kv_cache_init(&kv, &m->config, 1, TOKENS, &err));
    cr_assert(model_forward(m, &kv, &b, logits, &err), "%s", err.message);
    kv_cache_free(&kv);
    return logits;
}

static inline void check_same_logits(const struct model *a, const struct model *b) {
    float *x = logits_new(a), *y = logits_new(b);
    for (size_t i = 0; i < TOKENS * a->config.vocab; i++)
        cr_assert(isfinite(x[i]) && memcmp(&x[i], &y[i], sizeof *x) == 0, "logit %zu: %g, %g", i,
                  (double)x[i], (double)y[i]);
    free(x);
    free(y);
}

static inline bool is_mapped(const struct model *m, const void *p) {
    for (size_t i = 0; i < m->files->n_mappings; i++) {
        const struct mapping *map = &m->files->mappings[i];
        if ((const unsigned char *)p >= map->data &&
            (size_t)((const unsigned char *)p - map->data) < map->size)
            return true;
    }
    return false;
}

static inline const char *saved_folder(void) {
    static char path[256];
    snprintf(path, sizeof path, "%s/saved", temp_folder());
    return path;
}

static inline void remove_saved(void) {
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", saved_folder());
    cr_assert_eq(system(command), 0);
}

#endif
