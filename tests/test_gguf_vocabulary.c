// What a GGUF file says about the tokenizer.
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "gguf_files.h"
#include "shared.h"

static struct tokenizer *parse(const char *json, const char *config) {
    struct error err = {0};
    struct tokenizer *t =
        tokenizer_parse(json, strlen(json), config, config ? strlen(config) : 0, "test", &err);
    cr_assert(t, "%s", err.message);
    return t;
}

// A file of nothing but this tokenizer's keys.
static void write_keys(const struct tokenizer *t, const struct model_config *c, struct gguf *g) {
    struct gguf_writer w;
    struct error err = {0};
    char *path = gguf_path("vocabulary");
    cr_assert(gguf_writer_open(&w, path, &err) && gguf_put_tokenizer(&w, t, c, &err) &&
                  gguf_writer_begin(&w, &err) && gguf_writer_commit(&w, &err),
              "%s", err.message);
    cr_assert(gguf_open(g, path, &err), "%s", err.message);
    free(path);
}

static const struct gguf_value *array_of(const struct gguf *g, const char *key) {
    const struct gguf_value *v = gguf_find(g, key);
    cr_assert(v && v->is_array, "%s", key);
    return v;
}

// The strings of an array, joined by '|'.
static char *joined(const struct gguf *g, const char *key) {
    const struct gguf_value *v = array_of(g, key);
    const unsigned char *at = v->data;
    char *text = calloc(1, v->bytes + 1), *end = text;
    for (size_t i = 0; i < v->n; i++) {
        struct gguf_string s = gguf_next_string(&at);
        end += sprintf(end, "%s%.*s", i ? "|" : "", (int)s.size, s.text);
    }
    return text;
}

static void expect_strings(const struct gguf *g, const char *key, const char *expected) {
    char *found = joined(g, key);
    cr_expect_str_eq(found, expected, "%s is %s, expected %s", key, found, expected);
    free(found);
}

static void expect_numbers(const struct gguf *g, const char *key, const double *expected,
                           size_t n) {
    const struct gguf_value *v = array_of(g, key);
    cr_assert_eq(v->n, n, "%s has %zu", key, v->n);
    for (size_t i = 0; i < n; i++)
        cr_expect_eq(gguf_item_number(v, i), expected[i], "%s[%zu] is %g, expected %g", key, i,
                     gguf_item_number(v, i), expected[i]);
}

// -1: the key is absent.
static void expect_id(const struct gguf *g, const char *key, int64_t expected) {
    int64_t id = -1;
    struct error err = {0};
    cr_assert(gguf_get_int(g, key, 0, 1 << 30, &id, &err), "%s", err.message);
    cr_expect_eq(id, expected, "%s is %d, expected %d", key, (int)id, (int)expected);
}

static void expect_flag(const struct gguf *g, const char *key, bool expected) {
    bool found = !expected;
    struct error err = {0};
    cr_assert(gguf_get_bool(g, key, &found, &err), "%s", err.message);
    cr_expect_eq(found, expected, "%s", key);
}

static void expect_text(const struct gguf *g, const char *key, const char *expected) {
    struct gguf_string s = {0};
    struct error err = {0};
    cr_assert(gguf_get_string(g, key, &s, &err), "%s", err.message);
    cr_expect(gguf_string_is(s, expected), "%s is '%.*s', expected '%s'", key, (int)s.size, s.text,
              expected);
}

#define BYTE_LEVEL(regex)                                                                          \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": " regex "}"
#define VOCAB "\"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \"ab\": 3, \"abc\": 4}"
#define MODEL "\"model\": {" VOCAB ", \"merges\": [\"a b\", [\"ab\", \"c\"]]}"
#define ADDED                                                                                      \
    "\"added_tokens\": [{\"id\": 5, \"content\": \"<s>\", \"special\": true}, "                    \
    "{\"id\": 6, \"content\": \"<|x|>\", \"special\": false}, "                                    \
    "{\"id\": 8, \"content\": \"y\", \"special\": false}]"

