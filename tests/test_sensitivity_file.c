// eval/sensitivity: the file that keeps an analysis.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/sensitivity.h"
#include "quant/format.h"
#include "sensitivity_data.h"
#include "shared.h"
#include "temp.h"

// A format that cannot hold rows of 768.
static bool no_768(const struct quant_format *f, size_t n, size_t k, size_t *out) {
    return k != 768 && quant_format_find(f->name)->bytes(f, n, k, out);
}

static struct sensitivity with_gaps(const struct model *m) {
    struct error err = {0};
    struct sensitivity s;
    static struct quant_format picky;
    picky = *quant_format_find("int4-g32");
    picky.bytes = no_768;
    const struct quant_format *formats[2] = {quant_format_find("int8"), &picky};
    struct sensitivity_options o = {.tokens = 16, .anchors = 1, .checks = 5};
    cr_assert(sensitivity_measure(m, formats, 2, some_tokens(m), TOKENS, &o, &s, NULL, NULL, &err),
              "%s", err.message);
    return s;
}

Test(sensitivity_file, what_is_written_is_read_again) {
    struct error err = {0};
    char path[256];
    struct model *m = open_model("data/model");
    struct sensitivity s = with_gaps(m), back;
    snprintf(path, sizeof path, "%s/new/sensitivity.csv", temp_folder());
    free(s.tensors[3].name); // quotes and commas survive
    s.tensors[3].name = strdup("a,\"b\"");
    s.cells[5].kld_measured = INFINITY;
    s.search = true;
    cr_assert(sensitivity_write(&s, path, &err), "%s", err.message);
    cr_assert(sensitivity_read(&back, path, sensitivity_fingerprint(m), &err), "%s", err.message);
    cr_expect(back.model == s.model && back.text == s.text && back.tokens == 16 &&
              back.window == 16 && back.search);
    cr_assert(back.n_tensors == s.n_tensors && back.n_formats == 2);
    cr_expect_eq(back.formats[1], quant_format_find("int4-g32"));
    cr_expect_eq(back.check.cells, s.check.cells);
    for (size_t t = 0; t < s.n_tensors; t++) {
        cr_expect_str_eq(back.tensors[t].name, s.tensors[t].name);
        cr_expect_str_eq(back.tensors[t].kind, s.tensors[t].kind);
        size_t from = offsetof(struct sensitivity_tensor, layer);
        cr_expect_arr_eq((char *)&back.tensors[t] + from, (char *)&s.tensors[t] + from,
                         sizeof *s.tensors - from);
    }
    size_t down = find(&s, "mlp.down_proj"); // rows of 768
    cr_expect_eq(sensitivity_at(&back, down, 1)->bytes, 0);
    cr_expect(isnan(sensitivity_kld(sensitivity_at(&back, down, 1))));
    cr_expect(isnan(sensitivity_sum(&s, 1)) && sensitivity_sum(&s, 0) > 0);
    for (size_t i = 0; i < s.n_tensors * 2; i++) {
        const double *a = &s.cells[i].weight_mse, *b = &back.cells[i].weight_mse;
        cr_expect_eq(back.cells[i].bytes, s.cells[i].bytes);
        for (size_t d = 0; d < 9; d++)
            cr_expect(a[d] == b[d] || (isnan(a[d]) && isnan(b[d])), "cell %zu, number %zu", i, d);
    }
    sensitivity_free(&back);
    sensitivity_free(&s);
    model_free(m);
}

