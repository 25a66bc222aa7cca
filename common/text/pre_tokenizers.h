// How texts are split into words before merging, by the names that GGUF files have for it.
//
// A tokenizer.json holds the regular expressions themselves; a GGUF file only says "qwen2". What a
// name stands for is the pre-tokenizer of the model family's tokenizer.json.
#ifndef NIBBLE_TEXT_PRE_TOKENIZERS_H
#define NIBBLE_TEXT_PRE_TOKENIZERS_H

#include <stdbool.h>
#include <stddef.h>

enum { PRE_TOKENIZER_STEPS = 6 };

struct pre_tokenizer {
    const char *names; // one or more, with spaces between
    const char
        *patterns[PRE_TOKENIZER_STEPS]; // each splits what the one before left; NULL: no more
    bool ignore_merges;                 // a word in the vocabulary is taken whole
    bool add_bos;                       // where the file does not say
    bool normalize;                     // Unicode's form NFC first
};

// NULL if the name is not known.
const struct pre_tokenizer *pre_tokenizer_find(const char *name, size_t size);
// What splits by these n patterns, and normalizes or not if there is a choice; NULL if nothing
// does.
const struct pre_tokenizer *pre_tokenizer_of(const char *const *patterns, size_t n,
                                             bool ignore_merges, bool normalize);

#endif
