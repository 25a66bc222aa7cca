// quant/recipe: which tensor gets which format.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "quant/recipe.h"

static struct recipe parsed(const char *text) {
    struct recipe r;
    struct error err = {0};
    cr_assert(recipe_parse(&r, text, "recipe.txt", &err), "%s", err.message);
    return r;
}

static const char *format_name(const struct recipe *r, const char *tensor) {
    const struct quant_format *f = recipe_format(r, tensor);
    return f ? f->name : "keep";
}

static void check_failure(const char *text, const char *message) {
    struct recipe r;
    struct error err = {0};
    cr_assert_not(recipe_parse(&r, text, "recipe.txt", &err));
    cr_assert(strncmp(err.message, message, strlen(message)) == 0, "%s", err.message);
    cr_assert(r.rules == NULL && r.n_rules == 0);
}

Test(recipe, the_first_match_wins) {
    struct recipe r = parsed("# a comment\n"
                             "*.mlp.down_proj   int8\n"
                             "\n"
                             "model.layers.0.*\tkeep  # stays\n"
                             "  lm_head|*embed*  bf16  \n"
                             "*  int4-g128");
    cr_assert_eq(r.n_rules, 4);
    cr_assert_str_eq(format_name(&r, "model.layers.0.mlp.down_proj.weight"), "int8");
    cr_assert_str_eq(format_name(&r, "model.layers.0.mlp.up_proj.weight"), "keep");
    cr_assert_str_eq(format_name(&r, "model.layers.10.mlp.up_proj.weight"), "int4-g128");
    cr_assert_str_eq(format_name(&r, "lm_head.weight"), "bf16");
    cr_assert_str_eq(format_name(&r, "model.embed_tokens.weight"), "bf16");
    recipe_free(&r);
    cr_assert_eq(r.n_rules, 0);
    recipe_free(&r);
}

Test(recipe, nothing_matches_in_an_empty_recipe) {
    const char *texts[] = {"", "\n\n", "# only words", "\r\n  \t\r\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct recipe r = parsed(texts[i]);
        cr_assert_eq(r.n_rules, 0);
        cr_assert_null(recipe_format(&r, "lm_head.weight"));
        recipe_free(&r);
    }
}

Test(recipe, windows_line_ends_and_a_byte_order_mark_are_no_words) {
    struct recipe r = parsed("\xef\xbb\xbf*.up int8\r\n*.down int4 # x\r\n");
    cr_assert_str_eq(r.rules[0].pattern, "*.up");
    cr_assert_str_eq(format_name(&r, "a.up"), "int8");
    cr_assert_str_eq(format_name(&r, "a.down"), "int4");
    recipe_free(&r);
}

Test(recipe, formats_go_by_name_or_label) {
    struct recipe r = parsed("a int4 group 128 zero-point # words\nb fp16");
    cr_assert_str_eq(format_name(&r, "a"), "int4-g128-zp");
    cr_assert_str_eq(format_name(&r, "b"), "f16");
    recipe_free(&r);
}

Test(recipe, search_is_a_word_behind_the_format) {
    struct recipe r =
        parsed("a int4 group 128 zero-point  search # words\nb int4-g64\tsearch\nc int8");
    cr_assert_str_eq(format_name(&r, "a"), "int4-g128-zp");
    cr_assert(r.rules[0].search && r.rules[1].search && !r.rules[2].search);
    cr_assert_eq(recipe_find(&r, "b.weight"), &r.rules[1]);
    cr_assert_null(recipe_find(&r, "d"));
    recipe_free(&r);
    check_failure("* search", "recipe.txt:1: unknown format 'search'");
    check_failure("* keep search", "recipe.txt:1: 'search' behind keep, expected nothing");
    check_failure("* int8 serch",
                  "recipe.txt:1: unknown option 'serch' behind int8, expected search");
    check_failure("\n* int4 group 128\tSearch",
                  "recipe.txt:2: unknown option 'Search' behind int4 group 128, expected search");
    check_failure("* int4 group 127", "recipe.txt:1: unknown format 'int4 group 127'");
    check_failure("* int8search", "recipe.txt:1: unknown format 'int8search'");
}

Test(recipe, mistakes_are_named_with_file_and_line) {
    check_failure("* int8\n\n* int7",
                  "recipe.txt:3: unknown format 'int7', expected keep or one of f32 f16 bf16 "
                  "int8 int6 int5 int4 int3 int2");
    check_failure("* int5-g48", "recipe.txt:1: unknown format 'int5-g48', expected keep or one of "
                                "int5 int5-g16 int5-g32 int5-g64 int5-g128 int5-g256 int5-zp "
                                "int5-g16-zp");
    check_failure("* INT8", "recipe.txt:1: unknown format 'INT8'");
    check_failure("* int8 int4", "recipe.txt:1: unknown option 'int4' behind int8");
    check_failure("\n*.up # int8\n", "recipe.txt:2: '*.up' alone, expected a pattern and a format");
    check_failure("* int8#x", "recipe.txt:1: unknown format 'int8#x'");
    char text[700];
    memset(text, 'a', sizeof text);
    strcpy(text + 600, " int8");
    check_failure(text, "recipe.txt:1: pattern 'aaaa");
}