Test(gguf_vocabulary, byte_level_tokens_have_merges) {
    struct tokenizer *t = parse("{" MODEL ", " ADDED ", \"decoder\": {\"type\": \"ByteLevel\"}, "
                                "\"pre_tokenizer\": " BYTE_LEVEL("true") "}",
                                "{\"eos_token\": \"<|x|>\", \"pad_token\": {\"content\": \"y\"}, "
                                "\"chat_template\": \"{{ x }}\"}");
    const struct model_config c = {.vocab = 10, .bos = 5, .eos = {6, 8}, .n_eos = 2};
    static const double types[] = {1, 1, 1, 1, 1, 3, 3, 5, 4, 5};
    struct gguf g;
    write_keys(t, &c, &g);
    expect_text(&g, "tokenizer.ggml.model", "gpt2");
    expect_text(&g, "tokenizer.ggml.pre", "gpt-2");
    expect_strings(&g, "tokenizer.ggml.tokens", "a|b|c|ab|abc|<s>|<|x|>|[PAD7]|y|[PAD9]");
    expect_strings(&g, "tokenizer.ggml.merges", "a b|ab c");
    expect_numbers(&g, "tokenizer.ggml.token_type", types, 10);
    cr_expect_null(gguf_find(&g, "tokenizer.ggml.scores"));
    expect_id(&g, "tokenizer.ggml.bos_token_id", 5);
    expect_id(&g, "tokenizer.ggml.eos_token_id", 6);
    expect_id(&g, "tokenizer.ggml.eot_token_id", 8);
    expect_id(&g, "tokenizer.ggml.padding_token_id", 8);
    expect_id(&g, "tokenizer.ggml.unknown_token_id", -1);
    expect_flag(&g, "tokenizer.ggml.add_bos_token", false);
    expect_flag(&g, "tokenizer.ggml.add_space_prefix", false);
    expect_text(&g, "tokenizer.chat_template", "{{ x }}");
    gguf_close(&g);
    tokenizer_free(t);
}

// llama.cpp takes token 11 for a BOS or an EOS that no key names.
Test(gguf_vocabulary, a_missing_bos_is_the_eos) {
    struct tokenizer *t = parse("{" MODEL ", " ADDED ", \"decoder\": {\"type\": \"ByteLevel\"}, "
                                "\"pre_tokenizer\": " BYTE_LEVEL("true") "}",
                                NULL);
    const struct model_config c = {.vocab = 9, .bos = -1, .eos = {6}, .n_eos = 1};
    struct gguf g;
    write_keys(t, &c, &g);
    expect_id(&g, "tokenizer.ggml.bos_token_id", 6);
    expect_id(&g, "tokenizer.ggml.eos_token_id", 6);
    expect_id(&g, "tokenizer.ggml.eot_token_id", -1);
    gguf_close(&g);
    tokenizer_free(t);
}

// Ids that the embedding has no row for cannot be used.
Test(gguf_vocabulary, tokens_beyond_the_embedding_are_left_out) {
    struct tokenizer *t = parse("{" MODEL ", " ADDED ", \"decoder\": {\"type\": \"ByteLevel\"}, "
                                "\"pre_tokenizer\": " BYTE_LEVEL("true") "}",
                                "{\"eos_token\": \"y\"}");
    const struct model_config c = {.vocab = 6, .bos = -1};
    struct gguf g;
    write_keys(t, &c, &g);
    expect_strings(&g, "tokenizer.ggml.tokens", "a|b|c|ab|abc|<s>");
    expect_id(&g, "tokenizer.ggml.eos_token_id", -1);
    gguf_close(&g);
    tokenizer_free(t);
}

