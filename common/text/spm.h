// SentencePiece's merging: there is no list of merges, every token has a score. Of all neighbours
// whose texts together are a token, those with the highest score are joined, the leftmost among
// equals, until no two neighbours are a token:
//
//     scores: he -1  ll -2  hell -3        h e l l o  ->  he l l o  ->  he ll o  ->  hell o
//
// Unlike in bpe.h the parts need not be tokens: only what they make.
#ifndef NIBBLE_TEXT_SPM_H
#define NIBBLE_TEXT_SPM_H

#include "text/vocab.h"

struct spm_symbol {
    uint32_t start, size;    // bytes of the text
    uint32_t next, previous; // symbols; SPM_NONE at the ends
    uint32_t joined;         // bytes of the pair that begins here, when its place in the heap was
                             // found; 0: it is no token
};
#define SPM_NONE UINT32_MAX

// Memory for one text after another; zeroed before the first, freed by spm_work_free.
struct spm_work {
    struct spm_symbol *symbols; // [capacity]; after spm_merge the list that begins at 0
    struct spm_pair *heap;
    size_t capacity, n_heap, heap_capacity;
};

// Merges text[0..size), valid UTF-8 and not empty. scores [vocab->size], no NaN; longest: bytes of
// the longest token. O(n log n).
bool spm_merge(const struct vocab *vocab, const float *scores, size_t longest,
               struct spm_work *work, const char *text, size_t size, struct error *err);
void spm_work_free(struct spm_work *work);

#endif
