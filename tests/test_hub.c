// io/hub against a hub on this machine that drops, lies and refuses.
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/file.h"
#include "fake_hub.h"
#include "io/hub.h"

static struct fake_hub hub;

static void start(void) {
    fake_hub_start(&hub);
}

static void stop(void) {
    fake_hub_stop(&hub);
}

TestSuite(hub, .init = start, .fini = stop, .timeout = 60);

#define SNAPSHOT "snapshots/" FAKE_COMMIT "/"

static void assert_file(const char *name) {
    struct error err = {0};
    struct fake_file *f = fake_hub_find(&hub, name);
    char relative[256], link[256] = "", target[128];
    snprintf(relative, sizeof relative, SNAPSHOT "%s", name);
    snprintf(target, sizeof target, "../../blobs/%s", f->hash);
    cr_assert(readlink(fake_hub_cache(&hub, relative), link, sizeof link - 1) > 0, "%s", name);
    cr_assert_str_eq(link, target);
    size_t size;
    char *bytes = file_read(fake_hub_cache(&hub, relative), 1 << 20, &size, &err);
    cr_assert(bytes && size == f->size && memcmp(bytes, f->bytes, size) == 0, "%s", err.message);
    free(bytes);
}

static void assert_downloads(void) {
    static const char *const files[] = {"config.json", "tokenizer.json",
                                        "merges.txt",  "model.safetensors.index.json",
                                        FAKE_SHARD_1,  FAKE_SHARD_2};
    struct error err = {0};
    char *folder = hub_resolve("org/tiny", NULL, NULL, &err);
    cr_assert(folder, "%s", err.message);
    cr_assert_str_eq(folder, fake_hub_cache(&hub, "snapshots/" FAKE_COMMIT));
    free(folder);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        assert_file(files[i]);
    cr_assert_eq(fake_hub_entries(&hub, SNAPSHOT), 6);
    cr_assert_eq(fake_hub_entries(&hub, "blobs"), 6);
    char *commit = file_read(fake_hub_cache(&hub, "refs/main"), 100, NULL, &err);
    cr_assert_str_eq(commit, FAKE_COMMIT);
    free(commit);
}

// Fails with all of these in the message, and leaves nothing that a later run would take for a
// model.
static void assert_fails(const char *name, const char *a, const char *b) {
    struct error err = {0};
    char *folder = hub_resolve(name, NULL, NULL, &err);
    cr_assert_null(folder);
    cr_assert(strstr(err.message, a) && strstr(err.message, b), "%s", err.message);
    cr_assert_not(file_exists(fake_hub_cache(&hub, "refs/main")));
    setenv("HF_HUB_OFFLINE", "1", 1);
    cr_assert_null(hub_resolve("org/tiny", NULL, NULL, &err));
    unsetenv("HF_HUB_OFFLINE");
}

static void put_text(const char *path, const char *text, size_t size) {
    struct error err = {0};
    cr_assert(folder_create_for(path, &err), "%s", err.message);
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(text, 1, size, f) == size && fclose(f) == 0);
}

static void put_incomplete(const char *name, const char *bytes, size_t size) {
    char relative[128];
    snprintf(relative, sizeof relative, "blobs/%s.incomplete", fake_hub_find(&hub, name)->hash);
    put_text(fake_hub_cache(&hub, relative), bytes, size);
}

static const char *range_of(const char *file, size_t nth) {
    static char buffer[64];
    struct http_request r = http_nth(&hub.cdn, "GET", file, nth);
    return http_header(&r, "Range", buffer, sizeof buffer);
}

// ---- names -------------------------------------------------------------------------------------

Test(hub, an_unknown_name_lists_the_known_ones) {
    assert_fails("qwen9", "model 'qwen9'", "smollm2-1.7b");
    assert_fails("../../etc/passwd", "model '../../etc/passwd'", "org/name");
    cr_assert_eq(http_count(&hub.hub, "", ""), 0);
}

// ---- the way it should go ----------------------------------------------------------------------

Test(hub, downloads_what_a_model_needs_and_no_more) {
    assert_downloads();
    cr_assert_eq(http_count(&hub.cdn, "", ""), 2);
    cr_assert_eq(http_count(&hub.cdn, "GET", FAKE_SHARD_1), 1);
    cr_assert_eq(http_count(&hub.cdn, "GET", FAKE_SHARD_2), 1);
    cr_assert_eq(http_count(&hub.hub, "", "pytorch"), 0);
    cr_assert_eq(http_count(&hub.hub, "", "original"), 0);
    cr_assert_eq(http_count(&hub.hub, "", "evil"), 0);
    cr_assert_str_eq(range_of(FAKE_SHARD_1, 0), "");
}

