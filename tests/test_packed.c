// model/packed: what is saved is loaded, bit for bit, and what lies is refused.
#include <criterion/criterion.h>
#include <dirent.h>

#include "core/file.h"
#include "packed_model.h"
#include "quant/woven.h"
#include "shared.h"

struct linears {
    const struct linear *all[512];
    size_t n;
};

static bool collect(void *user, struct linear *l) {
    struct linears *list = user;
    cr_assert(list->n < 512);
    list->all[list->n++] = l;
    return true;
}

// Rows as the format has them, however they lie.
static void check_same_rows(const struct tensor *a, const struct tensor *b) {
    struct error err = {0};
    const struct tensor *both[] = {a, b};
    void *undone[] = {NULL, NULL};
    for (size_t i = 0; i < 2; i++)
        if (both[i]->woven)
            cr_assert(undone[i] = woven_undo(both[i], &err), "%s", err.message);
    cr_assert_arr_eq(undone[0] ? undone[0] : a->data, undone[1] ? undone[1] : b->data, a->bytes,
                     "%s", a->name);
    free(undone[0]);
    free(undone[1]);
}

// The same matrices in the same formats under the same names; b's are views of its file.
static void check_same_linears(struct model *a, struct model *b) {
    struct linears x = {0}, y = {0};
    model_visit_linears(a, collect, &x);
    model_visit_linears(b, collect, &y);
    cr_assert_eq(x.n, y.n);
    for (size_t i = 0; i < x.n; i++) {
        const struct tensor *s = &x.all[i]->w, *t = &y.all[i]->w;
        cr_assert(s->format == t->format && s->dtype == t->dtype && s->bytes == t->bytes, "%s: %s",
                  t->name, t->format->name);
        cr_assert(t->n_dims == 2 && s->shape[0] == t->shape[0] && s->shape[1] == t->shape[1]);
        cr_assert_str_eq(s->name, t->name);
        check_same_rows(s, t);
        cr_assert_eq(x.all[i]->int8_activations, y.all[i]->int8_activations);
        if (t->dtype == DTYPE_BLOCK)
            cr_assert(is_mapped(b, t->data) && (uintptr_t)t->data % 64 == 0 && !y.all[i]->owns_data,
                      "%s", t->name);
    }
    cr_assert_eq(model_bytes(a), model_bytes(b));
}

static void check_round_trip(const char *folder, const char *recipe_text, bool int8) {
    struct error err = {0};
    struct recipe recipe;
    struct model *m = load(folder), *q = quantized(m, recipe_text, int8, &recipe);
    size_t bytes = 0;
    cr_assert(packed_save(q, &recipe, folder, saved_folder(), &bytes, &err), "%s", err.message);
    struct model *back = load(saved_folder());
    cr_assert(bytes >= model_bytes(q) / 2 && back->files->n_mappings == 1);
    cr_assert_eq(bytes, back->files->mappings[0].size);
    check_same_linears(q, back);
    check_same_logits(q, back);
    model_free(back);
    model_free(q);
    model_free(m);
    recipe_free(&recipe);
    remove_saved();
}

static const char mixed[] = "*down_proj|*mlp.c_proj  int3-g64-zp\n"
                            "*.1.*                   int8\n"
                            "*.0.*q_proj             keep\n"
                            "*proj|*c_fc|*c_attn     int5-g16\n"
                            "*embed_tokens|*wte      int6\n"
                            "lm_head                 int8-g32\n";

static void check_recipes(const char *folder) {
    check_round_trip(folder, "*proj|*c_*  int4-g32", false);
    check_round_trip(folder, "*proj|*c_*  int8", true);
    check_round_trip(folder, "*proj|*c_*  int8-tensor", false);
    check_round_trip(folder, "*  f16", false);
    check_round_trip(folder, mixed, false);
}

Test(packed, qwen2_comes_back_bit_for_bit) {
    check_recipes(shared_path("fixtures/qwen2-tied-bf16"));
}

Test(packed, llama_in_shards_comes_back_bit_for_bit) {
    check_recipes(shared_path("fixtures/llama-untied-f16-sharded"));
}

Test(packed, gpt2_with_its_fused_and_turned_matrices_comes_back_bit_for_bit) {
    check_recipes(shared_path("fixtures/gpt2-f32"));
}

