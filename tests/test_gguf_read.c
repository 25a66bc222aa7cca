// io/gguf: what a file says is what is read, and every way a file can lie.
#include <criterion/criterion.h>
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>

#include "gguf_bytes.h"
#include "io/gguf_internal.h"
#include "quant/format.h"
#include "temp.h"

// ---- what is right ------------------------------------------------------------------------------

static struct gguf parsed(const struct gguf_bytes *b) {
    struct gguf g;
    struct error err = {0};
    cr_assert(gguf_parse(&g, b->data, b->size, "x.gguf", &err), "%s", err.message);
    return g;
}

Test(gguf_read, tensors_are_views_of_the_file_outermost_dimension_first) {
    struct gguf_bytes b = {0};
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "a", 2, 3, 0, 0);
    put_tensor(&b, "b", 0, 64, 2, 32);
    put_padding(&b, 32);
    size_t data = b.size;
    put_zeros(&b, 32 + 36);
    struct gguf g = parsed(&b);
    cr_assert_eq(g.n_tensors, 2);
    const struct tensor *a = &gguf_find_tensor(&g, "a")->view;
    cr_assert(a->n_dims == 2 && a->shape[0] == 2 && a->shape[1] == 3);
    cr_assert(a->dtype == DTYPE_F32 && a->bytes == 24 && a->data == b.data + data);
    cr_assert_eq(a->format, quant_format_find("f32"));
    const struct gguf_tensor *q = gguf_find_tensor(&g, "b");
    cr_assert(q->view.n_dims == 1 && q->view.shape[0] == 64 && q->view.bytes == 2 * 18);
    cr_assert(q->type == 2 && q->view.dtype == DTYPE_BLOCK && q->view.data == b.data + data + 32);
    cr_assert_null(gguf_find_tensor(&g, "c"));
    gguf_close(&g);
    free(b.data);
}

// One key of every type, and arrays of strings and of arrays.
static struct gguf_bytes all_values(uint32_t version) {
    struct gguf_bytes b = {0};
    put_header(&b, version, 0, 15);
    static const struct {
        const char *key;
        uint32_t type, size;
        uint64_t value;
    } numbers[] = {{"u8", GGUF_U8, 1, 200},          {"i8", GGUF_I8, 1, 0x80},
                   {"u16", GGUF_U16, 2, 60000},      {"i16", GGUF_I16, 2, 0xfffe},
                   {"u32", GGUF_U32, 4, 1u << 31},   {"i32", GGUF_I32, 4, 0xffffffff},
                   {"u64", GGUF_U64, 8, 1ull << 40}, {"i64", GGUF_I64, 8, -1ull << 40},
                   {"huge", GGUF_U64, 8, UINT64_MAX}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        put_key(&b, numbers[i].key, numbers[i].type);
        put_number(&b, numbers[i].value, numbers[i].size);
    }
    put_key_f32(&b, "f32", 0.25f);
    put_key(&b, "f64", GGUF_F64);
    put_raw(&b, &(double){1e300}, 8);
    put_key_bool(&b, "bool", true);
    put_key_text(&b, "string", "Grüße");
    put_key_array(&b, "strings", GGUF_STRING, 2);
    put_text(&b, "");
    put_text(&b, "second");
    put_key_array(&b, "arrays", GGUF_ARRAY, 2);
    put_u32(&b, GGUF_U16), put_u64(&b, 3), put_zeros(&b, 6);
    put_u32(&b, GGUF_STRING), put_u64(&b, 1), put_text(&b, "inner");
    return b;
}

static int64_t int_of(const struct gguf *g, const char *key) {
    int64_t value = 77;
    struct error err = {0};
    cr_assert(gguf_get_int(g, key, INT64_MIN, INT64_MAX, &value, &err), "%s", err.message);
    return value;
}

