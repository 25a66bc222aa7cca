// io/safetensors: a round trip, and every way a file can lie.
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"
#include "temp.h"

// A file of that header text (its length put in front) and n bytes of data; returns its size.
static size_t make_file(unsigned char *out, const char *header, size_t n) {
    uint64_t size = strlen(header);
    memcpy(out, &size, 8);
    memcpy(out + 8, header, size);
    memset(out + 8 + size, 0, n);
    return 8 + size + n;
}

static void expect_refused(const char *header, size_t n_data, const char *message_part) {
    unsigned char file[1024];
    size_t size = make_file(file, header, n_data);
    struct safetensors s = {0};
    struct error err = {0};
    cr_assert_not(safetensors_parse(&s, file, size, "x.safetensors", &err), "%s", header);
    cr_assert(strstr(err.message, message_part), "'%s' lacks '%s'", err.message, message_part);
    cr_assert(strncmp(err.message, "x.safetensors: ", 15) == 0, "%s", err.message);
    safetensors_close(&s);
}

Test(safetensors, what_is_written_is_read) {
    float a[6] = {1, 2, 3, 4, 5, 6};
    uint16_t b[2] = {0x3f80, 0xbf80};
    struct tensor out[2] = {
        {.name = "b", .dtype = DTYPE_BF16, .n_dims = 1, .shape = {2}, .bytes = 4, .data = b},
        {.name = "a", .n_dims = 2, .shape = {2, 3}, .bytes = 24, .data = a}};
    struct error err = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/model.safetensors", temp_folder());
    cr_assert(safetensors_write(path, out, 2, &err), "%s", err.message);
    struct safetensors s;
    cr_assert(safetensors_open(&s, temp_folder(), &err), "%s", err.message);
    cr_assert_eq(s.n_tensors, 2);
    const struct tensor *t = safetensors_find(&s, "a");
    cr_assert(t && t->dtype == DTYPE_F32 && t->n_dims == 2 && t->shape[1] == 3);
    cr_assert_arr_eq(t->data, a, sizeof a);
    cr_assert_arr_eq(safetensors_find(&s, "b")->data, b, sizeof b);
    cr_assert_null(safetensors_find(&s, "c"));
    safetensors_close(&s);
}

Test(safetensors, headers_that_lie_are_refused) {
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7,
                   "'a' ends at byte 8 of 7 bytes");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
                   "8 bytes, expected 12");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8,
                   "no range");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, "lacks");
    expect_refused("{\"a\":{\"dtype\":\"Q7\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
                   "dtype Q7");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8,
                   "no size");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1e15,1e15],\"data_offsets\":[0,8]}}", 8,
                   "no size");
    expect_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,2],\"data_offsets\":[0,8]}}", 8,
                   "more than 4 dimensions");
    expect_refused("[1]", 0, "not a JSON object");
    expect_refused("{\"a\":", 0, "not JSON");
    expect_refused("{\"a\":7}", 0, "lacks");
    expect_refused("{}", 5, "end at byte 0 of 5");
}

Test(safetensors, holes_and_overlaps_are_refused) {
    expect_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
                   "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
                   6, "'b' begins at byte 2 of the data, expected 4");
    expect_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
                   "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[5,6]}}",
                   6, "'b' begins at byte 5 of the data, expected 4");
}

Test(safetensors, a_header_longer_than_the_file_is_refused) {
    unsigned char file[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct safetensors s = {0};
    struct error err = {0};
    cr_assert_not(safetensors_parse(&s, file, sizeof file, "x", &err));
    cr_assert(strstr(err.message, "of a 16-byte file"), "%s", err.message);
    cr_assert_not(safetensors_parse(&s, file, 3, "x", &err));
    safetensors_close(&s);
}

Test(safetensors, one_name_in_two_shards_is_refused) {
    unsigned char file[256];
    const char *header = "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";
    size_t size = make_file(file, header, 1);
    temp_file("1.safetensors", file, size);
    temp_file("2.safetensors", file, size);
    const char *index = "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}";
    temp_file("model.safetensors.index.json", index, strlen(index));
    struct safetensors s;
    struct error err = {0};
    cr_assert_not(safetensors_open(&s, temp_folder(), &err));
    cr_assert(strstr(err.message, "tensor 'a' is also in"), "%s", err.message);
}

Test(safetensors, an_index_may_not_leave_its_folder) {
    const char *index = "{\"weight_map\":{\"a\":\"../1.safetensors\"}}";
    temp_file("model.safetensors.index.json", index, strlen(index));
    struct safetensors s;
    struct error err = {0};
    cr_assert_not(safetensors_open(&s, temp_folder(), &err));
    cr_assert(strstr(err.message, "in no file of this folder"), "%s", err.message);
}

Test(safetensors, a_missing_shard_and_a_missing_tensor_are_named) {
    const char *index = "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"}}";
    temp_file("model.safetensors.index.json", index, strlen(index));
    struct safetensors s;
    struct error err = {0};
    cr_assert_not(safetensors_open(&s, temp_folder(), &err));
    cr_assert(strstr(err.message, "1.safetensors: No such file"), "%s", err.message);
    unsigned char file[256];
    size_t size =
        make_file(file, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    temp_file("1.safetensors", file, size);
    cr_assert_not(safetensors_open(&s, temp_folder(), &err));
    cr_assert(strstr(err.message, "tensor 'b' is not in 1.safetensors"), "%s", err.message);
}

