// UTF-8, as much of it as tokenizers and tables need.
//
//     U+0000 … U+007F      0xxxxxxx
//     U+0080 … U+07FF      110xxxxx 10xxxxxx
//     U+0800 … U+FFFF      1110xxxx 10xxxxxx 10xxxxxx      (not D800 … DFFF, the surrogates)
//     U+10000 … U+10FFFF   11110xxx 10xxxxxx 10xxxxxx 10xxxxxx
// Longer spellings of a smaller number are invalid. What is invalid becomes U+FFFD, one for each
// longest beginning of a character that was cut short, as Unicode recommends and Python's
// errors="replace" does.
#ifndef NIBBLE_TEXT_UTF8_H
#define NIBBLE_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/bytes.h"

#define UTF8_REPLACEMENT "\xef\xbf\xbd"

struct utf8_char {
    uint32_t code;
    unsigned size; // bytes it takes; for an invalid one, the bytes to skip
    bool valid;
    bool cut_short; // invalid only because the text ends here
};

// The character at text[0], size > 0.
struct utf8_char utf8_read(const char *text, size_t size);
// The character at text[0] of text known to be valid.
uint32_t utf8_code(const char *text);
// Bytes of the character that begins with this byte, in valid text.
unsigned utf8_size(char first);
// Writes the character to out[0..4), returns its bytes.
unsigned utf8_write(uint32_t code, char *out);

// The first place from `at` on that may hold something other than ASCII: texts are mostly ASCII,
// and eight bytes at a time it is passed over at memory speed.
static inline size_t utf8_skip_ascii(const char *text, size_t size, size_t at) {
    uint64_t eight;
    while (at + 8 <= size && (memcpy(&eight, text + at, 8), !(eight & 0x8080808080808080u)))
        at += 8;
    return at;
}

// How many leading bytes of the text are valid.
size_t utf8_valid_prefix(const char *text, size_t size);
// Appends the text with everything invalid replaced.
bool utf8_repair(struct bytes *out, const char *text, size_t size, struct error *err);
// The same for a string (a model may stop in the middle of a character). The caller frees it.
char *utf8_clean(const char *s, struct error *err);
// Columns that s takes in a terminal; what is invalid takes one.
size_t utf8_width(const char *s);

bool utf8_is_space(uint32_t code); // Unicode's White_Space, \s in a regular expression
bool utf8_is_word(uint32_t code);  // \w: letters, marks, digits, connectors

#endif
