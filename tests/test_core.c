// core/: errors, sizes, 16-bit floats, files.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/dtype.h"
#include "core/file.h"
#include "core/folder.h"
#include "core/memory.h"
#include "temp.h"

Test(core, error_is_one_clean_line) {
    struct error err = {0};
    cr_assert_not(error_set(&err, "bad name '%s'", "a\nb\x1b"));
    cr_assert_str_eq(err.message, "bad name 'a?b?'");
    cr_assert_not(error_set(NULL, "nobody listens"));
}

Test(core, sizes_do_not_wrap) {
    size_t out = 7;
    cr_assert_not(size_mul(SIZE_MAX / 2, 3, &out));
    cr_assert_not(size_add(SIZE_MAX, 1, &out));
    cr_assert_eq(out, 7);
    cr_assert(size_mul(6, 7, &out) && out == 42);
    struct error err = {0};
    cr_assert_null(memory_alloc(SIZE_MAX / 4, 8, "weights", &err));
    cr_assert_str_eq(err.message,
                     "weights: 4611686018427387903 items of 8 bytes overflow the address space");
}

Test(core, an_array_grows_and_survives_refusal) {
    struct error err = {0};
    size_t capacity = 0;
    int *items = NULL;
    for (int n = 0; n < 100; n++) {
        items = memory_grow(items, (size_t)n, &capacity, sizeof *items, "numbers", &err);
        cr_assert(items && capacity > (size_t)n);
        items[n] = n;
    }
    for (int n = 0; n < 100; n++)
        cr_assert_eq(items[n], n);
    size_t full = SIZE_MAX / 3;
    cr_assert_null(memory_grow(items, full, &full, sizeof *items, "numbers", &err));
    cr_assert(strstr(err.message, "numbers: out of memory") && full == SIZE_MAX / 3);
    free(items);
}

Test(core, f16_every_value_survives) {
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h);
        if (isnan(f))
            cr_assert(isnan(f16_to_f32(f32_to_f16(f))));
        else
            cr_assert_eq(f32_to_f16(f), h, "%04x", h);
    }
}

Test(core, f16_rounds_to_nearest_even) {
    cr_assert_eq(f32_to_f16(1.0f + 0x1p-11f), 0x3c00); // a tie goes to the even mantissa
    cr_assert_eq(f32_to_f16(1.0f + 0x3p-11f), 0x3c02);
    cr_assert_eq(f32_to_f16(65519.99f), 0x7bff);
    cr_assert_eq(f32_to_f16(65520.0f), 0x7c00);
    cr_assert_eq(f32_to_f16(0x1p-25f), 0); // half the smallest subnormal, a tie
    cr_assert_eq(f32_to_f16(0x1.8p-25f), 1);
    cr_assert_eq(f32_to_f16(-0.0f), 0x8000);
}

Test(core, bf16_rounds_to_nearest_even) {
    cr_assert_eq(f32_to_bf16(1.0f + 0x1p-8f), 0x3f80);
    cr_assert_eq(f32_to_bf16(1.0f + 0x3p-8f), 0x3f82);
    cr_assert(isnan(bf16_to_f32(f32_to_bf16(f32_from_bits(0x7f800001)))));
    cr_assert_eq(bf16_to_f32(f32_to_bf16(INFINITY)), INFINITY);
}

Test(core, a_file_is_replaced_whole_or_not_at_all) {
    char path[] = "/tmp/nibble-test-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && write(fd, "old", 3) == 3);
    close(fd);
    struct error err = {0};
    struct file_writer w;
    cr_assert(file_writer_open(&w, path, &err), "%s", err.message);
    fputs("half", w.stream);
    file_writer_abort(&w);
    char *text = file_read(path, 100, NULL, &err);
    cr_assert_str_eq(text, "old");
    free(text);
    cr_assert(file_writer_open(&w, path, &err));
    fputs("new", w.stream);
    cr_assert(file_writer_commit(&w, &err), "%s", err.message);
    text = file_read(path, 100, NULL, &err);
    cr_assert_str_eq(text, "new");
    free(text);
    cr_assert_null(file_read(path, 2, NULL, &err));
    unlink(path);
    cr_assert_null(file_read(path, 100, NULL, &err));
    cr_assert(strstr(err.message, "No such file"));
}

