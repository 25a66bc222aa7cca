#include "text/utf8.h"

#include <string.h>
#include <utf8proc.h>

struct utf8_char utf8_read(const char *text, size_t size) {
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80)
        return (struct utf8_char){s[0], 1, true, false};
    unsigned n = s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : 0;
    if (s[0] >= 0xf0 && s[0] < 0xf5)
        n = 4;
    if (!n)
        return (struct utf8_char){0xfffd, 1, false, false};
    uint32_t code = s[0] & (0x7fu >> n);
    // The second byte's range is where overlong spellings, surrogates and > U+10FFFF are refused.
    unsigned char low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    for (unsigned i = 1; i < n; i++) {
        if (i == size)
            return (struct utf8_char){0xfffd, i, false, true};
        if (s[i] < low || s[i] > high)
            return (struct utf8_char){0xfffd, i, false, false};
        code = code << 6 | (s[i] & 0x3f);
        low = 0x80, high = 0xbf;
    }
    return (struct utf8_char){code, n, true, false};
}

unsigned utf8_size(char first) {
    unsigned char c = (unsigned char)first;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

uint32_t utf8_code(const char *text) {
    return utf8_read(text, utf8_size(text[0])).code;
}

unsigned utf8_write(uint32_t code, char *out) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    unsigned n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (unsigned i = n - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)((0xf00u >> n & 0xff) | code);
    return n;
}

size_t utf8_valid_prefix(const char *text, size_t size) {
    size_t i = 0;
    while (i < size) {
        i = utf8_skip_ascii(text, size, i);
        if (i == size)
            break;
        struct utf8_char c = utf8_read(text + i, size - i);
        if (!c.valid)
            break;
        i += c.size;
    }
    return i;
}

bool utf8_repair(struct bytes *out, const char *text, size_t size, struct error *err) {
    while (size) {
        size_t valid = utf8_valid_prefix(text, size);
        if (!bytes_append(out, text, valid, err))
            return false;
        if (valid == size)
            break;
        if (!bytes_append(out, UTF8_REPLACEMENT, 3, err))
            return false;
        valid += utf8_read(text + valid, size - valid).size;
        text += valid, size -= valid;
    }
    return true;
}

char *utf8_clean(const char *s, struct error *err) {
    struct bytes out = {0};
    if (utf8_repair(&out, s, strlen(s), err) && bytes_append(&out, "", 1, err))
        return out.data;
    bytes_free(&out);
    return NULL;
}

size_t utf8_width(const char *s) {
    size_t width = 0;
    while (*s) {
        struct utf8_char c = utf8_read(s, strnlen(s, 4));
        width += c.valid ? (size_t)utf8proc_charwidth((utf8proc_int32_t)c.code) : 1;
        s += c.size;
    }
    return width;
}

bool utf8_is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

bool utf8_is_word(uint32_t c) {
    // Zero-width joiners and the circled and squared letters count as parts of words too.
    if (c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) ||
        (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
        (c >= 0x1f170 && c <= 0x1f189))
        return true;
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) ||
           category == UTF8PROC_CATEGORY_PC;
}
