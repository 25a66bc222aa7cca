// Counting is incremental: a table knows for each pair its count and the words it occurs in, so a
// merge touches only those words. A heap proposes the most frequent pair; counts that went down
// since a pair was put there are noticed when it comes out.
#include "text/bpe_train.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "text/bpe_split.h"
#include "text/vocab.h"

struct bpe_word {
    const char *text; // in the training text
    size_t size;
    int64_t count;
    int32_t *symbols; // [n]
    size_t n;
};

struct pair {
    uint64_t key; // left << 32 | right; PAIR_NONE in an empty slot
    int64_t count;
    uint32_t *words; // where it occurs, or did; may repeat
    size_t n, capacity;
};

struct candidate {
    int64_t count;
    uint64_t key;
};

struct trainer {
    struct bpe_word *words;
    size_t n_words, words_capacity;
    uint32_t *word_slots; // index + 1 into words; 0 is empty
    size_t n_word_slots;
    struct pair *pairs; // hash table, at most half full
    size_t n_pairs, n_pair_slots;
    struct candidate *heap;
    size_t n_heap, heap_capacity;
    struct error *err;
};

static const uint64_t PAIR_NONE = UINT64_MAX;

static uint64_t pair_key(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

// ---- words and how often they occur

static uint32_t *word_slot(struct trainer *t, const char *text, size_t size) {
    size_t mask = t->n_word_slots - 1;
    for (size_t i = text_hash(text, size) & mask;; i = (i + 1) & mask) {
        uint32_t index = t->word_slots[i];
        if (!index)
            return &t->word_slots[i];
        const struct bpe_word *w = &t->words[index - 1];
        if (w->size == size && memcmp(w->text, text, size) == 0)
            return &t->word_slots[i];
    }
}

static bool grow_word_slots(struct trainer *t) {
    size_t n = t->n_word_slots ? t->n_word_slots * 2 : 1024;
    uint32_t *old = t->word_slots, *slots = memory_alloc(n, sizeof *slots, "words", t->err);
    if (!slots)
        return false;
    t->word_slots = slots;
    t->n_word_slots = n;
    for (size_t i = 0; i < t->n_words; i++)
        *word_slot(t, t->words[i].text, t->words[i].size) = (uint32_t)i + 1;
    free(old);
    return true;
}

static bool count_word(void *user, const char *text, size_t size) {
    struct trainer *t = user;
    if (t->n_words >= UINT32_MAX / 4)
        return error_set(t->err, "more than %zu different words", t->n_words);
    if (2 * (t->n_words + 1) > t->n_word_slots && !grow_word_slots(t))
        return false;
    uint32_t *slot = word_slot(t, text, size);
    if (!*slot) {
        struct bpe_word *w = memory_grow(t->words, t->n_words, &t->words_capacity, sizeof *t->words,
                                         "words", t->err);
        if (!w)
            return false;
        t->words = w;
        t->words[t->n_words++] = (struct bpe_word){.text = text, .size = size};
        *slot = (uint32_t)t->n_words;
    }
    t->words[*slot - 1].count++;
    return true;
}

// ---- pairs, their counts and where they are

static struct pair *pair_slot(struct trainer *t, uint64_t key) {
    size_t mask = t->n_pair_slots - 1;
    size_t i = text_hash((const char *)&key, sizeof key) & mask;
    while (t->pairs[i].key != PAIR_NONE && t->pairs[i].key != key)
        i = (i + 1) & mask;
    return &t->pairs[i];
}

static bool grow_pairs(struct trainer *t) {
    size_t n_old = t->n_pair_slots, n = n_old ? n_old * 2 : 4096;
    struct pair *old = t->pairs, *pairs = memory_alloc(n, sizeof *pairs, "pairs", t->err);
    if (!pairs)
        return false;
    for (size_t i = 0; i < n; i++)
        pairs[i].key = PAIR_NONE;
    t->pairs = pairs;
    t->n_pair_slots = n;
    for (size_t i = 0; i < n_old; i++)
        if (old[i].key != PAIR_NONE)
            *pair_slot(t, old[i].key) = old[i];
    free(old);
    return true;
}

// Adds delta to a pair's count, and notes the word unless it is known to have the pair.
static bool count_pair(struct trainer *t, uint64_t key, int64_t delta, uint32_t word, bool known) {
    if (2 * (t->n_pairs + 1) > t->n_pair_slots && !grow_pairs(t))
        return false;
    struct pair *p = pair_slot(t, key);
    if (p->key == PAIR_NONE) {
        p->key = key;
        t->n_pairs++;
    }
    p->count += delta;
    if (known || (p->n > 0 && p->words[p->n - 1] == word))
        return true;
    uint32_t *words = memory_grow(p->words, p->n, &p->capacity, sizeof *words, "pairs", t->err);
    if (!words)
        return false;
    p->words = words;
    p->words[p->n++] = word;
    return true;
}

// Adds the word's pairs to the counts, or takes them away (sign -1). Pairs without the token `made`
// were there before; made is ALL_NEW the first time.
enum { ALL_NEW = -1 };
static bool count_pairs_of(struct trainer *t, uint32_t word, int sign, int32_t made) {
    const struct bpe_word *w = &t->words[word];
    for (size_t i = 0; i + 1 < w->n; i++) {
        int32_t left = w->symbols[i], right = w->symbols[i + 1];
        bool known = sign < 0 || (made != ALL_NEW && left != made && right != made);
        if (!count_pair(t, pair_key(left, right), sign * w->count, word, known))
            return false;
    }
    return true;
}

// ---- the heap of candidates: highest count first, lowest ids among equals

static bool candidate_before(struct candidate a, struct candidate b) {
    return a.count != b.count ? a.count > b.count : a.key < b.key;
}

static bool heap_push(struct trainer *t, struct candidate c) {
    struct candidate *heap =
        memory_grow(t->heap, t->n_heap, &t->heap_capacity, sizeof *heap, "pairs", t->err);
    if (!heap)
        return false;
    t->heap = heap;
    size_t i = t->n_heap++;
    for (; i > 0 && candidate_before(c, heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = c;
    return true;
}

static struct candidate heap_pop(struct trainer *t) {
    struct candidate top = t->heap[0], last = t->heap[--t->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < t->n_heap; i = child) {
        if (child + 1 < t->n_heap && candidate_before(t->heap[child + 1], t->heap[child]))
            child++;
        if (!candidate_before(t->heap[child], last))
            break;
        t->heap[i] = t->heap[child];
    }
    t->heap[i] = last;
    return top;
}

// The most frequent pair now; false when no pair is left, or memory (then *failed).
static bool next_pair(struct trainer *t, uint64_t *key, bool *failed) {
    while (t->n_heap > 0) {
        struct candidate c = heap_pop(t);
        int64_t count = pair_slot(t, c.key)->count;
        if (count > 0 && count == c.count) {
            *key = c.key;
            return true;
        }
        // A higher count was pushed when it rose; a lower one has to be put back.
        if (count > 0 && count < c.count && !heap_push(t, (struct candidate){count, c.key})) {
            *failed = true;
            return false;
        }
    }
    return false;
}

// ---- merging

static void merge_in_word(struct bpe_word *w, int32_t left, int32_t right, int32_t merged) {
    size_t n = 0;
    for (size_t i = 0; i < w->n; i++) {
        bool here = i + 1 < w->n && w->symbols[i] == left && w->symbols[i + 1] == right;
        w->symbols[n++] = here ? merged : w->symbols[i];
        i += here;
    }
    w->n = n;
}

// Proposes the pairs that a merge made in a word.
static bool propose(struct trainer *t, const struct bpe_word *w, int32_t merged) {
    for (size_t i = 0; i + 1 < w->n; i++) {
        if (w->symbols[i] != merged && w->symbols[i + 1] != merged)
            continue;
        uint64_t key = pair_key(w->symbols[i], w->symbols[i + 1]);
        if (!heap_push(t, (struct candidate){pair_slot(t, key)->count, key}))
            return false;
    }
    return true;
}

// Replaces the pair by `merged` wherever it occurs.
static bool merge_pair(struct trainer *t, uint64_t key, int32_t merged) {
    // The list is taken out of the table, which may move while we count.
    struct pair *slot = pair_slot(t, key), p = *slot;
    slot->words = NULL;
    slot->n = slot->capacity = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < p.n; i++) {
        uint32_t word = p.words[i];
        ok = count_pairs_of(t, word, -1, merged);
        merge_in_word(&t->words[word], (int32_t)(key >> 32), (int32_t)key, merged);
        ok = ok && count_pairs_of(t, word, 1, merged);
    }
    for (size_t i = 0; ok && i < p.n; i++)
        ok = propose(t, &t->words[p.words[i]], merged);
    free(p.words);
    return ok;
}

// The id of the token left + right: two ways of putting the same bytes together share one id.
static int32_t merged_token(struct bpe_trained *b, int32_t left, int32_t right, struct error *err) {
    const struct bpe_token *l = &b->tokens[left], *r = &b->tokens[right];
    struct bpe_token new = {.size = l->size + r->size};
    new.bytes = memory_alloc(new.size, 1, "token", err);
    if (!new.bytes)
        return -1;
    memcpy(new.bytes, l->bytes, l->size);
    memcpy(new.bytes + l->size, r->bytes, r->size);
    for (size_t i = 0; i < b->n_tokens; i++)
        if (b->tokens[i].size == new.size && memcmp(b->tokens[i].bytes, new.bytes, new.size) == 0) {
            free(new.bytes);
            return (int32_t)i;
        }
    b->tokens[b->n_tokens] = new;
    return (int32_t)b->n_tokens++;
}

static bool learn(struct trainer *t, struct bpe_trained *b, size_t n_tokens, const char *name) {
    size_t capacity = 0;
    while (b->n_tokens < n_tokens) {
        uint64_t key;
        bool failed = false;
        if (!next_pair(t, &key, &failed))
            return failed ? false
                          : error_set(t->err, "%s: enough text for %zu tokens, expected %zu", name,
                                      b->n_tokens, n_tokens);
        struct bpe_merge m = {(int32_t)(key >> 32), (int32_t)key};
        struct bpe_merge *merges =
            memory_grow(b->merges, b->n_merges, &capacity, sizeof *merges, "merges", t->err);
        if (!merges)
            return false;
        b->merges = merges;
        b->merges[b->n_merges++] = m;
        int32_t merged = merged_token(b, m.left, m.right, t->err);
        if (merged < 0 || !merge_pair(t, key, merged))
            return false;
    }
    return true;
}

// ---- the beginning: bytes

static bool init_tokens(struct bpe_trained *b, size_t n_tokens, struct error *err) {
    b->tokens = memory_alloc(n_tokens, sizeof *b->tokens, "vocabulary", err);
    for (b->n_tokens = 0; b->tokens && b->n_tokens < BPE_BYTES; b->n_tokens++) {
        struct bpe_token *token = &b->tokens[b->n_tokens];
        token->bytes = memory_alloc(1, 1, "token", err);
        if (!token->bytes)
            return false;
        token->bytes[0] = bpe_byte_of_id((int)b->n_tokens);
        token->size = 1;
    }
    return b->tokens != NULL;
}

static bool init_pairs(struct trainer *t) {
    int32_t id_of_byte[BPE_BYTES];
    for (int id = 0; id < BPE_BYTES; id++)
        id_of_byte[bpe_byte_of_id(id)] = id;
    if (!grow_pairs(t))
        return false;
    for (size_t i = 0; i < t->n_words; i++) {
        struct bpe_word *w = &t->words[i];
        w->symbols = memory_alloc(w->size, sizeof *w->symbols, "words", t->err);
        if (!w->symbols)
            return false;
        for (w->n = 0; w->n < w->size; w->n++)
            w->symbols[w->n] = id_of_byte[(unsigned char)w->text[w->n]];
        if (!count_pairs_of(t, (uint32_t)i, 1, ALL_NEW))
            return false;
    }
    for (size_t i = 0; i < t->n_pair_slots; i++) {
        const struct pair *p = &t->pairs[i];
        if (p->key != PAIR_NONE && !heap_push(t, (struct candidate){p->count, p->key}))
            return false;
    }
    return true;
}

static void trainer_free(struct trainer *t) {
    for (size_t i = 0; i < t->n_words; i++)
        free(t->words[i].symbols);
    for (size_t i = 0; i < t->n_pair_slots; i++)
        free(t->pairs[i].words);
    free(t->words);
    free(t->word_slots);
    free(t->pairs);
    free(t->heap);
}

bool bpe_train(struct bpe_trained *b, const char *text, size_t size, size_t vocab,
               const char *const *specials, size_t n_specials, const char *name,
               struct error *err) {
    *b = (struct bpe_trained){0};
    if (n_specials > BPE_MAX_SPECIALS || vocab < BPE_BYTES + n_specials || vocab > BPE_MAX_VOCAB)
        return error_set(err, "%s: a vocabulary of %zu with %zu special tokens: expected %d to %d",
                         name, vocab, n_specials, BPE_BYTES + (int)n_specials, BPE_MAX_VOCAB);
    struct trainer t = {.err = err};
    char *normal = NULL;
    bool ok = bpe_normalize(&text, &size, &normal, name, err) &&
              init_tokens(b, vocab - n_specials, err) &&
              bpe_split(text, size, specials, n_specials, count_word, &t, err) && init_pairs(&t) &&
              learn(&t, b, vocab - n_specials, name);
    trainer_free(&t);
    free(normal);
    if (!ok)
        bpe_train_free(b);
    return ok;
}

void bpe_train_free(struct bpe_trained *b) {
    for (size_t i = 0; i < b->n_tokens; i++)
        free(b->tokens[i].bytes);
    free(b->tokens);
    free(b->merges);
    *b = (struct bpe_trained){0};
}
