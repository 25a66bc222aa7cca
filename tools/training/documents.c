#include "tools/training/documents.h"

#include <stdlib.h>

#include "core/memory.h"
#include "core/random.h"

// How a token's text ends: in no newline, in one, in a blank line; or it is one newline and nothing
// else, and what stood before it decides.
enum ending { TEXT, NEWLINE, BLANK_LINE, LONE_NEWLINE };

static enum ending ending_of(const struct tokenizer *t, int32_t id) {
    struct error err;
    size_t n = 0;
    char *text = id == tokenizer_eos(t) ? NULL : tokenizer_decode(t, &id, 1, false, &n, &err);
    bool newline = text && n >= 1 && text[n - 1] == '\n';
    bool blank = newline && n >= 2 && text[n - 2] == '\n';
    free(text);
    if (id == tokenizer_eos(t) || blank)
        return BLANK_LINE;
    return !newline ? TEXT : n == 1 ? LONE_NEWLINE : NEWLINE;
}

uint8_t *documents_find(const int32_t *ids, size_t n, const struct tokenizer *t,
                        struct error *err) {
    size_t vocab = tokenizer_vocab_size(t);
    uint8_t *endings = memory_alloc(vocab, sizeof *endings, "endings of tokens", err);
    uint8_t *marks = endings ? memory_alloc(n, sizeof *marks, "marks of tokens", err) : NULL;
    for (size_t id = 0; marks && id < vocab; id++)
        endings[id] = (uint8_t)ending_of(t, (int32_t)id);
    enum ending before = TEXT, last = BLANK_LINE;
    bool first_line = true;
    for (size_t i = 0; marks && i < n; i++) {
        bool start = last == BLANK_LINE || (last == LONE_NEWLINE && before != TEXT);
        first_line = start || (first_line && last == TEXT);
        marks[i] = (uint8_t)(start * DOCUMENT_START + first_line * DOCUMENT_FIRST_LINE);
        before = last;
        last = endings[ids[i]];
    }
    free(endings);
    return marks;
}

bool documents_align(struct token_data *d, const uint8_t *marks, struct error *err) {
    size_t *starts = memory_alloc(d->n, sizeof *starts, "starts of documents", err), n = 0;
    for (size_t i = 0; starts && i < d->n; i++)
        if (marks[i] & DOCUMENT_START)
            starts[n++] = i;
    bool ok = starts && token_data_align(d, starts, n, err);
    free(starts);
    return ok;
}

void documents_skip_first_lines(uint8_t *marks, size_t n, double share, uint64_t seed) {
    struct random r = {seed};
    for (size_t i = 0; i < n; i++)
        marks[i] = marks[i] & DOCUMENT_FIRST_LINE && random_uniform(&r) >= share;
}
