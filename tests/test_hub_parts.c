// The parts of io/hub that need no server: names, places, checksums.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/hub.h"
#include "io/hub_blob.h"
#include "io/hub_files.h"

static char path[32];

static void make_path(void) {
    strcpy(path, "/tmp/nibble-hub-XXXXXX");
    close(mkstemp(path));
}

static void remove_path(void) {
    unlink(path);
}

static void put(const char *text) {
    FILE *f = fopen(path, "wb");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

TestSuite(hub_parts, .init = make_path, .fini = remove_path);

Test(hub_parts, names_and_aliases) {
    cr_assert_str_eq(hub_repo_of("qwen2.5-3b"), "Qwen/Qwen2.5-3B-Instruct");
    cr_assert_str_eq(hub_repo_of("Llama-3.2-3B"), "meta-llama/Llama-3.2-3B-Instruct");
    cr_assert_str_eq(hub_repo_of("gpt2"), "openai-community/gpt2");
    cr_assert_str_eq(hub_repo_of("org_1/a.b-c_D2"), "org_1/a.b-c_D2");
    for (size_t i = 0; i < hub_n_aliases; i++)
        cr_assert_str_eq(hub_repo_of(hub_aliases[i].repo), hub_aliases[i].repo);
    static const char *const bad[] = {
        "",     "gpt3",   "a/b/c",  "/a",    "a/",   "../b",  "a/..",          "./b",
        "a/.b", "a/b..c", "a--b/c", "a/b c", "a/b?", "a/b%2", "a\\b/c",        "a/b\n",
        "-a/b", "a/b.",   "//",     "a//b",  "~/b",  "a/b#c", "https://x/a/b", "\xc3\xa4/b",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_null(hub_repo_of(bad[i]), "'%s'", bad[i]);
    char longer[110];
    memset(longer, 'x', sizeof longer);
    longer[1] = '/', longer[99] = '\0';
    cr_assert_null(hub_repo_of(longer));
    longer[98] = '\0';
    cr_assert(hub_repo_of(longer));
}

Test(hub_parts, the_cache_is_where_others_look) {
    static const struct {
        const char *name, *value, *below;
    } places[] = {
        {"HOME", "/h", "/h/.cache/huggingface/hub/"},
        {"XDG_CACHE_HOME", "/x", "/x/huggingface/hub/"},
        {"HF_HOME", "/f", "/f/hub/"},
        {"HF_HUB_CACHE", "/c", "/c/"},
        {"NIBBLE_MODELS", "/n", "/n/"},
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        unsetenv(places[i].name);
    struct hub_cache cache;
    struct error err = {0};
    cr_assert_not(hub_cache_open(&cache, "org/tiny", &err));
    hub_cache_close(&cache);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) { // each outranks those before
        setenv(places[i].name, places[i].value, 1);
        cr_assert(hub_cache_open(&cache, "org/tiny", &err));
        char expected[128];
        snprintf(expected, sizeof expected, "%smodels--org--tiny", places[i].below);
        cr_assert_str_eq(cache.folder, expected);
        hub_cache_close(&cache);
    }
}

Test(hub_parts, checksums_of_known_bytes) {
    struct error err = {0};
    put("abc");
    cr_assert(hub_blob_matches(
        path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", &err));
    cr_assert_not(hub_blob_matches(
        path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ae", &err));
    put("hello\n"); // git hash-object
    cr_assert(hub_blob_matches(path, "ce013625030ba8dba906f756967f9e9ca394464a", &err));
    put("");
    cr_assert(hub_blob_matches(path, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", &err));
    cr_assert_str_eq(err.message, "");
    cr_assert_not(hub_blob_matches("/nowhere", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", &err));
    cr_assert(strstr(err.message, "/nowhere"), "%s", err.message);
}

Test(hub_parts, what_a_head_promises) {
    struct error err = {0};
    struct hub_blob blob;
    struct hub_reply r = {.status = 302, .length = 17, .linked_size = "5"};
    strcpy(r.etag, "\"something else\"");
    strcpy(r.linked_etag, "\"BA7816BF8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"");
    cr_assert(hub_blob_of_reply(&r, "u", &blob, &err), "%s", err.message);
    cr_assert_str_eq(blob.hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    cr_assert_eq(blob.size, 5);
    strcpy(r.linked_size, "-5");
    cr_assert(hub_blob_of_reply(&r, "u", &blob, &err) && blob.size == 0); // a redirect's length
    r.status = 200;
    cr_assert(hub_blob_of_reply(&r, "u", &blob, &err) && blob.size == 17);
    static const char *const bad[] = {
        "", "\"\"", "W/", "\"ba78\"", "\"ba7816bf", "\"zz013625030ba8dba906f756967f9e9ca394464a\""};
    *r.linked_etag = '\0';
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        strcpy(r.etag, bad[i]);
        cr_assert_not(hub_blob_of_reply(&r, "u", &blob, &err), "%s", bad[i]);
    }
}

static bool shards_of(const char *text, struct hub_names *names, struct error *err) {
    cJSON *index = json_parse(text, strlen(text), "i", err);
    cr_assert(index, "%s", err->message);
    bool ok = hub_files_shards(index, "i", names, err);
    cJSON_Delete(index);
    return ok;
}

Test(hub_parts, an_index_names_each_shard_once) {
    struct error err = {0};
    struct hub_names names = {0};
    cr_assert(shards_of("{\"weight_map\":{\"x\":\"b\",\"y\":\"a\",\"z\":\"b\"}}", &names, &err));
    cr_assert(names.n == 2 && hub_names_have(&names, "a") && hub_names_have(&names, "b"));
    cr_assert_str_eq(names.name[0], "b");
    hub_names_free(&names);
}

Test(hub_parts, an_index_must_make_sense) {
    static const char *const cases[][2] = {
        {"{\"weight_map\":{\"a\":7}}", "i: 'a' is in '(not a string)', expected a file name"},
        {"{\"weight_map\":{}}", "i: no 'weight_map' of tensors to files"},
        {"{\"weight_map\":[\"a\"]}", "i: no 'weight_map' of tensors to files"},
        {"[]", "i: no 'weight_map' of tensors to files"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = {0};
        struct hub_names names = {0};
        cr_assert_not(shards_of(cases[i][0], &names, &err));
        cr_assert_str_eq(err.message, cases[i][1]);
        hub_names_free(&names);
    }
}

Test(hub_parts, a_false_index_cannot_keep_us_busy) {
    struct error err = {0};
    struct hub_names names = {0};
    static char text[1 << 20];
    size_t n = (size_t)snprintf(text, sizeof text, "{\"weight_map\":{\"x\":\"s\"");
    for (int i = 0; i < 20000; i++)
        n += (size_t)snprintf(&text[n], sizeof text - n, ",\"%d\":\"s%d\"", i, i);
    snprintf(&text[n], sizeof text - n, "}}");
    cr_assert_not(shards_of(text, &names, &err));
    cr_assert_str_eq(err.message, "i: more than 2000 shards");
    hub_names_free(&names);
}