Test(packed, qwen3_comes_back_bit_for_bit) {
    check_recipes(shared_path("fixtures/qwen3-qknorm-bf16"));
}

Test(packed, the_bundled_model_comes_back_bit_for_bit) {
    check_round_trip("data/model", mixed, false);
}

Test(packed, a_model_that_was_not_quantized_is_copied) {
    const char *folder = shared_path("fixtures/llama-untied-f16-sharded");
    struct error err = {0};
    struct model *m = load(folder);
    cr_assert(packed_save(m, NULL, folder, saved_folder(), NULL, &err), "%s", err.message);
    struct model *back = load(saved_folder());
    check_same_linears(m, back);
    check_same_logits(m, back);
    cr_assert_eq(packed_summarize(back).weights, 0);
    model_free(back);
    model_free(m);
}

// A second quantization reads the first one's weights; what it keeps goes on as it is.
Test(packed, a_packed_model_is_quantized_and_saved_again) {
    const char *folder = shared_path("fixtures/gpt2-f32");
    char second[256];
    snprintf(second, sizeof second, "%s/second", temp_folder());
    struct error err = {0};
    struct recipe r1, r2;
    struct model *m = load(folder), *q = quantized(m, "*c_*  int8-g64", false, &r1);
    cr_assert(packed_save(q, &r1, folder, saved_folder(), NULL, &err), "%s", err.message);
    struct model *once = load(saved_folder());
    struct model *twice = quantized(once, "*.0.*  keep\n*c_*  int3-g32", false, &r2);
    cr_assert(packed_save(twice, &r2, saved_folder(), second, NULL, &err), "%s", err.message);
    struct model *back = load(second);
    check_same_linears(twice, back);
    check_same_logits(twice, back);
    cr_assert_str_eq(back->layers[0].q.w.format->name, "int8-g64");
    cr_assert_str_eq(back->layers[1].v.w.format->name, "int3-g32");
    cr_assert_null(packed_summarize(back).format, "two formats");
    model_free(back);
    model_free(twice);
    model_free(once);
    model_free(q);
    model_free(m);
    recipe_free(&r1);
    recipe_free(&r2);
}

Test(packed, the_folder_has_config_tokenizer_and_recipe) {
    struct error err = {0};
    struct recipe recipe, back;
    struct model *m = load("data/model"), *q = quantized(m, "*.mlp.*  int4-g64", false, &recipe);
    cr_assert(packed_save(q, &recipe, "data/model", saved_folder(), NULL, &err), "%s", err.message);
    static const char *const names[] = {"config.json", "tokenizer.json", "model.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_join(saved_folder(), names[i], &err);
        cr_assert(file_exists(path), "%s", path);
        free(path);
    }
    char *path = path_join(saved_folder(), "recipe.txt", &err);
    cr_assert(recipe_read(&back, path, &err), "%s", err.message);
    cr_assert_str_eq(recipe_format(&back, "model.layers.0.mlp.up_proj.weight")->name, "int4-g64");
    struct packed_summary s = packed_summarize(q);
    cr_assert_eq(s.format, quant_format_find("int4-g64"));
    cr_assert_float_eq(8.0 * (double)s.bytes / (double)s.weights, 4.25, 0.01);
    free(path);
    recipe_free(&back);
    recipe_free(&recipe);
    model_free(q);
    model_free(m);
}

