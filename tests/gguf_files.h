// What the tests of GGUF files share: models, their logits, files written by gguf_export.
#ifndef NIBBLE_TESTS_GGUF_FILES_H
#define NIBBLE_TESTS_GGUF_FILES_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "export/gguf_export.h"
#include "io/gguf.h"
#include "temp.h"

enum { LOGIT_TOKENS = 24 };

static inline struct model *model_of(const char *path) {
    struct error err = {0};
    struct model *m = model_load(path, &err);
    cr_assert(m, "%s", err.message);
    return m;
}

static inline struct tokenizer *tokenizer_of(const char *path) {
    struct error err = {0};
    struct tokenizer *t = tokenizer_load(path, &err);
    cr_assert(t, "%s", err.message);
    return t;
}

// [LOGIT_TOKENS, V] of some tokens; the caller frees them.
static inline float *logits_of(const struct model *m) {
    int32_t tokens[LOGIT_TOKENS], positions[LOGIT_TOKENS];
    struct kv_cache kv;
    struct error err = {0};
    for (int32_t i = 0; i < LOGIT_TOKENS; i++) {
        tokens[i] = (i * 37 + 11) % (int32_t)m->config.vocab;
        positions[i] = i;
    }
    float *logits = malloc(LOGIT_TOKENS * m->config.vocab * sizeof *logits);
    struct batch b = {.n = LOGIT_TOKENS, .tokens = tokens, .positions = positions};
    cr_assert(kv_cache_init(&kv, &m->config, 1, LOGIT_TOKENS, &err), "%s", err.message);
    cr_assert(model_forward(m, &kv, &b, logits, &err), "%s", err.message);
    kv_cache_free(&kv);
    return logits;
}

static inline const struct gguf_preset *preset(const char *name) {
    const struct gguf_preset *p = gguf_preset_find(name, strlen(name));
    cr_assert(p, "%s", name);
    return p;
}

// "<temporary folder>/<name>.gguf" in a new string.
static inline char *gguf_path(const char *name) {
    char *path = malloc(256);
    snprintf(path, 256, "%s/%s.gguf", temp_folder(), name);
    return path;
}

static inline void export_as(const struct model *m, const struct tokenizer *t, const char *type,
                             const char *path) {
    struct gguf_plan plan;
    struct error err = {0};
    size_t announced, written;
    const struct gguf_export_options options = {.name = "test"};
    cr_assert(gguf_plan_preset(&plan, m, preset(type), NULL, NULL, &err), "%s", err.message);
    cr_assert(gguf_plan_file_size(&plan, t, "test", &announced, &err), "%s", err.message);
    cr_assert(gguf_export(&plan, t, &options, path, &written, &err), "%s", err.message);
    cr_expect_eq(announced, written, "%zu bytes announced, %zu written", announced, written);
    gguf_plan_free(&plan);
}

#endif
