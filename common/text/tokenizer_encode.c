// Text to ids. A text narrows down on its way:
//
//     the text -> segments between added tokens -> normalized -> segments between normalized added
//     tokens -> pieces, by one splitter after another -> words, which are merged
//
// Nothing is copied where nothing changes: pieces and words are spans of the caller's text.
#include "text/tokenizer_internal.h"

#include "core/memory.h"
#include "text/spm.h"
#include "text/utf8.h"

// A word seen before has its ids in the output already: remember where. Direct-mapped; a stale or
// overwritten entry only costs the merging again. English repeats itself: nine words of ten hit.
struct cached_word {
    const char *text;
    uint32_t size, generation;
    size_t at; // in the output
    uint32_t n;
};

enum {
    CACHE_SLOTS = 1 << 14,
    CACHE_MIN_TEXT = 1 << 10, // a shorter text does not repeat itself enough
    LONG_PIECE = 64,          // bytes; longer ones are cut where no merge can reach across
};

struct encoder {
    const struct tokenizer *t;
    struct token_list *out;
    struct error *err;
    struct pattern_match match;
    struct bpe_work work;
    struct spm_work spm_work;
    uint32_t *symbols;
    size_t n_symbols, symbol_capacity;
    struct cached_word *cache; // [CACHE_SLOTS], or NULL
    uint32_t generation;       // changes when a text that the cache points into is freed
};

static void push_symbol(struct encoder *e, int32_t id) {
    e->symbols[e->n_symbols++] = (uint32_t)id;
}

// ids of bytes that are no symbol: byte fallback if every byte has a token, else the unknown token.
struct unknown {
    bool pending; // an unknown token waits, so that the next can be fused with it
};

static void flush_unknown(struct encoder *e, struct unknown *u) {
    if (u->pending)
        push_symbol(e, e->t->unk);
    u->pending = false;
}

static void push_unknown(struct encoder *e, struct unknown *u, const char *text, size_t size) {
    bool fallback = e->t->byte_fallback;
    for (size_t i = 0; i < size && fallback; i++)
        fallback = e->t->byte_ids[(unsigned char)text[i]] >= 0;
    if (fallback) {
        // As in the reference, these overtake an unknown token that waits.
        for (size_t i = 0; i < size; i++)
            push_symbol(e, e->t->byte_ids[(unsigned char)text[i]]);
        return;
    }
    if (e->t->unk < 0)
        return;
    if (!e->t->fuse_unk)
        flush_unknown(e, u);
    u->pending = true;
}

// The smallest symbol at text[0] and its size in bytes: -1 if it is not in the vocabulary.
static int32_t symbol_at(const struct tokenizer *t, const char *text, unsigned *size) {
    unsigned char c = (unsigned char)text[0];
    *size = t->byte_level ? 1 : utf8_size(text[0]);
    if (t->byte_level)
        return t->byte_ids[c];
    return c < 128 ? t->ascii_ids[c] : vocab_find(&t->vocab, text, *size);
}

// Room for the symbols of so many bytes.
static bool begin_symbols(struct encoder *e, size_t size) {
    if (size > e->symbol_capacity) {
        free(e->symbols);
        e->symbol_capacity = 0;
        e->symbols = memory_alloc(size + size / 2, sizeof *e->symbols, "a word", e->err);
        if (!e->symbols)
            return false;
        e->symbol_capacity = size + size / 2;
    }
    e->n_symbols = 0;
    return true;
}

static bool make_symbols(struct encoder *e, const char *text, size_t size) {
    if (!begin_symbols(e, size))
        return false;
    struct unknown unknown = {0};
    unsigned n;
    for (size_t i = 0; i < size; i += n) {
        int32_t id = symbol_at(e->t, text + i, &n);
        if (id < 0) {
            push_unknown(e, &unknown, text + i, n);
            continue;
        }
        flush_unknown(e, &unknown);
        push_symbol(e, id);
    }
    flush_unknown(e, &unknown);
    return true;
}

