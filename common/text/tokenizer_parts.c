#include "text/tokenizer_parts.h"

#include "core/memory.h"
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

// ---- how texts are split ----------------------------------------------------------------------

// Parts that the patterns share: words with what may stand before them, marks, line ends, spaces.
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define MARKS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL
#define WORDS CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
// Words that begin in capitals and go on in small letters, or the other way round.
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(suffix)                                                                              \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER  \
    "*" suffix
#define MARKS_OR_SLASH "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL

// ignore_merges: whether the name also says that a word in the vocabulary is taken whole.
static const struct {
    const char *name, *patterns[2];
    bool ignore_merges;
} pre_names[] = {
    {"gpt-2", {GPT2}, false},
    {"smollm", {"\\p{N}", GPT2}, false},
    {"qwen2", {WORDS "|\\p{N}" MARKS}, false},
    {"qwen35",
     {CONTRACTION
      "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" TAIL},
     false},
    {"llama-bpe", {WORDS "|\\p{N}{1,3}" MARKS}, true},
    {"smaug-bpe", {WORDS "|\\p{N}{1,3}" MARKS}, false},
    {"tekken", {CASED("") "|\\p{N}" MARKS_OR_SLASH}, true},
    {"gpt-4o", {CASED(CONTRACTION "?") "|\\p{N}{1,3}" MARKS_OR_SLASH}, false},
};

static bool splits_by(const struct tokenizer *t, const char *const patterns[2]) {
    size_t n = 0;
    for (size_t i = 0; i < t->n_splitters; i++) {
        const struct splitter *s = &t->splitters[i];
        if (s->kind != SPLITTER_PATTERN)
            continue;
        bool isolated = s->behavior == SPLIT_ISOLATED && !s->invert;
        bool inverted = s->behavior == SPLIT_REMOVED && s->invert; // all of the text matches
        if (n == 2 || !patterns[n] || !(isolated || inverted) ||
            strcmp(s->pattern.text, patterns[n]) != 0)
            return false;
        n++;
    }
    return n == 2 || !patterns[n];
}

const char *tokenizer_pre_name(const struct tokenizer *t) {
    for (size_t i = 0; i < sizeof pre_names / sizeof *pre_names; i++)
        if (pre_names[i].ignore_merges == t->ignore_merges && splits_by(t, pre_names[i].patterns))
            return pre_names[i].name;
    return NULL;
}
