#include "export/gguf_report.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "report/markdown.h"

static bool set_cell(struct markdown_table *t, size_t row, size_t col, struct error *err,
                     const char *fmt, ...) __attribute__((format(printf, 5, 6)));
static bool set_cell(struct markdown_table *t, size_t row, size_t col, struct error *err,
                     const char *fmt, ...) {
    char text[128];
    va_list args;
    if (col >= t->cols) // a column that nothing has anything to say in is left out
        return true;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return markdown_table_set(t, row, col, text, err);
}

static bool set_titles(struct markdown_table *t, const char *const *titles, const bool *left,
                       struct error *err) {
    for (size_t i = 0; i < t->cols; i++) {
        t->left[i] = left[i];
        if (!markdown_table_set(t, 0, i, titles[i], err))
            return false;
    }
    return true;
}

static const char *type_name(uint32_t number) {
    const struct gguf_type *type = gguf_type_of(number);
    return type ? type->name : "?";
}

static uint32_t type_of(const struct gguf_plan_tensor *t) {
    return (uint32_t)(t->format->gguf_type - 1);
}

// What the tensor would have been if GGUF had it, or if it fitted.
static void describe_wish(const struct gguf_plan_tensor *t, char *text, size_t size) {
    bool foreign = t->asked && !t->asked->gguf_type;
    bool fits = (uint32_t)t->wanted == type_of(t);
    if (foreign && fits)
        snprintf(text, size, "%s", t->asked->name);
    else if (foreign)
        snprintf(text, size, "%s, %s (rows of %zu)", t->asked->name, type_name((uint32_t)t->wanted),
                 t->k);
    else if (!fits)
        snprintf(text, size, "%s (rows of %zu)", type_name((uint32_t)t->wanted), t->k);
    else
        snprintf(text, size, "%s", "");
}

// ---- one line for each tensor -----------------------------------------------------------------

static bool fill_tensor(struct markdown_table *table, size_t row, const struct gguf_plan_tensor *t,
                        struct error *err) {
    char wish[96], bytes[MARKDOWN_BYTES];
    describe_wish(t, wish, sizeof wish);
    markdown_bytes((double)t->bytes, bytes);
    return set_cell(table, row, 0, err, "%s", t->name) &&
           (t->k ? set_cell(table, row, 1, err, "%zu x %zu", t->n, t->k)
                 : set_cell(table, row, 1, err, "%zu", t->n)) &&
           set_cell(table, row, 2, err, "%s",
                    t->k ? t->parts[0]->format->name : quant_format_of_dtype(DTYPE_F32)->name) &&
           set_cell(table, row, 3, err, "%s", type_name(type_of(t))) &&
           set_cell(table, row, 4, err, "%s", bytes) && set_cell(table, row, 5, err, "%s", wish);
}

static bool fill_sum(struct markdown_table *table, const struct gguf_plan *plan,
                     struct error *err) {
    size_t total = 0, weights = 0, row = plan->n_tensors + 1;
    char bytes[MARKDOWN_BYTES];
    for (size_t i = 0; i < plan->n_tensors; i++) {
        const struct gguf_plan_tensor *t = &plan->tensors[i];
        total += t->bytes;
        weights += t->n * (t->k ? t->k : 1);
    }
    markdown_bytes((double)total, bytes);
    return set_cell(table, row, 0, err, "%zu tensors", plan->n_tensors) &&
           set_cell(table, row, 1, err, "%zu weights", weights) &&
           set_cell(table, row, 4, err, "%s", bytes);
}

bool gguf_print_tensors(const struct gguf_plan *plan, FILE *f, struct error *err) {
    static const char *const titles[] = {"Tensor", "Shape", "From", "Type", "Size", "Instead of"};
    static const bool left[] = {true, false, true, true, false, true};
    struct markdown_table table;
    if (!markdown_table_init(&table, plan->n_tensors + 2, 6, err))
        return false;
    bool ok = set_titles(&table, titles, left, err);
    for (size_t i = 0; ok && i < plan->n_tensors; i++)
        ok = fill_tensor(&table, i + 1, &plan->tensors[i], err);
    ok = ok && fill_sum(&table, plan, err);
    if (ok)
        markdown_table_print(&table, f);
    markdown_table_free(&table);
    return ok;
}

