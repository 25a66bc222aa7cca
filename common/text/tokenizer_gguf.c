// The keys are made into the tokenizer.json they amount to: normalizer, pre-tokenizer, decoder,
// model, added tokens. What such a file cannot say, scores, is added to the finished tokenizer.
#include "text/tokenizer_gguf.h"

#include <math.h>
#include <stdio.h>

#include "core/memory.h"
#include "text/pre_tokenizers.h"
#include "text/tokenizer_internal.h"
#include "text/utf8.h"

#define SPACE "\xe2\x96\x81" // U+2581, which SentencePiece writes for a space

// tokenizer.ggml.token_type.
enum token_type { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

struct source {
    const struct gguf *file;
    struct error *err;
    const struct gguf_value *tokens, *types, *scores, *merges; // arrays; NULL: absent
    const struct pre_tokenizer *pre;
    bool sentencepiece, add_space;
};

static bool fail_key(const struct source *s, const char *key, const char *what) {
    return error_set(s->err, "%s: key 'tokenizer.ggml.%s' %s", s->file->path, key, what);
}

// ---- reading the keys --------------------------------------------------------------------------

static bool read_kind(struct source *s) {
    struct gguf_string model = {0}, pre = {"default", 7};
    if (!gguf_get_string(s->file, "tokenizer.ggml.model", &model, s->err) ||
        !gguf_get_string(s->file, "tokenizer.ggml.pre", &pre, s->err))
        return false;
    if (!model.text)
        return error_set(s->err, "%s: has no tokenizer (key 'tokenizer.ggml.model')",
                         s->file->path);
    s->sentencepiece = gguf_string_is(model, "llama");
    if (s->sentencepiece)
        return true;
    if (!gguf_string_is(model, "gpt2"))
        return error_set(s->err,
                         "%s: a tokenizer of kind '%.*s' is not supported, expected gpt2 or "
                         "llama",
                         s->file->path, (int)(model.size < 64 ? model.size : 64), model.text);
    s->pre = pre_tokenizer_find(pre.text, pre.size);
    return s->pre || error_set(s->err, "%s: words split as '%.*s' are not supported", s->file->path,
                               (int)(pre.size < 64 ? pre.size : 64), pre.text);
}

static bool read_arrays(struct source *s) {
    const struct gguf *g = s->file;
    if (!gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &s->tokens, s->err) ||
        !gguf_get_array(g, "tokenizer.ggml.token_type", GGUF_I32, &s->types, s->err) ||
        !gguf_get_array(g, "tokenizer.ggml.scores", GGUF_F32, &s->scores, s->err) ||
        !gguf_get_array(g, "tokenizer.ggml.merges", GGUF_STRING, &s->merges, s->err))
        return false;
    if (!s->tokens || s->tokens->n > VOCAB_MAX_ID)
        return fail_key(s, "tokens", s->tokens ? "has too many tokens" : "is missing");
    if (s->types && s->types->n < s->tokens->n)
        return fail_key(s, "token_type", "has fewer items than there are tokens");
    if (s->sentencepiece && (!s->scores || s->scores->n < s->tokens->n))
        return fail_key(s, "scores",
                        s->scores ? "has fewer items than there are tokens" : "is missing");
    return s->sentencepiece || s->merges || fail_key(s, "merges", "is missing");
}

static enum token_type type_of(const struct source *s, size_t id) {
    double type = s->types ? gguf_item_number(s->types, id) : NORMAL;
    return type >= NORMAL && type <= BYTE ? (enum token_type)type : NORMAL;
}

// The string with a NUL behind it, in a buffer that is used again; NULL with a message where it is
// no text.
static const char *text_of(const struct source *s, struct gguf_string string, struct bytes *buffer,
                           const char *key, size_t i) {
    buffer->size = 0;
    if (utf8_valid_prefix(string.text, string.size) != string.size ||
        memchr(string.text, 0, string.size)) {
        error_set(s->err, "%s: key 'tokenizer.ggml.%s': item %zu is no UTF-8 text", s->file->path,
                  key, i);
        return NULL;
    }
    if (!bytes_append(buffer, string.text, string.size, s->err) ||
        !bytes_append(buffer, "", 1, s->err))
        return NULL;
    return buffer->data;
}

// ---- the tokenizer.json ------------------------------------------------------------------------

// Appends to a list, or puts under a key of an object.
static bool add(cJSON *to, const char *key, cJSON *item, const struct source *s) {
    if (item && (key ? cJSON_AddItemToObject(to, key, item) : cJSON_AddItemToArray(to, item)))
        return true;
    cJSON_Delete(item);
    return error_set(s->err, "%s: out of memory for the tokenizer", s->file->path);
}