Test(gguf_vocabulary, sentencepiece_tokens_have_scores) {
    struct tokenizer *t =
        parse("{\"model\": {\"vocab\": {\"<unk>\": 0, \"<s>\": 1, \"<0x0A>\": 2, \"a\": 3, "
              "\"b\": 4, \"ab\": 5, \"aab\": 6}, \"merges\": [\"a b\", \"a ab\"], "
              "\"unk_token\": \"<unk>\", \"byte_fallback\": true, \"fuse_unk\": true}, "
              "\"normalizer\": {\"type\": \"Prepend\", \"prepend\": \"_\"}, "
              "\"added_tokens\": [{\"id\": 0, \"content\": \"<unk>\", \"special\": true}, "
              "{\"id\": 1, \"content\": \"<s>\", \"special\": true}], "
              "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
              "[{\"SpecialToken\": {\"id\": \"<s>\"}}], \"special_tokens\": {\"<s>\": "
              "{\"ids\": [1]}}}}",
              NULL);
    const struct model_config c = {.vocab = 7, .bos = -1};
    static const double types[] = {2, 3, 6, 1, 1, 1, 1}, scores[] = {-2, -2, -2, -2, -2, 0, -1};
    struct gguf g;
    write_keys(t, &c, &g);
    expect_text(&g, "tokenizer.ggml.model", "llama");
    expect_text(&g, "tokenizer.ggml.pre", "default");
    expect_numbers(&g, "tokenizer.ggml.token_type", types, 7);
    expect_numbers(&g, "tokenizer.ggml.scores", scores, 7);
    cr_expect_null(gguf_find(&g, "tokenizer.ggml.merges"));
    expect_id(&g, "tokenizer.ggml.bos_token_id", 1);
    expect_id(&g, "tokenizer.ggml.unknown_token_id", 0);
    expect_flag(&g, "tokenizer.ggml.add_bos_token", true);
    expect_flag(&g, "tokenizer.ggml.add_space_prefix", true);
    gguf_close(&g);
    tokenizer_free(t);
}

// ---- how texts are split ----------------------------------------------------------------------

static void expect_pre(const char *model, const char *steps, const char *expected) {
    char json[2048];
    snprintf(json, sizeof json,
             "{\"model\": {" VOCAB ", \"merges\": []%s}, \"decoder\": {\"type\": \"ByteLevel\"}, "
             "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [%s]}}",
             model, steps);
    struct tokenizer *t = parse(json, NULL);
    const struct model_config c = {.vocab = 5, .bos = -1};
    struct gguf g;
    write_keys(t, &c, &g);
    expect_text(&g, "tokenizer.ggml.pre", expected);
    gguf_close(&g);
    tokenizer_free(t);
}

#define SPLIT(regex)                                                                               \
    "{\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"" regex          \
    "\"}}, " BYTE_LEVEL("false")
#define WORDS(digits)                                                                              \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits                 \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

Test(gguf_vocabulary, ways_of_splitting_are_known_by_their_patterns) {
    expect_pre("", BYTE_LEVEL("true"), "gpt-2");
    expect_pre("", "{\"type\": \"Digits\", \"individual_digits\": true}, " BYTE_LEVEL("true"),
               "smollm");
    expect_pre("", SPLIT(WORDS("\\\\p{N}{1,3}")), "smaug-bpe");
    expect_pre(", \"ignore_merges\": true", SPLIT(WORDS("\\\\p{N}{1,3}")), "llama-bpe");
    expect_pre("", SPLIT("[a-z]+"), "default");
}

static void expect_pre_of(const char *folder, const char *expected) {
    struct tokenizer *t = tokenizer_of(folder);
    const struct model_config c = {.vocab = 10, .bos = -1};
    struct gguf g;
    write_keys(t, &c, &g);
    expect_text(&g, "tokenizer.ggml.pre", expected);
    gguf_close(&g);
    tokenizer_free(t);
}

Test(gguf_vocabulary, real_tokenizers_are_known) {
    expect_pre_of("data/model", "qwen2");
    expect_pre_of(shared_path("data/tokenizers/qwen2.5"), "qwen2");
    expect_pre_of(shared_path("data/tokenizers/gpt2"), "gpt-2");
    expect_pre_of(shared_path("fixtures/llama-untied-f16-sharded"), "llama-bpe");
}

// ---- beside files of others ---------------------------------------------------------------------

static void expect_same_array(const struct gguf *a, const struct gguf *b, const char *key,
                              size_t n) {
    const struct gguf_value *x = array_of(a, key), *y = array_of(b, key);
    cr_assert(x->type == y->type && x->n == n && y->n == n, "%s: %zu and %zu", key, x->n, y->n);
    cr_expect(x->bytes == y->bytes && memcmp(x->data, y->data, x->bytes) == 0, "%s", key);
}

