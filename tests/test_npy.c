// io/npy: files as NumPy writes them, and files that only look like it.
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "io/npy.h"

static char path[32];

static void make_path(void) {
    strcpy(path, "/tmp/nibble-npy-XXXXXX");
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    close(fd);
}

static void remove_path(void) {
    unlink(path);
}

TestSuite(npy, .init = make_path, .fini = remove_path);

static void put(const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(data, 1, size, f) == size && fclose(f) == 0);
}

// A version 1 file with this header and n floats 0, 1, 2 …
static void put_npy(const char *header, size_t n) {
    unsigned char file[512] = "\x93NUMPY\x01";
    size_t length = strlen(header);
    file[8] = (unsigned char)length;
    memcpy(file + 10, header, length);
    for (size_t i = 0; i < n; i++) {
        float value = (float)i;
        memcpy(file + 10 + length + 4 * i, &value, 4);
    }
    put(file, 10 + length + 4 * n);
}

// What numpy.save(path, numpy.array([[1, 2]], dtype='<f4')) writes.
static const char from_numpy[] = "\x93NUMPY\x01\x00\x76\x00"
                                 "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }"
                                 "                                                          \n"
                                 "\x00\x00\x80\x3f\x00\x00\x00\x40";

Test(npy, writes_the_bytes_numpy_writes) {
    struct error err = {0};
    cr_assert(npy_write_f32(path, (float[]){1, 2}, 1, 2, &err), "%s", err.message);
    size_t size;
    char *bytes = file_read(path, 1000, &size, &err);
    cr_assert_eq(size, sizeof from_numpy - 1);
    cr_assert(memcmp(bytes, from_numpy, size) == 0);
    free(bytes);
}

Test(npy, reads_the_bytes_numpy_writes) {
    put(from_numpy, sizeof from_numpy - 1);
    struct error err = {0};
    size_t rows, cols;
    float *data = npy_read_f32(path, &rows, &cols, &err);
    cr_assert(data, "%s", err.message);
    cr_assert(rows == 1 && cols == 2 && data[0] == 1 && data[1] == 2);
    free(data);
}

Test(npy, every_bit_survives) {
    float in[6] = {-0.0f, INFINITY, NAN, 1e-45f, 3.4e38f, -1};
    struct error err = {0};
    size_t rows, cols;
    cr_assert(npy_write_f32(path, in, 3, 2, &err), "%s", err.message);
    float *out = npy_read_f32(path, &rows, &cols, &err);
    cr_assert(out && rows == 3 && cols == 2, "%s", err.message);
    cr_assert(memcmp(in, out, sizeof in) == 0);
    free(out);
}

Test(npy, numbers_start_at_a_multiple_of_64_whatever_the_shape) {
    float *zeros = calloc(20000, sizeof *zeros);
    struct error err = {0};
    for (size_t rows = 1; rows <= 10000; rows *= 10) {
        cr_assert(npy_write_f32(path, zeros, rows, 2, &err), "%s", err.message);
        size_t size;
        char *bytes = file_read(path, 1 << 20, &size, &err);
        cr_assert_eq(size - rows * 8, 128);
        cr_assert_eq(bytes[127], '\n');
        free(bytes);
    }
    free(zeros);
}

Test(npy, other_spellings_of_the_same) {
    static const struct {
        const char *header;
        size_t rows, cols;
    } cases[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }", 1, 6},
        {"{\"shape\":(2,3),\"descr\":\"<f4\",\"fortran_order\":False}\n", 2, 3},
        {"{'fortran_order': False, 'shape': (3, 2,), 'descr': '<f4'}  \n", 3, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = {0};
        size_t rows, cols;
        put_npy(cases[i].header, 6);
        float *data = npy_read_f32(path, &rows, &cols, &err);
        cr_assert(data, "%s", err.message);
        cr_assert(rows == cases[i].rows && cols == cases[i].cols && data[5] == 5);
        free(data);
    }
}

Test(npy, an_empty_matrix) {
    struct error err = {0};
    size_t rows, cols;
    cr_assert(npy_write_f32(path, NULL, 0, 5, &err), "%s", err.message);
    float *data = npy_read_f32(path, &rows, &cols, &err);
    cr_assert(data && rows == 0 && cols == 5, "%s", err.message);
    free(data);
}