Test(hub, one_file_is_preferred_to_shards) {
    fake_hub_put(&hub, "model.safetensors", "weights", 7, true);
    struct error err = {0};
    char *folder = hub_resolve("org/tiny", NULL, NULL, &err);
    cr_assert(folder, "%s", err.message);
    assert_file("model.safetensors");
    cr_assert_eq(http_count(&hub.cdn, "", ""), 1);
    cr_assert_eq(http_count(&hub.hub, "", "index"), 0);
    free(folder);
}

Test(hub, a_second_run_asks_nothing) {
    assert_downloads();
    size_t before = http_count(&hub.hub, "", "");
    assert_downloads();
    setenv("HF_HUB_OFFLINE", "1", 1);
    assert_downloads();
    cr_assert_eq(http_count(&hub.hub, "", ""), before);
    cr_assert_eq(http_count(&hub.cdn, "", ""), 2);
}

struct seen {
    uint64_t first_shard, calls;
    bool ended;
};

static void watch(void *user, const char *file, uint64_t done, uint64_t total) {
    struct seen *s = user;
    s->calls++;
    if (strcmp(file, FAKE_SHARD_1) != 0)
        return;
    cr_assert(total == FAKE_SHARD_SIZE && done >= s->first_shard && done <= total);
    s->first_shard = done;
}

Test(hub, progress_ends_at_the_total) {
    struct error err = {0};
    struct seen seen = {0};
    char *folder = hub_resolve("org/tiny", watch, &seen, &err);
    cr_assert(folder, "%s", err.message);
    cr_assert_eq(seen.first_shard, FAKE_SHARD_SIZE);
    free(folder);
}

static void assert_token(const char *expected) {
    char buffer[128];
    for (size_t i = 0; i < http_count(&hub.hub, "", ""); i++) {
        struct http_request r = http_nth(&hub.hub, "", "", i);
        cr_assert_str_eq(http_header(&r, "Authorization", buffer, sizeof buffer), expected);
    }
    for (size_t i = 0; i < http_count(&hub.cdn, "", ""); i++) {
        struct http_request r = http_nth(&hub.cdn, "", "", i);
        cr_assert_str_eq(http_header(&r, "Authorization", buffer, sizeof buffer), "");
    }
}

Test(hub, the_token_stays_with_its_host) {
    setenv("HF_TOKEN", "hf_secret", 1);
    assert_downloads();
    cr_assert_eq(http_count(&hub.cdn, "", ""), 2);
    assert_token("Bearer hf_secret");
}

Test(hub, the_token_may_lie_in_a_file) {
    char path[128];
    snprintf(path, sizeof path, "%s/token", hub.folder);
    put_text(path, "hf_filed\n", 9);
    assert_downloads();
    assert_token("Bearer hf_filed");
}

Test(hub, a_token_cannot_add_headers) {
    setenv("HF_TOKEN", "hf_x\r\nX-Evil: 1", 1);
    assert_fails("org/tiny", "HF_TOKEN", "0x0d");
    cr_assert_eq(http_count(&hub.hub, "", ""), 0);
}

Test(hub, a_head_follows_redirects_within_the_host) {
    hub.relative_redirect = true;
    assert_downloads();
}

Test(hub, a_file_of_unknown_size) {
    hub.no_size = true;
    assert_downloads();
}

// ---- dropped and resumed -----------------------------------------------------------------------

Test(hub, a_dropped_connection_is_resumed) {
    hub.n_drops = 2;
    hub.drop_after = 100000;
    assert_downloads();
    cr_assert_eq(http_count(&hub.cdn, "", FAKE_SHARD_1), 3);
    cr_assert_str_eq(range_of(FAKE_SHARD_1, 1), "bytes=100000-");
    cr_assert_str_eq(range_of(FAKE_SHARD_1, 2), "bytes=100000-");
}

Test(hub, a_server_without_ranges_sends_all_again) {
    hub.n_drops = 1;
    hub.drop_after = 100000;
    hub.ignore_range = true;
    assert_downloads();
    cr_assert_str_eq(range_of(FAKE_SHARD_1, 1), "bytes=100000-");
}

