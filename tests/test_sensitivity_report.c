// The report and its charts: what they say follows from the numbers.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "eval/sensitivity_report.h"
#include "quant/format.h"
#include "temp.h"

enum { LAYERS = 4, KINDS = 3, TENSORS = LAYERS * KINDS + 1, FORMATS = 2 };

// Four layers of three kinds and an embedding; damage 1e-4 everywhere but in layer 1's x, 1e-2.
static struct sensitivity example(void) {
    static const char *const kinds[KINDS] = {"attn.x", "attn.y", "mlp.z"};
    struct sensitivity s = {
        .tokens = 128, .window = 64, .n_tensors = TENSORS, .n_formats = FORMATS};
    s.tensors = calloc(TENSORS, sizeof *s.tensors);
    s.cells = calloc(TENSORS * FORMATS, sizeof *s.cells);
    s.formats = calloc(FORMATS, sizeof *s.formats);
    s.formats[0] = quant_format_find("int8");
    s.formats[1] = quant_format_find("int4-g128");
    for (size_t t = 0; t < TENSORS; t++) {
        bool embedding = t == TENSORS - 1;
        char name[64];
        snprintf(name, sizeof name, "h.%zu.%s.weight", t / KINDS, kinds[t % KINDS]);
        s.tensors[t] =
            (struct sensitivity_tensor){.name = strdup(embedding ? "embed.weight" : name),
                                        .kind = strdup(embedding ? "embed" : kinds[t % KINDS]),
                                        .layer = embedding ? SENSITIVITY_NO_LAYER : t / KINDS,
                                        .n = 100,
                                        .k = 100,
                                        .bytes = 20000,
                                        .weight_kurtosis = 3,
                                        .input_outlier_ratio = t == 5 ? 40 : 2,
                                        .input_outliers = t == 5 ? 3 : 0,
                                        .input_worst_channel = 77};
        for (size_t f = 0; f < FORMATS; f++)
            *sensitivity_at(&s, t, f) = (struct sensitivity_cell){
                .bytes = f ? 5000 : 10000,
                .weight_nmse = 0.01,
                .weight_snr_db = 20,
                .weight_cosine = 0.99,
                .output_nmse = f ? 0.01 : 0.001,
                .output_cosine = 0.99,
                .kld_measured = (t == KINDS ? 1e-2 : 1e-4) * (f ? 1 : 0.01),
                .kld_estimated = NAN,
                .kld_error = NAN};
    }
    return s;
}

static char *report_of(const struct sensitivity *s, const double *uniform) {
    struct error err = {0};
    char path[256];
    struct sensitivity_report r = {.s = s,
                                   .model = "toy",
                                   .text = "a text",
                                   .format = sensitivity_main_format(s),
                                   .uniform = uniform};
    cr_assert(sensitivity_write_report(&r, temp_folder(), &err), "%s", err.message);
    snprintf(path, sizeof path, "%s/lbl_analysis.md", temp_folder());
    char *text = file_read(path, 1 << 20, NULL, &err);
    cr_assert_not_null(text, "%s", err.message);
    return text;
}

static void expect_says(const char *text, const char *what) {
    cr_expect(strstr(text, what), "'%s' is not in:\n%s", what, text);
}

Test(sensitivity_report, says_what_stands_out) {
    struct sensitivity s = example();
    cr_expect_eq(sensitivity_main_format(&s), 1);
    double uniform[FORMATS] = {1e-4, 0.0222};
    char *text = report_of(&s, uniform);
    expect_says(text, "# Which tensors hurt: toy");
    expect_says(text, "over 128 tokens of a text, in windows of 64");
    expect_says(text, "Of 26 combinations of tensor and format, 26 were measured.");
    // 1e-2 of 1e-2 + 11e-4; two tensors are the worst tenth of twelve.
    expect_says(
        text,
        "**A few tensors do most of the damage.** `h.1.attn.x` alone is 90 % of it, the worst tenth (2 of 12 tensors, 17 % of "
        "the weights) 91 %");
    expect_says(
        text,
        "**Kinds of tensors differ.** All `attn.x` together are 93 % of the damage with 33 % of the weights: 2.8 "
        "times the average per weight");
    expect_says(text, "Layer 1 hurts most**, with 92 % of the damage");
    expect_says(text, "would save 5 %; any two of these layers would save 50 %");
    expect_says(text, "no good rule here");
    expect_says(text, "1 of 12 tensors read inputs with a channel at least 6 times");
    expect_says(text, "channel 77 before `h.1.mlp.z`: 40 times");
    // 9.9e-3 of 0.0111 for 5,000 of 60,000 bytes
    expect_says(text, "`h.1.attn.x` in int8 per-channel: 5.0 kB more (8.33 % of the blocks) take "
                      "away 89 % of the damage");
    expect_says(text, "they sum to 0.0111 nats; all blocks in it at once, on the same text, are "
                      "0.0222. The sum is 50 % too low.");
    free(text);
    sensitivity_free(&s);
}