// ---- one line for each type -------------------------------------------------------------------

struct sum {
    const char *type;
    char wish[96];
    size_t tensors, weights, bytes;
    struct matrix_error cost, asked_cost;
};

static void add_cost(struct matrix_error *sum, const struct matrix_error *e) {
    sum->error_squared += e->error_squared;
    sum->weight_squared += e->weight_squared;
}

static struct sum *find_sum(struct sum *sums, size_t *n, const struct gguf_plan_tensor *t) {
    struct sum new = {.type = type_name(type_of(t))};
    describe_wish(t, new.wish, sizeof new.wish);
    for (size_t i = 0; i < *n; i++)
        if (strcmp(sums[i].type, new.type) == 0 && strcmp(sums[i].wish, new.wish) == 0)
            return &sums[i];
    sums[*n] = new;
    return &sums[(*n)++];
}

static int compare_sums(const void *a, const void *b) {
    size_t x = ((const struct sum *)a)->weights, y = ((const struct sum *)b)->weights;
    return x < y ? 1 : x > y ? -1 : 0;
}

static size_t add_up(const struct gguf_plan *plan, struct sum *sums) {
    size_t n = 0;
    for (size_t i = 0; i < plan->n_tensors; i++) {
        const struct gguf_plan_tensor *t = &plan->tensors[i];
        struct sum *sum = find_sum(sums, &n, t);
        sum->tensors++;
        sum->weights += t->n * (t->k ? t->k : 1);
        sum->bytes += t->bytes;
        add_cost(&sum->cost, &t->cost);
        add_cost(&sum->asked_cost, &t->asked_cost);
    }
    qsort(sums, n, sizeof *sums, compare_sums);
    return n;
}

// Nothing where nothing was rounded.
static bool set_nmse(struct markdown_table *t, size_t row, size_t col, const struct matrix_error *e,
                     struct error *err) {
    return !(e->weight_squared > 0) ||
           set_cell(t, row, col, err, "%.3g", e->error_squared / e->weight_squared);
}

static bool fill_type(struct markdown_table *t, size_t row, const struct sum *sum,
                      struct error *err) {
    char bytes[MARKDOWN_BYTES];
    markdown_bytes((double)sum->bytes, bytes);
    return set_cell(t, row, 0, err, "%s", sum->type) &&
           set_cell(t, row, 1, err, "%zu", sum->tensors) &&
           set_cell(t, row, 2, err, "%zu", sum->weights) && set_cell(t, row, 3, err, "%s", bytes) &&
           set_cell(t, row, 4, err, "%.4g", 8.0 * (double)sum->bytes / (double)sum->weights) &&
           set_nmse(t, row, 5, &sum->cost, err) && set_cell(t, row, 6, err, "%s", sum->wish) &&
           set_nmse(t, row, 7, &sum->asked_cost, err);
}

bool gguf_print_types(const struct gguf_plan *plan, FILE *f, struct error *err) {
    static const char *const titles[] = {"Type",        "Tensors", "Weights",    "Size",
                                         "Bits/weight", "NMSE",    "Instead of", "Its NMSE"};
    static const bool left[] = {true, false, false, false, false, false, true, false};
    struct sum *sums = memory_alloc(plan->n_tensors, sizeof *sums, "types", err);
    if (!sums)
        return false;
    size_t n = add_up(plan, sums), cols = 6;
    for (size_t i = 0; i < n; i++)
        if (*sums[i].wish && cols < 8)
            cols = sums[i].asked_cost.weight_squared > 0 ? 8 : 7;
    struct markdown_table table;
    bool ok =
        markdown_table_init(&table, n + 1, cols, err) && set_titles(&table, titles, left, err);
    for (size_t i = 0; ok && i < n; i++)
        ok = fill_type(&table, i + 1, &sums[i], err);
    if (ok)
        markdown_table_print(&table, f);
    markdown_table_free(&table);
    free(sums);
    return ok;
}
