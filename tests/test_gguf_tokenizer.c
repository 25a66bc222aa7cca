// text/tokenizer_gguf: ids equal those recorded for vocabulary files, and a tokenizer from a GGUF
// file is the one of the checkpoint it was made from.
#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>

#include "core/file.h"
#include "gguf_model.h"
#include "shared.h"
#include "temp.h"
#include "text/chat.h"
#include "text/pattern.h"
#include "text/pre_tokenizers.h"
#include "text/spm.h"
#include "text/tokenizer_gguf.h"

static struct tokenizer *load(const char *path) {
    struct error err = {0};
    struct tokenizer *t = tokenizer_load(path, &err);
    cr_assert_not_null(t, "%s", err.message);
    return t;
}

static void expect_ids(const struct tokenizer *t, const char *text, size_t size,
                       const char *expected) {
    struct token_list ids = {0};
    struct error err = {0};
    char *rest = NULL;
    cr_assert(tokenizer_encode(t, text, size, &ids, &err), "%s", err.message);
    size_t i = 0;
    for (long id; id = strtol(expected, &rest, 10), rest != expected; expected = rest, i++)
        cr_assert(i < ids.n && ids.ids[i] == id, "'%.*s': id %zu is %d, expected %ld", (int)size,
                  text, i, i < ids.n ? ids.ids[i] : -1, id);
    cr_assert_eq(i, ids.n, "'%.*s': %zu ids, expected %zu", (int)size, text, ids.n, i);
    token_list_free(&ids);
}

// ---- recorded ids -------------------------------------------------------------------------------

// Texts separated by lines of this; their ids, a line for each.
#define SEPARATOR "\n__ggml_vocab_test__\n"

static size_t check_vocabulary(const char *path) {
    char name[1200];
    struct error err = {0};
    struct tokenizer *t = load(path);
    snprintf(name, sizeof name, "%s.inp", path);
    char *texts = file_read(name, 1 << 20, NULL, &err);
    snprintf(name, sizeof name, "%s.out", path);
    char *lines = file_read(name, 1 << 20, NULL, &err), *line = lines;
    cr_assert(texts && lines, "%s", err.message);
    size_t n = 0;
    for (char *text = texts; text && *line; n++) {
        char *end = strstr(text, SEPARATOR), *newline = strchr(line, '\n');
        if (newline)
            *newline = '\0';
        expect_ids(t, text, end ? (size_t)(end - text) : strlen(text), line);
        line = newline ? newline + 1 : line + strlen(line);
        text = end ? end + strlen(SEPARATOR) : NULL;
    }
    free(texts);
    free(lines);
    tokenizer_free(t);
    return n;
}

Test(gguf_tokenizer, ids_of_byte_level_tokens_equal_the_recorded_ones) {
    cr_assert_eq(check_vocabulary(shared_path("data/tokenizers/ggml-vocab-gpt-2.gguf")), 46);
}

Test(gguf_tokenizer, ids_of_scored_tokens_equal_the_recorded_ones) {
    cr_assert_eq(check_vocabulary(shared_path("data/tokenizers/ggml-vocab-llama-spm.gguf")), 46);
    cr_assert_eq(check_vocabulary(shared_path("data/tokenizers/ggml-vocab-phi-3.gguf")), 46);
}

// The same tokenizer as tokenizer.json (merges) and as a vocabulary (scores), on a long text.
Test(gguf_tokenizer, scores_and_merges_give_the_same_ids) {
    struct tokenizer *scored = load(shared_path("data/tokenizers/ggml-vocab-phi-3.gguf"));
    struct tokenizer *merged = load(shared_path("data/tokenizers/phi-3"));
    struct error err = {0};
    size_t size;
    char *text = file_read(shared_path("data/text/books-eval.txt"), 1 << 24, &size, &err);
    struct token_list a = {0}, b = {0};
    size = size < 200000 ? size : 200000;
    cr_assert(tokenizer_encode(scored, text, size, &a, &err), "%s", err.message);
    cr_assert(tokenizer_encode(merged, text, size, &b, &err), "%s", err.message);
    cr_assert(a.n > 10000 && a.n == b.n, "%zu and %zu", a.n, b.n);
    cr_assert_arr_eq(a.ids, b.ids, a.n * sizeof *a.ids);
    size_t back;
    char *decoded = tokenizer_decode(scored, a.ids, a.n, true, &back, &err);
    cr_assert(decoded && memcmp(decoded, text, back) == 0);
    cr_assert_eq(tokenizer_bos(scored), 1);
    free(decoded);
    free(text);
    token_list_free(&a);
    token_list_free(&b);
    tokenizer_free(scored);
    tokenizer_free(merged);
}

