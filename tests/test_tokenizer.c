// text/tokenizer: ids and texts recorded from the reference implementation.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "io/json.h"
#include "shared.h"
#include "text/tokenizer.h"

static struct tokenizer *load(const char *folder) {
    struct error err = {0};
    struct tokenizer *t = tokenizer_load(folder, &err);
    cr_assert(t, "%s", err.message);
    return t;
}

static char *read_text(const char *path, size_t *size) {
    struct error err = {0};
    char *text = file_read(path, (size_t)64 << 20, size, &err);
    cr_assert(text, "%s", err.message);
    return text;
}

static struct token_list encode(const struct tokenizer *t, const char *text, size_t size) {
    struct error err = {0};
    struct token_list ids = {0};
    cr_assert(tokenizer_encode(t, text, size, &ids, &err), "%s", err.message);
    return ids;
}

static void expect_ids(const struct tokenizer *t, const char *text, size_t size,
                       const cJSON *expected) {
    struct token_list ids = encode(t, text, size);
    cr_expect_eq(ids.n, (size_t)cJSON_GetArraySize(expected), "%zu tokens, expected %d of '%.60s'",
                 ids.n, cJSON_GetArraySize(expected), text);
    const cJSON *id;
    size_t i = 0;
    cJSON_ArrayForEach (id, expected) {
        if (i < ids.n && ids.ids[i] != (int32_t)id->valuedouble) {
            cr_expect_fail("token %zu of '%.60s' is %d, expected %g", i, text, ids.ids[i],
                           id->valuedouble);
            break;
        }
        i++;
    }
    token_list_free(&ids);
}

// Streaming gives the same text as decoding at once, and no piece of it ends within a character.
static void expect_stream(const struct tokenizer *t, const struct token_list *ids,
                          const char *expected, size_t size) {
    struct token_stream s;
    struct error err = {0};
    size_t at = 0;
    token_stream_init(&s, t);
    for (size_t i = 0; i <= ids->n; i++) {
        const char *text =
            i < ids->n ? token_stream_push(&s, ids->ids[i], &err) : token_stream_flush(&s, &err);
        cr_assert(text, "%s", err.message);
        cr_assert_leq(at + s.text.size, size);
        cr_assert(memcmp(expected + at, text, s.text.size) == 0);
        at += s.text.size;
        cr_assert(at == size || (expected[at] & 0xc0) != 0x80, "half a character");
    }
    cr_assert_eq(at, size);
    token_stream_free(&s);
}

// cJSON ends a string at a NUL, so the files' NULs travel as U+E000 (in none of the cases).
static void hide_nuls(char *json) {
    for (char *nul; (nul = strstr(json, "\\u0000"));)
        memcpy(nul, "\\ue000", 6);
}

static size_t restore_nuls(char *text) {
    char *out = text;
    for (const char *p = text; *p; p++) {
        bool hidden = strncmp(p, "\xee\x80\x80", 3) == 0;
        *out++ = hidden ? 0 : *p;
        p += hidden ? 2 : 0;
    }
    return (size_t)(out - text);
}

static void expect_case(const struct tokenizer *t, const cJSON *line) {
    char *text = json_get(line, "text")->valuestring;
    char *decoded = json_get(line, "decoded")->valuestring;
    size_t size = restore_nuls(text), decoded_size = restore_nuls(decoded);
    expect_ids(t, text, size, json_get(line, "ids"));
    struct token_list ids = encode(t, text, size);
    struct error err = {0};
    size_t n;
    char *back = tokenizer_decode(t, ids.ids, ids.n, false, &n, &err);
    cr_assert(back, "%s", err.message);
    cr_expect(n == decoded_size && memcmp(back, decoded, n) == 0, "'%s', expected '%s'", back,
              decoded);
    free(back);
    back = tokenizer_decode(t, ids.ids, ids.n, true, &n, &err);
    expect_stream(t, &ids, back, n);
    free(back);
    token_list_free(&ids);
}

