// What a tokenizer is made of, for those who write it into a file of another kind.
#ifndef NIBBLE_TEXT_TOKENIZER_PARTS_H
#define NIBBLE_TEXT_TOKENIZER_PARTS_H

#include "text/tokenizer.h"

enum token_kind {
    TOKEN_ABSENT, // no token has this id
    TOKEN_NORMAL,
    TOKEN_BYTE,    // <0x0A>: a byte that no other token has
    TOKEN_UNKNOWN, // stands for what has no token
    TOKEN_ADDED,   // found in the text before anything else
    TOKEN_SPECIAL  // the same, and not part of what is said
};

// The string of a token as the vocabulary has it (byte-level characters stay), without a NUL. NULL
// if it is absent.
const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *size,
                            enum token_kind *kind);

struct token_merge {
    int32_t left, right, result;
};
// The merges, first learnt first: [n], owned by the caller.
struct token_merge *tokenizer_merges(const struct tokenizer *t, size_t *n, struct error *err);

// Whether tokens are spelled in byte-level characters (GPT-2), not in text with byte tokens
// (SentencePiece).
bool tokenizer_is_byte_level(const struct tokenizer *t);
// Whether a space is put before a text.
bool tokenizer_adds_space(const struct tokenizer *t);
// The name that GGUF has for how texts are split into words: "qwen2", "llama-bpe", "gpt-2", without
// a NUL. NULL if it has none that splits alike.
const char *tokenizer_pre_name(const struct tokenizer *t, size_t *size);

int32_t tokenizer_unknown(const struct tokenizer *t); // or -1
int32_t tokenizer_padding(const struct tokenizer *t); // or -1
int32_t
tokenizer_bos_token(const struct tokenizer *t); // "bos_token", put before a text or not; or -1

#endif