Test(safetensors, notes_are_written_and_read) {
    const struct safetensors_note notes[] = {{"a", "int4 \"quoted\""}, {"b", ""}};
    const struct tensor t = {.name = "t", .dtype = DTYPE_U8, .n_dims = 1, .shape = {3}, .bytes = 3};
    struct safetensors_writer w;
    struct safetensors s;
    struct error err = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/model.safetensors", temp_folder());
    cr_assert(safetensors_writer_open(&w, path, &t, 1, notes, 2, 64, &err), "%s", err.message);
    safetensors_writer_add(&w, "x", 1);
    safetensors_writer_add(&w, "yz", 2);
    cr_assert(safetensors_writer_commit(&w, &err), "%s", err.message);
    cr_assert(safetensors_open(&s, temp_folder(), &err), "%s", err.message);
    cr_assert_str_eq(safetensors_note(&s, "a"), "int4 \"quoted\"");
    cr_assert_str_eq(safetensors_note(&s, "b"), "");
    cr_assert_str_eq(safetensors_note(&s, "format"), "pt");
    cr_assert_null(safetensors_note(&s, "t"));
    cr_assert_arr_eq(safetensors_find(&s, "t")->data, "xyz", 3);
    cr_assert_eq((uintptr_t)safetensors_find(&s, "t")->data % 64, 0);
    safetensors_close(&s);
}

Test(safetensors, bytes_that_are_missing_or_too_many_leave_no_file) {
    const struct tensor t = {.name = "t", .dtype = DTYPE_U8, .n_dims = 1, .shape = {3}, .bytes = 3};
    char path[256];
    snprintf(path, sizeof path, "%s/model.safetensors", temp_folder());
    for (size_t n = 2; n <= 4; n += 2) {
        struct safetensors_writer w;
        struct error err = {0};
        cr_assert(safetensors_writer_open(&w, path, &t, 1, NULL, 0, 8, &err));
        safetensors_writer_add(&w, "abcd", n);
        cr_assert_not(safetensors_writer_commit(&w, &err));
        cr_assert(strstr(err.message, "bytes of tensors are missing"), "%s", err.message);
        cr_assert_neq(access(path, F_OK), 0);
    }
}

Test(safetensors, offsets_beyond_32_bits_are_written_whole) {
    const size_t bytes = ((size_t)5 << 30) + 4;
    const struct tensor t[2] = {
        {.name = "a", .dtype = DTYPE_F32, .n_dims = 1, .shape = {bytes / 4}, .bytes = bytes},
        {.name = "b", .dtype = DTYPE_U8, .n_dims = 1, .shape = {7}, .bytes = 7}};
    struct safetensors_writer w;
    struct error err = {0};
    char path[256], *header;
    snprintf(path, sizeof path, "%s/model.safetensors", temp_folder());
    cr_assert(safetensors_writer_open(&w, path, t, 2, NULL, 0, 8, &err), "%s", err.message);
    cr_assert_eq(w.missing, bytes + 7);
    fflush(w.file.stream);
    header = file_read(w.file.temporary, 1 << 16, NULL, &err);
    cr_assert(strstr(header + 8, "\"shape\":[1342177281],\"data_offsets\":[0,5368709124]"), "%s",
              header + 8);
    cr_assert(strstr(header + 8, "[5368709124,5368709131]"), "%s", header + 8);
    free(header);
    safetensors_writer_abort(&w);
}