Test(gguf_read, values_of_every_type) {
    for (uint32_t version = 2; version <= 3; version++) {
        struct gguf_bytes b = all_values(version);
        struct gguf g = parsed(&b);
        struct error err = {0};
        cr_assert_eq(g.n_keys, 15);
        cr_assert_eq(int_of(&g, "u8"), 200);
        cr_assert_eq(int_of(&g, "i8"), -128);
        cr_assert_eq(int_of(&g, "u16"), 60000);
        cr_assert_eq(int_of(&g, "i16"), -2);
        cr_assert_eq(int_of(&g, "u32"), 1ll << 31);
        cr_assert_eq(int_of(&g, "i32"), -1);
        cr_assert_eq(int_of(&g, "u64"), 1ll << 40);
        cr_assert_eq(int_of(&g, "i64"), -(1ll << 40));
        cr_assert_eq(int_of(&g, "absent"), 77);
        double number = 0;
        cr_assert(gguf_get_number(&g, "f32", &number, &err) && number == 0.25);
        cr_assert(gguf_get_number(&g, "f64", &number, &err) && number == 1e300);
        cr_assert(gguf_get_number(&g, "i16", &number, &err) && number == -2);
        cr_assert(gguf_get_number(&g, "huge", &number, &err) && number == 0x1p64);
        bool flag = false;
        cr_assert(gguf_get_bool(&g, "bool", &flag, &err) && flag);
        struct gguf_string text;
        cr_assert(gguf_get_string(&g, "string", &text, &err) && gguf_string_is(text, "Grüße"));
        const struct gguf_value *strings = NULL;
        cr_assert(gguf_get_array(&g, "strings", GGUF_STRING, &strings, &err) && strings->n == 2);
        const unsigned char *at = strings->data;
        cr_assert(gguf_string_is(gguf_next_string(&at), ""));
        cr_assert(gguf_string_is(gguf_next_string(&at), "second"));
        const struct gguf_value *arrays = gguf_find(&g, "arrays");
        cr_assert(arrays->is_array && arrays->type == GGUF_ARRAY && arrays->n == 2);
        gguf_close(&g);
        free(b.data);
    }
}

static void expect_wrong(bool ok, const struct error *err, const char *message) {
    cr_assert_not(ok);
    cr_assert_str_eq(err->message, message);
}

Test(gguf_read, a_value_of_another_type_is_named) {
    struct gguf_bytes b = all_values(3);
    struct gguf g = parsed(&b);
    struct error err;
    int64_t i;
    double d;
    bool flag;
    struct gguf_string s;
    const struct gguf_value *v;
    expect_wrong(gguf_get_int(&g, "string", 0, 9, &i, &err), &err,
                 "x.gguf: key 'string' is string, expected a whole number");
    expect_wrong(gguf_get_int(&g, "f32", 0, 9, &i, &err), &err,
                 "x.gguf: key 'f32' is f32, expected a whole number");
    expect_wrong(gguf_get_int(&g, "u8", 0, 9, &i, &err), &err,
                 "x.gguf: key 'u8' is out of range, expected 0 to 9");
    expect_wrong(gguf_get_int(&g, "huge", 0, INT64_MAX, &i, &err), &err,
                 "x.gguf: key 'huge' is out of range, expected 0 to 9223372036854775807");
    expect_wrong(gguf_get_number(&g, "bool", &d, &err), &err,
                 "x.gguf: key 'bool' is bool, expected a number");
    expect_wrong(gguf_get_bool(&g, "u8", &flag, &err), &err,
                 "x.gguf: key 'u8' is u8, expected bool");
    expect_wrong(gguf_get_string(&g, "strings", &s, &err), &err,
                 "x.gguf: key 'strings' is an array of string, expected a string");
    expect_wrong(gguf_get_array(&g, "strings", GGUF_I32, &v, &err), &err,
                 "x.gguf: key 'strings' is an array of string, expected an array of numbers");
    expect_wrong(gguf_get_array(&g, "arrays", GGUF_STRING, &v, &err), &err,
                 "x.gguf: key 'arrays' is an array of array, expected an array of string");
    gguf_close(&g);
    free(b.data);
}

Test(gguf_read, a_number_for_every_layer_will_do_if_all_are_the_same) {
    struct gguf_bytes b = {0};
    put_header(&b, 3, 0, 3);
    put_key_array(&b, "same", GGUF_I32, 2), put_u32(&b, 7), put_u32(&b, 7);
    put_key_array(&b, "other", GGUF_I32, 2), put_u32(&b, 7), put_u32(&b, 8);
    put_key_array(&b, "none", GGUF_I32, 0);
    struct gguf g = parsed(&b);
    struct error err;
    int64_t i;
    cr_assert_eq(int_of(&g, "same"), 7);
    expect_wrong(gguf_get_int(&g, "other", 0, 9, &i, &err), &err,
                 "x.gguf: key 'other' is an array of different numbers, which is not supported");
    expect_wrong(gguf_get_int(&g, "none", 0, 9, &i, &err), &err,
                 "x.gguf: key 'none' is an array of i32, expected a whole number");
    gguf_close(&g);
    free(b.data);
}