Test(sensitivity_report, ranks_and_groups) {
    struct sensitivity s = example();
    sensitivity_at(&s, 0, 1)->bytes = 0; // cannot be held, comes last
    sensitivity_at(&s, 0, 1)->kld_measured = NAN;
    size_t order[TENSORS];
    sensitivity_rank(&s, 1, order);
    cr_expect_eq(order[0], KINDS);
    cr_expect_eq(order[1], 1); // equals keep their order
    cr_expect_eq(order[TENSORS - 1], 0);
    struct sensitivity_report r = {.s = &s, .format = 0};
    struct sensitivity_group groups[TENSORS];
    cr_assert_eq(sensitivity_by_kind(&r, groups), KINDS);
    cr_expect_str_eq(groups[2].kind, "mlp.z");
    cr_expect(groups[2].tensors == LAYERS && groups[2].weights == LAYERS * 10000);
    cr_expect_float_eq(groups[0].kld, 103e-6, 1e-12);
    cr_assert_eq(sensitivity_by_layer(&r, groups), LAYERS);
    cr_expect_eq(groups[3].layer, 3);
    cr_expect_float_eq(groups[1].kld, 102e-6, 1e-12);
    sensitivity_free(&s);
}

Test(sensitivity_report, without_int4_the_middling_format_is_shown) {
    struct sensitivity s = example();
    s.formats[1] = quant_format_find("int4");
    cr_expect_eq(sensitivity_main_format(&s), 1); // of two, the more damaging
    s.n_formats = 1;
    cr_expect_eq(sensitivity_main_format(&s), 0);
    s.n_formats = FORMATS;
    for (size_t i = 0; i < TENSORS * FORMATS; i++)
        s.cells[i].kld_measured = NAN;
    cr_expect_eq(sensitivity_main_format(&s), 0);
    sensitivity_free(&s);
}

static bool is_png(const char *name) {
    struct error err = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/sensitivity-%s.png", temp_folder(), name);
    size_t size;
    char *bytes = file_read(path, 1 << 24, &size, &err);
    bool ok = bytes && size > 1000 && memcmp(bytes, "\x89PNG", 4) == 0;
    free(bytes);
    return ok;
}

Test(sensitivity_report, charts_are_drawn) {
    struct error err = {0};
    struct sensitivity s = example();
    struct sensitivity_report r = {.s = &s, .model = "toy", .text = "a text", .format = 1};
    s.cells[9].kld_measured = 0; // no place on a logarithmic axis
    s.cells[11].kld_measured = INFINITY;
    cr_assert(sensitivity_write_charts(&r, temp_folder(), &err), "%s", err.message);
    static const char *const names[] = {"damage", "output-error", "layers", "formats", "outliers"};
    for (size_t i = 0; i < 5; i++)
        cr_expect(is_png(names[i]), "%s", names[i]);
    sensitivity_free(&s);
}

// Everything kept as it is: no error, no damage, nothing to divide by.
Test(sensitivity_report, a_lossless_format_has_a_report_too) {
    struct error err = {0};
    struct sensitivity s = example();
    for (size_t i = 0; i < TENSORS * FORMATS; i++)
        s.cells[i] = (struct sensitivity_cell){.bytes = 1,
                                               .weight_snr_db = INFINITY,
                                               .weight_cosine = 1,
                                               .output_cosine = 1,
                                               .kld_estimated = NAN};
    char *text = report_of(&s, NULL);
    cr_expect(!strstr(text, "nan"), "%s", text);
    expect_says(text, "Nothing: no tensor does any damage.");
    struct sensitivity_report r = {.s = &s, .model = "toy", .text = "a text", .format = 0};
    cr_assert(sensitivity_write_charts(&r, temp_folder(), &err), "%s", err.message);
    free(text);
    sensitivity_free(&s);
}

Test(sensitivity_report, a_format_that_cannot_hold_a_tensor_is_not_called_harmless) {
    struct sensitivity s = example();
    sensitivity_at(&s, 0, 1)->bytes = 0;
    sensitivity_at(&s, 0, 1)->kld_measured = NAN;
    char *text = report_of(&s, NULL);
    expect_says(text, "Nothing that adds up: int4 group 128 cannot hold every tensor.");
    cr_expect_null(strstr(text, " 0.0 %"), "a share of no number:\n%s", text);
    free(text);
    sensitivity_free(&s);
}

Test(sensitivity_report, even_damage_is_not_called_uneven) {
    struct sensitivity s = example();
    for (size_t i = 0; i < TENSORS * FORMATS; i++)
        s.cells[i].kld_measured = 1e-4;
    char *text = report_of(&s, NULL);
    expect_says(text,
                "**The damage is spread over many tensors.** `h.0.attn.x` alone is 8 % of it");
    expect_says(text, "**Kinds of tensors differ little.** All `attn.x` together are 33 %");
    free(text);
    sensitivity_free(&s);
}