Test(recipe, patterns_match_with_or_without_weight) {
    cr_assert(pattern_match("model.layers.3.mlp.up_proj", "model.layers.3.mlp.up_proj.weight"));
    cr_assert(pattern_match("*.up_proj.weight", "model.layers.3.mlp.up_proj.weight"));
    cr_assert(pattern_match("*.up_proj", "model.layers.3.mlp.up_proj"));
    cr_assert(pattern_match("*.weight", "x.weight"));
    cr_assert_not(pattern_match("*.weight", "x.bias"));
    cr_assert_not(pattern_match("*.up_proj", "model.layers.3.mlp.up_proj.bias"));
    cr_assert_not(pattern_match("", ".weight"));
}

Test(recipe, alternatives_are_joined_by_bar_or_comma) {
    cr_assert(pattern_match("*.q|*.k,*.v", "a.q"));
    cr_assert(pattern_match("*.q|*.k,*.v", "a.k.weight"));
    cr_assert(pattern_match("*.q|*.k,*.v", "a.v"));
    cr_assert_not(pattern_match("*.q|*.k,*.v", "a.o"));
    cr_assert(pattern_match("||,x", "x"));
    cr_assert_not(pattern_match("||,", "x"));
    cr_assert(pattern_match("*.[0-3].*", "model.layers.2.x"));
    cr_assert_not(pattern_match("*.[0-3].*", "model.layers.12.x"));
}

Test(recipe, an_overlong_pattern_matches_nothing) {
    char pattern[2000], name[2000];
    memset(pattern, '*', sizeof pattern);
    memset(name, 'a', sizeof name);
    pattern[sizeof pattern - 1] = name[sizeof name - 1] = '\0';
    cr_assert_not(pattern_match(pattern, name));
    pattern[500] = '\0';
    cr_assert(pattern_match(pattern, name));
}

static const char *const block_linears[] = {
    "model.layers.3.self_attn.q_proj.weight", "model.layers.27.mlp.down_proj.weight",
    "model.layers.126.mlp.gate_proj.weight",  "h.3.attn.c_attn.weight",
    "transformer.h.11.mlp.c_fc.weight",       "blk.3.attn_q.weight",
};
static const char *const others[] = {
    "model.embed_tokens.weight",
    "lm_head.weight",
    "model.norm.weight",
    "model.layers.3.input_layernorm.weight",
    "model.layers.3.self_attn.q_norm.weight",
    "model.layers.3.self_attn.q_proj.bias",
    "wte.weight",
    "transformer.wpe.weight",
    "h.3.ln_1.weight",
    "h.3.attn.bias",
    "transformer.ln_f.weight",
    "token_embd.weight",
    "output.weight",
    "blk.3.attn_norm.weight",
};

Test(recipe, uniform_is_the_linears_of_the_blocks) {
    struct recipe r;
    cr_assert(recipe_uniform(&r, quant_format_find("int8"), NULL, NULL, NULL));
    for (size_t i = 0; i < sizeof block_linears / sizeof *block_linears; i++)
        cr_assert_str_eq(format_name(&r, block_linears[i]), "int8", "%s", block_linears[i]);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        cr_assert_str_eq(format_name(&r, others[i]), "keep", "%s", others[i]);
    recipe_free(&r);
}

Test(recipe, uniform_obeys_only_and_skip) {
    const struct quant_format *int8 = quant_format_find("int8");
    struct recipe r;
    cr_assert(recipe_uniform(&r, int8, "lm_head,*.down_proj", "*.0.*", NULL));
    cr_assert_str_eq(format_name(&r, "lm_head.weight"), "int8");
    cr_assert_str_eq(format_name(&r, "model.layers.1.mlp.down_proj.weight"), "int8");
    cr_assert_str_eq(format_name(&r, "model.layers.0.mlp.down_proj.weight"), "keep");
    cr_assert_str_eq(format_name(&r, "model.layers.1.mlp.up_proj.weight"), "keep");
    recipe_free(&r);
    cr_assert(recipe_uniform(&r, int8, NULL, "*.down_proj", NULL));
    cr_assert_str_eq(format_name(&r, "model.layers.1.mlp.down_proj.weight"), "keep");
    cr_assert_str_eq(format_name(&r, "model.layers.1.mlp.up_proj.weight"), "int8");
    recipe_free(&r);
    struct error err = {0};
    cr_assert_not(recipe_uniform(&r, int8, "a, b", NULL, &err));
    cr_assert(strstr(err.message, "pattern 'a, b', expected one without spaces"));
    cr_assert_not(recipe_uniform(&r, int8, NULL, "", &err));
}