static cJSON *added_token(size_t id, const char *text, bool special) {
    cJSON *token = cJSON_CreateObject();
    cJSON_AddNumberToObject(token, "id", (double)id);
    cJSON_AddStringToObject(token, "content", text);
    cJSON_AddBoolToObject(token, "special", special);
    cJSON_AddBoolToObject(token, "normalized", false);
    return token;
}

static bool add_tokens(const struct source *s, cJSON *vocab, cJSON *added) {
    const unsigned char *at = s->tokens->data;
    struct bytes buffer = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < s->tokens->n; i++) {
        const char *text = text_of(s, gguf_next_string(&at), &buffer, "tokens", i);
        enum token_type type = type_of(s, i);
        ok = text && add(vocab, text, cJSON_CreateNumber((double)i), s);
        if (ok && (type == CONTROL || type == UNKNOWN || type == USER_DEFINED))
            ok = add(added, NULL, added_token(i, text, type != USER_DEFINED), s);
    }
    bytes_free(&buffer);
    return ok;
}

static bool add_merges(const struct source *s, cJSON *list) {
    const unsigned char *at = s->merges->data;
    struct bytes buffer = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < s->merges->n; i++) {
        const char *text = text_of(s, gguf_next_string(&at), &buffer, "merges", i);
        ok = text && add(list, NULL, cJSON_CreateString(text), s);
    }
    bytes_free(&buffer);
    return ok;
}

static cJSON *split_part(const char *pattern) {
    cJSON *part = cJSON_CreateObject();
    cJSON_AddStringToObject(part, "type", "Split");
    cJSON_AddStringToObject(part, "behavior", "Isolated");
    cJSON_AddStringToObject(cJSON_AddObjectToObject(part, "pattern"), "Regex", pattern);
    return part;
}

static bool add_byte_level_parts(const struct source *s, cJSON *root) {
    cJSON *list = cJSON_GetObjectItem(cJSON_GetObjectItem(root, "pre_tokenizer"), "pretokenizers");
    size_t i = 0;
    for (; i < PRE_TOKENIZER_STEPS && s->pre->patterns[i]; i++)
        if (!add(list, NULL, split_part(s->pre->patterns[i]), s))
            return false;
    cJSON *last = cJSON_CreateObject();
    cJSON_AddStringToObject(last, "type", "ByteLevel");
    cJSON_AddBoolToObject(last, "add_prefix_space", false);
    cJSON_AddBoolToObject(last, "use_regex", false);
    if (!add(list, NULL, last, s))
        return false;
    cJSON_AddBoolToObject(cJSON_GetObjectItem(root, "model"), "ignore_merges",
                          s->pre->ignore_merges);
    return !s->pre->normalize || add(root, "normalizer", cJSON_Parse("{\"type\": \"NFC\"}"), s);
}

#define BYTE_LEVEL_FRAME                                                                           \
    "{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": []}, "                        \
    "\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {}}"