Test(gguf_vocabulary, gpt2_has_the_tokens_and_merges_of_the_recorded_file) {
    struct tokenizer *t = tokenizer_of(shared_path("data/tokenizers/gpt2"));
    const struct model_config c = {.vocab = 50257, .bos = 50256, .eos = {50256}, .n_eos = 1};
    struct gguf ours, theirs;
    struct error err = {0};
    cr_assert(gguf_open(&theirs, shared_path("data/tokenizers/ggml-vocab-gpt-2.gguf"), &err), "%s",
              err.message);
    write_keys(t, &c, &ours);
    expect_same_array(&ours, &theirs, "tokenizer.ggml.tokens", 50257);
    expect_same_array(&ours, &theirs, "tokenizer.ggml.token_type", 50257);
    expect_same_array(&ours, &theirs, "tokenizer.ggml.merges", 50000);
    expect_id(&ours, "tokenizer.ggml.eos_token_id", 50256);
    gguf_close(&ours);
    gguf_close(&theirs);
    tokenizer_free(t);
}

// Its scores are those of the SentencePiece model. What counts is their order among tokens that
// merges make: of any two, both files prefer the same.
Test(gguf_vocabulary, phi3_prefers_the_tokens_that_the_recorded_file_does) {
    struct tokenizer *t = tokenizer_of(shared_path("data/tokenizers/phi-3"));
    const struct model_config c = {.vocab = 32064, .bos = 1};
    struct gguf ours, theirs;
    struct error err = {0};
    cr_assert(gguf_open(&theirs, shared_path("data/tokenizers/ggml-vocab-phi-3.gguf"), &err), "%s",
              err.message);
    write_keys(t, &c, &ours);
    const struct gguf_value *a = array_of(&ours, "tokenizer.ggml.scores");
    const struct gguf_value *b = array_of(&theirs, "tokenizer.ggml.scores");
    const unsigned char *p = array_of(&ours, "tokenizer.ggml.tokens")->data;
    const unsigned char *q = array_of(&theirs, "tokenizer.ggml.tokens")->data;
    double last_ours = 1, last_theirs = 1;
    size_t compared = 0;
    cr_assert(a->n == b->n && a->n == 32064);
    for (size_t i = 0; i < 32000; i++) {
        struct gguf_string x = gguf_next_string(&p), y = gguf_next_string(&q);
        cr_expect(x.size == y.size && memcmp(x.text, y.text, x.size) == 0, "token %zu", i);
        double score = gguf_item_number(a, i), theirs_i = gguf_item_number(b, i);
        if (i < 259 || score <= gguf_item_number(a, 0)) // specials, bytes, single characters
            continue;
        cr_expect((score < last_ours) == (theirs_i < last_theirs), "token %zu", i);
        last_ours = score, last_theirs = theirs_i;
        compared++;
    }
    cr_expect_gt(compared, 25000, "%zu", compared);
    gguf_close(&ours);
    gguf_close(&theirs);
    tokenizer_free(t);
}

// The file's tokenizer is the checkpoint's: the same ids for the same text.
Test(gguf_vocabulary, the_bundled_tokenizer_comes_back) {
    struct model *m = model_of("data/model");
    struct tokenizer *t = tokenizer_of("data/model");
    char *path = gguf_path("bundled");
    struct error err = {0};
    struct token_list expected = {0}, found = {0};
    size_t size;
    export_as(m, t, "BF16", path);
    struct tokenizer *back = tokenizer_of(path);
    char *text = file_read("data/eval.txt", 1 << 24, &size, &err);
    cr_assert(text && tokenizer_encode(t, text, size, &expected, &err) &&
                  tokenizer_encode(back, text, size, &found, &err),
              "%s", err.message);
    cr_assert_eq(expected.n, found.n);
    cr_expect_eq(memcmp(expected.ids, found.ids, found.n * sizeof *found.ids), 0);
    cr_expect_eq(tokenizer_bos(back), tokenizer_bos(t));
    cr_expect_eq(tokenizer_eos(back), tokenizer_eos(t));
    free(text);
    token_list_free(&expected);
    token_list_free(&found);
    tokenizer_free(back);
    tokenizer_free(t);
    model_free(m);
    free(path);
}
