// Which tensor gets which type: as llama-quantize chooses.
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "export/gguf_types.h"
#include "format_data.h"
#include "io/gguf.h"

static const struct {
    char letter;
    enum gguf_type_number type;
} letters[] = {{'F', GGUF_TYPE_F32},    {'H', GGUF_TYPE_F16},   {'8', GGUF_TYPE_Q8_0},
               {'6', GGUF_TYPE_Q6_K},   {'5', GGUF_TYPE_Q5_K},  {'4', GGUF_TYPE_Q4_K},
               {'3', GGUF_TYPE_Q3_K},   {'2', GGUF_TYPE_Q2_K},  {'e', GGUF_TYPE_Q5_0},
               {'E', GGUF_TYPE_Q5_1},   {'d', GGUF_TYPE_Q4_0},  {'D', GGUF_TYPE_Q4_1},
               {'n', GGUF_TYPE_IQ4_NL}, {'x', GGUF_TYPE_IQ4_XS}};

static char letter_of(enum gguf_type_number type) {
    for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
        if (letters[i].type == type)
            return letters[i].letter;
    return '?';
}

struct recorded_model {
    char arch[16];
    size_t layers, heads, kv_heads, hidden, mlp;
    int tied;
};

static size_t n_compared;

static void expect_types(const struct recorded_model *m, const char *name, enum gguf_role role,
                         const char *expected) {
    const struct gguf_preset *p = gguf_preset_find(name, strlen(name));
    bool in_block = role != GGUF_EMBEDDING && role != GGUF_OUTPUT;
    size_t n = in_block ? m->layers : 1, k = role == GGUF_DOWN ? m->mlp : m->hidden;
    const struct gguf_mix mix = gguf_mix_of(m->arch, m->layers, m->heads, m->kv_heads, m->tied);
    if (role == GGUF_V && strcmp(m->arch, "gpt2") == 0)
        role = GGUF_QKV;
    for (size_t i = 0; expected[0] != '-' && i < n; i++) {
        enum gguf_type_number type = gguf_fitting_type(gguf_mix_type(p, &mix, role, i, k), k);
        char letter = expected[1] ? expected[i] : expected[0];
        cr_expect_eq(letter_of(type), letter,
                     "%s, %zu layers, %s: role %d of layer %zu is %c, not %c", m->arch, m->layers,
                     name, (int)role, i, letter_of(type), letter);
        n_compared++;
    }
}

Test(gguf_types, mixes_are_those_of_llama_quantize) {
    static const enum gguf_role roles[] = {GGUF_EMBEDDING, GGUF_OUTPUT, GGUF_Q,  GGUF_K,   GGUF_V,
                                           GGUF_O,         GGUF_GATE,   GGUF_UP, GGUF_DOWN};
    struct recorded_model m = {0};
    char line[2048];
    FILE *f = fopen("tests/fixtures/gguf-mixes.txt", "r");
    cr_assert(f);
    while (fgets(line, sizeof line, f)) {
        if (*line == '#' || sscanf(line, "model %15s %zu %zu %zu %zu %zu %d", m.arch, &m.layers,
                                   &m.heads, &m.kv_heads, &m.hidden, &m.mlp, &m.tied) == 7)
            continue;
        char *rest, *preset = strtok_r(line, " \n", &rest);
        for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
            expect_types(&m, preset, roles[i], strtok_r(NULL, " \n", &rest));
    }
    fclose(f);
    cr_expect_gt(n_compared, 20000, "%zu", n_compared);
}

