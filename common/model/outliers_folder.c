// The record of what was scaled, and whole folders:
//
//     {"residual": {"columns": [17, 30], "scales": [4, 4]},
//      "mlp": [{"columns": [0, 1, 2, …], "scales": [4, 32, 4, …]}, …]}     one per layer
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/folder.h"
#include "core/memory.h"
#include "io/json.h"
#include "model/outliers.h"

static const char record_name[] = "outliers.json";

// ---- the record ---------------------------------------------------------------------------------

static void write_list(FILE *f, const char *key, const uint8_t *log2, size_t n, bool scales) {
    fprintf(f, "\"%s\": [", key);
    const char *comma = "";
    for (size_t i = 0; i < n; i++)
        if (log2[i]) {
            fprintf(f, "%s%zu", comma, scales ? (size_t)1 << log2[i] : i);
            comma = ", ";
        }
    fputc(']', f);
}

static void write_scales(FILE *f, const uint8_t *log2, size_t n) {
    fputc('{', f);
    write_list(f, "columns", log2, n, false);
    fputs(", ", f);
    write_list(f, "scales", log2, n, true);
    fputc('}', f);
}

bool outlier_plan_write(const struct outlier_plan *p, const char *path, struct error *err) {
    struct file_writer w;
    if (!file_writer_open(&w, path, err))
        return false;
    fputs("{\n  \"residual\": ", w.stream);
    write_scales(w.stream, p->residual, p->hidden);
    fputs(",\n  \"mlp\": [", w.stream);
    for (size_t i = 0; i < p->n_layers; i++) {
        fputs(i ? ",\n    " : "\n    ", w.stream);
        write_scales(w.stream, p->mlp + i * p->intermediate, p->intermediate);
    }
    fputs("\n  ]\n}\n", w.stream);
    return file_writer_commit(&w, err);
}

// The exponent of a scale: 2 … 2^OUTLIER_MAX_LOG2 and nothing between the powers; else 0.
static uint8_t scale_log2(const cJSON *v) {
    for (unsigned e = 1; e <= OUTLIER_MAX_LOG2; e++)
        if (cJSON_IsNumber(v) && v->valuedouble == ldexp(1, (int)e))
            return (uint8_t)e;
    return 0;
}

static bool parse_scales(const cJSON *json, uint8_t *log2, size_t n, const char *name,
                         struct error *err) {
    const cJSON *columns = json_get(json, "columns"), *scales = json_get(json, "scales");
    if (!cJSON_IsArray(columns) || !cJSON_IsArray(scales))
        return error_set(err, "%s: expected lists 'columns' and 'scales'", name);
    const cJSON *c = columns->child, *s = scales->child;
    for (; c && s; c = c->next, s = s->next) {
        size_t column;
        uint8_t e = scale_log2(s);
        if (!json_size(c, &column) || column >= n || log2[column])
            return error_set(err, "%s: a column is given twice or is not one of %zu", name, n);
        if (!e)
            return error_set(err, "%s: the scale of column %zu is not a power of two up to %d",
                             name, column, 1 << OUTLIER_MAX_LOG2);
        log2[column] = e;
    }
    return (!c && !s) || error_set(err, "%s: 'columns' and 'scales' differ in length", name);
}

static bool parse_plan(struct outlier_plan *p, const cJSON *json, const char *name,
                       struct error *err) {
    const cJSON *mlp = json_get(json, "mlp"), *layer;
    if (!parse_scales(json_get(json, "residual"), p->residual, p->hidden, name, err))
        return false;
    if (!cJSON_IsArray(mlp) || (size_t)cJSON_GetArraySize(mlp) != p->n_layers)
        return error_set(err, "%s: expected a list 'mlp' of %zu layers", name, p->n_layers);
    size_t i = 0;
    cJSON_ArrayForEach (layer, mlp)
        if (!parse_scales(layer, p->mlp + i++ * p->intermediate, p->intermediate, name, err))
            return false;
    return true;
}

bool outlier_plan_parse(struct outlier_plan *p, const struct model_config *c, const char *text,
                        size_t size, const char *name, struct error *err) {
    *p = (struct outlier_plan){0};
    cJSON *json = json_parse(text, size, name, err);
    bool ok = json && outlier_plan_init(p, c, err) && parse_plan(p, json, name, err);
    if (!ok)
        outlier_plan_free(p);
    cJSON_Delete(json);
    return ok;
}

// ---- folders ------------------------------------------------------------------------------------

static bool is_copied(const char *name) {
    return strcmp(name, record_name) != 0;
}

static bool transform(const char *in, const char *out, const struct outlier_plan *p,
                      const struct model_config *c, bool undo, size_t *rounded, struct error *err) {
    struct folder_writer w;
    if (!folder_writer_open(&w, out, err))
        return false;
    char *record = path_join(w.temporary, record_name, err);
    bool ok = record && folder_copy_files(in, w.temporary, is_copied, err) &&
              outlier_plan_apply(p, c, w.temporary, undo, rounded, err) &&
              (undo || outlier_plan_write(p, record, err));
    free(record);
    if (ok)
        return folder_writer_commit(&w, err);
    folder_writer_abort(&w);
    return false;
}

bool outliers_add(const char *in, const char *out, const struct outlier_options *o, size_t *rounded,
                  struct error *err) {
    struct model_config c;
    struct outlier_plan p;
    char *record = path_join(in, record_name, err);
    bool ok = record && (!file_exists(record) ||
                         error_set(err, "%s: the model has outliers already", record));
    free(record);
    if (!ok || !model_config_read(&c, in, err))
        return false;
    ok = outlier_plan_make(&p, &c, o, err) && transform(in, out, &p, &c, false, rounded, err);
    outlier_plan_free(&p);
    model_config_free(&c);
    return ok;
}

bool outliers_undo(const char *in, const char *out, size_t *rounded, struct error *err) {
    struct model_config c;
    struct outlier_plan p = {0};
    size_t size = 0;
    char *path = path_join(in, record_name, err);
    char *text = path ? file_read(path, (size_t)256 << 20, &size, err) : NULL;
    bool ok = text && model_config_read(&c, in, err);
    if (ok) {
        ok = outlier_plan_parse(&p, &c, text, size, path, err) &&
             transform(in, out, &p, &c, true, rounded, err);
        outlier_plan_free(&p);
        model_config_free(&c);
    }
    free(text);
    free(path);
    return ok;
}