Test(gguf_read, the_alignment_is_the_file_s) {
    struct gguf_bytes b = {0};
    put_header(&b, 3, 1, 1);
    put_key_u32(&b, "general.alignment", 128);
    put_tensor(&b, "a", 0, 1, 0, 128);
    put_padding(&b, 128);
    put_zeros(&b, 132);
    struct gguf g = parsed(&b);
    cr_assert_eq((unsigned char *)g.tensors[0].view.data, b.data + b.size - 4);
    gguf_close(&g);
    free(b.data);
}

Test(gguf_read, types_have_the_sizes_of_their_blocks) {
    for (uint32_t i = 0; i < 64; i++) {
        const struct gguf_type *type = gguf_type_of(i);
        const struct quant_format *f = quant_format_of_gguf(i);
        if (!f)
            continue;
        size_t bytes;
        cr_assert(type && f->bytes(f, 3, 512, &bytes), "%u", i);
        cr_assert_eq(bytes, 3 * 512 / type->block_weights * type->block_bytes, "%s", type->name);
    }
    cr_assert_str_eq(gguf_type_of(16)->name, "IQ2_XXS");
    cr_assert_null(gguf_type_of(4));
    cr_assert_null(gguf_type_of(4000000000));
}

Test(gguf_read, tensors_of_no_weights_lie_nowhere) {
    struct gguf_bytes b = {0};
    put_header(&b, 3, 3, 0);
    put_tensor(&b, "a", 0, 0, 0, 0);
    put_tensor(&b, "b", 0, 0, 2, 0);
    put_tensor(&b, "c", 0, 8, 0, 0);
    put_padding(&b, 32);
    put_zeros(&b, 32);
    struct gguf g = parsed(&b);
    cr_assert(g.tensors[0].view.data == NULL && g.tensors[1].view.bytes == 0);
    gguf_close(&g);
    free(b.data);
}

// ---- what is broken -----------------------------------------------------------------------------

static void expect_refused(struct gguf_bytes *b, const char *part) {
    struct gguf g;
    struct error err = {0};
    cr_assert_not(gguf_parse(&g, b->data, b->size, "x.gguf", &err), "lacks: %s", part);
    cr_assert(strstr(err.message, part), "'%s' lacks '%s'", err.message, part);
    cr_assert(strncmp(err.message, "x.gguf: ", 8) == 0, "%s", err.message);
    cr_assert_eq(g.n_parts + g.n_tensors + g.n_keys, 0);
    free(b->data);
    *b = (struct gguf_bytes){0};
}

Test(gguf_read, what_is_no_gguf_file_is_said_to_be_none) {
    struct gguf_bytes b = {0};
    expect_refused(&b, "an empty file, expected a GGUF file");
    put_raw(&b, "GGU", 3);
    expect_refused(&b, "the header needs 4 bytes at byte 0 of a 3-byte file");
    put_raw(&b, "{\"a\": 1}", 8);
    expect_refused(&b, "does not begin with GGUF");
    put_raw(&b, "tjgg\3\0\0\0", 8);
    expect_refused(&b, "a file of the formats before GGUF");
    put_header(&b, 1, 0, 0);
    expect_refused(&b, "GGUF version 1, expected 2 or 3");
    put_header(&b, 4, 0, 0);
    expect_refused(&b, "GGUF version 4, expected 2 or 3");
    put_header(&b, 3u << 24, 0, 0);
    expect_refused(&b, "a big-endian GGUF file");
    put_raw(&b, "GGUF\3\0\0\0", 8);
    expect_refused(&b, "the header needs 8 bytes at byte 8 of a 8-byte file");
}