static bool push_ids(struct encoder *e, const uint32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!token_list_push(e->out, (int32_t)ids[i], e->err))
            return false;
    return true;
}

// The ids of out[at..at+n) once more.
static bool repeat_ids(struct encoder *e, size_t at, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!token_list_push(e->out, e->out->ids[at + i], e->err))
            return false;
    return true;
}

// With ignore_merges, a word that is a token is that token, whether or not merges lead there.
static int32_t whole_word(const struct tokenizer *t, const char *text, size_t size) {
    char mapped[512];
    size_t n = 0;
    if (!t->byte_level)
        return vocab_find(&t->vocab, text, size);
    if (size > sizeof mapped / 2)
        return -1;
    for (size_t i = 0; i < size; i++)
        n += utf8_write(byte_level_char((unsigned char)text[i]), mapped + n);
    return vocab_find(&t->vocab, mapped, n);
}

// What is no token after merging is one character that is none.
static bool merge_by_scores(struct encoder *e, const char *text, size_t size) {
    const struct tokenizer *t = e->t;
    struct unknown unknown = {0};
    if (!begin_symbols(e, size) ||
        !spm_merge(&t->vocab, t->scores, t->longest, &e->spm_work, text, size, e->err))
        return false;
    const struct spm_symbol *symbols = e->spm_work.symbols;
    for (uint32_t i = 0; i != SPM_NONE; i = symbols[i].next) {
        int32_t id = vocab_find(&t->vocab, text + symbols[i].start, symbols[i].size);
        if (id < 0) {
            push_unknown(e, &unknown, text + symbols[i].start, symbols[i].size);
            continue;
        }
        flush_unknown(e, &unknown);
        push_symbol(e, id);
    }
    flush_unknown(e, &unknown);
    return push_ids(e, e->symbols, e->n_symbols);
}

static bool merge_word(struct encoder *e, const char *text, size_t size) {
    if (e->t->scores)
        return merge_by_scores(e, text, size);
    return make_symbols(e, text, size) &&
           bpe_merge(&e->t->merges, &e->work, e->symbols, &e->n_symbols, e->err) &&
           push_ids(e, e->symbols, e->n_symbols);
}

static bool encode_word(struct encoder *e, const char *text, size_t size) {
    if (!e->cache || size > LONG_PIECE)
        return merge_word(e, text, size);
    struct cached_word *c = &e->cache[text_hash(text, size) & (CACHE_SLOTS - 1)];
    if (c->size == size && c->generation == e->generation && memcmp(c->text, text, size) == 0)
        return repeat_ids(e, c->at, c->n);
    size_t at = e->out->n;
    if (!merge_word(e, text, size))
        return false;
    *c = (struct cached_word){text, (uint32_t)size, e->generation, at, (uint32_t)(e->out->n - at)};
    return true;
}

// A tokenizer without splitters would merge a whole book as one word. But a merge can only reach
// across the boundary of two characters if some merge has the one at the end of its left part and
// the other at the beginning of its right part; everywhere else the book can be cut.
static bool encode_long_piece(struct encoder *e, const char *text, size_t size) {
    size_t start = 0;
    unsigned n;
    int32_t before = symbol_at(e->t, text, &n);
    for (size_t i = n; i < size; i += n) {
        int32_t symbol = symbol_at(e->t, text + i, &n);
        bool cut = before >= 0 && symbol >= 0 &&
                   bpe_rank(&e->t->joins, (uint32_t)before, (uint32_t)symbol) == BPE_NONE;
        if (cut && !encode_word(e, text + start, i - start))
            return false;
        if (cut)
            start = i;
        before = symbol;
    }
    return encode_word(e, text + start, size - start);
}

static bool encode_piece(struct encoder *e, const char *text, size_t size) {
    if (e->t->ignore_merges) {
        int32_t id = whole_word(e->t, text, size);
        if (id >= 0)
            return token_list_push(e->out, id, e->err);
    }
    if (size > LONG_PIECE && e->t->joins.n_slots)
        return encode_long_piece(e, text, size);
    return encode_word(e, text, size);
}