// ---- the fixtures' tokenizers -------------------------------------------------------------------

static void check_fixture(const char *folder, const char *pre) {
    struct error err = {0};
    char path[2048];
    struct model *m = model_load(folder, &err);
    cr_assert_not_null(m, "%s", err.message);
    struct gguf_bytes file = gguf_of_model(m, folder, pre, NULL);
    struct tokenizer *a = load(folder), *b = load(temp_file("m.gguf", file.data, file.size));
    free(file.data);
    model_free(m);
    snprintf(path, sizeof path, "%s/text.txt", folder);
    size_t size;
    char *text = file_read(path, 1 << 20, &size, &err);
    struct token_list x = {0}, y = {0};
    cr_assert(tokenizer_encode(a, text, size, &x, &err) &&
              tokenizer_encode(b, text, size, &y, &err));
    cr_assert(x.n > 20 && x.n == y.n, "%zu and %zu ids", x.n, y.n);
    cr_assert_arr_eq(x.ids, y.ids, x.n * sizeof *x.ids);
    size_t n;
    char *back = tokenizer_decode(b, y.ids, y.n, false, &n, &err);
    cr_assert(back && n == size && memcmp(back, text, size) == 0);
    free(back);
    free(text);
    token_list_free(&x);
    token_list_free(&y);
    tokenizer_free(a);
    tokenizer_free(b);
}

Test(gguf_tokenizer, a_model_s_tokenizer_is_the_checkpoint_s) {
    check_fixture(shared_path("fixtures/gpt2-f32"), "gpt-2");
    check_fixture(shared_path("fixtures/qwen2-tied-bf16"), "qwen2");
    check_fixture(shared_path("fixtures/llama-untied-f16-sharded"), "llama-bpe");
}

// ---- small files --------------------------------------------------------------------------------

static const char *const spm_tokens[] = {"<unk>",
                                         "<s>",
                                         "</s>",
                                         "<0x0A>",
                                         "<0xC3>",
                                         "<0xA9>",
                                         "\xe2\x96\x81",
                                         "a",
                                         "b",
                                         "ab",
                                         "\xe2\x96\x81"
                                         "a",
                                         "<|im_end|>",
                                         "x\xc3\xb6",
                                         "x",
                                         "ba",
                                         "<user>"};
enum { SPM_TOKENS = sizeof spm_tokens / sizeof *spm_tokens };
static const uint32_t spm_types[SPM_TOKENS] = {2, 3, 3, 6, 6, 6, 1, 1, 1, 1, 1, 3, 1, 1, 1, 4};
static const float spm_scores[SPM_TOKENS] = {0,  0,  0,  0, 0,  0,  -9, -9,
                                             -9, -2, -3, 0, -1, -9, -2, 0};

// Keys that may be left out; n_scores and n_types may lie.
struct small {
    const char *model, *pre;
    uint64_t n_tokens, n_types, n_scores;
    bool no_space, template;
    int add_bos; // -1: not said
    float first_score;
};

static struct gguf_bytes small_file(struct small s) {
    struct gguf_bytes b = {0}, keys = {0};
    uint64_t n = 4;
    put_key_text(&keys, "tokenizer.ggml.model", s.model);
    put_key_array(&keys, "tokenizer.ggml.tokens", GGUF_STRING, s.n_tokens);
    for (size_t i = 0; i < s.n_tokens; i++)
        put_text(&keys, spm_tokens[i]);
    put_key_array(&keys, "tokenizer.ggml.token_type", GGUF_I32, s.n_types);
    for (size_t i = 0; i < s.n_types; i++)
        put_u32(&keys, spm_types[i]);
    put_key_array(&keys, "tokenizer.ggml.scores", GGUF_F32, s.n_scores);
    for (size_t i = 0; i < s.n_scores; i++)
        put_raw(&keys, i ? &spm_scores[i] : &s.first_score, 4);
    if (s.pre)
        put_key_text(&keys, "tokenizer.ggml.pre", s.pre), n++;
    if (s.no_space)
        put_key_bool(&keys, "tokenizer.ggml.add_space_prefix", false), n++;
    if (s.add_bos >= 0)
        put_key_bool(&keys, "tokenizer.ggml.add_bos_token", s.add_bos), n++;
    if (s.template)
        put_key_text(&keys, "tokenizer.chat_template", "{# <|im_start|> #}"), n++;
    put_header(&b, 3, 0, n);
    put_raw(&b, keys.data, keys.size);
    free(keys.data);
    return b;
}

