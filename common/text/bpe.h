// Byte pair encoding (Gage 1994; Sennrich et al. 2016): a word is cut into the smallest symbols
// (bytes or characters), then the two neighbours whose merge was learnt first are joined, again
// and again, until no pair of neighbours has a merge:
//
//     merges: 0 h+e -> he   1 l+l -> ll   2 he+ll -> hell
//     h e l l o  ->  he l l o  ->  he ll o  ->  hell o
//
// The merges are a ranked list; among pairs of equal rank the leftmost goes first.
#ifndef NIBBLE_TEXT_BPE_H
#define NIBBLE_TEXT_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

#define BPE_NONE UINT32_MAX // no merge, no symbol

struct bpe_pair {
    uint32_t left, right; // ids of the neighbours
    uint32_t rank;        // smaller is earlier; BPE_NONE marks an empty slot
};

struct bpe {
    struct bpe_pair *pairs; // hash table, open addressing
    size_t n_slots;         // a power of two
    uint32_t *results;      // [n_merges]: the id that rank makes
    size_t n_merges;
};

// Memory for one merge after another; zeroed before the first, freed by bpe_work_free.
struct bpe_work {
    uint32_t *ranks, *next, *previous; // [capacity]
    uint64_t *heap;                    // [heap_capacity]
    size_t capacity, n_heap, heap_capacity;
};

bool bpe_init(struct bpe *b, size_t n_merges, struct error *err);
void bpe_free(struct bpe *b);
// rank < n_merges. The pair put last wins, as in a dictionary.
void bpe_put(struct bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t result);
// The rank of the pair's merge, or BPE_NONE.
uint32_t bpe_rank(const struct bpe *b, uint32_t left, uint32_t right);

// Merges symbols[0..*n) in place and shortens *n. O(n log n) however long; fails only for memory.
bool bpe_merge(const struct bpe *b, struct bpe_work *work, uint32_t *symbols, size_t *n,
               struct error *err);
// The definition above, word by word: O(n^2). What bpe_merge is tested against.
void bpe_merge_ref(const struct bpe *b, uint32_t *symbols, size_t *n);
void bpe_work_free(struct bpe_work *work);

#endif