static bool same_recipe(const struct recipe *a, const struct recipe *b) {
    bool same = a->n_rules == b->n_rules;
    for (size_t i = 0; same && i < a->n_rules; i++)
        same = strcmp(a->rules[i].pattern, b->rules[i].pattern) == 0 &&
               a->rules[i].format == b->rules[i].format && a->rules[i].search == b->rules[i].search;
    return same;
}

Test(recipe, what_is_written_is_read_back) {
    char path[] = "/tmp/nibble-recipe-XXXXXX";
    close(mkstemp(path));
    struct recipe r = {0}, back;
    struct error err = {0};
    for (size_t i = 0; quant_formats[i]; i++) {
        char pattern[64];
        snprintf(pattern, sizeof pattern, "model.layers.%zu.[a-z]*|lm_head,x#%zu", i, i);
        cr_assert(recipe_add(&r, pattern, quant_formats[i], &err), "%s", err.message);
        r.rules[i].search = i % 3 == 0;
    }
    cr_assert(
        recipe_add(&r, "a-pattern-that-is-longer-than-the-column-it-is-written-in", NULL, &err));
    const char *refused[] = {"", "#x", "a b", "a\nb", "a\t"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        cr_assert_not(recipe_add(&r, refused[i], NULL, &err));
    cr_assert(recipe_write(&r, path, &err), "%s", err.message);
    cr_assert(recipe_read(&back, path, &err), "%s", err.message);
    cr_assert(same_recipe(&r, &back));
    recipe_free(&r);
    recipe_free(&back);
    unlink(path);
}

Test(recipe, files_that_are_no_recipes_are_refused) {
    char path[] = "/tmp/nibble-recipe-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(write(fd, "* int8\n\0* int4\n", 15) == 15);
    close(fd);
    struct recipe r;
    struct error err = {0};
    cr_assert_not(recipe_read(&r, path, &err));
    cr_assert(strstr(err.message, "a NUL at byte 7, expected text"), "%s", err.message);
    unlink(path);
    cr_assert_not(recipe_read(&r, path, &err));
    cr_assert(strstr(err.message, path));
    cr_assert_null(r.rules);
    cr_assert_not(recipe_write(&r, "/nonexistent/recipe.txt", &err));
}

static void check_spelling(const char *text, const char *message) {
    static const char *const names[] = {"model.layers.0.self_attn.q_proj.weight",
                                        "model.layers.0.mlp.down_proj.weight",
                                        "model.layers.1.self_attn.q_proj.weight",
                                        "model.layers.1.mlp.down_proj.weight",
                                        "model.embed_tokens.weight",
                                        "model.embed_tokens.weight"}; // names may repeat
    struct recipe r = parsed(text);
    struct error err = {0};
    bool ok = recipe_check(&r, names, sizeof names / sizeof *names, "mix.txt", &err);
    cr_expect_eq(ok, message == NULL, "%s", text);
    if (message)
        cr_expect_str_eq(err.message, message);
    recipe_free(&r);
}

Test(recipe, a_pattern_that_names_no_tensor_hears_what_is_near_it) {
    check_spelling("*.q_proj int8\nmodel.embed_tokens keep\n* int4", NULL);
    check_spelling("lm_head|*embed* int8", NULL);
    check_spelling("", NULL);
    check_spelling("* int8\n*.mlp.down_porj int8",
                   "mix.txt:2: '*.mlp.down_porj' names no tensor; near it are "
                   "'model.layers.0.mlp.down_proj.weight', 'model.layers.1.mlp.down_proj.weight'");
    check_spelling("model.embed_token int8",
                   "mix.txt:1: 'model.embed_token' names no tensor; near it are "
                   "'model.embed_tokens.weight'");
    check_spelling("model.layers.7.self_attn.q_proj int8",
                   "mix.txt:1: 'model.layers.7.self_attn.q_proj' names no tensor; near it are "
                   "'model.layers.0.self_attn.q_proj.weight', "
                   "'model.layers.1.self_attn.q_proj.weight'");
    struct recipe r = {0}; // of no text
    struct error err = {0};
    const char *const none[] = {"a"};
    cr_assert(recipe_add(&r, "b", NULL, &err));
    cr_expect_not(recipe_check(&r, none, 1, "mix", &err));
    cr_expect_str_eq(err.message, "mix: 'b' names no tensor; near it are 'a'");
    recipe_free(&r);
    check_spelling("xyz int8", "mix.txt:1: 'xyz' names no tensor; there is "
                               "'model.layers.0.self_attn.q_proj.weight'");
}