static struct tokenizer *small_tokenizer(struct small s, struct error *err) {
    struct gguf_bytes b = small_file(s);
    struct gguf g;
    cr_assert(gguf_parse(&g, b.data, b.size, "x.gguf", err), "%s", err->message);
    struct tokenizer *t = tokenizer_from_gguf(&g, err);
    gguf_close(&g);
    free(b.data);
    return t;
}

static const struct small spm = {"llama", NULL, SPM_TOKENS, SPM_TOKENS, SPM_TOKENS, .add_bos = -1};

Test(gguf_tokenizer, scores_decide_and_bytes_are_the_last_resort) {
    struct error err = {0};
    struct tokenizer *t = small_tokenizer(spm, &err);
    cr_assert_not_null(t, "%s", err.message);
    // ▁ a b: "ab" (-2) before "▁a" (-3).
    expect_ids(t, "ab", 2, "6 9");
    // Equal scores: the leftmost pair first.
    expect_ids(t, "bab", 3, "6 14 8");
    // "ö" is no token, but what it makes with "x" is.
    expect_ids(t, "x\xc3\xb6", 3, "6 12");
    expect_ids(t, "\xc3\xa9\n", 3, "6 4 5 3");
    expect_ids(t, "z\xc3\xb6", 3, "6 0");
    // Each stretch between special tokens gets its space.
    expect_ids(t, "a</s>a<user>a", 13, "10 2 10 15 10");
    expect_ids(t, "", 0, "");
    cr_assert_eq(tokenizer_bos(t), 1);
    cr_assert_eq(tokenizer_eos(t), 2);
    cr_assert(tokenizer_is_special(t, 2) && !tokenizer_is_special(t, 15));
    int32_t ids[] = {1, 10, 4, 5, 15, 6, 7};
    char *text = tokenizer_decode(t, ids, 7, true, NULL, &err);
    cr_assert_str_eq(text, "a\xc3\xa9<user> a");
    free(text);
    tokenizer_free(t);
}

Test(gguf_tokenizer, keys_say_what_comes_before_a_text) {
    struct error err = {0};
    struct small s = spm;
    s.no_space = true;
    s.add_bos = 0;
    s.template = true;
    struct tokenizer *t = small_tokenizer(s, &err);
    cr_assert_not_null(t, "%s", err.message);
    expect_ids(t, "ab a", 4, "9 10");
    cr_assert_eq(tokenizer_bos(t), -1);
    cr_assert_str_eq(tokenizer_chat_template(t), "{# <|im_start|> #}");
    cr_assert_eq(chat_end_token(t, NULL), 11);
    tokenizer_free(t);
}

static void expect_refused(struct small s, const char *message) {
    struct error err = {0};
    cr_assert_null(small_tokenizer(s, &err), "%s", message);
    cr_assert_str_eq(err.message, message);
}

Test(gguf_tokenizer, what_is_not_supported_is_named) {
    struct small s = spm;
    s.model = "t5";
    expect_refused(s, "x.gguf: a tokenizer of kind 't5' is not supported, expected gpt2 or llama");
    s.model = "gpt2";
    s.pre = "kimi-k2";
    expect_refused(s, "x.gguf: words split as 'kimi-k2' are not supported");
    s.pre = "qwen2";
    expect_refused(s, "x.gguf: key 'tokenizer.ggml.merges' is missing");
    s = spm;
    s.n_types--;
    expect_refused(s,
                   "x.gguf: key 'tokenizer.ggml.token_type' has fewer items than there are tokens");
    s = spm;
    s.n_scores--;
    expect_refused(s, "x.gguf: key 'tokenizer.ggml.scores' has fewer items than there are tokens");
    s = spm;
    s.first_score = NAN;
    expect_refused(s, "x.gguf: key 'tokenizer.ggml.scores' has an item that is no number");
    struct gguf_bytes b = {0};
    struct gguf g;
    struct error err = {0};
    put_header(&b, 3, 0, 0);
    cr_assert(gguf_parse(&g, b.data, b.size, "x.gguf", &err));
    cr_assert_null(tokenizer_from_gguf(&g, &err));
    cr_assert_str_eq(err.message, "x.gguf: has no tokenizer (key 'tokenizer.ggml.model')");
    gguf_close(&g);
    free(b.data);
}

