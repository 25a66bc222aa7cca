// Unicode normalization looks at little of a text. A character is inert if it neither decomposes
// nor combines with what stands before it: then the normal form of everything up to it does not
// depend on it or on what follows. So only the spans between two inert characters that hold
// something else go through utf8proc.
#include "text/normalize.h"

#include <utf8proc.h>

#include "core/memory.h"
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

bool normalizer_is_idle(const struct normalizer *n, const char *text, size_t size) {
    if (n->kind != NORMALIZER_UNICODE)
        return false;
    size_t i = 0;
    while (i < size) {
        i = utf8_skip_ascii(text, size, i);
        if (i == size)
            break;
        if ((text[i] & 0x80) && !is_inert(n, utf8_code(text + i)))
            return false;
        i += utf8_size(text[i]);
    }
    return true;
}

static int combining_class(utf8proc_int32_t c) {
    return utf8proc_get_property(c)->combining_class;
}

static int compare_keys(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// Brings each run of combining marks into the order of their classes, equals as they were.
// (utf8proc's own way is to swap neighbours: half a minute for a megabyte of marks.)
static void order_marks(utf8proc_int32_t *codes, size_t n, uint64_t *keys) {
    for (size_t i = 0, end; i < n; i = end) {
        bool ordered = true;
        end = i + 1;
        for (; combining_class(codes[i]) && end < n && combining_class(codes[end]); end++)
            ordered &= combining_class(codes[end - 1]) <= combining_class(codes[end]);
        if (ordered)
            continue;
        for (size_t j = i; j < end; j++) // class, position; the code rides along below
            keys[j - i] = (uint64_t)combining_class(codes[j]) << 56 | (uint64_t)(j - i) << 21 |
                          (uint64_t)codes[j];
        qsort(keys, end - i, sizeof *keys, compare_keys);
        for (size_t j = i; j < end; j++)
            codes[j] = (utf8proc_int32_t)(keys[j - i] & 0x1fffff);
    }
}

// Decomposes to codes[0..capacity), or only counts with capacity 0; the number of code points.
static size_t decompose(const char *text, size_t size, utf8proc_option_t options,
                        utf8proc_int32_t *codes, size_t capacity) {
    size_t n = 0;
    int boundary = 0;
    for (size_t i = 0; i < size; i += utf8_size(text[i])) {
        size_t room = n < capacity ? capacity - n : 0;
        n += (size_t)utf8proc_decompose_char((utf8proc_int32_t)utf8_code(text + i),
                                             room ? codes + n : NULL, (utf8proc_ssize_t)room,
                                             options, &boundary);
    }
    return n;
}

static bool normalize_span(const struct normalizer *n, const char *text, size_t size,
                           struct bytes *out, struct error *err) {
    utf8proc_option_t options = UTF8PROC_STABLE;
    options |= n->compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    if (n->compatible)
        options |= UTF8PROC_COMPAT;
    size_t count = decompose(text, size, options, NULL, 0);
    utf8proc_int32_t *codes = memory_alloc(count, sizeof *codes, "normalizing", err);
    uint64_t *keys = memory_alloc(count, sizeof *keys, "normalizing", err);
    bool ok = codes && keys && bytes_reserve(out, 4 * count, err);
    if (ok) {
        decompose(text, size, options, codes, count);
        order_marks(codes, count, keys);
        count = (size_t)utf8proc_normalize_utf32(codes, (utf8proc_ssize_t)count, options);
        for (size_t i = 0; i < count; i++)
            out->size += utf8_write((uint32_t)codes[i], out->data + out->size);
    }
    free(codes);
    free(keys);
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
        while (end < size && !is_inert(n, utf8_code(text + end)))
            end += utf8_size(text[end]);
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
