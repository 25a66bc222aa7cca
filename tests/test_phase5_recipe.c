// --recipe, as every phase takes it: lab/mixed.
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "lab/mixed.h"
#include "shared.h"
#include "temp.h"

static const struct cli_program program = {.name = "phase3", .phase = 3};

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static bool lab_with(struct lab *lab, struct error *err, const char *model, const char *recipe,
                     const char *const *words) {
    static char text[1024]; // read until the lab is closed
    static char *argv[32];
    int argc = 0;
    snprintf(text, sizeof text, "%s/text.txt", model);
    const char *path = temp_file("mix.txt", recipe, strlen(recipe));
    const char *const first[] = {"./phase3", "--quiet", "--threads", "1",     "--model",
                                 model,      "--text",  text,        "--ctx", "32",
                                 "--limit",  "40",      "--recipe",  path,    NULL};
    for (size_t i = 0; first[i]; i++)
        argv[argc++] = (char *)(uintptr_t)first[i];
    for (; *words; words++)
        argv[argc++] = (char *)(uintptr_t)*words;
    argv[argc] = NULL;
    return lab_open(lab, &program, argc, argv, err);
}

static struct lab measured(const char *model, const char *recipe, const char *const *words) {
    struct lab lab;
    struct error err = {0};
    cr_assert(lab_with(&lab, &err, model, recipe, words), "%s", err.message);
    cr_assert(lab_baseline(&lab, &err), "%s", err.message);
    return lab;
}

static void close_lab(struct lab *lab) {
    struct error err = {0};
    lab_close(lab, false, &err);
}

static const struct result_row *last_row(const struct lab *lab) {
    return &lab->table.rows[lab->table.n_rows - 1];
}

Test(phase5_recipe, its_row_is_named_after_the_file_and_follows_the_baseline) {
    struct lab lab = measured(shared_path("fixtures/qwen2-tied-bf16"),
                              "*.down_proj int8\n*.layers.* int4-g64 search\n", WORDS("--seed=1"));
    cr_assert_eq(lab.table.n_rows, 2);
    cr_expect_str_eq(lab.table.rows[1].config, "mix.txt");
    cr_expect_str_eq(lab.table.rows[1].format, "mixed");
    cr_expect(lab.table.rows[1].kld_mean > 0);
    cr_expect(lab.table.rows[1].model_bytes < lab.table.rows[0].model_bytes);
    close_lab(&lab);
}

// One format for the blocks, written as a recipe, is the same model as that format's own row.
Test(phase5_recipe, a_uniform_recipe_equals_the_uniform_row) {
    struct error err = {0};
    struct lab lab =
        measured(shared_path("fixtures/qwen3-qknorm-bf16"), "*_proj int4-g32\n", WORDS("--seed=1"));
    cr_assert(lab_quantized(&lab, (struct lab_config){.format = "int4-g32"}, &err));
    const struct result_row *mixed = &lab.table.rows[1], *uniform = last_row(&lab);
    cr_expect_str_eq(mixed->format, "int4-g32");
    cr_expect_eq(mixed->model_bytes, uniform->model_bytes);
    cr_expect_eq(mixed->kld_mean, uniform->kld_mean);
    close_lab(&lab);
}

Test(phase5_recipe, only_and_skip_hold_for_recipes_too) {
    const char *model = shared_path("fixtures/qwen2-tied-bf16");
    struct error err = {0};
    struct recipe r;
    struct lab lab =
        measured(model, "* int8\n", WORDS("--only", "*proj", "--skip", "*.1.*,*v_proj"));
    cr_assert(lab_resolve_recipe(&lab, &lab.recipe, &r, &err), "%s", err.message);
    cr_expect_str_eq(recipe_format(&r, "model.layers.0.mlp.up_proj.weight")->name, "int8");
    cr_expect_null(recipe_format(&r, "model.layers.1.mlp.up_proj.weight"));
    cr_expect_null(recipe_format(&r, "model.layers.0.self_attn.v_proj.weight"));
    cr_expect_null(recipe_format(&r, "model.embed_tokens.weight"));
    recipe_free(&r);
    close_lab(&lab);
}

// What a recipe leaves out of a float32 checkpoint is float16, as in every row.
Test(phase5_recipe, the_rest_of_a_float32_checkpoint_becomes_float16) {
    struct lab lab = measured(shared_path("fixtures/mistral-gqa-f32"),
                              "*.down_proj keep\n*_proj int8", WORDS("--seed=1"));
    cr_assert_eq(lab.table.n_rows, 3);
    const struct tensor *down = &lab.model->layers[0].down.w;
    double weights = (double)(lab.model->config.n_layers * down->shape[0] * down->shape[1]);
    struct lab all =
        measured(shared_path("fixtures/mistral-gqa-f32"), "*_proj int8", WORDS("--seed=1"));
    double more = last_row(&lab)->model_bytes - last_row(&all)->model_bytes;
    cr_expect(more > 0.9 * weights && more < weights, "%g of %g", more, weights);
    close_lab(&lab);
    close_lab(&all);
}

static void refused(const char *recipe, const char *message) {
    struct lab lab;
    struct error err = {0};
    const char *model = shared_path("fixtures/qwen2-tied-bf16");
    cr_expect_not(lab_with(&lab, &err, model, recipe, WORDS("--seed=1")));
    cr_expect(strstr(err.message, message), "'%s' lacks '%s'", err.message, message);
    lab_close(&lab, false, &err);
}

Test(phase5_recipe, mistakes_are_told_before_anything_is_measured) {
    refused("# nothing\n", "mix.txt: no rule, expected lines of 'pattern format'");
    refused("* int9\n", "mix.txt:1: unknown format 'int9'");
    refused("* int8 serch\n",
            "mix.txt:1: unknown option 'serch' behind int8, expected search or nothing");
    refused("# two\n*.up_porj int8\n", "mix.txt:2: '*.up_porj' names no tensor; near it are "
                                       "'model.layers.0.mlp.up_proj.weight', 'model.layers.1.");
}

// Names that are no weight matrices of the blocks: fine, if they are in the checkpoint.
Test(phase5_recipe, norms_and_the_tied_head_may_be_named) {
    struct lab lab =
        measured(shared_path("fixtures/qwen2-tied-bf16"),
                 "*norm* keep\nlm_head keep\n*.bias keep\n* int8\n", WORDS("--seed=1"));
    cr_expect_eq(lab.table.n_rows, 2);
    close_lab(&lab);
}