// model.type of llama.cpp's loader (src/models), which its mixes ask for.
Test(gguf_types, seventy_billion_are_eighty_layers_of_some_architectures) {
    static const struct {
        const char *arch;
        size_t layers, heads, kv_heads;
        bool is_70b;
    } cases[] = {{"llama", 80, 64, 8, true},  {"llama", 80, 64, 64, false},
                 {"llama", 79, 64, 8, false}, {"qwen2", 80, 64, 8, true},
                 {"qwen2", 80, 64, 64, true}, {"qwen3", 80, 64, 8, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct gguf_mix mix =
            gguf_mix_of(cases[i].arch, cases[i].layers, cases[i].heads, cases[i].kv_heads, false);
        cr_expect_eq(mix.is_70b, cases[i].is_70b, "case %zu", i);
        cr_expect(mix.n_layers == cases[i].layers && !mix.tied);
        cr_expect_eq(mix.heads_per_kv, cases[i].heads / cases[i].kv_heads);
        const struct gguf_preset *p = gguf_preset_find("Q4_K_S", 6);
        cr_expect_eq(gguf_mix_type(p, &mix, GGUF_V, 40, 8192),
                     mix.is_70b ? GGUF_TYPE_Q5_K : GGUF_TYPE_Q4_K, "case %zu", i);
    }
}

Test(gguf_types, what_is_misspelled_has_a_nearest_type) {
    static const char *const cases[][2] = {
        {"Q4_Z", "Q4_1"}, {"q4km", "Q4_K_M"}, {"Q4-K-S", "Q4_K_S"}, {"IQ4XS", "IQ4_XS"},
        {"fp16", "F16"},  {"Q8", "Q8_0"},     {"Q6K", "Q6_K"},      {"MXFP4", "MXFP4"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *name = cases[i][0];
        cr_expect_str_eq(gguf_preset_nearest(name, strlen(name))->name, cases[i][1], "%s", name);
    }
}

Test(gguf_types, floats_are_not_mixed) {
    const struct gguf_mix mix = {4, 1, true, false};
    const struct gguf_preset *p = gguf_preset_find("bf16", 4);
    cr_expect_eq(gguf_mix_type(p, &mix, GGUF_EMBEDDING, 0, 100), GGUF_TYPE_BF16);
    cr_expect_eq(gguf_mix_type(p, &mix, GGUF_DOWN, 0, 100), GGUF_TYPE_BF16);
    cr_expect_eq(gguf_fitting_type(GGUF_TYPE_BF16, 7), GGUF_TYPE_BF16);
}

Test(gguf_types, mxfp4_has_its_embedding_in_eight_bits) {
    const struct gguf_mix mix = {4, 1, false, false};
    const struct gguf_preset *p = gguf_preset_find("MXFP4_MOE", 9);
    cr_expect_eq(gguf_mix_type(p, &mix, GGUF_EMBEDDING, 0, 256), GGUF_TYPE_Q8_0);
    cr_expect_eq(gguf_mix_type(p, &mix, GGUF_OUTPUT, 0, 256), GGUF_TYPE_Q8_0);
    cr_expect_eq(gguf_mix_type(p, &mix, GGUF_V, 0, 256), GGUF_TYPE_MXFP4);
}

Test(gguf_types, rows_that_nothing_fits_become_floats) {
    cr_expect_eq(gguf_fitting_type(GGUF_TYPE_Q4_K, 172), GGUF_TYPE_F16);
    cr_expect_eq(gguf_fitting_type(GGUF_TYPE_Q8_0, 172), GGUF_TYPE_F16);
    cr_expect_eq(gguf_fitting_type(GGUF_TYPE_MXFP4, 172), GGUF_TYPE_F16);
}

Test(gguf_types, names_are_found_in_any_case) {
    cr_expect_str_eq(gguf_preset_find("q4_k_m", 6)->name, "Q4_K_M");
    cr_expect_str_eq(gguf_preset_find("Q4_K,rest", 4)->name, "Q4_K_M");
    cr_expect_str_eq(gguf_preset_find("q3_k", 4)->name, "Q3_K_M");
    cr_expect_null(gguf_preset_find("Q4_K_", 5));
    cr_expect_null(gguf_preset_find("", 0));
}

Test(gguf_types, a_file_is_named_after_the_medium_mix) {
    cr_expect_eq(gguf_file_type_of(GGUF_TYPE_F32), 0);
    cr_expect_eq(gguf_file_type_of(GGUF_TYPE_F16), 1);
    cr_expect_eq(gguf_file_type_of(GGUF_TYPE_Q4_0), 2);
    cr_expect_eq(gguf_file_type_of(GGUF_TYPE_Q3_K), 12);
    cr_expect_eq(gguf_file_type_of(GGUF_TYPE_Q4_K), 15);
    cr_expect_eq(gguf_file_type_of(GGUF_TYPE_Q5_K), 17);
}

static enum gguf_type_number nearest(const char *name) {
    const struct quant_format *f = quant_format_find(name);
    cr_assert(f, "%s", name);
    return gguf_nearest_type(f);
}

Test(gguf_types, formats_of_ours_have_a_nearest_type) {
    cr_expect_eq(nearest("int8-tensor"), GGUF_TYPE_Q8_0);
    cr_expect_eq(nearest("int8-g128"), GGUF_TYPE_Q8_0);
    cr_expect_eq(nearest("int4-g128"), GGUF_TYPE_Q4_0);
    cr_expect_eq(nearest("int4-zp"), GGUF_TYPE_Q4_1);
    for (const struct quant_format *const *f = quant_formats; *f; f++)
        if (!(*f)->gguf_type)
            cr_expect(quant_format_of_gguf((uint32_t)gguf_nearest_type(*f)), "%s", (*f)->name);
}

static double error_of(enum gguf_type_number type, const float *w, size_t n, size_t k) {
    const struct quant_format *f = quant_format_of_gguf((uint32_t)type);
    void *data = quantize_new(f, w, n, k);
    float *out = dequantize_new(f, data, n, k);
    double error = nmse(w, out, n * k);
    free(data);
    free(out);
    return error;
}

// Both take 18 bytes for 32 weights, NF4's 4.5 bits. (Q4_K's error is less still where columns
// stick out, but it wants rows of 256 and becomes Q5_0 in others: NF4 has blocks of 64.)
Test(gguf_types, nf4_becomes_the_curved_grid_whose_error_is_less) {
    enum { N = 64, K = 512 };
    float *w = weights_new(N, K, 7);
    double curved = error_of(GGUF_TYPE_IQ4_NL, w, N, K), even = error_of(GGUF_TYPE_Q4_0, w, N, K);
    cr_expect(curved < even, "%g, %g", curved, even);
    cr_expect_eq(nearest("nf4"), GGUF_TYPE_IQ4_NL);
    free(w);
}

Test(gguf_types, every_preset_has_formats_for_its_types) {
    const struct gguf_mix mix = {36, 8, true, false};
    static const size_t widths[] = {256, 64, 100};
    for (const struct gguf_preset *p = gguf_presets; p->name; p++)
        for (size_t layer = 0; layer < 36; layer++)
            for (int role = GGUF_EMBEDDING; role <= GGUF_DOWN; role++)
                for (size_t i = 0; i < 3; i++) {
                    enum gguf_type_number wanted =
                        gguf_mix_type(p, &mix, (enum gguf_role)role, layer, widths[i]);
                    uint32_t type = (uint32_t)gguf_fitting_type(wanted, widths[i]);
                    cr_expect(quant_format_of_gguf(type), "%s: type %u", p->name, type);
                    cr_expect_eq(widths[i] % gguf_type_of(type)->block_weights, 0);
                }
}
