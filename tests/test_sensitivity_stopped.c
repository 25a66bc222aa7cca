// eval/sensitivity: an analysis that was stopped goes on where it was.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/random.h"
#include "eval/sensitivity.h"
#include "quant/format.h"
#include "temp.h"

enum { TOKENS = 32, FORMATS = 3, STOPPED_IN = 3 }; // in the fourth tensor

// What a run says on the way; at a cell of tensor STOPPED_IN its ".part" is taken aside.
struct seen {
    const char *path, *aside; // aside NULL: never
    size_t calls, total;
    double first_left, last_left;
};

static const char *in_temp(const char *name) {
    static char paths[4][256];
    static size_t next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", temp_folder(), name);
    return path;
}

static void copy_file(const char *from, const char *name) {
    struct error err = {0};
    size_t size;
    char *text = file_read(from, 1 << 24, &size, &err);
    cr_assert(text, "%s", err.message);
    temp_file(name, text, size);
    free(text);
}

static void watch(void *user, size_t done, size_t total, double seconds_left, const char *what) {
    struct seen *seen = user;
    char part[300];
    cr_assert(what && done <= total && isfinite(seconds_left) && seconds_left >= 0);
    seen->calls++;
    seen->total = total;
    if (seen->first_left == 0)
        seen->first_left = seconds_left;
    seen->last_left = seconds_left;
    if (!seen->aside || done != STOPPED_IN * FORMATS + 1)
        return;
    snprintf(part, sizeof part, "%s.part", seen->path);
    copy_file(part, seen->aside);
}

static const int32_t *some_tokens(const struct model *m, uint32_t seed) {
    static int32_t tokens[TOKENS];
    struct random r = {seed};
    for (size_t i = 0; i < TOKENS; i++)
        tokens[i] = (int32_t)random_below(&r, (uint32_t)m->config.vocab);
    return tokens;
}

static struct sensitivity measure(const struct model *m, const char *last_format, uint32_t seed,
                                  struct seen *seen) {
    const struct quant_format *formats[FORMATS] = {
        quant_format_find("int8"), quant_format_find("int4-g32"), quant_format_find(last_format)};
    const struct sensitivity_options o = {
        .tokens = TOKENS, .window = TOKENS, .anchors = 1, .checks = 20, .path = seen->path};
    struct sensitivity s;
    struct error err = {0};
    cr_assert(sensitivity_measure(m, formats, FORMATS, some_tokens(m, seed), TOKENS, &o, &s, watch,
                                  seen, &err),
              "%s", err.message);
    return s;
}

static struct model *open_model(void) {
    struct error err = {0};
    struct model *m = model_load("data/model", &err);
    cr_assert(m, "%s", err.message);
    return m;
}

static void expect_same_cells(const struct sensitivity *a, const struct sensitivity *b,
                              size_t from) {
    cr_assert(a->n_tensors == b->n_tensors && a->n_formats == b->n_formats);
    for (size_t i = from * FORMATS; i < a->n_tensors * FORMATS; i++) {
        const double *x = &a->cells[i].weight_mse, *y = &b->cells[i].weight_mse;
        cr_expect_eq(a->cells[i].bytes, b->cells[i].bytes);
        for (size_t d = 0; d < 9; d++)
            cr_expect(x[d] == y[d] || (isnan(x[d]) && isnan(y[d])), "cell %zu, number %zu", i, d);
    }
}

// The first number that the file has of a damage becomes 0.125.
static void change_damage(const char *path) {
    struct error err = {0};
    struct model *m = open_model();
    struct sensitivity s;
    cr_assert(sensitivity_read(&s, path, sensitivity_fingerprint(m), &err), "%s", err.message);
    cr_assert_eq(s.n_tensors, STOPPED_IN);
    for (size_t f = 0; f < FORMATS; f++)
        if (!isnan(s.cells[f].kld_measured))
            s.cells[f].kld_measured = 0.125;
    cr_assert(sensitivity_write(&s, path, &err), "%s", err.message);
    sensitivity_free(&s);
    model_free(m);
}

