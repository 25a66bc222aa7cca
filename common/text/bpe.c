// Two ways to the same result.
//
// Short words (nearly all) keep the rank of every neighbouring pair in an array: find the smallest,
// join, look up the two pairs that changed. O(n^2), but n is 5 and everything is in one cache line.
//
// Long ones (a megabyte of spaces is one word) are a linked list with a heap of pairs, smallest
// rank first, leftmost first among equals: one uint64, rank above, position below. A join makes up
// to two older heap entries wrong; rather than finding them, we compare on the way out with the
// rank that the position has now.
#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

enum { SHORT_WORD = 48 };

bool bpe_init(struct bpe *b, size_t n_merges, struct error *err) {
    *b = (struct bpe){.n_slots = 64, .n_merges = n_merges};
    while (b->n_slots < n_merges * 2) // at most half full: a miss costs 1.5 probes
        b->n_slots *= 2;
    b->pairs = memory_alloc(b->n_slots, sizeof *b->pairs, "merges", err);
    b->results = memory_alloc(n_merges, sizeof *b->results, "merges", err);
    if (!b->pairs || !b->results) {
        bpe_free(b);
        return false;
    }
    for (size_t i = 0; i < b->n_slots; i++)
        b->pairs[i].rank = BPE_NONE;
    return true;
}

void bpe_free(struct bpe *b) {
    free(b->pairs);
    free(b->results);
    *b = (struct bpe){0};
}

static struct bpe_pair *slot_of(const struct bpe *b, uint32_t left, uint32_t right) {
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    for (size_t i = h >> 32;; i++) {
        struct bpe_pair *p = &b->pairs[i & (b->n_slots - 1)];
        if (p->rank == BPE_NONE || (p->left == left && p->right == right))
            return p;
    }
}

void bpe_put(struct bpe *b, uint32_t left, uint32_t right, uint32_t rank, uint32_t result) {
    *slot_of(b, left, right) = (struct bpe_pair){left, right, rank};
    b->results[rank] = result;
}

uint32_t bpe_rank(const struct bpe *b, uint32_t left, uint32_t right) {
    return slot_of(b, left, right)->rank;
}

void bpe_merge_ref(const struct bpe *b, uint32_t *symbols, size_t *n) {
    for (;;) {
        uint32_t best = BPE_NONE;
        size_t at = 0;
        for (size_t i = 0; i + 1 < *n; i++) {
            uint32_t rank = bpe_rank(b, symbols[i], symbols[i + 1]);
            if (rank < best)
                best = rank, at = i;
        }
        if (best == BPE_NONE)
            return;
        symbols[at] = b->results[best];
        memmove(symbols + at + 1, symbols + at + 2, (*n - at - 2) * sizeof *symbols);
        --*n;
    }
}

// ranks[i] is the rank of the pair (i, i + 1), so that each join looks up two pairs only.
static void merge_short(const struct bpe *b, uint32_t *symbols, size_t *n_out) {
    uint32_t ranks[SHORT_WORD];
    size_t n = *n_out;
    for (size_t i = 0; i + 1 < n; i++)
        ranks[i] = bpe_rank(b, symbols[i], symbols[i + 1]);
    while (n > 1) {
        size_t at = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[at])
                at = i;
        if (ranks[at] == BPE_NONE)
            break;
        symbols[at] = b->results[ranks[at]];
        n--;
        memmove(symbols + at + 1, symbols + at + 2, (n - at - 1) * sizeof *symbols);
        memmove(ranks + at, ranks + at + 1, (n - at - 1) * sizeof *ranks);
        if (at + 1 < n)
            ranks[at] = bpe_rank(b, symbols[at], symbols[at + 1]);
        if (at > 0)
            ranks[at - 1] = bpe_rank(b, symbols[at - 1], symbols[at]);
    }
    *n_out = n;
}

