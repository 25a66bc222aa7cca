// tools/synth: the files of a synthetic checkpoint, and that it is written whole or not at all.
#include <criterion/criterion.h>
#include <dirent.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/dtype.h"
#include "core/file.h"
#include "io/json.h"

static char folder[] = "/tmp/nibble-synth-XXXXXX";

static void setup(void) {
    cr_assert(mkdtemp(folder));
}

static void teardown(void) {
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(synth, .init = setup, .fini = teardown);

static const char *in_folder(const char *name) {
    static char paths[4][256];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof paths[next], "%s/%s", folder, name);
    return paths[next];
}

// Runs the tool that was built beside these tests; the last line it prints goes to said[256].
static int run(const char *shape, const char *path, const char *threads, rlim_t max_file,
               char *said) {
    char tool[PATH_MAX] = "", program[PATH_MAX + 16];
    cr_assert_gt(readlink("/proc/self/exe", tool, sizeof tool - 1), 0);
    snprintf(program, sizeof program, "%s/tools/synth", dirname(tool));
    if (access(program, X_OK) != 0)
        cr_skip_test("no %s: make tools", program);
    FILE *log = tmpfile();
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){max_file, max_file});
        setenv("OMP_NUM_THREADS", threads, 1);
        dup2(fileno(log), STDOUT_FILENO);
        dup2(fileno(log), STDERR_FILENO);
        execl(program, "synth", shape, path, (char *)NULL);
        _exit(99);
    }
    int status;
    waitpid(pid, &status, 0);
    rewind(log);
    while (fgets(said, 256, log))
        ;
    fclose(log);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int count_entries(const char *path) {
    int n = 0;
    DIR *d = opendir(path);
    cr_assert(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

// What the tensors of all shards come to.
struct totals {
    size_t tensors, bytes, elements_off; // elements_off: not finite, or beyond 200 spreads
};

static void check_tensor(const cJSON *entry, const unsigned char *data, size_t *end,
                         struct totals *totals) {
    const cJSON *offsets = json_get(entry, "data_offsets"), *dim;
    size_t begin, elements = 1, n;
    cr_assert_eq(cJSON_GetArraySize(offsets), 2);
    cr_assert(json_size(cJSON_GetArrayItem(offsets, 0), &begin));
    cr_assert_eq(begin, *end, "%s leaves a hole", entry->string);
    cr_assert(json_size(cJSON_GetArrayItem(offsets, 1), end));
    cJSON_ArrayForEach (dim, json_get(entry, "shape")) {
        cr_assert(json_size(dim, &n));
        elements *= n;
    }
    cr_assert_eq(*end - begin, 2 * elements);
    cr_assert_str_eq(json_get(entry, "dtype")->valuestring, "BF16");
    for (size_t i = 0; i < elements; i++) {
        float x = bf16_to_f32((uint16_t)(data[begin + 2 * i] | data[begin + 2 * i + 1] << 8));
        totals->elements_off += !(fabsf(x) < 20.0f);
    }
    totals->tensors++;
    totals->bytes += *end - begin;
}

static void check_shard(const char *path, const cJSON *weight_map, struct totals *totals) {
    struct error err = {0};
    struct mapping m;
    cr_assert(mapping_open(&m, path, &err), "%s", err.message);
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | m.data[i];
    cr_assert(length % 8 == 0 && length + 8 < m.size);
    cJSON *header = json_parse((const char *)m.data + 8, length, path, &err);
    cr_assert(header, "%s", err.message);
    cr_assert_str_eq(json_get(json_get(header, "__metadata__"), "format")->valuestring, "pt");
    size_t end = 0;
    const cJSON *entry;
    cJSON_ArrayForEach (entry, header) {
        if (strcmp(entry->string, "__metadata__") == 0)
            continue;
        check_tensor(entry, m.data + 8 + length, &end, totals);
        const cJSON *file = json_get(weight_map, entry->string);
        cr_assert(file && strstr(path, file->valuestring), "%s", entry->string);
    }
    cr_assert_eq(8 + length + end, m.size);
    cJSON_Delete(header);
    mapping_close(&m);
}

static void check_checkpoint(const char *path, size_t tensors, size_t elements, int shards) {
    struct error err = {0};
    char name[512];
    snprintf(name, sizeof name, "%s/model.safetensors.index.json", path);
    cJSON *index = json_parse_file(name, &err);
    cr_assert(index, "%s", err.message);
    struct totals totals = {0};
    for (int i = 1; i <= shards; i++) {
        snprintf(name, sizeof name, "%s/model-%05d-of-%05d.safetensors", path, i, shards);
        check_shard(name, json_get(index, "weight_map"), &totals);
    }
    size_t total_size = 0;
    cr_assert(json_size(json_get(json_get(index, "metadata"), "total_size"), &total_size));
    cr_expect_eq(total_size, totals.bytes);
    cr_expect_eq(totals.tensors, tensors);
    cr_expect_eq(totals.bytes, 2 * elements);
    cr_expect_eq(totals.elements_off, 0);
    cr_expect_eq((size_t)cJSON_GetArraySize(json_get(index, "weight_map")), tensors);
    cr_expect_eq(count_entries(path), shards + 4);
    cJSON_Delete(index);
}

Test(synth, qwen2_files_are_whole_and_agree) {
    char said[256];
    cr_assert_eq(run("tiny", in_folder("a"), "2", RLIM_INFINITY, said), 0, "%s", said);
    // embedding; per layer 2 norms, q, k, v with bias, o, gate, up, down; the last norm
    size_t layer = 2 * 128 + (128 + 64 + 64) * (128 + 1) + 128 * 128 + 3 * 128 * 384;
    check_checkpoint(in_folder("a"), 1 + 2 * 12 + 1, 384 * 128 + 2 * layer + 128, 5);
}

Test(synth, llama_files_are_whole_and_agree) {
    char said[256];
    cr_assert_eq(run("tiny-llama", in_folder("a"), "2", RLIM_INFINITY, said), 0, "%s", said);
    size_t layer = 2 * 256 + (256 + 64 + 64) * 256 + 256 * 256 + 3 * 256 * 512;
    check_checkpoint(in_folder("a"), 2 + 2 * 9 + 1, 2 * 320 * 256 + 2 * layer + 256, 12);
    struct error err = {0};
    cJSON *config = json_parse_file(in_folder("a/config.json"), &err);
    cr_assert(config, "%s", err.message);
    cr_expect_str_eq(json_get(config, "model_type")->valuestring, "llama");
    cr_expect_eq(json_get(json_get(config, "rope_scaling"), "factor")->valuedouble, 8);
    cr_expect_eq(cJSON_GetArraySize(json_get(config, "eos_token_id")), 3);
    cJSON_Delete(config);
}

Test(synth, tokenizer_has_every_byte_once_and_the_special_tokens) {
    char said[256];
    cr_assert_eq(run("tiny", in_folder("a"), "1", RLIM_INFINITY, said), 0, "%s", said);
    struct error err = {0};
    cJSON *json = json_parse_file(in_folder("a/tokenizer.json"), &err);
    cr_assert(json, "%s", err.message);
    const cJSON *vocab = json_get(json_get(json, "model"), "vocab"), *token;
    int id = 0;
    cJSON_ArrayForEach (token, vocab) {
        cr_assert_eq(token->valuedouble, id++);
    }
    cr_expect_eq(id, 256);
    cr_expect_eq(json_get(vocab, "a")->valuedouble, 'a');
    cr_expect_eq(json_get(vocab, "\"")->valuedouble, '"');
    cr_expect_eq(json_get(vocab, "\\")->valuedouble, '\\');
    cr_expect_eq(json_get(vocab, "\u0120")->valuedouble, ' '); // as in GPT-2's vocabulary
    cr_expect_eq(json_get(vocab, "\u010a")->valuedouble, '\n');
    cr_expect_eq(json_get(vocab, "\u0143")->valuedouble, 0xad);
    cr_expect_eq(json_get(vocab, "\u00ff")->valuedouble, 0xff);
    const cJSON *added = json_get(json, "added_tokens");
    cr_assert_eq(cJSON_GetArraySize(added), 3);
    cr_expect_str_eq(json_get(cJSON_GetArrayItem(added, 2), "content")->valuestring, "<|im_end|>");
    cr_expect_eq(json_get(cJSON_GetArrayItem(added, 2), "id")->valuedouble, 258);
    cJSON_Delete(json);
}

Test(synth, same_bytes_with_any_number_of_threads) {
    char said[256];
    cr_assert_eq(run("tiny-llama", in_folder("one"), "1", RLIM_INFINITY, said), 0, "%s", said);
    cr_assert_eq(run("tiny-llama", in_folder("three"), "3", RLIM_INFINITY, said), 0, "%s", said);
    for (int i = 1; i <= 12; i++) {
        char name[64];
        struct mapping m[2];
        struct error err = {0};
        snprintf(name, sizeof name, "one/model-%05d-of-00012.safetensors", i);
        cr_assert(mapping_open(&m[0], in_folder(name), &err), "%s", err.message);
        snprintf(name, sizeof name, "three/model-%05d-of-00012.safetensors", i);
        cr_assert(mapping_open(&m[1], in_folder(name), &err), "%s", err.message);
        cr_expect(m[0].size == m[1].size && memcmp(m[0].data, m[1].data, m[0].size) == 0);
        mapping_close(&m[0]);
        mapping_close(&m[1]);
    }
}

// The same stream of random numbers must not start again with each piece that a thread fills.
Test(synth, weights_do_not_repeat) {
    char said[256];
    cr_assert_eq(run("tiny-llama", in_folder("a"), "2", RLIM_INFINITY, said), 0, "%s", said);
    struct mapping m;
    struct error err = {0};
    cr_assert(mapping_open(&m, in_folder("a/model-00004-of-00012.safetensors"), &err), "%s",
              err.message);
    size_t same = 0, n = 65536;
    const unsigned char *weights = m.data + m.size - 4 * n; // [512, 256] ends the file
    for (size_t i = 0; i < n; i++)
        same += memcmp(weights + 2 * i, weights + 2 * (i + n), 2) == 0;
    cr_expect_lt(same, n / 50);
    mapping_close(&m);
}

Test(synth, a_complete_folder_is_left_alone) {
    char said[256];
    cr_assert_eq(run("tiny", in_folder("a"), "1", RLIM_INFINITY, said), 0, "%s", said);
    cr_assert_eq(run("tiny", in_folder("a/"), "1", RLIM_INFINITY, said), 0, "%s", said);
    cr_expect(strstr(said, "/a: complete already: 26 tensors"), "%s", said);
    cr_assert_eq(run("tiny-llama", in_folder("a"), "1", RLIM_INFINITY, said), 1);
    cr_expect(strstr(said, "/a: is there, but is no complete tiny-llama"), "%s", said);
    cr_assert_eq(truncate(in_folder("a/model-00003-of-00005.safetensors"), 100), 0);
    cr_assert_eq(run("tiny", in_folder("a"), "1", RLIM_INFINITY, said), 1);
    cr_expect(strstr(said, "/a: is there, but is no complete tiny;"), "%s", said);
    cr_expect_eq(count_entries(folder), 1);
}

Test(synth, nothing_is_left_when_a_write_fails) {
    char said[256];
    cr_assert_eq(run("tiny", in_folder("a"), "2", 100000, said), 1);
    cr_expect(strstr(said, "File too large"), "%s", said);
    cr_expect_eq(count_entries(folder), 0);
}

Test(synth, bad_arguments) {
    char said[256];
    cr_assert_eq(run("qwen9", in_folder("a"), "1", RLIM_INFINITY, said), 2);
    cr_expect(strstr(said, "synth: 'qwen9' is not one of qwen2.5-0.5b"), "%s", said);
    cr_assert_eq(run("tiny", "", "1", RLIM_INFINITY, said), 2);
    cr_expect(strstr(said, "synth: expected SHAPE FOLDER"), "%s", said);
    cr_expect_eq(count_entries(folder), 0);
}