// Reads the text in which the first `from` became `to`; expects a message with `what`.
static void expect_refusal(const char *text, const char *from, const char *to, uint64_t model,
                           const char *what) {
    struct error err = {0};
    struct sensitivity s;
    const char *at = strstr(text, from);
    cr_assert_not_null(at, "'%s' is not in the file", from);
    char *broken = malloc(strlen(text) + strlen(to) + 1);
    sprintf(broken, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    const char *path = temp_file("broken.csv", broken, strlen(broken));
    cr_expect_not(sensitivity_read(&s, path, model, &err), "'%s' for '%s'", to, from);
    cr_expect(strstr(err.message, what), "'%s' lacks '%s'", err.message, what);
    cr_expect(strstr(err.message, "broken.csv"), "%s", err.message);
    free(broken);
}

#define COLUMNS                                                                                    \
    "tensor,kind,format,layer,model,text,tokens,window,search,model_bytes,bytes,n,k,"              \
    "input_outliers,input_worst_channel,weight_kurtosis,input_kurtosis,input_outlier_ratio,"       \
    "weight_mse,weight_nmse,weight_snr_db,weight_cosine,output_nmse,output_cosine,"                \
    "kld_estimated,kld_measured,kld_error"
#define INT8_ROW                                                                                   \
    "a.0.x,x,int8,0,00000000000000ff,00000000000000aa,64,32,1,512,300,16,16,0,3,3.5,2.5,1.5,"      \
    "0.1,0.2,7,0.9,0.01,0.99,,0.5,0.1"

Test(sensitivity_file, broken_files_are_refused) {
    static const char text[] = COLUMNS
        "\n" INT8_ROW "\n"
        "a.0.x,x,int4,0,00000000000000ff,00000000000000aa,64,32,1,512,150,16,16,0,3,3.5,2.5,1.5,"
        "0.1,0.2,7,0.9,0.02,0.98,0.75,,\n";
    static const char of_another_method[] = COLUMNS ",method\n" INT8_ROW ",0\n";
    struct error err = {0};
    struct sensitivity s;
    const char *path = temp_file("whole.csv", text, strlen(text));
    cr_assert(sensitivity_read(&s, path, 0xff, &err), "%s", err.message);
    cr_expect_eq(s.tensors[0].input_worst_channel, 3);
    cr_expect(s.search);
    cr_expect_eq(sensitivity_kld(&s.cells[1]), 0.75);
    sensitivity_free(&s);
    expect_refusal(text, "kld_error", "kld_sigma", 0xff, "column 'kld_error' is missing");
    expect_refusal(text, "00ff", "00fe", 0xff, "belongs to another model");
    expect_refusal(text, "00ff", "00fg", 0xff, "line 2: model is");
    expect_refusal(of_another_method, "", "", 0xff, "measured by another version");
    expect_refusal(text, ",32,1,", ",32,yes,", 0xff, "line 2: search is 'yes', expected 0 or 1");
    expect_refusal(text, ",64,", ",-64,", 0xff, "tokens is '-64', expected a whole number");
    expect_refusal(text, ",int8,", ",int9,", 0xff, "line 2: format is 'int9'");
    expect_refusal(text, "0.5,0.1\n", "-0.5,0.1\n", 0xff, "expected a number of at least 0");
    expect_refusal(text, "0.98,0.75,,", "0.98,,,", 0xff, "line 3: kld_estimated is ''");
    expect_refusal(text, "0.02,", "nan,", 0xff, "line 3: output_nmse is 'nan'");
    expect_refusal(text, "0.02,", "0.02x,", 0xff, "line 3: output_nmse is '0.02x'");
    expect_refusal(text, "0.1\na.0.x", "0.1\na.1.x", 0xff, "line 3: format is 'int4'");
    expect_refusal(text, "a.0.x,x,int4", "a.0.x", 0xff, "broken.csv");
    char *rows = strchr(text, '\n') + 1;
    expect_refusal(text, rows, "", 0xff, "no rows");
}

// A layer that the model does not have, or bytes that no format takes there, would be indices and
// budgets of whoever reads the file.
Test(sensitivity_file, a_file_with_another_model_s_tensors_is_refused) {
    struct error err = {0};
    char path[256];
    struct model *m = open_model(shared_path("fixtures/qwen2-tied-bf16"));
    struct sensitivity s = measure(m, (struct sensitivity_options){.anchors = 1}), back;
    snprintf(path, sizeof path, "%s/sensitivity.csv", temp_folder());
    cr_assert(sensitivity_write(&s, path, &err), "%s", err.message);
    cr_assert(sensitivity_read_for(&back, path, m, &err), "%s", err.message);
    sensitivity_free(&back);
    const size_t layer = s.tensors[3].layer, bytes = s.cells[5].bytes;
    s.tensors[3].layer = 1 << 30;
    cr_assert(sensitivity_write(&s, path, &err), "%s", err.message);
    cr_expect_not(sensitivity_read_for(&back, path, m, &err));
    cr_expect(strstr(err.message, "o_proj.weight' is not the model's 'model.layers.0."), "%s",
              err.message);
    s.tensors[3].layer = layer;
    s.cells[5].bytes = bytes + 1;
    cr_assert(sensitivity_write(&s, path, &err), "%s", err.message);
    cr_expect_not(sensitivity_read_for(&back, path, m, &err));
    s.cells[5].bytes = bytes;
    const size_t n = s.n_tensors;
    s.n_tensors = 7; // the first layer only
    cr_assert(sensitivity_write(&s, path, &err), "%s", err.message);
    cr_expect_not(sensitivity_read_for(&back, path, m, &err));
    cr_expect(strstr(err.message, ": 7 tensors, expected 28"), "%s", err.message);
    s.n_tensors = n;
    sensitivity_free(&s);
    model_free(m);
}
