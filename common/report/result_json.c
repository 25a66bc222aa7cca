#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "io/json.h"
#include "report/result_key.h"
#include "text/utf8.h"

// JSON has no inf and no NaN: a number that was measured and came out so is null.
static bool add_number(cJSON *object, const char *key, double value, bool whole) {
    char text[64];
    if (!isfinite(value))
        return cJSON_AddNullToObject(object, key) != NULL;
    // Nine digits: more than any of these measurements carries.
    snprintf(text, sizeof text, whole ? "%.0f" : "%.9g", value);
    return cJSON_AddRawToObject(object, key, text) != NULL;
}

static bool add_string(cJSON *object, const char *key, const char *value, struct error *err) {
    if (!value)
        return cJSON_AddNullToObject(object, key) != NULL;
    char *clean = utf8_clean(value, err);
    bool ok = clean && cJSON_AddStringToObject(object, key, clean);
    free(clean);
    return ok;
}

static bool add_row(cJSON *rows, const struct result_row *row, struct error *err) {
    cJSON *object = cJSON_CreateObject();
    if (!cJSON_AddItemToArray(rows, object))
        return false;
    bool ok = add_string(object, "config", row->config, err) &&
              (!*row->format || add_string(object, "format", row->format, err));
    for (size_t k = 0; ok && k < RESULT_N_KEYS; k++) {
        const struct result_key *key = &result_keys[k];
        if (result_measured(row, key->offset))
            ok = add_number(object, key->name, result_number(row, key->offset), key->whole);
    }
    return ok && (!row->text || add_string(object, "text", row->text, err));
}

static bool add_table(cJSON *root, const struct result_table *t, struct error *err) {
    bool ok =
        add_number(root, "phase", t->phase, true) && add_string(root, "model", t->model, err) &&
        add_string(root, "arch", t->arch, err) && add_string(root, "text", t->text, err) &&
        add_number(root, "ctx", (double)t->ctx, true) &&
        add_string(root, "ppl_mode", t->ppl_mode, err) &&
        add_number(root, "threads", t->threads, true) && add_string(root, "device", t->device, err);
    cJSON *rows = ok ? cJSON_AddArrayToObject(root, "rows") : NULL;
    for (size_t i = 0; rows && i < t->n_rows; i++)
        if (!add_row(rows, &t->rows[i], err))
            return false;
    return rows != NULL;
}

bool result_print_json(const struct result_table *t, FILE *f, struct error *err) {
    cJSON *root = cJSON_CreateObject();
    char *text = root && add_table(root, t, err) ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    if (!text)
        return error_set(err, "results: out of memory for the JSON");
    bool ok = fprintf(f, "%s\n", text) >= 0 && fflush(f) == 0;
    cJSON_free(text);
    return ok || error_set(err, "results: cannot write the JSON: %s", strerror(errno));
}

bool result_write_json(const struct result_table *t, const char *path, struct error *err) {
    if (strcmp(path, "-") == 0)
        return result_print_json(t, stdout, err);
    struct file_writer w;
    if (!folder_create_for(path, err) || !file_writer_open(&w, path, err))
        return false;
    if (result_print_json(t, w.stream, err))
        return file_writer_commit(&w, err);
    file_writer_abort(&w);
    return false;
}
