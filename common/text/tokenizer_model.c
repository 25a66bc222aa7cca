// The "model" of a tokenizer.json: vocabulary and merges.
#include "text/tokenizer_internal.h"

#include <stdio.h>

#include "core/memory.h"
#include "text/utf8.h"

static bool read_vocab(struct tokenizer *t, const cJSON *model, const char *name,
                       struct error *err) {
    const cJSON *vocab = json_get(model, "vocab"), *item;
    if (!cJSON_IsObject(vocab))
        return error_set(err, "%s: model.vocab is not an object of tokens and ids", name);
    cJSON_ArrayForEach (item, vocab) {
        size_t id;
        if (!json_size(item, &id) || id > VOCAB_MAX_ID)
            return error_set(err, "%s: model.vocab: the id of '%s' is not a whole number to %d",
                             name, item->string, VOCAB_MAX_ID);
        if (!vocab_put(&t->vocab, item->string, strlen(item->string), (int32_t)id, err))
            return false;
    }
    return true;
}

// The two parts of a merge: "a b" in older files, ["a", "b"] since a token may hold a space.
static bool merge_parts(const cJSON *merge, const char *parts[2], size_t sizes[2]) {
    const char *text = cJSON_GetStringValue(merge);
    const char *space = text ? strchr(text, ' ') : NULL;
    if (space) {
        parts[0] = text, parts[1] = space + 1;
        sizes[0] = (size_t)(space - text), sizes[1] = strlen(space + 1);
        return !strchr(space + 1, ' ');
    }
    if (!cJSON_IsArray(merge) || cJSON_GetArraySize(merge) != 2)
        return false;
    for (int i = 0; i < 2; i++) {
        parts[i] = cJSON_GetStringValue(cJSON_GetArrayItem(merge, i));
        if (!parts[i])
            return false;
        sizes[i] = strlen(parts[i]);
    }
    return true;
}

// Notes that merges reach across: last character of the left part, first of the right.
static void put_join(struct tokenizer *t, const char *left, size_t left_size, const char *right,
                     size_t right_size) {
    size_t last = left_size - 1;
    while (last > 0 && (left[last] & 0xc0) == 0x80)
        last--;
    unsigned first_size = utf8_size(right[0]);
    int32_t a = vocab_find(&t->vocab, left + last, left_size - last);
    int32_t b = vocab_find(&t->vocab, right, first_size < right_size ? first_size : right_size);
    if (a >= 0 && b >= 0)
        bpe_put(&t->joins, (uint32_t)a, (uint32_t)b, 0, 0);
}

static bool read_merge(struct tokenizer *t, const cJSON *merge, uint32_t rank, const char *name,
                       struct error *err) {
    const char *parts[2];
    size_t sizes[2];
    if (!merge_parts(merge, parts, sizes) || !sizes[0] || !sizes[1])
        return error_set(err, "%s: merge %u is neither \"a b\" nor [\"a\", \"b\"]", name, rank);
    struct bytes joined = {0};
    if (!bytes_append(&joined, parts[0], sizes[0], err) ||
        !bytes_append(&joined, parts[1], sizes[1], err)) {
        bytes_free(&joined);
        return false;
    }
    int32_t left = vocab_find(&t->vocab, parts[0], sizes[0]);
    int32_t right = vocab_find(&t->vocab, parts[1], sizes[1]);
    int32_t result = vocab_find(&t->vocab, joined.data, joined.size);
    bytes_free(&joined);
    if (left < 0 || right < 0 || result < 0)
        return error_set(err, "%s: merge %u ('%.*s' and '%.*s') is of tokens not in the vocabulary",
                         name, rank, (int)sizes[0], parts[0], (int)sizes[1], parts[1]);
    bpe_put(&t->merges, (uint32_t)left, (uint32_t)right, rank, (uint32_t)result);
    if (t->joins.n_slots)
        put_join(t, parts[0], sizes[0], parts[1], sizes[1]);
    return true;
}

static bool read_merges(struct tokenizer *t, const cJSON *model, const char *name,
                        struct error *err) {
    // An empty object stands for no merges in some files.
    const cJSON *merges = json_get(model, "merges"), *merge;
    if (!cJSON_IsArray(merges) && !(cJSON_IsObject(merges) && !merges->child))
        return error_set(err, "%s: model.merges is not a list", name);
    bool has_pattern = false;
    for (size_t i = 0; i < t->n_splitters; i++)
        has_pattern |= t->splitters[i].kind == SPLITTER_PATTERN;
    size_t n = (size_t)cJSON_GetArraySize(merges);
    if (!bpe_init(&t->merges, n, err) || (!has_pattern && !bpe_init(&t->joins, n, err)))
        return false;
    uint32_t rank = 0;
    cJSON_ArrayForEach (merge, merges)
        if (!read_merge(t, merge, rank++, name, err))
            return false;
    return true;
}

static void find_symbols(struct tokenizer *t) {
    for (int i = 0; i < BYTE_LEVEL_END; i++)
        t->alphabet[i] = -1;
    for (int i = 0; i < 256; i++) {
        char text[8];
        uint32_t c = byte_level_char((unsigned char)i);
        t->alphabet[c] = (int16_t)i;
        int n = t->byte_level ? (int)utf8_write(c, text) : snprintf(text, 8, "<0x%02X>", i);
        t->byte_ids[i] = vocab_find(&t->vocab, text, (size_t)n);
    }
    for (int i = 0; i < 128; i++) {
        char c = (char)i;
        t->ascii_ids[i] = vocab_find(&t->vocab, &c, 1);
    }
}

bool tokenizer_read_model(struct tokenizer *t, const cJSON *model, const char *name,
                          struct error *err) {
    const char *type = "BPE", *unk = NULL, *prefix = "", *suffix = "";
    double dropout = 0;
    if (!cJSON_IsObject(model))
        return error_set(err, "%s: has no 'model'", name);
    if (!json_get_string(model, "type", &type, name, err) ||
        !json_get_string(model, "unk_token", &unk, name, err) ||
        !json_get_string(model, "continuing_subword_prefix", &prefix, name, err) ||
        !json_get_string(model, "end_of_word_suffix", &suffix, name, err) ||
        !json_get_number(model, "dropout", &dropout, name, err) ||
        !json_get_bool(model, "fuse_unk", &t->fuse_unk, name, err) ||
        !json_get_bool(model, "byte_fallback", &t->byte_fallback, name, err) ||
        !json_get_bool(model, "ignore_merges", &t->ignore_merges, name, err))
        return false;
    if (strcmp(type, "BPE") != 0)
        return error_set(err, "%s: model type '%s', expected BPE", name, type);
    if (*prefix || *suffix || dropout != 0)
        return error_set(err, "%s: model: %s is not supported", name,
                         *prefix   ? "continuing_subword_prefix"
                         : *suffix ? "end_of_word_suffix"
                                   : "dropout");
    t->byte_fallback &= !t->byte_level;
    if (!read_vocab(t, model, name, err) || !read_merges(t, model, name, err))
        return false;
    t->unk = unk ? vocab_find(&t->vocab, unk, strlen(unk)) : -1;
    find_symbols(t);
    return true;
}
