// The parts around the BPE trainer: how a text becomes words, and in which order bytes get ids.
#ifndef NIBBLE_TEXT_BPE_SPLIT_H
#define NIBBLE_TEXT_BPE_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

// Qwen2's pre-tokenizer: contractions | a word with one character before it | a digit | punctuation
// | line ends | spaces
#define BPE_PATTERN                                                                                \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+"      \
    "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

// Puts *text into Unicode form NFC, as the tokenizer will. *owned is what the caller frees (NULL
// when nothing had to be changed). Fails if the text is not UTF-8.
bool bpe_normalize(const char **text, size_t *size, char **owned, const char *name,
                   struct error *err);

// Calls word(user, …) for each word of the text, special tokens left out; stops when it returns
// false. The text must be valid UTF-8.
bool bpe_split(const char *text, size_t size, const char *const *specials, size_t n_specials,
               bool (*word)(void *user, const char *text, size_t size), void *user,
               struct error *err);

// The byte of token `id` < 256: ids follow the order of the characters that stand for the bytes
// (text/byte_level.h).
unsigned char bpe_byte_of_id(int id);

#endif
