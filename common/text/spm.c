// A linked list of symbols and a heap of pairs, as for long words in bpe.c. A join makes older heap
// entries wrong: they no longer have the size of what begins at their place.
#include "text/spm.h"

#include "core/memory.h"
#include "text/utf8.h"

struct spm_pair {
    float score;
    uint32_t at;   // the left symbol
    uint32_t size; // bytes of both
};

static bool goes_first(const struct spm_pair *a, const struct spm_pair *b) {
    return a->score > b->score || (a->score == b->score && a->at < b->at);
}

static bool heap_push(struct spm_work *w, struct spm_pair pair, struct error *err) {
    struct spm_pair *heap =
        memory_grow(w->heap, w->n_heap, &w->heap_capacity, sizeof *heap, "a text", err);
    if (!heap)
        return false;
    w->heap = heap;
    size_t i = w->n_heap++;
    for (; i > 0 && goes_first(&pair, &heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = pair;
    return true;
}

static struct spm_pair heap_pop(struct spm_work *w) {
    struct spm_pair *heap = w->heap, top = heap[0], last = heap[--w->n_heap];
    size_t n = w->n_heap, i = 0;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && goes_first(&heap[child + 1], &heap[child]))
            child++;
        if (!goes_first(&heap[child], &last))
            break;
        heap[i] = heap[child];
    }
    if (n)
        heap[i] = last;
    return top;
}

static bool work_reserve(struct spm_work *w, size_t n, struct error *err) {
    if (n >= SPM_NONE)
        return error_set(err, "a text of %zu bytes is too long", n);
    if (n <= w->capacity)
        return true;
    free(w->symbols);
    w->capacity = 0;
    w->symbols = memory_alloc(n, sizeof *w->symbols, "a text", err);
    if (!w->symbols)
        return false;
    w->capacity = n;
    return true;
}

void spm_work_free(struct spm_work *w) {
    free(w->symbols);
    free(w->heap);
    *w = (struct spm_work){0};
}

// What a merge needs to know.
struct merging {
    const struct vocab *vocab;
    const float *scores;
    size_t longest;
    const char *text;
    struct spm_work *work;
    struct error *err;
};

// The pair that begins at this symbol is new: queue it if it is a token.
static bool pair_changed(const struct merging *m, uint32_t at) {
    struct spm_symbol *symbols = m->work->symbols, *left = &symbols[at];
    left->joined = 0;
    if (left->next == SPM_NONE)
        return true;
    uint32_t size = left->size + symbols[left->next].size;
    int32_t id = size <= m->longest ? vocab_find(m->vocab, m->text + left->start, size) : -1;
    if (id < 0)
        return true;
    left->joined = size;
    return heap_push(m->work, (struct spm_pair){m->scores[id], at, size}, m->err);
}

// The smallest symbols: characters.
static void cut_characters(struct spm_work *w, const char *text, size_t size) {
    uint32_t n = 0;
    for (size_t at = 0; at < size; n++) {
        unsigned bytes = utf8_size(text[at]);
        w->symbols[n] = (struct spm_symbol){
            .start = (uint32_t)at, .size = bytes, .next = n + 1, .previous = n - 1};
        at += bytes;
    }
    w->symbols[0].previous = SPM_NONE;
    w->symbols[n - 1].next = SPM_NONE;
}

bool spm_merge(const struct vocab *vocab, const float *scores, size_t longest, struct spm_work *w,
               const char *text, size_t size, struct error *err) {
    const struct merging m = {vocab, scores, longest, text, w, err};
    if (!work_reserve(w, size, err))
        return false;
    w->n_heap = 0;
    cut_characters(w, text, size);
    for (uint32_t i = 0; i != SPM_NONE; i = w->symbols[i].next)
        if (!pair_changed(&m, i))
            return false;
    while (w->n_heap) {
        struct spm_pair pair = heap_pop(w);
        struct spm_symbol *left = &w->symbols[pair.at];
        if (left->joined != pair.size)
            continue; // this pair is no more
        struct spm_symbol *right = &w->symbols[left->next];
        right->joined = 0;
        left->size = pair.size;
        left->next = right->next;
        if (left->next != SPM_NONE)
            w->symbols[left->next].previous = pair.at;
        if (!pair_changed(&m, pair.at) ||
            (left->previous != SPM_NONE && !pair_changed(&m, left->previous)))
            return false;
    }
    return true;
}