Test(gguf_read, keys_that_lie_are_refused) {
    struct gguf_bytes b = {0};
    put_header(&b, 3, 0, UINT64_MAX);
    expect_refused(&b, "the header has 18446744073709551615 keys, in a 24-byte file");
    put_header(&b, 3, 0, 24);
    expect_refused(&b, "key 0 needs 8 bytes at byte 24");
    put_header(&b, 3, 0, 1);
    put_u64(&b, UINT64_MAX);
    expect_refused(&b, "key 0 needs 18446744073709551615 bytes");
    put_header(&b, 3, 0, 1);
    put_key_u32(&b, "", 1);
    expect_refused(&b, "key 0 has a name that is empty");
    put_header(&b, 3, 0, 1);
    put_u64(&b, 3), put_raw(&b, "a\0b", 3), put_u32(&b, GGUF_U8), put_zeros(&b, 1);
    expect_refused(&b, "key 0 has a name that is cut by a NUL");
    put_header(&b, 3, 0, 1);
    put_key(&b, "a", 13);
    expect_refused(&b, "key 0 has a value of type 13, expected 0 to 12");
    put_header(&b, 3, 0, 1);
    put_key(&b, "a", GGUF_STRING), put_u64(&b, 5), put_raw(&b, "four", 4);
    expect_refused(&b, "key 0 needs 5 bytes");
    put_header(&b, 3, 0, 2);
    put_key_u32(&b, "a", 1), put_key_u32(&b, "a", 2);
    expect_refused(&b, "key 'a' occurs twice");
    put_header(&b, 3, 0, 2);
    put_key_u32(&b, "a", 1), put_text(&b, "b"), put_u32(&b, GGUF_U64), put_u32(&b, 7);
    expect_refused(&b, "key 1 needs 8 bytes");
}

Test(gguf_read, arrays_that_lie_are_refused) {
    struct gguf_bytes b = {0};
    put_header(&b, 3, 0, 1);
    put_key_array(&b, "a", GGUF_U64, UINT64_MAX / 4);
    expect_refused(&b, "key 0 has 4611686018427387903 items");
    put_header(&b, 3, 0, 1);
    put_key_array(&b, "a", GGUF_STRING, UINT64_MAX);
    put_text(&b, "one");
    expect_refused(&b, "key 0 needs 8 bytes");
    put_header(&b, 3, 0, 1);
    put_key_array(&b, "a", 99, 1);
    expect_refused(&b, "key 0 has a value of type 99");
    put_header(&b, 3, 0, 1);
    put_key(&b, "a", GGUF_ARRAY);
    for (int i = 0; i < 100000; i++)
        put_u32(&b, GGUF_ARRAY), put_u64(&b, 1);
    expect_refused(&b, "key 0 has arrays in arrays more than 4 deep");
}

Test(gguf_read, tensors_that_lie_are_refused) {
    struct gguf_bytes b = {0};
    put_header(&b, 3, UINT64_MAX, 0);
    expect_refused(&b, "the header has 18446744073709551615 tensors, in a 24-byte file");
    put_header(&b, 3, 24, 0);
    expect_refused(&b, "tensor 0 needs 8 bytes");
    put_header(&b, 3, 1, 0);
    put_text(&b, "a"), put_u32(&b, 5);
    expect_refused(&b, "tensor 'a' has 5 dimensions, expected at most 4");
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "a", 1ull << 63, 1, 0, 0);
    expect_refused(&b, "tensor 'a' has a dimension of 9223372036854775808");
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "a", 1ull << 40, 1ull << 40, 0, 0);
    expect_refused(&b, "tensor 'a' has a dimension of 1099511627776");
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "a", 1ull << 31, 1ull << 31, 0, 0);
    expect_refused(&b, "tensor 'a' overflows the address space");
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "a", 1, 1, 43, 0);
    expect_refused(&b, "tensor 'a' is of type 43, which is not known");
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "a", 1, 1, 4, 0);
    expect_refused(&b, "tensor 'a' is of type 4, which is not known");
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "a", 2, 33, 2, 0);
    expect_refused(&b, "tensor 'a' has rows of 33 weights, expected a multiple of 32 for Q4_0");
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "a", 0, 0, 0, 0);
    b.data[24 + 8] = 'b', b.data[24] = 0;
    expect_refused(&b, "tensor 0 has a name that is empty");
}

Test(gguf_read, data_that_is_not_there_is_refused) {
    struct gguf_bytes b = {0};
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "a", 0, 8, 0, 0);
    put_padding(&b, 32);
    put_zeros(&b, 31);
    expect_refused(&b, "tensor 'a' of 32 bytes begins at byte 0 of 31 bytes of data");
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "a", 0, 8, 0, UINT64_MAX - 31);
    put_padding(&b, 32);
    put_zeros(&b, 64);
    expect_refused(&b, "tensor 'a' of 32 bytes begins at byte 18446744073709551584 of 64 bytes");
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "a", 0, 8, 0, 4);
    put_padding(&b, 32);
    put_zeros(&b, 64);
    expect_refused(&b, "tensor 'a' begins at byte 4 of the data, expected a multiple of 32");
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "a", 0, 8, 0, 0);
    expect_refused(&b, "of 0 bytes of data");
}

