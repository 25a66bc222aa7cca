#include "report/result.h"

#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "report/result_key.h"

#define OFFSET(key) offsetof(struct result_row, key)
#define WHOLE(offset)                                                                              \
    ((offset) == OFFSET(model_bytes) || (offset) == OFFSET(file_bytes) ||                          \
     (offset) == OFFSET(peak_rss_bytes) || (offset) == OFFSET(vram_bytes) ||                       \
     (offset) == OFFSET(ppl_tokens) || (offset) == OFFSET(accuracy_n))

#define X(key) {#key, OFFSET(key), WHOLE(OFFSET(key))},
const struct result_key result_keys[RESULT_N_KEYS] = {RESULT_NUMBERS(X)};
#undef X

bool result_measured(const struct result_row *row, size_t offset) {
    return !isnan(result_number(row, offset)) || (offset == OFFSET(ppl) && !isnan(row->ppl_tokens));
}

void result_row_init(struct result_row *row, const char *config, const char *format) {
    *row = (struct result_row){0};
    snprintf(row->config, sizeof row->config, "%s", config ? config : "");
    snprintf(row->format, sizeof row->format, "%s", format ? format : "");
#define X(key) row->key = NAN;
    RESULT_NUMBERS(X)
#undef X
}

void result_row_free(struct result_row *row) {
    free(row->text);
    row->text = NULL;
}

bool result_table_add(struct result_table *t, struct result_row *row, struct error *err) {
    struct result_row *rows =
        memory_grow(t->rows, t->n_rows, &t->capacity, sizeof *rows, "results", err);
    if (!rows)
        return false;
    t->rows = rows;
    t->rows[t->n_rows++] = *row;
    row->text = NULL;
    return true;
}

void result_table_free(struct result_table *t) {
    for (size_t i = 0; i < t->n_rows; i++)
        result_row_free(&t->rows[i]);
    free(t->rows);
    t->rows = NULL;
    t->n_rows = t->capacity = 0;
}
