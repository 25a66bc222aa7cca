// The regular expressions of a tokenizer.json, through PCRE2.
//
// The files are written for Oniguruma. Three things differ and are mended before compiling:
// \s, \S (PCRE2 counts U+180E as a space, Unicode no longer does) and \w (marks belong to it).
// A pattern is shared between threads; each caller brings its own struct pattern_match.
#ifndef NIBBLE_TEXT_PATTERN_H
#define NIBBLE_TEXT_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

struct pattern {
    void *code; // pcre2_code
    char *text; // as it was given
};

struct pattern_match {
    void *data, *context, *stack; // of PCRE2
};

// literal: the text itself is looked for. `name` begins every message.
bool pattern_compile(struct pattern *p, const char *text, bool literal, const char *name,
                     struct error *err);
void pattern_free(struct pattern *p);

bool pattern_match_init(struct pattern_match *m, struct error *err);
void pattern_match_free(struct pattern_match *m);
// The first match in text[from..size), valid UTF-8: *found says whether there is one, then its
// bytes are [*start, *end). Fails only for memory.
bool pattern_find(const struct pattern *p, struct pattern_match *m, const char *text, size_t size,
                  size_t from, bool *found, size_t *start, size_t *end, struct error *err);

#endif