Test(tokenizer, ids_equal_the_recorded_ones) {
    static const struct {
        const char *name, *folder;
    } folders[] = {
        {"gpt2", "data/tokenizers/gpt2"},
        {"qwen2.5", "data/tokenizers/qwen2.5"},
        {"phi-3", "data/tokenizers/phi-3"},
        {"stories260K", "data/models/stories260K"},
        {"llama-untied-f16-sharded", "fixtures/llama-untied-f16-sharded"},
    };
    char *cases = read_text(shared_path("data/tokenizers/cases.jsonl"), NULL), *rest = NULL;
    struct tokenizer *t = NULL;
    const char *loaded = "";
    size_t n = 0;
    hide_nuls(cases);
    for (char *l = strtok_r(cases, "\n", &rest); l; l = strtok_r(NULL, "\n", &rest), n++) {
        cJSON *line = cJSON_Parse(l);
        const char *name = json_get(line, "tokenizer")->valuestring;
        for (size_t i = 0; i < 5 && strcmp(loaded, name) != 0; i++) {
            if (strcmp(folders[i].name, name) != 0)
                continue;
            tokenizer_free(t);
            t = load(shared_path(folders[i].folder));
            loaded = folders[i].name;
        }
        expect_case(t, line);
        cJSON_Delete(line);
    }
    cr_assert_eq(n, 5 * 152);
    tokenizer_free(t);
    free(cases);
}

static void expect_fixture(const char *folder) {
    char path[1100];
    struct error err = {0};
    struct tokenizer *t = load(folder);
    size_t size;
    snprintf(path, sizeof path, "%s/text.txt", folder);
    char *text = read_text(path, &size);
    snprintf(path, sizeof path, "%s/expected.json", folder);
    cJSON *expected = json_parse_file(path, &err);
    expect_ids(t, text, size, json_get(expected, "tokens"));
    cJSON_Delete(expected);
    free(text);
    tokenizer_free(t);
}

Test(tokenizer, ids_of_the_fixtures_texts) {
    expect_fixture(shared_path("fixtures/gpt2-f32"));
    expect_fixture(shared_path("fixtures/llama-untied-f16-sharded"));
    expect_fixture(shared_path("fixtures/mistral-gqa-f32"));
    expect_fixture(shared_path("fixtures/qwen2-tied-bf16"));
    expect_fixture(shared_path("fixtures/qwen3-qknorm-bf16"));
}

// Texts separated by a line, and one line of ids for each.
static void expect_vocab_test(const char *folder, const char *inputs, const char *outputs) {
    static const char separator[] = "\n__ggml_vocab_test__\n";
    struct tokenizer *t = load(folder);
    char *in = read_text(inputs, NULL), *out = read_text(outputs, NULL), *text = in, *line = out;
    size_t n = 0;
    for (; text && line; n++) {
        char *next = strstr(text, separator), *end = strchr(line, '\n');
        size_t size = next ? (size_t)(next - text) : strlen(text);
        cJSON *expected = cJSON_CreateArray();
        for (char *p = line, *q; strtol(p, &q, 10), q != p && (!end || q <= end); p = q)
            cJSON_AddItemToArray(expected, cJSON_CreateNumber((double)strtol(p, NULL, 10)));
        expect_ids(t, text, size, expected);
        cJSON_Delete(expected);
        text = next ? next + sizeof separator - 1 : NULL;
        line = end ? end + 1 : NULL;
    }
    cr_assert_geq(n, 46);
    free(in);
    free(out);
    tokenizer_free(t);
}

Test(tokenizer, ids_equal_those_another_engine_tests) {
    expect_vocab_test(shared_path("data/tokenizers/gpt2"),
                      shared_path("data/tokenizers/ggml-vocab-gpt-2.gguf.inp"),
                      shared_path("data/tokenizers/ggml-vocab-gpt-2.gguf.out"));
    expect_vocab_test(shared_path("data/tokenizers/phi-3"),
                      shared_path("data/tokenizers/ggml-vocab-phi-3.gguf.inp"),
                      shared_path("data/tokenizers/ggml-vocab-phi-3.gguf.out"));
}