Test(hub, it_gives_up_and_the_next_run_goes_on) {
    hub.n_drops = 1000;
    hub.drop_after = 1000;
    assert_fails("org/tiny", FAKE_SHARD_1, "after 1000 bytes; run again to go on from there");
    cr_assert_eq(http_count(&hub.cdn, "", ""), 5);
    hub.n_drops = 0;
    assert_downloads();
    cr_assert_str_eq(range_of(FAKE_SHARD_1, 5), "bytes=1000-");
    // Only what was missing was asked for again.
    cr_assert_eq(http_count(&hub.hub, "", "config.json"), 2); // HEAD and GET
}

Test(hub, progress_starts_the_count_of_failures_anew) {
    hub.at_most = 45000; // seven connections for a shard, two more than without progress
    fake_hub_put(&hub, "model.safetensors", fake_hub_find(&hub, FAKE_SHARD_1)->bytes,
                 FAKE_SHARD_SIZE, true);
    struct error err = {0};
    char *folder = hub_resolve("org/tiny", NULL, NULL, &err);
    cr_assert(folder, "%s", err.message);
    cr_assert_eq(http_count(&hub.cdn, "GET", "model.safetensors"), 7);
    assert_file("model.safetensors");
    free(folder);
}

Test(hub, another_programs_incomplete_file_is_resumed) {
    put_incomplete(FAKE_SHARD_2, fake_hub_find(&hub, FAKE_SHARD_2)->bytes, 250000);
    assert_downloads();
    cr_assert_str_eq(range_of(FAKE_SHARD_2, 0), "bytes=250000-");
}

Test(hub, a_wrong_incomplete_file_is_started_over) {
    put_incomplete(FAKE_SHARD_1, "wrong", 5);
    char *longer = calloc(1, FAKE_SHARD_SIZE + 1);
    put_incomplete(FAKE_SHARD_2, longer, FAKE_SHARD_SIZE + 1);
    free(longer);
    assert_downloads();
    cr_assert_str_eq(range_of(FAKE_SHARD_1, 0), "bytes=5-");
    cr_assert_str_eq(range_of(FAKE_SHARD_1, 1), "");
    cr_assert_str_eq(range_of(FAKE_SHARD_2, 0), "");
}

Test(hub, a_whole_incomplete_file_is_only_checked) {
    put_incomplete(FAKE_SHARD_1, fake_hub_find(&hub, FAKE_SHARD_1)->bytes, FAKE_SHARD_SIZE);
    assert_downloads();
    cr_assert_eq(http_count(&hub.cdn, "", FAKE_SHARD_1), 0);
}

Test(hub, an_unsatisfiable_range_is_started_over) {
    hub.no_size = true;
    char *longer = calloc(1, FAKE_SHARD_SIZE + 1);
    put_incomplete(FAKE_SHARD_1, longer, FAKE_SHARD_SIZE + 1);
    free(longer);
    assert_downloads();
    cr_assert_str_eq(range_of(FAKE_SHARD_1, 1), "");
}

Test(hub, the_wrong_range_is_refused) {
    hub.lie_about_range = true;
    put_incomplete(FAKE_SHARD_1, fake_hub_find(&hub, FAKE_SHARD_1)->bytes, 10);
    assert_fails("org/tiny", "sent 'bytes 11-299999/300000'", "expected the bytes from 10 on");
}

Test(hub, half_a_model_is_not_used) {
    // As an interrupted program leaves it: the reference and the links, not all bytes.
    assert_downloads();
    char blob[128];
    snprintf(blob, sizeof blob, "blobs/%s", fake_hub_find(&hub, FAKE_SHARD_2)->hash);
    cr_assert_eq(unlink(fake_hub_cache(&hub, blob)), 0);
    put_incomplete(FAKE_SHARD_2, "half", 4);
    struct error err = {0};
    setenv("HF_HUB_OFFLINE", "1", 1);
    cr_assert_null(hub_resolve("org/tiny", NULL, NULL, &err));
    cr_assert(strstr(err.message, "no " FAKE_SHARD_2) && strstr(err.message, "HF_HUB_OFFLINE"),
              "%s", err.message);
    unsetenv("HF_HUB_OFFLINE");
    assert_downloads();
    cr_assert_eq(http_count(&hub.cdn, "", FAKE_SHARD_1), 1);
}

Test(hub, a_blob_cut_short_is_fetched_again) {
    assert_downloads();
    char blob[128];
    snprintf(blob, sizeof blob, "blobs/%s", fake_hub_find(&hub, FAKE_SHARD_2)->hash);
    cr_assert_eq(truncate(fake_hub_cache(&hub, blob), 5), 0);
    cr_assert_eq(unlink(fake_hub_cache(&hub, SNAPSHOT FAKE_SHARD_2)), 0);
    assert_downloads();
}