// A heap of four children a node: half the levels of a binary one, each in one cache line.
static void heap_down(uint64_t *heap, size_t n, size_t i, uint64_t value) {
    for (size_t child; (child = 4 * i + 1) < n; i = child) {
        size_t last = child + 4 < n ? child + 4 : n;
        for (size_t c = child + 1; c < last; c++)
            if (heap[c] < heap[child])
                child = c;
        if (heap[child] >= value)
            break;
        heap[i] = heap[child];
    }
    heap[i] = value;
}

static bool heap_push(struct bpe_work *w, uint64_t value, struct error *err) {
    uint64_t *heap =
        memory_grow(w->heap, w->n_heap, &w->heap_capacity, sizeof *heap, "a long word", err);
    if (!heap)
        return false;
    w->heap = heap;
    size_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 4] > value; i = (i - 1) / 4)
        w->heap[i] = w->heap[(i - 1) / 4];
    w->heap[i] = value;
    return true;
}

static uint64_t heap_pop(struct bpe_work *w) {
    uint64_t top = w->heap[0];
    if (--w->n_heap)
        heap_down(w->heap, w->n_heap, 0, w->heap[w->n_heap]);
    return top;
}

static bool work_reserve(struct bpe_work *w, size_t n, struct error *err) {
    if (n <= w->capacity)
        return true;
    free(w->ranks);
    w->capacity = 0;
    w->ranks = memory_alloc(n, 3 * sizeof *w->ranks, "a long word", err);
    if (!w->ranks)
        return false;
    w->next = w->ranks + n;
    w->previous = w->next + n;
    w->capacity = n;
    return true;
}

void bpe_work_free(struct bpe_work *w) {
    free(w->ranks);
    free(w->heap);
    *w = (struct bpe_work){0};
}

// The rank of the pair that begins at i changes: note it, and queue it if it has a merge.
static bool pair_changed(const struct bpe *b, struct bpe_work *w, const uint32_t *symbols, size_t i,
                         struct error *err) {
    uint32_t right = w->next[i];
    w->ranks[i] = right == BPE_NONE ? BPE_NONE : bpe_rank(b, symbols[i], symbols[right]);
    return w->ranks[i] == BPE_NONE || heap_push(w, (uint64_t)w->ranks[i] << 32 | i, err);
}

static bool merge_long(const struct bpe *b, struct bpe_work *w, uint32_t *symbols, size_t *n,
                       struct error *err) {
    if (*n >= BPE_NONE)
        return error_set(err, "a word of %zu symbols is too long", *n);
    if (!work_reserve(w, *n, err))
        return false;
    w->n_heap = 0;
    for (size_t i = 0; i < *n; i++) {
        w->next[i] = i + 1 < *n ? (uint32_t)i + 1 : BPE_NONE;
        w->previous[i] = i ? (uint32_t)i - 1 : BPE_NONE;
        if (!pair_changed(b, w, symbols, i, err))
            return false;
    }
    while (w->n_heap) {
        uint64_t top = heap_pop(w);
        uint32_t at = (uint32_t)top, rank = (uint32_t)(top >> 32);
        if (w->ranks[at] != rank)
            continue; // this pair is no more
        uint32_t gone = w->next[at], after = w->next[gone];
        symbols[at] = b->results[rank];
        w->ranks[gone] = BPE_NONE;
        w->next[at] = after;
        if (after != BPE_NONE)
            w->previous[after] = at;
        if (!pair_changed(b, w, symbols, at, err) ||
            (w->previous[at] != BPE_NONE && !pair_changed(b, w, symbols, w->previous[at], err)))
            return false;
    }
    size_t kept = 0;
    for (uint32_t i = 0; i != BPE_NONE; i = w->next[i])
        symbols[kept++] = symbols[i];
    *n = kept;
    return true;
}

bool bpe_merge(const struct bpe *b, struct bpe_work *work, uint32_t *symbols, size_t *n,
               struct error *err) {
    if (*n > SHORT_WORD)
        return merge_long(b, work, symbols, n, err);
    merge_short(b, symbols, n);
    return true;
}