Test(gguf_read, tensors_on_top_of_each_other_are_refused) {
    struct gguf_bytes b = {0};
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "a", 0, 9, 0, 0);
    put_tensor(&b, "b", 0, 8, 0, 32);
    put_padding(&b, 32);
    put_zeros(&b, 64);
    expect_refused(&b, "tensors 'a' and 'b' overlap");
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "a", 0, 8, 0, 0);
    put_tensor(&b, "a", 0, 8, 0, 32);
    put_padding(&b, 32);
    put_zeros(&b, 64);
    expect_refused(&b, "tensor 'a' occurs twice");
}

Test(gguf_read, alignments_that_are_none_are_refused) {
    static const uint32_t alignments[] = {0, 3, 48, 1u << 31};
    for (size_t i = 0; i < 4; i++) {
        struct gguf_bytes b = {0};
        put_header(&b, 3, 0, 1);
        put_key_u32(&b, "general.alignment", alignments[i]);
        expect_refused(&b, i == 0 || i == 3 ? "key 'general.alignment' is out of range"
                                            : "expected a power of two");
    }
    struct gguf_bytes b = {0};
    put_header(&b, 3, 0, 1);
    put_key_text(&b, "general.alignment", "32");
    expect_refused(&b, "key 'general.alignment' is string, expected a whole number");
}

// "tensor 'a' occurs twice" becomes "tensor-a-occurs-twice".
static void with_dashes(char *text) {
    char *out = text;
    for (const char *c = text; *c; c++)
        if (isalnum((unsigned char)*c))
            *out++ = *c;
        else if (out > text && out[-1] != '-')
            *out++ = '-';
    *out = '\0';
}

// The corpus that the fuzz target starts from: each file is named after what it is refused for.
Test(gguf_read, every_broken_file_of_the_corpus_is_refused) {
    static const char folder[] = "tests/fuzz/corpus/fuzz_gguf/broken";
    DIR *entries = opendir(folder);
    size_t n = 0;
    cr_assert(entries);
    for (struct dirent *e; (e = readdir(entries));) {
        char path[512], name[256];
        struct gguf g;
        struct error err = {0};
        if (!strstr(e->d_name, ".gguf"))
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        snprintf(name, sizeof name, "%.*s", (int)(strlen(e->d_name) - 5), e->d_name);
        n++;
        cr_expect_not(gguf_open(&g, path, &err), "%s", path);
        cr_assert(strncmp(err.message, path, strlen(path)) == 0, "%s: '%s'", path, err.message);
        char *why = err.message + strlen(path);
        with_dashes(why);
        cr_expect(strstr(why, name), "%s: '%s'", name, why);
    }
    closedir(entries);
    cr_expect_gt(n, 30);
}

// A file cut short anywhere is refused; one with a changed bit is read or refused, never more.
Test(gguf_read, any_byte_may_be_wrong) {
    struct gguf_bytes b = all_values(3);
    b.data[8] = 2;
    put_tensor(&b, "a", 2, 32, 2, 0);
    put_tensor(&b, "b", 0, 8, 0, 64);
    put_padding(&b, 32);
    put_zeros(&b, 96);
    struct gguf g = parsed(&b);
    gguf_close(&g);
    struct error err;
    for (size_t n = 0; n < b.size; n++) {
        unsigned char *copy = malloc(n + 1); // so that a sanitizer sees a byte too many
        memcpy(copy, b.data, n);
        cr_assert_not(gguf_parse(&g, copy, n, "x.gguf", &err), "%zu of %zu bytes", n, b.size);
        free(copy);
    }
    for (size_t i = 0; i < b.size; i++)
        for (int bit = 0; bit < 8; bit++) {
            b.data[i] ^= (unsigned char)(1 << bit);
            if (gguf_parse(&g, b.data, b.size, "x.gguf", &err))
                gguf_close(&g);
            b.data[i] ^= (unsigned char)(1 << bit);
        }
    free(b.data);
}