Test(hub, a_reference_is_a_commit) {
    assert_downloads();
    struct error err = {0};
    put_text(fake_hub_cache(&hub, "refs/main"), "moved", 5);
    cr_assert_eq(symlink(FAKE_COMMIT, fake_hub_cache(&hub, "snapshots/moved")), 0);
    setenv("HF_HUB_OFFLINE", "1", 1);
    cr_assert_null(hub_resolve("org/tiny", NULL, NULL, &err));
}

Test(hub, two_processes_download_each_file_once) {
    pid_t child[2];
    for (int i = 0; i < 2; i++)
        if ((child[i] = fork()) == 0) {
            struct error err = {0};
            _exit(hub_resolve("org/tiny", NULL, NULL, &err) ? 0 : 1);
        }
    for (int i = 0; i < 2; i++) {
        int status;
        cr_assert(waitpid(child[i], &status, 0) == child[i] && status == 0);
    }
    assert_downloads();
    cr_assert_eq(http_count(&hub.cdn, "GET", FAKE_SHARD_1), 1);
    cr_assert_eq(http_count(&hub.cdn, "GET", FAKE_SHARD_2), 1);
}

// ---- wrong bytes, wrong answers ----------------------------------------------------------------

Test(hub, wrong_bytes_leave_nothing_behind) {
    hub.corrupt = true;
    assert_fails("org/tiny", FAKE_SHARD_1, "checksum");
    cr_assert_eq(fake_hub_entries(&hub, "blobs"), 4); // the small ones
    cr_assert_neq(access(fake_hub_cache(&hub, SNAPSHOT FAKE_SHARD_1), F_OK), 0);
}

Test(hub, more_bytes_than_promised_are_refused) {
    hub.understate = 1000;
    assert_fails("org/tiny", FAKE_SHARD_1, "more than the 299000 bytes that were promised");
}

Test(hub, a_checksum_is_required) {
    strcpy(fake_hub_find(&hub, "config.json")->hash, "../../../evil");
    assert_fails("org/tiny", "ETag 'W/\"../../../evil\"'", "expected a sha256 or a git sha1");
}

static void fault(const char *path, int status, int times, const char *headers) {
    hub.fault_path = path;
    hub.fault_status = status;
    hub.n_faults = times;
    hub.fault_headers = headers;
}

Test(hub, gated_models_say_how) {
    fault("/api/", 401, -1, NULL);
    char way_out[160];
    snprintf(way_out, sizeof way_out, "accept the licence at %s/org/tiny and set HF_TOKEN",
             hub.hub.url);
    assert_fails("org/tiny", "HTTP 401", way_out);
    fault("/resolve/", 403, -1, NULL);
    setenv("HF_TOKEN", "hf_other", 1);
    assert_fails("org/tiny", way_out, "the token in use has no access");
    cr_assert_eq(fake_hub_entries(&hub, "snapshots"), 0);
    cr_assert_eq(http_count(&hub.hub, "", ""), 3); // neither is worth repeating
}

Test(hub, a_model_that_is_not_there) {
    assert_fails("org/huge", "/api/models/org/huge/revision/main: HTTP 404", "no such model");
    cr_assert_eq(fake_hub_entries(&hub, ".."), 0);
}

Test(hub, too_many_requests_are_repeated_in_time) {
    fault("/api/", 429, 2, "Retry-After: 0\r\n");
    assert_downloads();
    cr_assert_eq(http_count(&hub.hub, "", "/api/"), 3);
}

