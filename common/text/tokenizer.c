// Questions to a tokenizer, and the list of ids.
#include "text/tokenizer_internal.h"

#include "core/memory.h"

void token_list_free(struct token_list *list) {
    free(list->ids);
    *list = (struct token_list){0};
}

bool token_list_push(struct token_list *list, int32_t id, struct error *err) {
    if (list->n == list->capacity) {
        int32_t *ids = memory_grow(list->ids, list->n, &list->capacity, sizeof *ids, "tokens", err);
        if (!ids)
            return false;
        list->ids = ids;
    }
    list->ids[list->n++] = id;
    return true;
}

void tokenizer_free(struct tokenizer *t) {
    if (!t)
        return;
    vocab_free(&t->vocab);
    vocab_free(&t->added_ids);
    bpe_free(&t->merges);
    bpe_free(&t->joins);
    free(t->scores);
    for (size_t i = 0; i < t->n_added; i++)
        free(t->added[i].content);
    for (size_t i = 0; i < t->n_normalizers; i++)
        normalizer_free(&t->normalizers[i]);
    for (size_t i = 0; i < t->n_splitters; i++) {
        pattern_free(&t->splitters[i].pattern);
        free(t->splitters[i].content);
    }
    for (size_t i = 0; i < t->decoder.n_replace; i++) {
        free(t->decoder.replace[i].from);
        free(t->decoder.replace[i].to);
    }
    free(t->added);
    free(t->added_by_id);
    token_set_free(&t->before);
    token_set_free(&t->after);
    free(t->normalizers);
    free(t->splitters);
    free(t->bos_text);
    free(t->eos_text);
    free(t->chat_template);
    free(t);
}

const struct added_token *added_token_of(const struct tokenizer *t, int32_t id) {
    if (id < 0 || (size_t)id >= t->added_ids.size || !t->added_by_id[id])
        return NULL;
    return &t->added[t->added_by_id[id] - 1];
}

size_t tokenizer_vocab_size(const struct tokenizer *t) {
    return t->vocab.size > t->added_ids.size ? t->vocab.size : t->added_ids.size;
}

int32_t tokenizer_id(const struct tokenizer *t, const char *token) {
    int32_t id = vocab_find(&t->added_ids, token, strlen(token));
    return id >= 0 ? id : vocab_find(&t->vocab, token, strlen(token));
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id) {
    const struct added_token *token = added_token_of(t, id);
    return token && token->special;
}

int32_t tokenizer_bos(const struct tokenizer *t) {
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t) {
    return t->eos;
}

const char *tokenizer_chat_template(const struct tokenizer *t) {
    return t->chat_template;
}
