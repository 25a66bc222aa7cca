#include "text/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "core/memory.h"
#include "text/bytes.h"

// Bodies of character classes. NOT_SPACE is the complement of SPACE, needed inside a class, where
// a class cannot be negated.
#define SPACE                                                                                      \
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"                \
    "\\x{205f}\\x{3000}"
#define NOT_SPACE                                                                                  \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}!-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}"      \
    "\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"                 \
    "\\x{3001}-\\x{10ffff}"
// Oniguruma's: Unicode's words, the superscripts and fractions of Latin-1, circled letters.
#define WORD                                                                                       \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"                        \
    "\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"

static const char *class_of(char escape) {
    return escape == 's' ? SPACE : escape == 'S' ? NOT_SPACE : escape == 'w' ? WORD : NULL;
}

static bool append(struct bytes *out, const char *text, struct error *err) {
    return bytes_append(out, text, strlen(text), err);
}

// Replaces \s, \S and \w by classes; everything else is copied.
static bool rewrite(struct bytes *out, const char *text, struct error *err) {
    bool in_class = false;
    for (const char *p = text; *p; p++) {
        const char *class = *p == '\\' ? class_of(p[1]) : NULL;
        if (class) {
            bool ok = (in_class || append(out, "[", err)) && append(out, class, err) &&
                      (in_class || append(out, "]", err));
            if (!ok)
                return false;
            p++;
            continue;
        }
        size_t n = *p == '\\' && p[1] ? 2 : 1;
        if (n == 1 && (*p == '[' || *p == ']'))
            in_class = *p == '[';
        if (!bytes_append(out, p, n, err))
            return false;
        p += n - 1;
    }
    return true;
}

bool pattern_compile(struct pattern *p, const char *text, bool literal, const char *name,
                     struct error *err) {
    struct bytes rewritten = {0};
    p->code = NULL;
    if (!(p->text = memory_strdup(text, err)))
        return false;
    if (!(literal ? append(&rewritten, text, err) : rewrite(&rewritten, text, err))) {
        bytes_free(&rewritten);
        return false;
    }
    // In Oniguruma's syntax ^ and $ match at every line.
    uint32_t options = literal ? PCRE2_UTF | PCRE2_LITERAL
                               : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    int code = 0;
    PCRE2_SIZE at = 0;
    p->code = pcre2_compile((PCRE2_SPTR)(rewritten.data ? rewritten.data : ""), rewritten.size,
                            options, &code, &at, NULL);
    bytes_free(&rewritten);
    if (!p->code) {
        PCRE2_UCHAR reason[128] = "";
        pcre2_get_error_message(code, reason, sizeof reason);
        return error_set(err, "%s: regular expression '%s': %s", name, text, (char *)reason);
    }
    pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE); // where there is no JIT, it is interpreted
    return true;
}

void pattern_free(struct pattern *p) {
    pcre2_code_free(p->code);
    free(p->text);
    *p = (struct pattern){0};
}

bool pattern_match_init(struct pattern_match *m, struct error *err) {
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    m->context = context;
    m->data = pcre2_match_data_create(1, NULL);
    m->stack = pcre2_jit_stack_create(32 << 10, 16 << 20, NULL);
    if (!m->context || !m->data || !m->stack) {
        pattern_match_free(m);
        return error_set(err, "out of memory for a regular expression");
    }
    pcre2_set_depth_limit(context, UINT32_MAX);
    pcre2_set_heap_limit(context, UINT32_MAX);
    pcre2_jit_stack_assign(context, NULL, m->stack);
    return true;
}

void pattern_match_free(struct pattern_match *m) {
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    *m = (struct pattern_match){0};
}

bool pattern_find(const struct pattern *p, struct pattern_match *m, const char *text, size_t size,
                  size_t from, bool *found, size_t *start, size_t *end, struct error *err) {
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    // Steps back for one match: a megabyte of spaces takes a million, an evil pattern 2^length.
    uint64_t limit = 10000000 + (uint64_t)size * 16;
    pcre2_set_match_limit(m->context, limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX);
    int n = pcre2_match(p->code, subject, size, from, PCRE2_NO_UTF_CHECK, m->data, m->context);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT) // the interpreter keeps its stack on the heap
        n = pcre2_match(p->code, subject, size, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, m->data,
                        m->context);
    *found = n >= 0;
    if (n < 0 && n != PCRE2_ERROR_NOMATCH) {
        PCRE2_UCHAR reason[128] = "";
        pcre2_get_error_message(n, reason, sizeof reason);
        return error_set(err, "regular expression: %s", (char *)reason);
    }
    if (*found) {
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m->data);
        *start = at[0], *end = at[1];
    }
    return true;
}