Test(hub, too_many_requests_are_given_up) {
    fault("/cdn/", 429, -1, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n");
    assert_fails("org/tiny", "HTTP 429 after 5 tries", "set HF_TOKEN");
    cr_assert_eq(http_count(&hub.cdn, "", ""), 5);
}

Test(hub, server_errors_are_repeated) {
    fault("/cdn/", 503, 1, NULL);
    assert_downloads();
    fault("/api/", 500, -1, "Retry-After: 0\r\n");
    cr_assert_eq(unlink(fake_hub_cache(&hub, "refs/main")), 0);
    assert_fails("org/tiny", "HTTP 500 after 5 tries", "/api/");
}

Test(hub, error_pages_are_not_data) {
    fault("/cdn/", 404, -1, NULL);
    assert_fails("org/tiny", "HTTP 404", FAKE_SHARD_1);
    char *page = NULL;
    struct error err = {0};
    char relative[128];
    snprintf(relative, sizeof relative, "blobs/%s.incomplete",
             fake_hub_find(&hub, FAKE_SHARD_1)->hash);
    size_t size = 9;
    page = file_read(fake_hub_cache(&hub, relative), 100, &size, &err);
    cr_assert_eq(size, 0);
    free(page);
}

Test(hub, senseless_lists_are_refused) {
    static const struct {
        const char *api, *message;
    } cases[] = {
        {"<html>", "not JSON"},
        {"{}", "no 'sha'"},
        {"{\"sha\":\"../../../x\",\"siblings\":[]}", "no 'sha'"},
        {"{\"sha\":\"" FAKE_COMMIT "\"}", "'siblings'"},
        {"{\"sha\":7,\"siblings\":[]}", "'sha' is a number"},
        {"{\"sha\":\"" FAKE_COMMIT "\",\"siblings\":[]}", "no model.safetensors"},
        {"{\"sha\":\"" FAKE_COMMIT "\",\"siblings\":[{\"rfilename\":\"model.safetensors\"},7,{}]}",
         "no config.json"},
        {"{\"sha\":\"" FAKE_COMMIT "\",\"siblings\":[{\"rfilename\":\"model.safetensors\"},"
         "{\"rfilename\":\"config.json\"},{\"rfilename\":\"vocab.json\"}]}",
         "no tokenizer.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hub.api = cases[i].api;
        assert_fails("org/tiny", cases[i].message, "");
    }
}

Test(hub, an_index_may_not_leave_the_folder) {
    static const char *const names[] = {"../../evil", "/etc/passwd", "..",  "a/b.safetensors", "",
                                        "x?y",        ".hidden",     "a b", "%2e%2e"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[256];
        int n = snprintf(text, sizeof text, "{\"weight_map\":{\"a\":\"%s\"}}", names[i]);
        fake_hub_put(&hub, "model.safetensors.index.json", text, (size_t)n, false);
        // Another commit's index, for this test: forget the one that was fetched.
        unlink(fake_hub_cache(&hub, SNAPSHOT "model.safetensors.index.json"));
        assert_fails("org/tiny", "expected a file name", "model.safetensors.index.json");
    }
    cr_assert_eq(http_count(&hub.hub, "", "evil"), 0);
    cr_assert_eq(http_count(&hub.cdn, "", ""), 0);
}

Test(hub, an_index_names_what_the_repository_has) {
    static const char text[] = "{\"weight_map\":{\"a\":\"gone.safetensors\"}}";
    fake_hub_put(&hub, "model.safetensors.index.json", text, sizeof text - 1, false);
    assert_fails("org/tiny", "names 'gone.safetensors', which the repository does not have", "");
    cr_assert_eq(http_count(&hub.cdn, "", ""), 0);
}

// ---- offline, and places -----------------------------------------------------------------------

Test(hub, offline_without_the_model) {
    setenv("HF_HUB_OFFLINE", "1", 1);
    struct error err = {0};
    cr_assert_null(hub_resolve("org/tiny", NULL, NULL, &err));
    cr_assert(strstr(err.message, "models--org--tiny: nothing there; HF_HUB_OFFLINE is set"), "%s",
              err.message);
    cr_assert_eq(http_count(&hub.hub, "", ""), 0);
}

Test(hub, no_network) {
    setenv("HF_ENDPOINT", "http://127.0.0.1:1", 1);
    assert_fails("org/tiny", "http://127.0.0.1:1/api/models/org/tiny/revision/main", "HF_HUB_OFF");
}

Test(hub, only_http_is_spoken) {
    setenv("HF_ENDPOINT", "file:///etc", 1);
    assert_fails("org/tiny", "HF_ENDPOINT is 'file:///etc'", "https://");
    setenv("HF_ENDPOINT", hub.hub.url, 1);
    hub.redirect_to = "file:///etc/passwd?";
    assert_fails("org/tiny", FAKE_SHARD_1, "rotocol");
}

Test(hub, redirects_that_never_end) {
    fault("/api/", 302, -1, "Location: /api/again\r\n");
    assert_fails("org/tiny", "HTTP 302, expected 200", "");
    cr_assert_eq(http_count(&hub.hub, "", "/api/"), 9);
}

Test(hub, an_unwritable_cache) {
    char path[128];
    snprintf(path, sizeof path, "%s/file", hub.folder);
    put_text(path, "", 0);
    setenv("NIBBLE_MODELS", path, 1);
    assert_fails("org/tiny", path, "cannot create the folder");
}

Test(hub, a_full_disk) {
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = 200000;
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_fails("org/tiny", ".incomplete: cannot write after 200000 of 300000 bytes", "too large");
}