static bool split(struct encoder *e, size_t step, const char *text, size_t size, bool first);

// Gathers the spans that a pattern cuts a text into, as the behavior wants them.
struct spans {
    struct encoder *e;
    size_t step;
    const char *text;
    bool first;
    size_t start, end; // the span that may still grow
    bool was_match;
};

static bool spans_flush(struct spans *s) {
    size_t start = s->start, size = s->end - start;
    s->start = s->end;
    return !size || split(s->e, s->step + 1, s->text + start, size, s->first && !start);
}

static bool spans_add(struct spans *s, size_t start, size_t end, bool is_match) {
    const struct splitter *splitter = &s->e->t->splitters[s->step];
    is_match ^= splitter->invert;
    bool was_match = s->was_match, grows = false;
    s->was_match = is_match;
    if (splitter->behavior == SPLIT_CONTIGUOUS)
        grows = is_match == was_match;
    else if (splitter->behavior == SPLIT_MERGED_WITH_PREVIOUS)
        grows = is_match && !was_match;
    else if (splitter->behavior == SPLIT_MERGED_WITH_NEXT)
        grows = !is_match && was_match;
    if (!grows) {
        if (!spans_flush(s))
            return false;
        s->start = start;
    }
    s->end = end;
    if (is_match && splitter->behavior == SPLIT_REMOVED)
        s->start = end;
    return true;
}

static bool split_at_pattern(struct encoder *e, size_t step, const char *text, size_t size,
                             bool first) {
    struct spans spans = {.e = e, .step = step, .text = text, .first = first};
    const struct pattern *pattern = &e->t->splitters[step].pattern;
    size_t covered = 0, from = 0;
    while (from <= size) {
        bool found;
        size_t start, end;
        if (!pattern_find(pattern, &e->match, text, size, from, &found, &start, &end, e->err))
            return false;
        if (!found)
            break;
        if (covered < start && !spans_add(&spans, covered, start, false))
            return false;
        if (!spans_add(&spans, start, end, true))
            return false;
        covered = from = end;
        if (start == end) // an empty match cuts, too; look on behind the next character
            from += end < size ? utf8_size(text[end]) : 1;
    }
    return (covered == size || spans_add(&spans, covered, size, false)) && spans_flush(&spans);
}

static bool write_spaces(struct bytes *out, const char *content, const char *text, size_t size,
                         struct error *err) {
    size_t n = strlen(content);
    for (const char *space; (space = memchr(text, ' ', size)); text = space + 1) {
        size_t before = (size_t)(space - text);
        if (!bytes_append(out, text, before, err) || !bytes_append(out, content, n, err))
            return false;
        size -= before + 1;
    }
    return bytes_append(out, text, size, err);
}

static bool split(struct encoder *e, size_t step, const char *text, size_t size, bool first) {
    if (step == e->t->n_splitters)
        return encode_piece(e, text, size);
    const struct splitter *s = &e->t->splitters[step];
    if (s->kind == SPLITTER_PATTERN)
        return split_at_pattern(e, step, text, size, first);
    size_t n = strlen(s->content);
    bool has_prefix = size >= n && memcmp(text, s->content, n) == 0;
    if (s->kind != SPLITTER_SPACES && (has_prefix || (s->kind == SPLITTER_PREFIX_FIRST && !first)))
        return split(e, step + 1, text, size, first);
    struct bytes changed = {0};
    bool ok = s->kind == SPLITTER_SPACES ? write_spaces(&changed, s->content, text, size, e->err)
                                         : bytes_append(&changed, s->content, n, e->err) &&
                                               bytes_append(&changed, text, size, e->err);
    ok = ok && split(e, step + 1, changed.data, changed.size, first);
    bytes_free(&changed);
    e->generation++;
    return ok;
}

static bool split_from_start(struct encoder *e, const char *text, size_t size, bool first) {
    return split(e, 0, text, size, first);
}

