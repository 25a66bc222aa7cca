// model/packed: matrices saved in the order of the kernels are multiplied where they are mapped,
// and give the bits of those that were woven in memory.
#include "packed_model.h"

#include "export/gguf_export.h"
#include "gguf_files.h"
#include "kernel_data.h"
#include "quant/woven.h"
#include "shared.h"

static struct model *saved_and_loaded(const struct model *q, const char *from) {
    struct error err = {0};
    remove_saved();
    cr_assert(packed_save(q, NULL, from, saved_folder(), NULL, &err), "%s", err.message);
    return load(saved_folder());
}

static void weave(struct model *m) {
    struct error err = {0};
    cr_assert(model_weave(m, &err), "%s", err.message);
}

// Before and after it is made fast, for every instruction set.
static void check_format(const char *folder, const char *recipe_text) {
    struct recipe recipe;
    struct model *m = load(folder), *q = quantized(m, recipe_text, false, &recipe);
    struct model *back = saved_and_loaded(q, folder);
    check_same_logits(q, back);
    weave(q);
    weave(back);
    FOR_EACH_LEVEL(level)
    check_same_logits(q, back);
    model_free(back);
    model_free(q);
    model_free(m);
    recipe_free(&recipe);
}

Test(packed_woven, saved_and_woven_in_memory_are_the_same_model) {
    static const char *const formats[] = {
        "int8",        "int8-tensor", "int8-g128", "int4-g128", "int4-g64-zp", "int4",
        "int5-g32-zp", "int6-g64",    "q8_0",      "q4_0",      "q4_1",        "q5_0",
        "q4_k",        "q5_k",        "q6_k",      "iq4_nl",    "nf4"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        char recipe[64];
        snprintf(recipe, sizeof recipe, "*proj|*embed_tokens  %s", formats[i]);
        check_format("data/model", recipe);
    }
}

// 600 and 700 rows, no multiple of 16; GPT-2's stack of q, k and v.
Test(packed_woven, rows_that_fill_no_block_and_stacks) {
    static const char *const formats[] = {"int8", "int4-g32", "int5-g64-zp"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        char recipe[64];
        snprintf(recipe, sizeof recipe, "*  %s", formats[i]);
        check_format(shared_path("fixtures/llama-untied-f16-sharded"), recipe);
        snprintf(recipe, sizeof recipe, "*c_*|*wte  %s", formats[i]);
        check_format(shared_path("fixtures/gpt2-f32"), recipe);
    }
}

// ---- what lies where ----------------------------------------------------------------------------

struct places {
    const struct model *of;
    size_t woven, in_rows;
};

static bool count_mapped(void *user, struct linear *l) {
    struct places *p = user;
    if (l->w.dtype != DTYPE_BLOCK)
        return true;
    p->woven += l->w.woven;
    p->in_rows += !l->w.woven;
    cr_assert(is_mapped(p->of, l->w.data) && !l->owns_data, "%s", l->w.name);
    cr_assert_eq((uintptr_t)l->w.data % PACKED_ALIGN, 0);
    cr_assert(!l->w.woven || (l->weave.data == l->w.data && l->weave.n == l->w.shape[0]));
    return true;
}

// How the matrices of a saved model lie; `fast`: after it was made fast, which then moved none.
static struct places places_of(const char *recipe_text, bool int8, bool fast) {
    struct recipe recipe;
    struct error err = {0};
    struct model *m = load("data/model"), *q = quantized(m, recipe_text, int8, &recipe);
    struct model *back = saved_and_loaded(q, "data/model"), *engine = model_share(back, &err);
    cr_assert(engine, "%s", err.message);
    if (fast)
        weave(engine);
    struct places p = {.of = back};
    model_visit_linears(engine, count_mapped, &p);
    model_free(engine);
    model_free(back);
    model_free(q);
    model_free(m);
    recipe_free(&recipe);
    return p;
}

Test(packed_woven, nothing_is_woven_or_copied_at_load) {
    struct places p = places_of("*proj|*embed_tokens  int4-g128", false, true);
    cr_assert(p.woven > 7 && p.in_rows == 0, "%zu, %zu", p.woven, p.in_rows);
}

Test(packed_woven, what_no_kernel_reads_woven_is_saved_in_rows) {
    struct places p = places_of("*up_proj  mxfp4\n*down_proj  int3-g64", false, true);
    cr_assert(p.woven == 0 && p.in_rows > 2, "%zu, %zu", p.woven, p.in_rows);
    p = places_of("*up_proj  int8\n*down_proj  int8-tensor", true, true);
    cr_assert(p.woven == 0 && p.in_rows > 2, "%zu, %zu", p.woven, p.in_rows);
}

// ---- files of other kinds -----------------------------------------------------------------------

// Replaces text in the header of the saved file, whose data then begin `shift` bytes behind a cache
// line.
static void rewrite(const char *from, const char *to, size_t shift) {
    struct error err = {0};
    uint64_t length;
    size_t size;
    char *path = path_join(saved_folder(), "model.safetensors", &err);
    char *file = file_read(path, SIZE_MAX, &size, &err);
    cr_assert(file, "%s", err.message);
    memcpy(&length, file, sizeof length);
    char *header = file + sizeof length, *data = header + length;
    char *at = memmem(header, length, from, strlen(from));
    cr_assert(at, "%s", from);
    size_t rest = length - (size_t)(at - header) - strlen(from);
    uint64_t longer = length - strlen(from) + strlen(to);
    size_t spaces = (64 + shift - (sizeof longer + longer) % 64) % 64;
    longer += spaces;
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(&longer, sizeof longer, 1, f) == 1);
    fwrite(header, 1, (size_t)(at - header), f);
    fprintf(f, "%s%.*s%*s", to, (int)rest, at + strlen(from), (int)spaces, "");
    fwrite(data, 1, size - (size_t)(data - file), f);
    cr_assert(!ferror(f) && fclose(f) == 0);
    free(file);
    free(path);
}