Test(gguf_tokenizer, tokens_that_are_no_text_are_refused) {
    static const char *const broken[] = {"\xff", "a\0b"};
    for (size_t i = 0; i < 2; i++) {
        struct gguf_bytes b = {0};
        struct gguf g;
        struct error err = {0};
        put_header(&b, 3, 0, 3);
        put_key_text(&b, "tokenizer.ggml.model", "llama");
        put_key_array(&b, "tokenizer.ggml.tokens", GGUF_STRING, 1);
        put_u64(&b, i ? 3 : 1), put_raw(&b, broken[i], i ? 3 : 1);
        put_key_array(&b, "tokenizer.ggml.scores", GGUF_F32, 1), put_u32(&b, 0);
        cr_assert(gguf_parse(&g, b.data, b.size, "x.gguf", &err), "%s", err.message);
        cr_assert_null(tokenizer_from_gguf(&g, &err));
        cr_assert_str_eq(err.message,
                         "x.gguf: key 'tokenizer.ggml.tokens': item 0 is no UTF-8 text");
        gguf_close(&g);
        free(b.data);
    }
}

// ---- parts --------------------------------------------------------------------------------------

Test(gguf_tokenizer, every_way_to_split_words_compiles) {
    static const char *const names[] = {
        "gpt-2",  "qwen2",       "stablelm2",  "qwen35",       "llama-bpe",      "glm4",   "dbrx",
        "smollm", "tekken",      "gpt-4o",     "deepseek-llm", "deepseek-coder", "falcon", "bloom",
        "viking", "deepseek-v3", "bailingmoe", "seed-coder",   "default"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct pre_tokenizer *p = pre_tokenizer_find(names[i], strlen(names[i]));
        cr_assert_not_null(p, "%s", names[i]);
        for (size_t j = 0; j < PRE_TOKENIZER_STEPS && p->patterns[j]; j++) {
            struct pattern pattern;
            struct error err = {0};
            cr_assert(pattern_compile(&pattern, p->patterns[j], false, names[i], &err), "%s",
                      err.message);
            pattern_free(&pattern);
        }
    }
    cr_assert_null(pre_tokenizer_find("gpt", 3));
    cr_assert_null(pre_tokenizer_find("gpt-2 phi-2", 11));
    cr_assert_null(pre_tokenizer_find("", 0));
}

// The definition in spm.h, pair by pair: O(n^2).
static size_t merge_ref(const struct vocab *v, const float *scores, const char *text, size_t size,
                        size_t *ends) {
    size_t n = size; // the text is ASCII
    for (size_t i = 0; i < n; i++)
        ends[i] = i + 1;
    for (;;) {
        size_t best = n;
        float score = -INFINITY;
        for (size_t i = 0; i + 1 < n; i++) {
            size_t start = i ? ends[i - 1] : 0;
            int32_t id = vocab_find(v, text + start, ends[i + 1] - start);
            if (id >= 0 && scores[id] > score)
                best = i, score = scores[id];
        }
        if (best == n)
            return n;
        memmove(ends + best, ends + best + 1, (n - best - 1) * sizeof *ends);
        n--;
    }
}

Test(gguf_tokenizer, fast_merging_is_the_definition) {
    struct vocab v = {0};
    struct error err = {0};
    float scores[400];
    uint32_t seed = 7;
    for (int32_t i = 0; i < 400; i++) { // all words of a and b of up to 5 letters, and some of 8
        char word[9] = "";
        int n = 1 + i % 8;
        for (int j = 0; j < n; j++)
            word[j] = (seed = seed * 1664525 + 1013904223) >> 31 ? 'a' : 'b';
        cr_assert(vocab_put(&v, word, (size_t)n, i, &err));
        scores[i] = (float)(seed >> 20 & 15); // many are equal
    }
    struct spm_work work = {0};
    for (size_t round = 0; round < 300; round++) {
        char text[120];
        size_t ends[120], n = 1 + round % 120;
        for (size_t i = 0; i < n; i++)
            text[i] = "abbac"[(seed = seed * 1664525 + 1013904223) >> 29 & 3 ? seed >> 30 & 1 : 4];
        size_t parts = merge_ref(&v, scores, text, n, ends), i = 0;
        cr_assert(spm_merge(&v, scores, 8, &work, text, n, &err), "%s", err.message);
        for (uint32_t s = 0; s != SPM_NONE; s = work.symbols[s].next, i++)
            cr_assert_eq(work.symbols[s].start + work.symbols[s].size, ends[i], "round %zu", round);
        cr_assert_eq(i, parts);
    }
    spm_work_free(&work);
    vocab_free(&v);
}
