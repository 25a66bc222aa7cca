#include "text/bpe_split.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/bpe_train.h"

// PCRE2's \s with Unicode properties has U+180E, which the tokenizers library's has not.
#define SPACES                                                                                     \
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"       \
    "\\x{3000}"

bool bpe_normalize(const char **text, size_t *size, char **owned, const char *name,
                   struct error *err) {
    *owned = NULL;
    bool ascii = true;
    for (size_t i = 0; i < *size; i++)
        ascii = ascii && !((*text)[i] & 0x80);
    if (ascii)
        return true;
    utf8proc_uint8_t *normal;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)*text, (utf8proc_ssize_t)*size,
                                      &normal, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (n < 0)
        return error_set(err, "%s: %s, expected UTF-8 text", name, utf8proc_errmsg(n));
    *text = *owned = (char *)normal;
    *size = (size_t)n;
    return true;
}

struct splitter {
    pcre2_code *code;
    pcre2_match_data *match;
    bool (*word)(void *user, const char *text, size_t size);
    void *user;
    struct error *err;
};

// A stretch without special tokens.
static bool split_plain(struct splitter *s, const char *text, size_t size) {
    for (size_t at = 0; at < size;) {
        int n =
            pcre2_match(s->code, (PCRE2_SPTR)text, size, at, PCRE2_NO_UTF_CHECK, s->match, NULL);
        if (n < 0 && n != PCRE2_ERROR_NOMATCH)
            return error_set(s->err, "the word pattern failed at byte %zu: PCRE2 error %d", at, n);
        const PCRE2_SIZE *found = pcre2_get_ovector_pointer(s->match);
        size_t begin = n < 0 ? size : found[0], end = n < 0 ? size : found[1];
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
    static const char pattern[] = BPE_PATTERN(SPACES, "[" SPACES "]", "[^" SPACES "]");
    int code;
    PCRE2_SIZE offset;
    struct splitter s = {.word = word, .user = user, .err = err};
    s.code = pcre2_compile((PCRE2_SPTR)pattern, sizeof pattern - 1, PCRE2_UTF | PCRE2_UCP, &code,
                           &offset, NULL);
    if (!s.code)
        return error_set(err, "the word pattern does not compile: PCRE2 error %d at %zu", code,
                         offset);
    // Without JIT (not on every machine) matching is slower and the same.
    pcre2_jit_compile(s.code, PCRE2_JIT_COMPLETE);
    s.match = pcre2_match_data_create_from_pattern(s.code, NULL);
    bool ok = s.match ? split_all(&s, text, size, specials, n_specials)
                      : error_set(err, "out of memory for the word pattern");
    pcre2_match_data_free(s.match);
    pcre2_code_free(s.code);
    return ok;
}

static bool stands_for_itself(int byte) {
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
}

unsigned char bpe_byte_of_id(int id) {
    for (int pass = 1; pass >= 0; pass--)
        for (int byte = 0; byte < BPE_BYTES; byte++)
            if (stands_for_itself(byte) == pass && id-- == 0)
                return (unsigned char)byte;
    return 0;
}