// What SentencePiece does: spaces become SPACE, one more comes first.
#define SPM_FRAME(prepend, strip)                                                                  \
    "{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [" prepend                         \
    "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" SPACE "\"}]}, "    \
    "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": "   \
    "{\"String\": \"" SPACE "\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, "             \
    "{\"type\": \"Fuse\"}" strip "]}, \"model\": {\"byte_fallback\": true, \"fuse_unk\": true}}"

static cJSON *frame(const struct source *s) {
    static const char with_space[] =
        SPM_FRAME("{\"type\": \"Prepend\", \"prepend\": \"" SPACE "\"}, ",
                  ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}");
    static const char without_space[] = SPM_FRAME("", "");
    const char *text = !s->sentencepiece ? BYTE_LEVEL_FRAME
                       : s->add_space    ? with_space
                                         : without_space;
    return json_parse(text, strlen(text), s->file->path, s->err);
}

static cJSON *make_json(const struct source *s) {
    cJSON *root = frame(s);
    if (!root)
        return NULL;
    cJSON *model = cJSON_GetObjectItem(root, "model");
    cJSON *vocab = cJSON_AddObjectToObject(model, "vocab");
    cJSON *merges = cJSON_AddArrayToObject(model, "merges");
    cJSON *added = cJSON_AddArrayToObject(root, "added_tokens");
    bool ok = (vocab && merges && added) ||
              error_set(s->err, "%s: out of memory for the tokenizer", s->file->path);
    ok = ok && add_tokens(s, vocab, added) &&
         (s->sentencepiece || (add_merges(s, merges) && add_byte_level_parts(s, root)));
    if (ok)
        return root;
    cJSON_Delete(root);
    return NULL;
}

// ---- scores ------------------------------------------------------------------------------------

// Neighbouring characters within a token: only there may a merge reach across.
static bool find_joins(struct tokenizer *t, struct error *err) {
    size_t n = t->vocab.strings.size; // more than there are
    bpe_free(&t->joins);
    if (!bpe_init(&t->joins, n + 1, err))
        return false;
    for (size_t i = 0; i < t->vocab.n; i++) {
        const struct vocab_entry *e = &t->vocab.entries[i];
        const char *text = t->vocab.strings.data + e->at;
        int32_t before = -1;
        unsigned bytes;
        for (size_t at = 0; at < e->size; at += bytes) {
            bytes = utf8_size(text[at]);
            int32_t symbol = vocab_find(&t->vocab, text + at, bytes);
            if (before >= 0 && symbol >= 0)
                bpe_put(&t->joins, (uint32_t)before, (uint32_t)symbol, 0, 0);
            before = symbol;
        }
        if (e->size > t->longest)
            t->longest = e->size;
    }
    return true;
}

static bool add_scores(const struct source *s, struct tokenizer *t) {
    t->scores = memory_alloc(t->vocab.size, sizeof *t->scores, "token scores", s->err);
    if (!t->scores)
        return false;
    for (size_t i = 0; i < t->vocab.size; i++) {
        t->scores[i] = (float)gguf_item_number(s->scores, i);
        if (isnan(t->scores[i]))
            return fail_key(s, "scores", "has an item that is no number");
    }
    return find_joins(t, s->err);
}

const float *tokenizer_scores(const struct tokenizer *t) {
    return t->scores;
}

// ---- special tokens ----------------------------------------------------------------------------

// An id outside the vocabulary stands for none.
static bool read_id(const struct source *s, const char *key, int64_t fallback, int32_t *out) {
    int64_t id = fallback;
    if (!gguf_get_int(s->file, key, INT32_MIN, UINT32_MAX, &id, s->err))
        return false;
    *out = id >= 0 && (size_t)id < s->tokens->n ? (int32_t)id : -1;
    return true;
}

static char *token_string(const struct tokenizer *t, int32_t id, struct error *err) {
    size_t size = 0;
    const char *text = vocab_text(&t->vocab, id, &size);
    return memory_printf(err, "%.*s", (int)size, text ? text : "");
}

static bool read_special_ids(const struct source *s, struct tokenizer *t) {
    bool spm = s->sentencepiece, add_bos = spm || s->pre->add_bos;
    if (!read_id(s, "tokenizer.ggml.bos_token_id", spm ? 1 : -1, &t->bos) ||
        !read_id(s, "tokenizer.ggml.eos_token_id", spm ? 2 : -1, &t->eos) ||
        !read_id(s, "tokenizer.ggml.unknown_token_id", spm ? 0 : -1, &t->unk) ||
        !read_id(s, "tokenizer.ggml.padding_token_id", -1, &t->pad) ||
        !gguf_get_bool(s->file, "tokenizer.ggml.add_bos_token", &add_bos, s->err))
        return false;
    if ((t->bos >= 0 && !(t->bos_text = token_string(t, t->bos, s->err))) ||
        (t->eos >= 0 && !(t->eos_text = token_string(t, t->eos, s->err))))
        return false;
    if (!add_bos)
        t->bos = -1;
    return true;
}

static bool read_template(const struct source *s, struct tokenizer *t) {
    struct gguf_string template = {0};
    if (!gguf_get_string(s->file, "tokenizer.chat_template", &template, s->err))
        return false;
    return !template.text ||
           (t->chat_template = memory_printf(
                s->err, "%.*s", (int)(template.size < INT32_MAX ? template.size : INT32_MAX),
                template.text));
}

struct tokenizer *tokenizer_from_gguf(const struct gguf *g, struct error *err) {
    struct source s = {.file = g, .err = err, .add_space = true};
    if (!read_kind(&s) || !read_arrays(&s) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &s.add_space, err))
        return NULL;
    cJSON *root = make_json(&s);
    struct tokenizer *t = root ? tokenizer_build(root, NULL, g->path, err) : NULL;
    cJSON_Delete(root);
    if (t && (!s.sentencepiece || add_scores(&s, t)) && read_special_ids(&s, t) &&
        read_template(&s, t))
        return t;
    tokenizer_free(t);
    return NULL;
}
