// What a GGUF file says about the tokenizer.
//
// Byte-level tokenizers (GPT-2, Qwen, Llama 3) are tokens and merges, and the name of the regular
// expression that splits words. SentencePiece's (Llama 2, Mistral) have no merges there: of two
// neighbours that may be joined, the pair whose result has the higher score is. Where the
// checkpoint has merges, a token's score is the negated rank of the first merge that makes it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "export/gguf_export.h"
#include "text/tokenizer_parts.h"

// The numbers of token types in a file.
enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

// Many checkpoints forget to mark "<|fim_prefix|>" and its like as special; no one wants to read
// them.
static bool looks_special(const char *text, size_t size) {
    return size >= 4 && memcmp(text, "<|", 2) == 0 && memcmp(text + size - 2, "|>", 2) == 0;
}

static int32_t type_of(enum token_kind kind, const char *text, size_t size) {
    switch (kind) {
    case TOKEN_ABSENT:
        return UNUSED;
    case TOKEN_BYTE:
        return BYTE;
    case TOKEN_UNKNOWN:
        return UNKNOWN;
    case TOKEN_SPECIAL:
        return CONTROL;
    case TOKEN_ADDED:
        return looks_special(text, size) ? CONTROL : USER_DEFINED;
    default:
        return NORMAL;
    }
}

// One string for every row of the embedding: ids that no token has are [PAD7].
static bool put_tokens(struct gguf_writer *w, const struct tokenizer *t, size_t vocab,
                       struct error *err) {
    int32_t *types = memory_alloc(vocab, sizeof *types, "token types", err);
    if (!types)
        return false;
    gguf_put_string_array(w, "tokenizer.ggml.tokens", vocab);
    for (size_t i = 0; i < vocab; i++) {
        enum token_kind kind;
        size_t size = 0;
        char padding[32];
        const char *text = tokenizer_token(t, (int32_t)i, &size, &kind);
        types[i] = type_of(kind, text, size);
        if (!text)
            size = (size_t)snprintf(padding, sizeof padding, "[PAD%zu]", i);
        gguf_put_item(w, text ? text : padding, size);
    }
    gguf_put_i32_array(w, "tokenizer.ggml.token_type", types, vocab);
    free(types);
    return true;
}

static bool append_token(struct bytes *out, const struct tokenizer *t, int32_t id,
                         struct error *err) {
    enum token_kind kind;
    size_t size = 0;
    const char *text = tokenizer_token(t, id, &size, &kind);
    return bytes_append(out, text, size, err);
}

// "left right".
static bool put_merges(struct gguf_writer *w, const struct tokenizer *t,
                       const struct token_merge *merges, size_t n, struct error *err) {
    struct bytes text = {0};
    bool ok = true;
    gguf_put_string_array(w, "tokenizer.ggml.merges", n);
    for (size_t i = 0; ok && i < n; i++) {
        text.size = 0;
        ok = append_token(&text, t, merges[i].left, err) && bytes_append(&text, " ", 1, err) &&
             append_token(&text, t, merges[i].right, err);
        if (ok)
            gguf_put_item(w, text.data, text.size);
    }
    bytes_free(&text);
    return ok;
}

// Tokens that no merge makes come last.
static bool put_scores(struct gguf_writer *w, const struct token_merge *merges, size_t n,
                       size_t vocab, struct error *err) {
    float *scores = memory_alloc(vocab, sizeof *scores, "token scores", err);
    if (!scores)
        return false;
    for (size_t i = 0; i < vocab; i++)
        scores[i] = -(float)n;
    for (size_t i = n; i-- > 0;) // the first merge is the one that stays
        if ((size_t)merges[i].result < vocab)
            scores[merges[i].result] = -(float)i;
    gguf_put_f32_array(w, "tokenizer.ggml.scores", scores, vocab);
    free(scores);
    return true;
}

static bool put_joining(struct gguf_writer *w, const struct tokenizer *t, size_t vocab,
                        struct error *err) {
    size_t n;
    struct token_merge *merges = tokenizer_merges(t, &n, err);
    bool ok = merges && (tokenizer_is_byte_level(t) ? put_merges(w, t, merges, n, err)
                                                    : put_scores(w, merges, n, vocab, err));
    free(merges);
    return ok;
}

static void put_id(struct gguf_writer *w, const char *key, int32_t id, size_t vocab) {
    if (id >= 0 && (size_t)id < vocab)
        gguf_put_u32(w, key, (uint32_t)id);
}

// Without a BOS or an EOS of their own, byte-level tokenizers would be given token 11 by llama.cpp:
// then one stands for the other.
static void put_special_ids(struct gguf_writer *w, const struct tokenizer *t,
                            const struct model_config *c) {
    int32_t bos = tokenizer_bos_token(t), eos = tokenizer_eos(t), eot = -1;
    if (bos < 0)
        bos = c->bos;
    if (eos < 0 && c->n_eos)
        eos = c->eos[0];
    for (size_t i = c->n_eos; i-- > 0;)
        if (c->eos[i] != eos)
            eot = c->eos[i];
    put_id(w, "tokenizer.ggml.bos_token_id", bos >= 0 ? bos : eos, c->vocab);
    put_id(w, "tokenizer.ggml.eos_token_id", eos >= 0 ? eos : bos, c->vocab);
    put_id(w, "tokenizer.ggml.eot_token_id", eot, c->vocab);
    put_id(w, "tokenizer.ggml.unknown_token_id", tokenizer_unknown(t), c->vocab);
    put_id(w, "tokenizer.ggml.padding_token_id", tokenizer_padding(t), c->vocab);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", tokenizer_bos(t) >= 0);
    gguf_put_bool(w, "tokenizer.ggml.add_eos_token", false);
    gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", tokenizer_adds_space(t));
}

bool gguf_put_tokenizer(struct gguf_writer *w, const struct tokenizer *t,
                        const struct model_config *c, struct error *err) {
    bool byte_level = tokenizer_is_byte_level(t);
    char pre[64] = "default";
    size_t size;
    const char *known = byte_level ? tokenizer_pre_name(t, &size) : NULL;
    if (known && size < sizeof pre)
        snprintf(pre, sizeof pre, "%.*s", (int)size, known);
    gguf_put_string(w, "tokenizer.ggml.model", byte_level ? "gpt2" : "llama");
    gguf_put_string(w, "tokenizer.ggml.pre", pre);
    if (!put_tokens(w, t, c->vocab, err) || !put_joining(w, t, c->vocab, err))
        return false;
    put_special_ids(w, t, c);
    const char *template = tokenizer_chat_template(t);
    if (template)
        gguf_put_string(w, "tokenizer.chat_template", template);
    return true;
}
