// Learns a byte-level BPE vocabulary from a text (Sennrich et al. 2016; bytes as in GPT-2) and
// writes it as a tokenizer.json that Hugging Face `tokenizers` and text/tokenizer.h read.
//
// The text is cut into words by Qwen2's regular expression, special tokens left out. Then the most
// frequent pair of neighbouring tokens becomes a new token, again and again:
//     l o w   5 times       l+o 7, o+w 7, w+e 2, e+r 2, …    "lo" (among equals the lowest ids)
//     l o w e r   2 times   lo+w 7, w+e 2, …                 "low"
// Ids: the 256 bytes in the order of their printable stand-ins ("!" is 0), the merges in the order
// they were learned, the special tokens last.
#ifndef NIBBLE_TEXT_BPE_TRAIN_H
#define NIBBLE_TEXT_BPE_TRAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

enum { BPE_BYTES = 256, BPE_MAX_SPECIALS = 16, BPE_MAX_VOCAB = 1 << 20 };

struct bpe_token {
    unsigned char *bytes;
    size_t size;
};

struct bpe_merge {
    int32_t left, right; // ids
};

struct bpe_trained {
    struct bpe_token *tokens; // [n_tokens], without the special ones
    struct bpe_merge *merges; // [n_merges], highest priority first
    size_t n_tokens, n_merges;
};

// Learns until there are vocab - n_specials tokens. Fails if the text has too few different words
// for that, or is not UTF-8. `name` (usually the text's path) begins every message.
bool bpe_train(struct bpe_trained *b, const char *text, size_t size, size_t vocab,
               const char *const *specials, size_t n_specials, const char *name, struct error *err);
void bpe_train_free(struct bpe_trained *b);

// tokenizer.json with the special tokens after the learned ones; replaces the file whole.
bool bpe_write(const struct bpe_trained *b, const char *const *specials, size_t n_specials,
               const char *path, struct error *err);

#endif
