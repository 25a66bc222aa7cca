// Writing GGUF: the bytes, and what is left when it goes wrong.
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/file.h"
#include "io/gguf_write.h"
#include "temp.h"

static char *temp_path(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", temp_folder(), name);
    return path;
}

// Files in the temporary folder.
static int n_files(void) {
    DIR *d = opendir(temp_folder());
    int n = 0;
    cr_assert(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static bool write_file(const char *path, size_t n, struct error *err) {
    struct gguf_writer w;
    const uint64_t dims[2] = {3, 2};
    float *data = calloc(n ? n : 1, sizeof *data);
    if (!gguf_writer_open(&w, path, err)) {
        free(data);
        return false;
    }
    for (size_t i = 0; i < n; i++)
        data[i] = (float)i;
    gguf_put_u32(&w, "a", 258);
    gguf_put_string(&w, "b", "hi");
    bool ok = gguf_put_tensor(&w, "m", 0, dims, 2, 24, err) &&
              gguf_put_tensor(&w, "v", 0, (uint64_t[]){n}, 1, 4 * n, err) &&
              gguf_writer_begin(&w, err) &&
              gguf_write_tensor(&w, (float[]){1, 2, 3, 4, 5, 6}, 24, err) &&
              gguf_write_tensor(&w, data, 4 * n, err) && gguf_writer_commit(&w, err);
    gguf_writer_abort(&w);
    free(data);
    return ok;
}

// clang-format off
static const unsigned char expected[] = {
    'G', 'G', 'U', 'F', 3, 0, 0, 0,
    2, 0, 0, 0, 0, 0, 0, 0,                                  // tensors
    2, 0, 0, 0, 0, 0, 0, 0,                                  // keys
    1, 0, 0, 0, 0, 0, 0, 0, 'a', 4, 0, 0, 0, 2, 1, 0, 0,     // a: u32 258
    1, 0, 0, 0, 0, 0, 0, 0, 'b', 8, 0, 0, 0,                 // b: string "hi"
    2, 0, 0, 0, 0, 0, 0, 0, 'h', 'i',
    1, 0, 0, 0, 0, 0, 0, 0, 'm', 2, 0, 0, 0,                 // m: [2, 3], innermost first
    3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                      // F32 at 0
    1, 0, 0, 0, 0, 0, 0, 0, 'v', 1, 0, 0, 0,                 // v: [1]
    1, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0,                     // F32 at 32: 24 bytes rounded up
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,    // from 138 up to 160
    0, 0, 0, 0,
    0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64, // 1 2 3 4
    0, 0, 160, 64, 0, 0, 192, 64, 0, 0, 0, 0, 0, 0, 0, 0,    // 5 6, up to 32
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,          // v: 0, up to 32
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
};
// clang-format on

Test(gguf_write, a_small_file_has_these_bytes) {
    struct error err = {0};
    size_t size;
    cr_assert(write_file(temp_path("a.gguf"), 1, &err), "%s", err.message);
    char *bytes = file_read(temp_path("a.gguf"), 1 << 20, &size, &err);
    cr_assert(bytes, "%s", err.message);
    cr_assert_eq(size, sizeof expected, "%zu bytes, expected %zu", size, sizeof expected);
    for (size_t i = 0; i < size; i++)
        cr_expect_eq((unsigned char)bytes[i], expected[i], "byte %zu is %d, expected %d", i,
                     (unsigned char)bytes[i], expected[i]);
    cr_expect_eq(n_files(), 1);
    free(bytes);
}

Test(gguf_write, arrays_have_a_type_and_a_count) {
    struct gguf_writer w;
    struct error err = {0};
    const int32_t i32[] = {1, -1};
    const float f32[] = {0.5f};
    const uint8_t flags[] = {1, 0};
    cr_assert(gguf_writer_open(&w, temp_path("a.gguf"), &err));
    gguf_put_string_array(&w, "s", 2);
    gguf_put_item(&w, "xy", 2);
    gguf_put_item(&w, "", 0);
    gguf_put_i32_array(&w, "i", i32, 2);
    gguf_put_f32_array(&w, "f", f32, 1);
    gguf_put_bool_array(&w, "b", flags, 2);
    gguf_put_bool(&w, "t", true);
    gguf_put_f32(&w, "x", 1.0f);
    cr_assert(gguf_writer_begin(&w, &err) && gguf_writer_commit(&w, &err), "%s", err.message);
    size_t size;
    char *bytes = file_read(temp_path("a.gguf"), 1 << 20, &size, &err);
    static const char keys[] = "\1\0\0\0\0\0\0\0s\11\0\0\0\10\0\0\0\2\0\0\0\0\0\0\0"
                               "\2\0\0\0\0\0\0\0xy\0\0\0\0\0\0\0\0"
                               "\1\0\0\0\0\0\0\0i\11\0\0\0\5\0\0\0\2\0\0\0\0\0\0\0"
                               "\1\0\0\0\377\377\377\377"
                               "\1\0\0\0\0\0\0\0f\11\0\0\0\6\0\0\0\1\0\0\0\0\0\0\0\0\0\0?"
                               "\1\0\0\0\0\0\0\0b\11\0\0\0\7\0\0\0\2\0\0\0\0\0\0\0\1\0"
                               "\1\0\0\0\0\0\0\0t\7\0\0\0\1"
                               "\1\0\0\0\0\0\0\0x\6\0\0\0\0\0\200?";
    cr_assert(bytes && size % 32 == 0 && size >= 24 + sizeof keys - 1);
    cr_expect_arr_eq(bytes + 24, keys, sizeof keys - 1);
    free(bytes);
}

Test(gguf_write, heads_that_no_reader_takes_are_refused) {
    struct gguf_writer w;
    struct error err = {0};
    const uint64_t dims[] = {1, 1, 1, 1, 1};
    char name[65];
    memset(name, 'n', 64);
    name[64] = '\0';
    cr_assert(gguf_writer_open(&w, temp_path("a.gguf"), &err));
    cr_expect(!gguf_put_tensor(&w, name, 0, dims, 1, 4, &err) && strstr(err.message, "63"));
    cr_expect(!gguf_put_tensor(&w, "", 0, dims, 1, 4, &err));
    cr_expect(!gguf_put_tensor(&w, "a", 0, dims, 5, 4, &err) && strstr(err.message, "5 dim"));
    cr_expect(!gguf_put_tensor(&w, "a", 0, dims, 1, SIZE_MAX - 8, &err));
    cr_assert(gguf_put_tensor(&w, name + 1, 0, dims, 1, 4, &err), "%s", err.message);
    cr_expect(!gguf_put_tensor(&w, name + 1, 0, dims, 1, 4, &err) && strstr(err.message, "twice"));
    gguf_writer_abort(&w);
    gguf_writer_abort(&w);
    cr_expect_eq(n_files(), 0);
}

Test(gguf_write, data_must_be_as_announced) {
    struct gguf_writer w;
    struct error err = {0};
    const uint64_t dims[] = {4};
    cr_assert(gguf_writer_open(&w, temp_path("a.gguf"), &err));
    cr_assert(gguf_put_tensor(&w, "a", 0, dims, 1, 16, &err) && gguf_writer_begin(&w, &err));
    cr_expect(!gguf_write_tensor(&w, "1234", 4, &err) && strstr(err.message, "expected 16"));
    cr_expect(!gguf_writer_commit(&w, &err) && strstr(err.message, "0 tensors, expected 1"));
    cr_expect_eq(n_files(), 0);
}

Test(gguf_write, what_reads_back_as_something_else_is_no_file) {
    struct gguf_writer w;
    struct error err = {0};
    const uint64_t dims[] = {4};
    cr_assert(gguf_writer_open(&w, temp_path("a.gguf"), &err));
    cr_assert(gguf_put_tensor(&w, "a", 0, dims, 1, 16, &err) && gguf_writer_begin(&w, &err));
    cr_assert(gguf_write_tensor(&w, "0123456789abcdef", 16, &err));
    fflush(w.file.stream);
    cr_assert_eq(pwrite(fileno(w.file.stream), "X", 1, (off_t)w.header_size + 15), 1);
    cr_expect(!gguf_writer_commit(&w, &err) && strstr(err.message, "'a' reads back"), "%s",
              err.message);
    cr_expect_eq(n_files(), 0);
}

// What was there before stays, and no half file beside it.
static void expect_nothing_changed(const char *path) {
    struct error err = {0};
    char *text = file_read(path, 100, NULL, &err);
    cr_expect_str_eq(text, "before");
    cr_expect_eq(n_files(), 1);
    free(text);
}

Test(gguf_write, a_full_disk_leaves_what_was_there) {
    struct error err = {0};
    const struct rlimit limit = {1 << 16, 1 << 16};
    char *path = temp_path("a.gguf");
    temp_file("a.gguf", "before", 6);
    signal(SIGXFSZ, SIG_IGN); // the limit stands for a disk
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_expect(!write_file(path, 1 << 15, &err));
    cr_expect(strstr(err.message, "a.gguf: cannot write 131264 bytes: File too large"), "%s",
              err.message);
    expect_nothing_changed(path);
}

Test(gguf_write, a_killed_run_leaves_what_was_there_and_the_next_cleans_up) {
    struct error err = {0};
    char *path = temp_path("a.gguf"), leftover[300];
    temp_file("a.gguf", "before", 6);
    pid_t child = fork();
    if (child == 0) {
        struct gguf_writer w;
        gguf_writer_open(&w, path, &err);
        gguf_put_tensor(&w, "a", 0, (uint64_t[]){4}, 1, 16, &err);
        gguf_writer_begin(&w, &err);
        fflush(w.file.stream);
        raise(SIGKILL);
    }
    waitpid(child, NULL, 0);
    snprintf(leftover, sizeof leftover, "%s.tmp.%ld", path, (long)child);
    cr_expect(file_exists(leftover));
    char *text = file_read(path, 100, NULL, &err);
    cr_expect_str_eq(text, "before");
    free(text);
    cr_assert(write_file(path, 1, &err), "%s", err.message);
    cr_expect_eq(n_files(), 1);
}

Test(gguf_write, a_running_writer_keeps_its_file) {
    struct gguf_writer w;
    struct error err = {0};
    char *path = temp_path("a.gguf");
    cr_assert(gguf_writer_open(&w, path, &err));
    pid_t child = fork();
    if (child == 0)
        _exit(write_file(path, 1, &err) ? 0 : 1);
    int status;
    waitpid(child, &status, 0);
    cr_expect_eq(status, 0);
    cr_expect_eq(n_files(), 2);
    cr_assert(gguf_writer_begin(&w, &err) && gguf_writer_commit(&w, &err), "%s", err.message);
    cr_expect_eq(n_files(), 1);
}

Test(gguf_write, a_folder_that_cannot_be_written_to_is_named) {
    struct error err = {0};
    cr_expect(!write_file("/proc/nibble.gguf", 1, &err));
    cr_expect(strstr(err.message, "/proc/nibble.gguf"), "%s", err.message);
    cr_expect(!write_file("/dev/null", 1, &err));
    cr_expect(strstr(err.message, "/dev/null: not a regular file"), "%s", err.message);
}
