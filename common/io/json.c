#include "io/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "text/utf8.h"

static const char *json_type(const cJSON *v) {
    if (cJSON_IsString(v))
        return "a string";
    if (cJSON_IsNumber(v))
        return "a number";
    if (cJSON_IsBool(v))
        return "true or false";
    if (cJSON_IsArray(v))
        return "a list";
    if (cJSON_IsObject(v))
        return "an object";
    return "null";
}

cJSON *json_parse(const char *text, size_t size, const char *name, struct error *err) {
    size_t valid = utf8_valid_prefix(text, size);
    if (valid < size) {
        error_set(err, "%s: not JSON: byte %zu of %zu is not UTF-8", name, valid, size);
        return NULL;
    }
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(text, size, &end, false);
    if (!root) {
        size_t at = end ? (size_t)(end - text) : 0;
        error_set(err, "%s: not JSON: stopped at byte %zu of %zu", name, at, size);
        return NULL;
    }
    while (end < text + size && *end && strchr(" \t\r\n", *end))
        end++;
    if (end < text + size) {
        error_set(err, "%s: not JSON: text follows the value at byte %zu of %zu", name,
                  (size_t)(end - text), size);
        cJSON_Delete(root);
        return NULL;
    }
    return root;
}

cJSON *json_parse_file(const char *path, struct error *err) {
    size_t size;
    char *text = file_read(path, (size_t)256 << 20, &size, err);
    cJSON *root = text ? json_parse(text, size, path, err) : NULL;
    free(text);
    return root;
}

const cJSON *json_get(const cJSON *object, const char *key) {
    const cJSON *v = object ? cJSON_GetObjectItemCaseSensitive(object, key) : NULL;
    return cJSON_IsNull(v) ? NULL : v;
}

static bool wrong_type(const cJSON *v, const char *key, const char *expected, const char *name,
                       struct error *err) {
    return error_set(err, "%s: '%s' is %s, expected %s", name, key, json_type(v), expected);
}

bool json_get_bool(const cJSON *object, const char *key, bool *out, const char *name,
                   struct error *err) {
    const cJSON *v = json_get(object, key);
    if (!v)
        return true;
    if (!cJSON_IsBool(v))
        return wrong_type(v, key, "true or false", name, err);
    *out = cJSON_IsTrue(v);
    return true;
}

bool json_get_number(const cJSON *object, const char *key, double *out, const char *name,
                     struct error *err) {
    const cJSON *v = json_get(object, key);
    if (!v)
        return true;
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble))
        return wrong_type(v, key, "a finite number", name, err);
    *out = v->valuedouble;
    return true;
}

bool json_get_int(const cJSON *object, const char *key, int64_t min, int64_t max, int64_t *out,
                  const char *name, struct error *err) {
    const cJSON *v = json_get(object, key);
    if (!v)
        return true;
    if (!cJSON_IsNumber(v))
        return wrong_type(v, key, "a whole number", name, err);
    double d = v->valuedouble;
    if (!(d >= (double)min && d <= (double)max) || d != floor(d))
        return error_set(err, "%s: '%s' is %g, expected a whole number from %lld to %lld", name,
                         key, d, (long long)min, (long long)max);
    *out = (int64_t)d;
    return true;
}

bool json_get_string(const cJSON *object, const char *key, const char **out, const char *name,
                     struct error *err) {
    const cJSON *v = json_get(object, key);
    if (!v)
        return true;
    if (!cJSON_IsString(v))
        return wrong_type(v, key, "a string", name, err);
    *out = v->valuestring;
    return true;
}

bool json_size(const cJSON *value, size_t *out) {
    if (!cJSON_IsNumber(value))
        return false;
    double d = value->valuedouble;
    if (!(d >= 0 && d <= 0x1p53) || d != floor(d))
        return false;
    *out = (size_t)d;
    return true;
}
