#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "io/gguf_internal.h"

const struct gguf_value *gguf_find(const struct gguf *g, const char *key) {
    for (size_t i = 0; i < g->n_keys; i++)
        if (strcmp(g->keys[i].name, key) == 0)
            return &g->keys[i].value;
    return NULL;
}

static bool is_number(enum gguf_value_type t) {
    return t != GGUF_STRING && t != GGUF_ARRAY && t != GGUF_BOOL;
}

static bool wrong_type(const struct gguf *g, const char *key, const struct gguf_value *v,
                       const char *expected, struct error *err) {
    return error_set(err, "%s: key '%s' is %s%s, expected %s", g->path, key,
                     v->is_array ? "an array of " : "", gguf_value_type_name(v->type), expected);
}

bool gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct error *err) {
    const struct gguf_value *v = gguf_find(g, key);
    if (!v)
        return true;
    if (v->is_array || v->type != GGUF_BOOL)
        return wrong_type(g, key, v, "bool", err);
    *out = *v->data != 0;
    return true;
}

// The number at p, if it is a whole number that fits; sign-extended from its own width.
static bool whole_number(enum gguf_value_type type, const unsigned char *p, int64_t *out) {
    size_t size = gguf_value_size(type);
    uint64_t bits = gguf_load(p, size);
    bool is_signed = type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64;
    unsigned unused = (unsigned)(64 - 8 * size);
    if (is_signed)
        *out = (int64_t)(bits << unused) >> unused;
    else
        *out = (int64_t)bits;
    return is_signed || bits <= INT64_MAX;
}

bool gguf_get_int(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                  struct error *err) {
    const struct gguf_value *v = gguf_find(g, key);
    int64_t first, next;
    if (!v)
        return true;
    size_t size = gguf_value_size(v->type);
    if (!is_number(v->type) || v->type == GGUF_F32 || v->type == GGUF_F64 || !v->n)
        return wrong_type(g, key, v, "a whole number", err);
    if (!whole_number(v->type, v->data, &first) || first < min || first > max)
        return error_set(err, "%s: key '%s' is out of range, expected %" PRId64 " to %" PRId64,
                         g->path, key, min, max);
    for (size_t i = 1; i < v->n; i++)
        if (!whole_number(v->type, v->data + i * size, &next) || next != first)
            return error_set(err,
                             "%s: key '%s' is an array of different numbers, which is not "
                             "supported",
                             g->path, key);
    *out = first;
    return true;
}

double gguf_item_number(const struct gguf_value *v, size_t i) {
    size_t size = gguf_value_size(v->type);
    const unsigned char *p = v->data + i * size;
    uint64_t bits = gguf_load(p, size);
    int64_t whole;
    double number;
    if (v->type == GGUF_F32)
        return f32_from_bits((uint32_t)bits);
    if (v->type == GGUF_F64) {
        memcpy(&number, &bits, sizeof number);
        return number;
    }
    return whole_number(v->type, p, &whole) ? (double)whole : (double)bits;
}

bool gguf_get_number(const struct gguf *g, const char *key, double *out, struct error *err) {
    const struct gguf_value *v = gguf_find(g, key);
    if (!v)
        return true;
    if (v->is_array || !is_number(v->type))
        return wrong_type(g, key, v, "a number", err);
    double number = gguf_item_number(v, 0);
    if (!isfinite(number))
        return error_set(err, "%s: key '%s' is %g, expected a number", g->path, key, number);
    *out = number;
    return true;
}

struct gguf_string gguf_next_string(const unsigned char **at) {
    struct gguf_string s = {(const char *)*at + 8, (size_t)gguf_load(*at, 8)};
    *at += 8 + s.size;
    return s;
}

bool gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out,
                     struct error *err) {
    const struct gguf_value *v = gguf_find(g, key);
    if (!v)
        return true;
    if (v->is_array || v->type != GGUF_STRING)
        return wrong_type(g, key, v, "a string", err);
    const unsigned char *at = v->data;
    *out = gguf_next_string(&at);
    return true;
}

bool gguf_get_array(const struct gguf *g, const char *key, enum gguf_value_type item,
                    const struct gguf_value **out, struct error *err) {
    const struct gguf_value *v = gguf_find(g, key);
    if (!v)
        return true;
    bool strings = item == GGUF_STRING;
    if (!v->is_array || (strings ? v->type != GGUF_STRING : !is_number(v->type)))
        return wrong_type(g, key, v, strings ? "an array of string" : "an array of numbers", err);
    *out = v;
    return true;
}

bool gguf_string_is(struct gguf_string s, const char *text) {
    return s.size == strlen(text) && memcmp(s.text, text, s.size) == 0;
}
