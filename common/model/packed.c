#include "model/packed.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#include "core/memory.h"
#include "quant/format.h"
#include "quant/woven.h"

// ---- reading what the metadata says -------------------------------------------------------------

// "int4-g128 woven-16x4 [4864, 896]" or "int4-g128 [3, 768, 768]".
struct description {
    const struct quant_format *format; // NULL: none of ours
    char layout[32];                   // "": rows
    size_t count, n, k;
};

// A number of at most 15 digits, and the character behind it.
static bool take_number(const char **s, char end, size_t *out) {
    size_t digits = 0;
    *out = 0;
    for (; isdigit((unsigned char)**s) && digits < 15; ++*s, digits++)
        *out = *out * 10 + (size_t)(**s - '0');
    return digits && *out && *(*s)++ == end;
}

// The word before the next space, and that behind.
static bool take_word(const char **s, char *out, size_t size) {
    size_t length = strcspn(*s, " ");
    if (length >= size || !(*s)[length])
        return false;
    memcpy(out, *s, length);
    out[length] = '\0';
    *s += length + 1;
    return true;
}

static bool parse_description(const char *s, struct description *d) {
    char name[64];
    size_t numbers[3], n = 0;
    if (!take_word(&s, name, sizeof name))
        return false;
    if (*s != '[' && !take_word(&s, d->layout, sizeof d->layout))
        return false;
    if (*s++ != '[')
        return false;
    for (; n < 2 && strchr(s, ','); n++, s += *s == ' ')
        if (!take_number(&s, ',', &numbers[n]))
            return false;
    if (n == 0 || !take_number(&s, ']', &numbers[n++]) || *s)
        return false;
    d->format = quant_format_find(name);
    d->count = n == 3 ? numbers[0] : 1;
    d->n = numbers[n - 2];
    d->k = numbers[n - 1];
    return true;
}

static bool matrix_stride(size_t bytes, size_t *stride) {
    if (!size_add(bytes, PACKED_ALIGN - 1, stride))
        return false;
    *stride = *stride / PACKED_ALIGN * PACKED_ALIGN;
    return true;
}

static bool fail_size(const struct tensor *t, const char *text, struct error *err) {
    return error_set(
        err, "%s: tensor '%s' is described as '%.60s', a shape that this format cannot have",
        t->file, t->name, text);
}

// t becomes the matrix, or the first of the stack, that d describes; *stride: bytes from one to the
// next.
static bool bind_matrix(struct tensor *t, const struct description *d, const char *text,
                        size_t *stride, struct error *err) {
    struct weave weave;
    t->dtype = d->format->dtype;
    t->format = d->format;
    t->woven = d->layout[0];
    t->n_dims = 2;
    t->shape[0] = d->n;
    t->shape[1] = d->k;
    if (!d->format->bytes(d->format, d->n, d->k, &t->bytes) || !matrix_stride(t->bytes, stride))
        return fail_size(t, text, err);
    if (t->woven && !woven_layout(t, &weave))
        return error_set(err,
                         "%s: tensor '%s' is described as '%.60s', but such ones are not woven",
                         t->file, t->name, text);
    if (t->woven)
        *stride = weave_bytes(&weave); // planes end at cache lines
    return true;
}

static bool bind_tensor(struct tensor *t, const char *text, struct error *err) {
    struct description d = {0};
    struct tensor matrix = *t;
    size_t stride, expected;
    if (!parse_description(text, &d))
        return error_set(err,
                         "%s: tensor '%s' is described as '%.60s', expected a format and a shape "
                         "like 'int4-g128 [4864, 896]'",
                         t->file, t->name, text);
    if (!d.format)
        return error_set(err, "%s: tensor '%s' is described as '%.60s': no known format", t->file,
                         t->name, text);
    if (d.layout[0] && strcmp(d.layout, PACKED_WOVEN) != 0)
        return error_set(err, "%s: tensor '%s' is laid out as '%s', expected '%s' or no layout",
                         t->file, t->name, d.layout, PACKED_WOVEN);
    if (t->dtype != DTYPE_U8)
        return error_set(err, "%s: tensor '%s' is %s, expected U8 for '%.60s'", t->file, t->name,
                         dtype_name(t->dtype), text);
    if (!bind_matrix(&matrix, &d, text, &stride, err))
        return false;
    if (!size_mul(stride, d.count, &expected))
        return fail_size(t, text, err);
    if (t->bytes != expected)
        return error_set(err, "%s: tensor '%s' has %zu bytes, expected %zu for '%.60s'", t->file,
                         t->name, t->bytes, expected, text);
    *t = matrix;
    if (d.count == 1)
        return true;
    const size_t shape[] = {d.count, d.n, d.k};
    t->n_dims = 3;
    memcpy(t->shape, shape, sizeof shape);
    t->bytes = expected;
    return true;
}

// safetensors_find for a tensor that is to be changed.
static struct tensor *find(struct safetensors *files, const char *name) {
    const struct tensor *t = safetensors_find(files, name);
    return t ? &files->tensors[t - files->tensors] : NULL;
}

bool packed_bind(struct safetensors *files, struct error *err) {
    const char *found = safetensors_note(files, "nibble");
    if (!found)
        return true;
    if (strcmp(found, "1") != 0 && strcmp(found, PACKED_VERSION) != 0)
        return error_set(err, "%s: packed in version '%.20s', expected '1' or '%s'",
                         files->paths[0], found, PACKED_VERSION);
    for (size_t i = 0; i < files->n_notes; i++) {
        struct tensor *t = find(files, files->notes[i].key);
        if (t && !bind_tensor(t, files->notes[i].value, err))
            return false;
    }
    return true;
}

struct tensor packed_matrix(const struct tensor *stored, size_t i) {
    struct tensor t = *stored;
    if (t.n_dims < 3)
        return t;
    size_t stride = t.bytes / t.shape[0];
    t.n_dims = 2;
    t.shape[0] = stored->shape[1];
    t.shape[1] = stored->shape[2];
    t.data = (char *)stored->data + i * stride;
    t.format->bytes(t.format, t.shape[0], t.shape[1], &t.bytes); // bind_tensor has seen it succeed
    return t;
}

bool packed_activations(const struct safetensors *files, bool *int8, struct error *err) {
    const char *found =
        safetensors_note(files, "nibble") ? safetensors_note(files, "activations") : NULL;
    *int8 = found;
    return !found || strcmp(found, "int8") == 0 ||
           error_set(err, "%s: activations are '%.20s', expected 'int8'", files->paths[0], found);
}

// ---- what a model is made of --------------------------------------------------------------------

static bool add_linear(void *user, struct linear *l) {
    struct packed_summary *s = user;
    if (l->w.dtype != DTYPE_BLOCK)
        return true;
    s->format = s->weights == 0 || s->format == l->w.format ? l->w.format : NULL;
    s->weights += l->w.shape[0] * l->w.shape[1];
    s->bytes += l->w.bytes;
    s->int8_activations |= l->int8_activations;
    return true;
}

struct packed_summary packed_summarize(const struct model *m) {
    struct packed_summary s = {0};
    model_visit_linears((struct model *)(uintptr_t)m, add_linear, &s);
    return s;
}