typedef bool encode_rest(struct encoder *e, const char *text, size_t size, bool first);

static bool touches_word(const char *text, size_t size, size_t start, size_t end) {
    size_t before = start;
    while (before > 0 && (text[--before] & 0xc0) == 0x80)
        ;
    return (start > 0 && utf8_is_word(utf8_code(text + before))) ||
           (end < size && utf8_is_word(utf8_code(text + end)));
}

static size_t skip_space_before(const char *text, size_t start, size_t limit) {
    while (start > limit) {
        size_t before = start - 1;
        while (before > limit && (text[before] & 0xc0) == 0x80)
            before--;
        if (!utf8_is_space(utf8_code(text + before)))
            break;
        start = before;
    }
    return start;
}

static size_t skip_space_after(const char *text, size_t size, size_t end) {
    while (end < size && utf8_is_space(utf8_code(text + end)))
        end += utf8_size(text[end]);
    return end;
}

// Pushes the added tokens of the set; what lies between them goes to `rest`.
static bool cut_out_tokens(struct encoder *e, const struct token_set *set, const char *text,
                           size_t size, bool first, encode_rest *rest) {
    size_t done = 0, from = 0, match_end = 0;
    uint32_t index = 0;
    for (size_t at; (at = token_set_find(set, text, size, from, &index, &match_end)) < size;) {
        const struct added_token *token = &e->t->added[index];
        size_t start = at, end = match_end;
        from = match_end;
        if (token->single_word && touches_word(text, size, start, end))
            continue;
        if (token->lstrip && done < start)
            start = skip_space_before(text, start, done);
        if (token->rstrip)
            end = skip_space_after(text, size, end);
        if (done < start && !rest(e, text + done, start - done, first && !done))
            return false;
        if (!token_list_push(e->out, token->id, e->err))
            return false;
        done = end;
    }
    return done >= size || rest(e, text + done, size - done, first && !done);
}

static bool cut_out_normalized(struct encoder *e, const char *text, size_t size, bool first) {
    return cut_out_tokens(e, &e->t->after, text, size, first, split_from_start);
}

static bool normalize(struct encoder *e, size_t step, const char *text, size_t size, bool first) {
    while (step < e->t->n_normalizers && normalizer_is_idle(&e->t->normalizers[step], text, size))
        step++;
    if (!size || step == e->t->n_normalizers)
        return !size || cut_out_normalized(e, text, size, first);
    struct bytes changed = {0};
    bool ok = normalizer_apply(&e->t->normalizers[step], &e->match, text, size, &changed, e->err) &&
              normalize(e, step + 1, changed.data, changed.size, first);
    bytes_free(&changed);
    e->generation++;
    return ok;
}

static bool normalize_from_start(struct encoder *e, const char *text, size_t size, bool first) {
    return normalize(e, 0, text, size, first);
}

static bool encode_valid(const struct tokenizer *t, const char *text, size_t size,
                         struct token_list *out, struct error *err) {
    struct encoder e = {.t = t, .out = out, .err = err, .generation = 1};
    if (!pattern_match_init(&e.match, err))
        return false;
    if (size >= CACHE_MIN_TEXT) // without memory for it, only slower
        e.cache = calloc(CACHE_SLOTS, sizeof *e.cache);
    bool ok = cut_out_tokens(&e, &t->before, text, size, true, normalize_from_start);
    pattern_match_free(&e.match);
    bpe_work_free(&e.work);
    spm_work_free(&e.spm_work);
    free(e.symbols);
    free(e.cache);
    return ok;
}

bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t size,
                      struct token_list *out, struct error *err) {
    size_t before = out->n;
    struct bytes repaired = {0};
    bool valid = utf8_valid_prefix(text, size) == size;
    bool ok = valid ? encode_valid(t, text, size, out, err)
                    : utf8_repair(&repaired, text, size, err) &&
                          encode_valid(t, repaired.data, repaired.size, out, err);
    bytes_free(&repaired);
    if (!ok)
        out->n = before;
    return ok;
}
