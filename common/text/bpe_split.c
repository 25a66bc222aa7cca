#include "text/bpe_split.h"

#include <stdint.h>
#include <string.h>

#include "text/bpe_train.h"
#include "text/byte_level.h"
#include "text/normalize.h"
#include "text/pattern.h"
#include "text/utf8.h"

bool bpe_normalize(const char **text, size_t *size, char **owned, const char *name,
                   struct error *err) {
    static const struct normalizer nfc = {.kind = NORMALIZER_UNICODE, .compose = true};
    struct bytes normal = {0};
    *owned = NULL;
    size_t valid = utf8_valid_prefix(*text, *size);
    if (valid < *size)
        return error_set(err, "%s: byte %zu is no character, expected UTF-8 text", name, valid);
    if (normalizer_is_idle(&nfc, *text, *size))
        return true;
    if (!normalizer_apply(&nfc, NULL, *text, *size, &normal, err)) {
        bytes_free(&normal);
        return false;
    }
    *text = *owned = normal.data;
    *size = normal.size;
    return true;
}

struct splitter {
    struct pattern pattern;
    struct pattern_match match;
    bool (*word)(void *user, const char *text, size_t size);
    void *user;
    struct error *err;
};

// A stretch without special tokens.
static bool split_plain(struct splitter *s, const char *text, size_t size) {
    for (size_t at = 0; at < size;) {
        bool found;
        size_t begin, end;
        if (!pattern_find(&s->pattern, &s->match, text, size, at, &found, &begin, &end, s->err))
            return false;
        if (!found)
            begin = end = size;
        // What the pattern leaves between its matches is a word too.
        if (begin > at && !s->word(s->user, text + at, begin - at))
            return false;
        if (end > begin && !s->word(s->user, text + begin, end - begin))
            return false;
        at = end > at ? end : size;
    }
    return true;
}

// The first special token at or after `at`; where[] remembers each one's next place.
static size_t next_special(const char *text, size_t size, size_t at, const char *const *specials,
                           size_t n_specials, size_t *where) {
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < n_specials; i++) {
        if (where[i] < at || (where[i] == 0 && at == 0)) {
            const char *p = memmem(text + at, size - at, specials[i], strlen(specials[i]));
            where[i] = p ? (size_t)(p - text) : size;
        }
        if (where[i] < size && (best == SIZE_MAX || where[i] < where[best]))
            best = i;
    }
    return best;
}

static bool split_all(struct splitter *s, const char *text, size_t size,
                      const char *const *specials, size_t n_specials) {
    size_t where[BPE_MAX_SPECIALS] = {0};
    for (size_t at = 0; at < size;) {
        size_t i = next_special(text, size, at, specials, n_specials, where);
        size_t end = i == SIZE_MAX ? size : where[i];
        if (!split_plain(s, text + at, end - at))
            return false;
        at = i == SIZE_MAX ? size : end + strlen(specials[i]);
    }
    return true;
}

bool bpe_split(const char *text, size_t size, const char *const *specials, size_t n_specials,
               bool (*word)(void *user, const char *text, size_t size), void *user,
               struct error *err) {
    struct splitter s = {.word = word, .user = user, .err = err};
    bool ok = pattern_compile(&s.pattern, BPE_PATTERN, false, "the word pattern", err) &&
              pattern_match_init(&s.match, err) && split_all(&s, text, size, specials, n_specials);
    pattern_match_free(&s.match);
    pattern_free(&s.pattern);
    return ok;
}

unsigned char bpe_byte_of_id(int id) {
    for (int shifted = 0; shifted < 2; shifted++)
        for (int byte = 0; byte < BPE_BYTES; byte++)
            if ((byte_level_char((unsigned char)byte) != (uint32_t)byte) == shifted && id-- == 0)
                return (unsigned char)byte;
    return 0;
}