// Process 1 always runs, and number 99999999 nowhere: neither says whose file it is.
Test(core, what_nobody_writes_any_more_is_removed_whatever_its_number) {
    struct error err = {0};
    struct file_writer w;
    char path[256], dead[300], living[300], other[300];
    snprintf(path, sizeof path, "%s/a", temp_folder());
    strcpy(dead, temp_file("a.tmp.1", "half", 4));
    strcpy(other, temp_file("a.tmp.2b", "not ours", 8));
    strcpy(living, temp_file("a.tmp.99999999", "half", 4));
    int fd = open(living, O_WRONLY);
    cr_assert(fd >= 0 && flock(fd, LOCK_EX) == 0);
    cr_assert(file_writer_open(&w, path, &err), "%s", err.message);
    cr_expect(!file_exists(dead) && file_exists(living));
    file_writer_abort(&w);
    close(fd);
    cr_assert(file_writer_open(&w, path, &err), "%s", err.message);
    cr_expect(!file_exists(living));
    file_writer_abort(&w);
    cr_expect(file_exists(other));
}

Test(core, a_file_that_another_writes_under_the_same_number_is_not_cut) {
    struct error err = {0};
    struct file_writer w, other;
    char path[256];
    snprintf(path, sizeof path, "%s/cut", temp_folder());
    cr_assert(file_writer_open(&w, path, &err), "%s", err.message);
    fputs("all of it", w.stream);
    cr_expect(!file_writer_open(&other, path, &err));
    cr_expect(strstr(err.message, "/cut: cannot write: another run is writing it"), "%s",
              err.message);
    cr_assert(file_writer_commit(&w, &err), "%s", err.message);
    char *text = file_read(path, 100, NULL, &err);
    cr_assert_str_eq(text, "all of it");
    free(text);
}

Test(core, a_pipe_is_read_to_its_end) {
    int ends[2];
    char path[64];
    struct error err = {0};
    size_t size;
    static char sent[60000];
    memset(sent, 'x', sizeof sent);
    cr_assert(pipe(ends) == 0 && write(ends[1], sent, sizeof sent) == sizeof sent);
    close(ends[1]);
    snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]);
    char *text = file_read(path, sizeof sent, &size, &err);
    cr_assert(text && size == sizeof sent && text[size] == '\0', "%s", err.message);
    cr_assert_arr_eq(text, sent, size);
    free(text);
    text = file_read("/dev/null", 10, &size, &err);
    cr_assert(text && size == 0);
    free(text);
    cr_assert_null(file_read("/dev/zero", 100000, &size, &err));
    cr_assert(strstr(err.message, "/dev/zero: more than the 100000 bytes"), "%s", err.message);
}

Test(core, a_device_is_written_to_and_not_replaced) {
    struct error err = {0};
    struct file_writer w;
    cr_assert(file_writer_open(&w, "/dev/null", &err), "%s", err.message);
    fputs("gone", w.stream);
    cr_assert(file_writer_commit(&w, &err), "%s", err.message);
    cr_assert(access("/dev/null", F_OK) == 0 && !file_exists("/dev/null"));
    cr_assert(file_writer_open(&w, "/dev/full", &err), "%s", err.message);
    fputs("too much", w.stream);
    cr_assert_not(file_writer_commit(&w, &err));
    cr_assert(strstr(err.message, "/dev/full: cannot write: No space"), "%s", err.message);
    cr_assert_not(file_writer_open(&w, "/tmp", &err));
    cr_assert_str_eq(err.message, "/tmp: cannot write: Is a directory");
}