Test(sensitivity_stopped, finished_tensors_are_not_measured_again) {
    struct model *m = open_model();
    struct seen whole = {.path = in_temp("a.csv"), .aside = "b.csv.part"},
                rest = {.path = in_temp("b.csv")};
    struct sensitivity a = measure(m, "int4", 1, &whole);
    cr_expect(file_exists(in_temp("a.csv")) && !file_exists(in_temp("a.csv.part")));
    cr_expect_eq(whole.calls, a.n_tensors * FORMATS);
    change_damage(in_temp("b.csv.part"));
    struct sensitivity b = measure(m, "int4", 1, &rest);
    cr_expect_eq(rest.total, (a.n_tensors - STOPPED_IN) * FORMATS);
    cr_expect_eq(rest.calls, rest.total);
    cr_expect(a.kept == 0 && b.kept == STOPPED_IN);
    bool changed = false;
    for (size_t f = 0; f < FORMATS; f++)
        changed |= b.cells[f].kld_measured == 0.125;
    cr_expect(changed, "the first tensor was measured again");
    expect_same_cells(&a, &b, STOPPED_IN);
    for (size_t t = 0; t < a.n_tensors; t++) {
        cr_expect_str_eq(b.tensors[t].name, a.tensors[t].name);
        cr_expect_eq(b.tensors[t].weight_kurtosis, a.tensors[t].weight_kurtosis);
    }
    cr_expect(file_exists(in_temp("b.csv")) && !file_exists(in_temp("b.csv.part")));
    sensitivity_free(&a);
    sensitivity_free(&b);
    model_free(m);
}

// Every row ends with the method's number: another one.
static void change_method(const char *name) {
    struct error err = {0};
    size_t size;
    char *text = file_read(in_temp(name), 1 << 24, &size, &err);
    cr_assert(text, "%s", err.message);
    cr_assert(strstr(text, ",method\n") && strstr(text, ",1\n"));
    for (char *end = text; (end = strstr(end, ",1\n"));)
        end[1] = '0';
    temp_file(name, text, size);
    free(text);
}

// Of other tokens, of other formats, what is no analysis at all, and what other code measured.
Test(sensitivity_stopped, what_belongs_to_another_question_is_measured) {
    static const char *const formats[] = {"int4", "int4-g128", "int4", "int4"};
    static const uint32_t seeds[] = {2, 1, 1, 1};
    struct model *m = open_model();
    struct seen whole = {.path = in_temp("a.csv"), .aside = "kept"};
    struct sensitivity a = measure(m, "int4", 1, &whole), fresh, b;
    for (size_t i = 0; i < 4; i++) {
        struct seen seen = {.path = in_temp("b.csv")}, none = {0};
        copy_file(in_temp("kept"), "b.csv.part");
        if (i == 2)
            temp_file("b.csv.part", "tensor,kind\n1,2\n", 16);
        if (i == 3)
            change_method("b.csv.part");
        b = measure(m, formats[i], seeds[i], &seen);
        cr_expect_eq(seen.total, a.n_tensors * FORMATS, "case %zu", i);
        fresh = measure(m, formats[i], seeds[i], &none);
        expect_same_cells(&fresh, &b, 0);
        sensitivity_free(&fresh);
        sensitivity_free(&b);
    }
    sensitivity_free(&a);
    model_free(m);
}

Test(sensitivity_stopped, the_time_left_is_told_and_shrinks) {
    struct model *m = open_model();
    struct seen seen = {0};
    struct sensitivity s = measure(m, "int4", 1, &seen);
    cr_expect_gt(seen.first_left, 0);
    cr_expect_eq(seen.last_left, 0);
    sensitivity_free(&s);
    model_free(m);
}