Test(npy, refuses_what_it_cannot_read) {
    static const struct {
        const char *header, *message;
    } cases[] = {
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (1, 6), }", "'<f8', expected '<f4'"},
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (1, 6), }", "'>f4', expected '<f4'"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}", "has '[("},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (1, 6), }", "Fortran order"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (1, 6), }", "expected 'False'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3), }", "more than two"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "expected 'a dimension'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 6), }", "expected 'a dimension'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6), }", "expected ','"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 5), }", "24 bytes of numbers"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 6), }", "24 bytes of numbers"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 6), }",
         "24 bytes of numbers"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 6), }",
         "overflows"},
        {"{'descr': '<f4', 'fortran_order': False, }", "not a dict of"},
        {"{'descr': '<f4', 'descr': '<f4', 'shape': (1, 6), }", "unexpected key 'descr'"},
        {"{'descr': '<f4', 'order': 'C', 'shape': (1, 6), }", "unexpected key 'order'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 6) } x", "not a dict of"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 6)", "expected '}'"},
        {"{'descr", "does not end"},
        {"", "expected '{'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = {0};
        size_t rows, cols;
        put_npy(cases[i].header, 6);
        cr_assert_null(npy_read_f32(path, &rows, &cols, &err), "%s", cases[i].header);
        cr_assert(strstr(err.message, cases[i].message), "%s: %s", cases[i].header, err.message);
        cr_assert(strncmp(err.message, path, strlen(path)) == 0, "%s", err.message);
    }
}

Test(npy, refuses_every_truncation) {
    for (size_t size = 0; size < sizeof from_numpy - 1; size++) {
        struct error err = {0};
        size_t rows, cols;
        put(from_numpy, size);
        cr_assert_null(npy_read_f32(path, &rows, &cols, &err), "%zu bytes", size);
        cr_assert(*err.message);
    }
}

Test(npy, refuses_other_files) {
    struct error err = {0};
    size_t rows, cols;
    put("PK\x03\x04 not numpy at all", 20);
    cr_assert_null(npy_read_f32(path, &rows, &cols, &err));
    cr_assert(strstr(err.message, "not a .npy file"), "%s", err.message);
    char wrong[sizeof from_numpy];
    memcpy(wrong, from_numpy, sizeof wrong);
    wrong[6] = 9;
    put(wrong, sizeof wrong - 1);
    cr_assert_null(npy_read_f32(path, &rows, &cols, &err));
    cr_assert(strstr(err.message, "version 9.0"), "%s", err.message);
    cr_assert_null(npy_read_f32("/tmp/nibble-npy-that-is-not-there", &rows, &cols, &err));
}

Test(npy, the_header_length_is_checked_and_has_four_bytes_since_version_2) {
    char file[sizeof from_numpy + 1];
    size_t size = sizeof from_numpy - 1, rows, cols;
    struct error err = {0};
    memcpy(file, from_numpy, size);
    file[9] = 1; // 0x176 bytes
    put(file, size);
    cr_assert_null(npy_read_f32(path, &rows, &cols, &err));
    cr_assert(strstr(err.message, "a header of 374 bytes in a file of 136"), "%s", err.message);
    memcpy(file, "\x93NUMPY\x02\x00\x76\x00\x00\x00", 12);
    memcpy(file + 12, from_numpy + 10, size - 10);
    put(file, size + 2);
    float *data = npy_read_f32(path, &rows, &cols, &err);
    cr_assert(data && rows == 1 && cols == 2 && data[1] == 2, "%s", err.message);
    free(data);
    file[11] = 1; // 16 MiB more
    put(file, size + 2);
    cr_assert_null(npy_read_f32(path, &rows, &cols, &err));
    cr_assert(strstr(err.message, "a header of 16777334 bytes"), "%s", err.message);
}

Test(npy, an_unwritable_place_is_an_error) {
    struct error err = {0};
    cr_assert_not(npy_write_f32("/dev/null/x.npy", (float[]){1}, 1, 1, &err));
    cr_assert(strstr(err.message, "/dev/null/x.npy"), "%s", err.message);
    cr_assert_not(npy_write_f32(path, NULL, SIZE_MAX, 2, &err));
    cr_assert(strstr(err.message, "overflow"), "%s", err.message);
}