Test(core, folders_are_made_with_their_parents) {
    struct error err = {0};
    char path[300];
    snprintf(path, sizeof path, "%s/outer//inner/", temp_folder());
    cr_assert(folder_create(path, &err) && folder_exists(path), "%s", err.message);
    cr_assert(folder_create(path, &err), "it is there already: %s", err.message);
    cr_assert(folder_create("/", &err), "%s", err.message);
    cr_assert_not(folder_create("", &err));
    const char *file = temp_file("file", "x", 1);
    cr_assert_not(folder_create(file, &err));
    cr_assert(strstr(err.message, "/file: cannot create the folder: it is a file"), "%s",
              err.message);
}

Test(core, a_new_file_replaces_nothing_but_an_empty_one) {
    struct error err = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/new/file", temp_folder());
    cr_expect(file_check_new(path, &err), "%s", err.message);
    cr_expect(file_check_new(temp_file("empty", "", 0), &err), "%s", err.message);
    cr_expect_not(file_check_new(temp_file("full", "x", 1), &err));
    cr_expect(strstr(err.message, "/full: is there already; remove it first"), "%s", err.message);
    cr_expect_not(file_check_new(temp_folder(), &err));
    cr_expect(strstr(err.message, ": a folder, expected a file to write"), "%s", err.message);
    cr_expect_not(file_check_new("/dev/null", &err));
    cr_expect_str_eq(err.message, "/dev/null: not a regular file");
    cr_expect_not(file_check_new("/proc/nothing", &err));
    cr_expect(strstr(err.message, "/proc/nothing: cannot write: "), "%s", err.message);
}

Test(core, a_file_that_cannot_be_written_is_noticed_before) {
    struct error err = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/new/folder/file", temp_folder());
    cr_assert(file_check_writable(path, &err), "%s", err.message);
    cr_assert(!file_exists(path));
    cr_assert(file_check_writable("/dev/null", &err), "%s", err.message);
    cr_assert(file_check_writable("a-file-in-this-folder", &err), "%s", err.message);
    cr_assert_not(file_check_writable(temp_folder(), &err));
    cr_assert(strstr(err.message, "a folder, expected a file to write"), "%s", err.message);
    cr_assert_not(file_check_writable("/proc/nothing", &err));
    cr_assert(strstr(err.message, "/proc/nothing: cannot write: "), "%s", err.message);
}

Test(core, a_folder_appears_when_it_is_complete) {
    struct folder_writer w;
    struct error err = {0};
    char path[256], inside[300];
    snprintf(path, sizeof path, "%s/made/", temp_folder());
    cr_assert(folder_check_new(path, &err), "%s", err.message);
    cr_assert(folder_writer_open(&w, path, &err), "%s", err.message);
    snprintf(inside, sizeof inside, "%s/x", w.temporary);
    FILE *f = fopen(inside, "w");
    cr_assert(f && fclose(f) == 0);
    cr_assert_not(folder_exists(path));
    folder_writer_abort(&w);
    cr_assert_not(file_exists(inside));
    cr_assert(folder_writer_open(&w, path, &err) && folder_writer_commit(&w, &err), "%s",
              err.message);
    cr_assert(folder_exists(path));
    cr_assert(folder_writer_open(&w, path, &err), "an empty folder may be replaced");
    snprintf(inside, sizeof inside, "%s/x", path); // someone else was faster
    f = fopen(inside, "w");
    cr_assert(f && fclose(f) == 0);
    cr_assert_not(folder_writer_commit(&w, &err));
    cr_assert(file_exists(inside));
    cr_assert_not(folder_writer_open(&w, path, &err));
    cr_assert(strstr(err.message, "is there already; remove it first"), "%s", err.message);
    cr_assert_not(folder_check_new("/proc/nothing", &err));
    cr_assert(strstr(err.message, "/proc/nothing: cannot create the folder: "), "%s", err.message);
}

Test(core, a_file_is_the_same_by_any_name) {
    char link[256], path[256];
    snprintf(path, sizeof path, "%s", temp_file("one", "x", 1));
    snprintf(link, sizeof link, "%s/link", temp_folder());
    cr_assert_eq(symlink(path, link), 0);
    cr_expect(file_same(path, path) && file_same(path, link));
    cr_expect_not(file_same(path, temp_file("two", "x", 1)));
    cr_expect_not(file_same("/no/such/file", "/no/such/file"));
}
