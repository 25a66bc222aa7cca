// io/gguf: files in several parts, and how a file is found.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gguf_bytes.h"
#include "io/gguf.h"
#include "temp.h"

struct part {
    uint16_t index, count;
    int32_t tensors; // of the whole split
    const char *tensor;
};

static const char *write_part(const char *name, struct part p) {
    struct gguf_bytes b = {0};
    put_header(&b, 3, 1, p.index ? 3 : 4);
    if (!p.index)
        put_key_text(&b, "general.architecture", "llama");
    put_key(&b, "split.no", GGUF_U16), put_number(&b, p.index, 2);
    put_key(&b, "split.count", GGUF_U16), put_number(&b, p.count, 2);
    put_key(&b, "split.tensors.count", GGUF_I32), put_u32(&b, (uint32_t)p.tensors);
    put_tensor(&b, p.tensor, 0, 8, 0, 0);
    put_padding(&b, 32);
    put_zeros(&b, 32);
    const char *path = temp_file(name, b.data, b.size);
    free(b.data);
    return path;
}

static void expect_open_error(const char *name, const char *part) {
    char path[256];
    struct gguf g;
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s", temp_folder(), name);
    cr_assert_not(gguf_open(&g, path, &err));
    cr_assert(strstr(err.message, part), "'%s' lacks '%s'", err.message, part);
}

Test(gguf_split, any_part_opens_the_whole_split) {
    write_part("m-00001-of-00003.gguf", (struct part){0, 3, 3, "c"});
    write_part("m-00002-of-00003.gguf", (struct part){1, 3, 3, "a"});
    write_part("m-00003-of-00003.gguf", (struct part){2, 3, 3, "b"});
    for (int i = 1; i <= 3; i++) {
        char path[256];
        struct gguf g;
        struct error err = {0};
        snprintf(path, sizeof path, "%s/m-%05d-of-00003.gguf", temp_folder(), i);
        cr_assert(gguf_open(&g, path, &err), "%s", err.message);
        cr_assert(g.n_parts == 3 && g.n_tensors == 3 && g.n_keys == 4);
        cr_assert_not_null(gguf_find(&g, "general.architecture"));
        const struct gguf_tensor *b = gguf_find_tensor(&g, "b");
        cr_assert(b && b->part == 2 && strstr(b->view.file, "00003-of-00003"));
        gguf_drop(&g, b->view.data, b->view.bytes);
        gguf_close(&g);
    }
    struct error err = {0};
    char *found = gguf_in_folder(temp_folder(), &err);
    cr_assert(found && strstr(found, "m-00001-of-00003.gguf"));
    free(found);
}

Test(gguf_split, splits_that_lie_are_refused) {
    write_part("m-00001-of-00002.gguf", (struct part){0, 2, 2, "a"});
    expect_open_error("m-00001-of-00002.gguf", "m-00002-of-00002.gguf: No such file");
    write_part("m-00002-of-00002.gguf", (struct part){0, 2, 2, "b"});
    expect_open_error("m-00001-of-00002.gguf", "says that it is part 1 of 2, expected part 2 of 2");
    write_part("m-00002-of-00002.gguf", (struct part){1, 2, 2, "a"});
    expect_open_error("m-00001-of-00002.gguf", "tensor 'a' occurs twice");
    write_part("m-00002-of-00002.gguf", (struct part){1, 2, 3, "b"});
    expect_open_error("m-00002-of-00002.gguf", "the 2 parts have 2 tensors, expected 3");
    write_part("renamed.gguf", (struct part){1, 2, 2, "b"});
    expect_open_error("renamed.gguf",
                      "is part 2 of 2, but the name does not end in -00002-of-00002.gguf");
}

Test(gguf_split, a_part_belongs_to_its_file_by_any_name) {
    char first[256], second[256], link[256];
    strcpy(first, write_part("m-00001-of-00002.gguf", (struct part){0, 2, 2, "a"}));
    strcpy(second, write_part("m-00002-of-00002.gguf", (struct part){1, 2, 2, "b"}));
    snprintf(link, sizeof link, "%s/link", temp_folder());
    cr_assert_eq(symlink(second, link), 0);
    cr_expect(gguf_has_part(first, first) && gguf_has_part(first, second));
    cr_expect(gguf_has_part(first, link) && gguf_has_part(second, first));
    const char *other = write_part("a.gguf", (struct part){0, 1, 1, "a"});
    cr_expect(gguf_has_part(other, other) && !gguf_has_part(other, first));
    cr_expect_not(gguf_has_part(first, "/nonexistent"));
}

Test(gguf_split, the_only_file_of_a_folder_is_found) {
    struct error err = {0};
    cr_assert_null(gguf_in_folder(temp_folder(), &err));
    cr_assert_str_eq(err.message, "");
    write_part("a.gguf", (struct part){0, 1, 1, "a"});
    char *found = gguf_in_folder(temp_folder(), &err);
    cr_assert(found && strstr(found, "/a.gguf") && gguf_is_file(found));
    free(found);
    write_part("c.gguf", (struct part){0, 1, 1, "a"});
    write_part("b.gguf", (struct part){0, 1, 1, "a"});
    cr_assert_null(gguf_in_folder(temp_folder(), &err));
    cr_assert(strstr(err.message, ": has 3 GGUF files, choose one of them: a.gguf, b.gguf, c.gguf"),
              "%s", err.message);
    cr_assert_not(gguf_is_file(temp_file("c.gguf", "GGU", 3)));
}