// The canonical WikiText-2 test text: lines joined by two newlines, blank ones empty.
static char *join_lines(const char *text, size_t *size) {
    char *out = malloc(3 * strlen(text)), *p = out;
    bool first = true;
    for (const char *end; (end = strchr(text, '\n')); text = end + 1, first = false) {
        size_t n = (size_t)(end - text);
        if (!first)
            p = stpcpy(p, "\n\n");
        if (strspn(text, " ") < n) {
            memcpy(p, text, n + 1);
            p += n + 1;
        }
    }
    *size = (size_t)(p - out);
    return out;
}

Test(tokenizer, whole_texts_have_the_known_number_of_tokens) {
    struct tokenizer *t = load(shared_path("data/tokenizers/gpt2"));
    char *text = read_text(shared_path("data/text/wikitext2-test.raw"), NULL);
    size_t size;
    char *joined = join_lines(text, &size);
    struct token_list ids = encode(t, joined, size);
    cr_expect_eq(ids.n, 287644);
    token_list_free(&ids);
    tokenizer_free(t);
    free(text);
    free(joined);
    t = load(shared_path("data/models/books-qwen2"));
    text = read_text(shared_path("data/text/books-eval.txt"), &size);
    ids = encode(t, text, size);
    cr_expect_eq(ids.n, 98167);
    expect_stream(t, &ids, text, size);
    token_list_free(&ids);
    tokenizer_free(t);
    free(text);
}

static void link_file(const char *folder, const char *from, const char *name) {
    char path[1100], absolute[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    cr_assert(realpath(from, absolute) && symlink(absolute, path) == 0);
}

Test(tokenizer, vocab_json_and_merges_txt_equal_the_tokenizer_json) {
    const char *vocab = shared_path("data/tokenizers/gpt2/vocab.json");
    char folder[] = "/tmp/nibble-test-XXXXXX", path[64];
    cr_assert(mkdtemp(folder));
    link_file(folder, vocab, "vocab.json");
    link_file(folder, shared_path("data/tokenizers/gpt2/merges.txt"), "merges.txt");
    struct tokenizer *old = load(folder), *new = load(shared_path("data/tokenizers/gpt2"));
    size_t size;
    char *text = read_text(shared_path("data/text/books-eval.txt"), &size);
    struct token_list a = encode(old, text, size), b = encode(new, text, size);
    cr_assert_eq(a.n, b.n);
    cr_assert(memcmp(a.ids, b.ids, a.n * sizeof *a.ids) == 0);
    cr_assert_eq(tokenizer_id(old, "<|endoftext|>"), 50256);
    cr_assert(tokenizer_is_special(old, 50256) && !tokenizer_is_special(old, 0));
    token_list_free(&a);
    token_list_free(&b);
    tokenizer_free(old);
    tokenizer_free(new);
    free(text);
    unlink(strcat(strcpy(path, folder), "/vocab.json"));
    unlink(strcat(strcpy(path, folder), "/merges.txt"));
    rmdir(folder);
}

// One word of a megabyte, for each way of splitting: no quadratic loop, no match limit.
Test(tokenizer, a_megabyte_of_one_character_takes_no_longer, .timeout = 30) {
    static const char *const folders[] = {"data/tokenizers/gpt2", "data/tokenizers/qwen2.5",
                                          "data/tokenizers/phi-3"};
    size_t size = 1 << 20;
    char *text = malloc(size + 1);
    for (size_t i = 0; i < 3; i++) {
        char path[1024];
        struct tokenizer *t = load(shared_path_in(path, sizeof path, folders[i]));
        for (const char *c = "a \n0\xcc"; *c; c++) {
            memset(text, *c, size);
            struct token_list ids = encode(t, text, size);
            cr_expect_leq(ids.n, *c == '\xcc' ? 3 * size : size + 1);
            token_list_free(&ids);
        }
        tokenizer_free(t);
    }
    free(text);
}
