// What a test has a model compute, to compare the logits of two ways to do it.
#ifndef NIBBLE_TESTS_MODEL_SCRIPT_H
#define NIBBLE_TESTS_MODEL_SCRIPT_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

struct script {
    size_t prefill, steps, sequences;
};

// Fills logits, poisoned before, with those of a prefill of each sequence, then of steps in which
// all of them are decoded together.
static inline float *run_script(const struct model *m, struct script s, size_t *n_logits) {
    struct error err = {0};
    struct kv_cache kv;
    size_t v = m->config.vocab, rows = s.sequences * (s.prefill + s.steps), done = 0;
    float *logits = malloc(rows * v * sizeof *logits);
    memset(logits, 0xff, rows * v * sizeof *logits);
    int32_t tokens[128], positions[128], sequences[128];
    cr_assert(kv_cache_init(&kv, &m->config, s.sequences, s.prefill + s.steps, &err));
    for (size_t q = 0; q < s.sequences; q++) {
        for (size_t i = 0; i < s.prefill; i++) {
            tokens[i] = (int32_t)((7 * i + 13 * q + i * i) % v);
            positions[i] = (int32_t)i;
            sequences[i] = (int32_t)q;
        }
        struct batch b = {
            .n = s.prefill, .tokens = tokens, .positions = positions, .sequences = sequences};
        cr_assert(model_forward(m, &kv, &b, logits + done * v, &err), "%s", err.message);
        done += s.prefill;
    }
    for (size_t i = 0; i < s.steps; i++, done += s.sequences) {
        for (size_t q = 0; q < s.sequences; q++) {
            tokens[q] = (int32_t)((11 * i + 3 * q + 1) % v);
            positions[q] = (int32_t)(s.prefill + i);
            sequences[q] = (int32_t)q;
        }
        struct batch b = {
            .n = s.sequences, .tokens = tokens, .positions = positions, .sequences = sequences};
        cr_assert(model_forward(m, &kv, &b, logits + done * v, &err), "%s", err.message);
    }
    kv_cache_free(&kv);
    *n_logits = rows * v;
    return logits;
}

#endif
