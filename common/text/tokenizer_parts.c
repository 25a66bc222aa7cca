#include "text/tokenizer_parts.h"

#include "core/memory.h"
#include "text/pre_tokenizers.h"
#include "text/tokenizer_internal.h"

// ---- tokens and merges ------------------------------------------------------------------------

static bool is_byte_token(const char *text, size_t size) {
    return size == 6 && strncmp(text, "<0x", 3) == 0 && text[5] == '>';
}

const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *size,
                            enum token_kind *kind) {
    const struct added_token *added = added_token_of(t, id);
    const char *text =
        added ? vocab_text(&t->added_ids, id, size) : vocab_text(&t->vocab, id, size);
    *kind = !text          ? TOKEN_ABSENT
            : id == t->unk ? TOKEN_UNKNOWN
            : added        ? added->special ? TOKEN_SPECIAL : TOKEN_ADDED
            : t->byte_fallback && is_byte_token(text, *size) ? TOKEN_BYTE
                                                             : TOKEN_NORMAL;
    return text;
}

// The hash table has them in no order. A pair that was put twice has only its last rank.
struct token_merge *tokenizer_merges(const struct tokenizer *t, size_t *n, struct error *err) {
    const struct bpe *b = &t->merges;
    struct token_merge *list = memory_alloc(b->n_merges, sizeof *list, "merges", err);
    *n = 0;
    if (!list)
        return NULL;
    for (size_t i = 0; i < b->n_merges; i++)
        list[i].result = -1;
    for (size_t i = 0; i < b->n_slots; i++) {
        const struct bpe_pair *p = &b->pairs[i];
        if (p->rank != BPE_NONE)
            list[p->rank] = (struct token_merge){(int32_t)p->left, (int32_t)p->right,
                                                 (int32_t)b->results[p->rank]};
    }
    for (size_t i = 0; i < b->n_merges; i++)
        if (list[i].result >= 0)
            list[(*n)++] = list[i];
    return list;
}

bool tokenizer_is_byte_level(const struct tokenizer *t) {
    return t->byte_level;
}

bool tokenizer_adds_space(const struct tokenizer *t) {
    for (size_t i = 0; i < t->n_normalizers; i++)
        if (t->normalizers[i].kind == NORMALIZER_PREPEND)
            return true;
    for (size_t i = 0; i < t->n_splitters; i++)
        if (t->splitters[i].kind == SPLITTER_PREFIX ||
            t->splitters[i].kind == SPLITTER_PREFIX_FIRST)
            return true;
    return false;
}

int32_t tokenizer_unknown(const struct tokenizer *t) {
    return t->unk;
}

int32_t tokenizer_padding(const struct tokenizer *t) {
    return t->pad;
}

int32_t tokenizer_bos_token(const struct tokenizer *t) {
    return t->bos >= 0 ? t->bos : t->bos_text ? tokenizer_id(t, t->bos_text) : -1;
}

// Patterns that cut out words, in whichever way it is said; false if a step does something else.
static bool cuts_words(const struct splitter *s) {
    return (s->behavior == SPLIT_ISOLATED && !s->invert) ||
           (s->behavior == SPLIT_REMOVED && s->invert); // all of the text matches
}

const char *tokenizer_pre_name(const struct tokenizer *t, size_t *size) {
    const char *patterns[PRE_TOKENIZER_STEPS];
    size_t n = 0;
    for (size_t i = 0; i < t->n_splitters; i++) {
        const struct splitter *s = &t->splitters[i];
        if (s->kind != SPLITTER_PATTERN)
            continue;
        if (n == PRE_TOKENIZER_STEPS || !cuts_words(s))
            return NULL;
        patterns[n++] = s->pattern.text;
    }
    bool normalizes = t->n_normalizers && t->normalizers[0].kind == NORMALIZER_UNICODE;
    const struct pre_tokenizer *p = pre_tokenizer_of(patterns, n, t->ignore_merges, normalizes);
    *size = p ? strcspn(p->names, " ") : 0;
    return p ? p->names : NULL;
}
