// The parts around the BPE trainer: how a text becomes words, and how bytes are written in JSON.
#ifndef NIBBLE_TEXT_BPE_SPLIT_H
#define NIBBLE_TEXT_BPE_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

// Qwen2's pre-tokenizer, given how a pattern spells "space" in a class, alone, and negated:
// contractions | a word with one character before it | a digit | punctuation | line ends | spaces
#define BPE_PATTERN(in_class, space, not_space)                                                    \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^" in_class              \
    "\\p{L}\\p{N}]+[\\r\\n]*|" space "*[\\r\\n]+|" space "+(?!" not_space ")|" space "+"

// Puts *text into Unicode form NFC, as the tokenizer will. *owned is what the caller frees (NULL
// when nothing had to be changed). Fails if the text is not UTF-8.
bool bpe_normalize(const char **text, size_t *size, char **owned, const char *name,
                   struct error *err);

// Calls word(user, …) for each word of the text, special tokens left out; stops when it returns
// false. The text must be valid UTF-8.
bool bpe_split(const char *text, size_t size, const char *const *specials, size_t n_specials,
               bool (*word)(void *user, const char *text, size_t size), void *user,
               struct error *err);

// Byte-level BPE writes bytes as printable characters: 0x21-0x7E, 0xA1-0xAC and 0xAE-0xFF stand for
// themselves, the other 68 for U+0100 … in their order. Ids follow the order of these characters.
unsigned char bpe_byte_of_id(int id);

#endif
