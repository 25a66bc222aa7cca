// The normalizer of a tokenizer.json: what is done to a text before it is split.
#ifndef NIBBLE_TEXT_NORMALIZE_H
#define NIBBLE_TEXT_NORMALIZE_H

#include "text/bytes.h"
#include "text/pattern.h"

enum normalizer_kind {
    NORMALIZER_UNICODE, // one of Unicode's four forms
    NORMALIZER_PREPEND,
    NORMALIZER_REPLACE,
};

struct normalizer {
    enum normalizer_kind kind;
    bool compose, compatible; // UNICODE: NFC and NFKC compose, NFKC and NFKD are compatible
    struct pattern pattern;   // REPLACE
    char *content;            // PREPEND, REPLACE
};

void normalizer_free(struct normalizer *n);
// Writes the normalized text (valid UTF-8, not empty) to *out, which is empty.
bool normalizer_apply(const struct normalizer *n, struct pattern_match *match, const char *text,
                      size_t size, struct bytes *out, struct error *err);
// True if the text stays as it is; may say false where a longer look would say true.
bool normalizer_is_idle(const struct normalizer *n, const char *text, size_t size);

#endif
