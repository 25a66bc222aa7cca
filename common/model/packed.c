#include "model/packed.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#include "core/memory.h"
#include "quant/format.h"

// ---- reading what the metadata says -------------------------------------------------------------

// "int4-g128 [4864, 896]" or "int4-g128 [3, 768, 768]".
struct description {
    const struct quant_format *format; // NULL: none of ours
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

static bool parse_description(const char *text, struct description *d) {
    size_t length = strcspn(text, " "), numbers[3], n = 0;
    char name[64];
    if (length >= sizeof name || strncmp(text + length, " [", 2) != 0)
        return false;
    memcpy(name, text, length);
    name[length] = '\0';
    const char *s = text + length + 2;
    for (; n < 2 && strchr(s, ','); n++, s += *s == ' ')
        if (!take_number(&s, ',', &numbers[n]))
            return false;
    if (n == 0 || !take_number(&s, ']', &numbers[n++]) || *s)
        return false;
    *d = (struct description){.format = quant_format_find(name),
                              .count = n == 3 ? numbers[0] : 1,
                              .n = numbers[n - 2],
                              .k = numbers[n - 1]};
    return true;
}

static bool matrix_stride(size_t bytes, size_t *stride) {
    if (!size_add(bytes, PACKED_ALIGN - 1, stride))
        return false;
    *stride = *stride / PACKED_ALIGN * PACKED_ALIGN;
    return true;
}

static bool bind_tensor(struct tensor *t, const char *text, struct error *err) {
    struct description d = {0};
    size_t bytes, stride, expected;
    if (!parse_description(text, &d))
        return error_set(err,
                         "%s: tensor '%s' is described as '%.60s', expected a format and a shape "
                         "like 'int4-g128 [4864, 896]'",
                         t->file, t->name, text);
    if (!d.format)
        return error_set(err, "%s: tensor '%s' is described as '%.60s': no known format", t->file,
                         t->name, text);
    if (t->dtype != DTYPE_U8)
        return error_set(err, "%s: tensor '%s' is %s, expected U8 for '%.60s'", t->file, t->name,
                         dtype_name(t->dtype), text);
    if (!d.format->bytes(d.format, d.n, d.k, &bytes) || !matrix_stride(bytes, &stride) ||
        !size_mul(stride, d.count, &expected))
        return error_set(err, "%s: tensor '%s': the size of '%.60s' overflows", t->file, t->name,
                         text);
    if (t->bytes != expected)
        return error_set(err, "%s: tensor '%s' has %zu bytes, expected %zu for '%.60s'", t->file,
                         t->name, t->bytes, expected, text);
    const size_t shape[] = {d.count, d.n, d.k};
    t->dtype = d.format->dtype;
    t->format = d.format;
    t->n_dims = d.count > 1 ? 3 : 2;
    memcpy(t->shape, shape + 3 - t->n_dims, (size_t)t->n_dims * sizeof *shape);
    t->bytes = d.count > 1 ? expected : bytes;
    return true;
}

// safetensors_find for a tensor that is to be changed.
static struct tensor *find(struct safetensors *files, const char *name) {
    const struct tensor *t = safetensors_find(files, name);
    return t ? &files->tensors[t - files->tensors] : NULL;
}

bool packed_bind(struct safetensors *files, struct error *err) {
    static const char version[] = "1";
    const char *found = safetensors_note(files, "nibble");
    if (!found)
        return true;
    if (strcmp(found, version) != 0)
        return error_set(err, "%s: packed in version '%.20s', expected '%s'", files->paths[0],
                         found, version);
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
