// Unicode normalization looks at little of a text. A character is inert if it neither decomposes
// nor combines with what stands before it: then the normal form of everything up to it does not
// depend on it or on what follows. So only the spans between two inert characters that hold
// something else go through utf8proc.
#include "text/normalize.h"

#include <utf8proc.h>

#include "text/utf8.h"

void normalizer_free(struct normalizer *n) {
    pattern_free(&n->pattern);
    free(n->content);
    *n = (struct normalizer){0};
}

// No character below this changes under the form, or combines with one before it.
static uint32_t first_active(const struct normalizer *n) {
    return n->compose && !n->compatible ? 0x300 : 0x80;
}

static bool is_hangul(uint32_t c) {
    return (c >= 0x1100 && c < 0x1200) || (c >= 0xac00 && c < 0xd7b0);
}

// Marks, vowel and final jamo, and second halves of compositions.
static bool combines_backwards(uint32_t c) {
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)c);
    bool second = p->comb_index >= 0x8000 && p->comb_index != UINT16_MAX;
    return p->combining_class || second || (c >= 0x1160 && c < 0x1200);
}

static bool is_inert(const struct normalizer *n, uint32_t c) {
    if (c < first_active(n))
        return true;
    // Jamo compose, and syllables decompose, by arithmetic that is in no table. A syllable may
    // still be followed by jamo, which are not inert.
    if (is_hangul(c))
        return n->compose && c >= 0xac00;
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)c);
    bool decomposes = p->decomp_seqindex != UINT16_MAX && (n->compatible || !p->decomp_type);
    return !decomposes && !combines_backwards(c);
}

// Spans end here at the latest: utf8proc sorts a run of combining marks by swapping neighbours, in
// quadratic time. Real runs have fewer than ten; Unicode's stream-safe format allows 30.
enum { LONG_SPAN = 4 << 10, LONGEST_SPAN = 64 << 10 };

static bool span_ends(const struct normalizer *n, const char *text, size_t start, size_t at) {
    uint32_t c = utf8_code(text + at);
    return is_inert(n, c) || (at - start > LONG_SPAN && !combines_backwards(c)) ||
           at - start > LONGEST_SPAN;
}

bool normalizer_is_idle(const struct normalizer *n, const char *text, size_t size) {
    if (n->kind != NORMALIZER_UNICODE)
        return false;
    size_t i = 0;
    while (i < size) {
        uint64_t eight;
        while (i + 8 <= size && (memcpy(&eight, text + i, 8), !(eight & 0x8080808080808080u)))
            i += 8;
        if (i == size)
            break;
        if ((text[i] & 0x80) && !is_inert(n, utf8_code(text + i)))
            return false;
        i += utf8_size(text[i]);
    }
    return true;
}

static bool normalize_span(const struct normalizer *n, const char *text, size_t size,
                           struct bytes *out, struct error *err) {
    utf8proc_option_t options = UTF8PROC_STABLE;
    options |= n->compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    if (n->compatible)
        options |= UTF8PROC_COMPAT;
    utf8proc_uint8_t *normal = NULL;
    utf8proc_ssize_t length =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)size, &normal, options);
    if (length < 0)
        return error_set(err, "normalizing %zu bytes: %s", size, utf8proc_errmsg(length));
    bool ok = bytes_append(out, (char *)normal, (size_t)length, err);
    free(normal);
    return ok;
}

static bool apply_unicode(const struct normalizer *n, const char *text, size_t size,
                          struct bytes *out, struct error *err) {
    size_t copied = 0;     // text before this is in out
    size_t last_inert = 0; // where the last inert character begins
    for (size_t i = 0; i < size;) {
        if (is_inert(n, utf8_code(text + i))) {
            last_inert = i;
            i += utf8_size(text[i]);
            continue;
        }
        size_t end = i;
        do
            end += utf8_size(text[end]);
        while (end < size && !span_ends(n, text, i, end));
        if (!bytes_append(out, text + copied, last_inert - copied, err) ||
            !normalize_span(n, text + last_inert, end - last_inert, out, err))
            return false;
        copied = last_inert = i = end;
    }
    return bytes_append(out, text + copied, size - copied, err);
}

static bool apply_replace(const struct normalizer *n, struct pattern_match *match, const char *text,
                          size_t size, struct bytes *out, struct error *err) {
    size_t content_size = strlen(n->content), copied = 0, from = 0;
    while (from <= size) {
        bool found;
        size_t start, end;
        if (!pattern_find(&n->pattern, match, text, size, from, &found, &start, &end, err))
            return false;
        if (!found)
            break;
        if (!bytes_append(out, text + copied, start - copied, err) ||
            !bytes_append(out, n->content, content_size, err))
            return false;
        copied = end;
        from = end > start ? end : end < size ? end + utf8_size(text[end]) : size + 1;
    }
    return bytes_append(out, text + copied, size - copied, err);
}

bool normalizer_apply(const struct normalizer *n, struct pattern_match *match, const char *text,
                      size_t size, struct bytes *out, struct error *err) {
    switch (n->kind) {
    case NORMALIZER_UNICODE:
        return apply_unicode(n, text, size, out, err);
    case NORMALIZER_REPLACE:
        return apply_replace(n, match, text, size, out, err);
    default:
        return bytes_append(out, n->content, strlen(n->content), err) &&
               bytes_append(out, text, size, err);
    }
}