// Files of version 1 have all matrices in rows; so have today's where activations become int8.
Test(packed_woven, a_file_of_version_1_is_woven_when_it_runs) {
    struct recipe recipe, same;
    struct model *m = load("data/model"), *q = quantized(m, "*proj  int8", false, &recipe);
    struct model *dynamic = quantized(m, "*proj  int8", true, &same);
    model_free(saved_and_loaded(dynamic, "data/model"));
    rewrite("\"nibble\":\"2\"", "\"nibble\":\"1\"", 0);
    rewrite("\"activations\":\"int8\",", "", 0);
    struct model *old = load(saved_folder());
    cr_assert(!old->layers[0].q.w.woven && !old->layers[0].q.int8_activations);
    check_same_logits(q, old);
    weave(old);
    cr_assert(old->layers[0].q.w.woven);
    weave(q);
    check_same_logits(q, old);
    model_free(old);
    model_free(dynamic);
    model_free(q);
    model_free(m);
    recipe_free(&recipe);
    recipe_free(&same);
}

// Others may write headers of any length, and so put matrices at any address.
Test(packed_woven, a_matrix_between_cache_lines_is_copied) {
    struct recipe recipe;
    struct model *m = load("data/model"), *q = quantized(m, "*proj  int4-g64", false, &recipe);
    model_free(saved_and_loaded(q, "data/model"));
    rewrite("{", "{", 8);
    struct model *back = load(saved_folder());
    const struct linear *l = &back->layers[0].q;
    cr_assert(l->w.woven && l->owns_data && (uintptr_t)l->w.data % PACKED_ALIGN == 0);
    cr_assert_eq(l->weave.data, l->w.data);
    check_same_logits(q, back);
    model_free(back);
    model_free(q);
    model_free(m);
    recipe_free(&recipe);
}

Test(packed_woven, int8_activations_in_a_file_of_woven_int8_are_refused) {
    struct error err = {0};
    struct recipe recipe;
    struct model *m = load("data/model");
    struct model *q = quantized(m, "*up_proj  int8\n*q_proj  int4-g32", false, &recipe);
    model_free(saved_and_loaded(q, "data/model"));
    rewrite("\"nibble\":\"2\"", "\"nibble\":\"2\",\"activations\":\"int8\"", 0);
    cr_assert_null(model_load(saved_folder(), &err));
    cr_assert(strstr(err.message, "up_proj.weight' is woven, expected rows for int8 activations"),
              "%s", err.message);
    model_free(q);
    model_free(m);
    recipe_free(&recipe);
}

// ---- who wants rows -----------------------------------------------------------------------------

Test(packed_woven, int8_activations_of_a_woven_model_read_the_same_codes) {
    struct recipe a, b, c;
    struct model *m = load("data/model"), *q = quantized(m, "*proj  int8", false, &a);
    struct model *back = saved_and_loaded(q, "data/model");
    cr_assert(back->layers[0].up.w.woven);
    struct model *dynamic = quantized(back, "*proj  int8", true, &b);
    struct model *want = quantized(m, "*proj  int8", true, &c);
    cr_assert(dynamic->layers[0].up.int8_activations && !dynamic->layers[0].up.w.woven);
    check_same_logits(want, dynamic);
    model_free(want);
    model_free(dynamic);
    model_free(back);
    model_free(q);
    model_free(m);
    recipe_free(&a), recipe_free(&b), recipe_free(&c);
}

static void check_same_export(const char *folder, const char *format, const char *type) {
    char recipe_text[64];
    struct error err = {0};
    struct recipe recipe;
    snprintf(recipe_text, sizeof recipe_text, "*proj  %s", format);
    struct tokenizer *t = tokenizer_of(folder);
    struct model *m = load(folder), *q = quantized(m, recipe_text, false, &recipe);
    struct model *back = saved_and_loaded(q, folder);
    char *paths[] = {gguf_path("rows"), gguf_path("woven")}, *files[2];
    size_t sizes[2];
    export_as(q, t, type, paths[0]);
    export_as(back, t, type, paths[1]);
    for (size_t i = 0; i < 2; i++)
        cr_assert(files[i] = file_read(paths[i], SIZE_MAX, &sizes[i], &err), "%s", err.message);
    cr_assert_eq(sizes[0], sizes[1]);
    cr_assert_arr_eq(files[0], files[1], sizes[0], "%s as %s", folder, type);
    for (size_t i = 0; i < 2; i++)
        free(paths[i]), free(files[i]);
    model_free(back);
    model_free(q);
    model_free(m);
    tokenizer_free(t);
    recipe_free(&recipe);
}

// Blocks are copied as they were, whole or (llama) with rows moved; planes are quantized again.
Test(packed_woven, gguf_files_of_a_woven_model_are_the_same) {
    check_same_export("data/model", "q4_0", "Q4_0");
    check_same_export("data/model", "q6_k", "Q6_K");
    check_same_export("data/model", "int4-g64", "Q4_0");
    check_same_export(shared_path("fixtures/llama-untied-f16-sharded"), "q8_0", "Q8_0");
}