static size_t entries(const char *folder) {
    size_t n = 0;
    DIR *d = opendir(folder);
    cr_assert(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

Test(packed, what_is_there_already_is_not_touched) {
    struct error err = {0};
    struct model *m = load("data/model");
    temp_file("precious", "x", 1);
    cr_assert_not(packed_save(m, NULL, "data/model", temp_folder(), NULL, &err));
    cr_assert(strstr(err.message, "is there already"), "%s", err.message);
    char *file = path_join(temp_folder(), "precious", &err);
    cr_assert_not(packed_save(m, NULL, "data/model", file, NULL, &err));
    cr_assert(strstr(err.message, "is there already"), "%s", err.message);
    cr_assert_eq(entries(temp_folder()), 1);
    cr_assert(folder_create(saved_folder(), &err));
    cr_assert(packed_save(m, NULL, "data/model", saved_folder(), NULL, &err), "an empty folder: %s",
              err.message);
    cr_assert_not(packed_save(m, NULL, "/no/such/folder", "x", NULL, &err));
    cr_assert(strstr(err.message, "/no/such/folder: No such file"), "%s", err.message);
    cr_assert_neq(access("x", F_OK), 0);
    cr_assert_eq(entries(temp_folder()), 2); // no temporary folder is left
    free(file);
    model_free(m);
}

// ---- files that lie -----------------------------------------------------------------------------

// A file with one tensor "w" of n bytes and these notes.
static bool bind(const char *notes, const char *dtype, size_t n, struct error *err) {
    static unsigned char file[8192];
    char header[2048];
    snprintf(header, sizeof header,
             "{\"__metadata__\":{%s},\"w\":{\"dtype\":\"%s\",\"shape\":[%zu],"
             "\"data_offsets\":[0,%zu]}}",
             notes, dtype, strcmp(dtype, "F32") ? n : n / 4, n);
    uint64_t size = strlen(header);
    memcpy(file, &size, 8);
    memcpy(file + 8, header, size);
    struct safetensors s = {.n_mappings = 0, .paths = (char *[]){"x.safetensors"}};
    cr_assert(safetensors_parse(&s, file, 8 + size + n, "x.safetensors", err), "%s", err->message);
    bool ok = packed_bind(&s, err);
    s.paths = NULL;
    safetensors_close(&s);
    return ok;
}

Test(packed, descriptions_that_lie_are_refused) {
    static const struct {
        const char *note, *message;
    } cases[] = {
        {"int4-g32 [4, 64]", "has 128 bytes, expected 192 for 'int4-g32 [4, 64]'"},
        {"int4-g33 [4, 32]", "'int4-g33 [4, 32]': no known format"},
        {" [4, 32]", "no known format"},
        {"int8", "expected a format and a shape like"},
        {"int8 [128]", "expected a format and a shape like"},
        {"int8 [1, 2, 4, 16]", "expected a format and a shape like"},
        {"int8 [0, 128]", "expected a format and a shape like"},
        {"int8 [-1, 128]", "expected a format and a shape like"},
        {"int8 [2, 64", "expected a format and a shape like"},
        {"int8 [2, 64] ", "expected a format and a shape like"},
        {"int8 [2, x64]", "expected a format and a shape like"},
        {"int8 [2, 1234567890123456]", "expected a format and a shape like"},
        {"int8 [999999999999999, 999999999999999]", "a shape that this format cannot have"},
        {"f32 [999999, 999999999999, 999999999999999]", "a shape that this format cannot have"},
        {"int4-g32 woven-32x4 [4, 32]", "laid out as 'woven-32x4', expected 'woven-16x4' or no"},
        {"int4-g32 a-name-of-a-layout-that-is-longer-than-any [4, 32]",
         "expected a format and a shape like"},
        {"int4-g32 woven-16x4 ", "expected a format and a shape like"},
        {"int4-g32 woven-16x4 woven-16x4 [4, 32]", "expected a format and a shape like"},
        {"int4-g32 woven-16x4 [4, 64]", "has 128 bytes, expected 576 for 'int4-g32 woven-16x4 [4"},
        {"int3-g32 woven-16x4 [4, 32]", "but such ones are not woven"},
        {"f16 woven-16x4 [2, 32]", "but such ones are not woven"},
        {"int8 woven-16x4 [1, 99999999]", "but such ones are not woven"},
        {"int8 woven-16x4 [999999999999999, 60000000]", "a shape that this format cannot have"},
        {"int8 woven-16x4 [999999, 999999999999, 60000000]",
         "a shape that this format cannot have"},
        {"a-name-of-a-format-that-is-longer-than-any-format-in-the-whole-table-is [1, 2]",
         "expected a format and a shape like"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char notes[256];
        struct error err = {0};
        snprintf(notes, sizeof notes, "\"nibble\":\"1\",\"w\":\"%s\"", cases[i].note);
        cr_assert_not(bind(notes, "U8", 128, &err), "%s", cases[i].note);
        cr_assert(strstr(err.message, cases[i].message), "%s: '%s'", cases[i].note, err.message);
        cr_assert(strncmp(err.message, "x.safetensors: tensor 'w' ", 25) == 0, "%s", err.message);
    }
}

Test(packed, versions_and_types_of_others_are_refused) {
    struct error err = {0};
    cr_assert(bind("\"nibble\":\"1\",\"w\":\"int8-g32 [2, 32]\"", "U8", 128, &err), "%s",
              err.message);
    cr_assert(bind("\"w\":\"hello\"", "U8", 128, &err), "no file of ours");
    cr_assert(bind("\"nibble\":\"1\",\"v\":\"hello\"", "U8", 128, &err), "no such tensor");
    cr_assert(bind("\"nibble\":\"2\",\"w\":\"int8-g32 [2, 32]\"", "U8", 128, &err), "%s",
              err.message);
    cr_assert_not(bind("\"nibble\":\"3\",\"w\":\"int8-g32 [2, 32]\"", "U8", 128, &err));
    cr_assert(strstr(err.message, "packed in version '3', expected '1' or '2'"), "%s", err.message);
    cr_assert_not(bind("\"nibble\":\"1\",\"w\":\"int8-g32 [2, 32]\"", "F32", 128, &err));
    cr_assert(strstr(err.message, "is F32, expected U8"), "%s", err.message);
}

// Larger than 2^31 and 2^32 bytes: only sizes, no such file.
Test(packed, sizes_are_not_cut_to_32_bits) {
    char note[] = "int8-g32 [3, 65536, 65536]";
    size_t matrix = ((size_t)1 << 32) + ((size_t)1 << 28);
    struct tensor t = {.name = "w",
                       .file = "x",
                       .dtype = DTYPE_U8,
                       .n_dims = 1,
                       .shape = {3 * matrix},
                       .bytes = 3 * matrix,
                       .data = (void *)64};
    struct safetensors_note notes[] = {{"nibble", "1"}, {"w", note}};
    struct safetensors s = {
        .n_tensors = 1, .tensors = &t, .n_notes = 2, .notes = notes, .paths = (char *[]){"x"}};
    struct error err = {0};
    cr_assert(packed_bind(&s, &err), "%s", err.message);
    struct tensor third = packed_matrix(&t, 2);
    cr_assert_eq((uintptr_t)third.data, 64 + 2 * matrix);
    cr_assert_eq(third.bytes, matrix);
    t = (struct tensor){.name = "w", .dtype = DTYPE_U8, .n_dims = 1, .bytes = 3 * matrix + 64};
    t.file = "x";
    cr_assert_not(packed_bind(&s, &err));
}

Test(packed, a_matrix_of_another_shape_than_the_config_is_refused) {
    struct error err = {0};
    struct recipe recipe;
    struct model *m = load("data/model"), *q = quantized(m, "*.up_proj  int4-g64", false, &recipe);
    cr_assert(packed_save(q, &recipe, "data/model", saved_folder(), NULL, &err), "%s", err.message);
    char from[64], to[64], command[600];
    const size_t *shape = q->layers[0].up.w.shape;
    snprintf(from, sizeof from, "\\[%zu, %zu\\]", shape[0], shape[1]);
    snprintf(to, sizeof to, "[%zu, %zu]", shape[0] / 2, shape[1] * 2); // of as many bytes
    snprintf(command, sizeof command, "sed -i 's/%s/%s/' %s/model.safetensors", from, to,
             saved_folder());
    cr_assert_eq(system(command), 0);
    cr_assert_null(model_load(saved_folder(), &err));
    cr_assert(strstr(err.message, "up_proj.weight' is ["), "%s", err.message);
    recipe_free(&recipe);
    model_free(q);
    model_free(m);
}

Test(packed, unknown_activations_are_refused) {
    struct safetensors_note notes[] = {{"nibble", "1"}, {"activations", "int4"}};
    struct safetensors s = {.n_notes = 2, .notes = notes, .paths = (char *[]){"x"}};
    struct error err = {0};
    bool int8;
    cr_assert_not(packed_activations(&s, &int8, &err));
    cr_assert_str_eq(err.message, "x: activations are 'int4', expected 'int8'");
    notes[1].value = "int8";
    cr_assert(packed_activations(&s, &int8, &err) && int8);
    notes[0].key = "other";
    cr_assert(packed_activations(&s, &int8, &err) && !int8);
}
