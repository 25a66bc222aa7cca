// What training leaves on disk: the state to continue from (everything in float32, nothing
// rounded), and the model for everyone else. Both are safetensors files.
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "core/memory.h"
#include "io/safetensors.h"
#include "train/trainer.h"

// ---- the state ----------------------------------------------------------------------------------

enum { COUNTERS = 6, STATE_TENSORS = 4 };

// Step, what the order of the data depends on, and what the moments are.
static void counters_of(const struct trainer *t, int64_t out[COUNTERS]) {
    out[0] = (int64_t)t->step;
    out[1] = (int64_t)t->options.seed;
    out[2] = (int64_t)t->options.batch;
    out[3] = (int64_t)t->options.context;
    out[4] = t->options.muon_lr > 0;
    out[5] = (int64_t)t->data.n_windows;
}

static struct tensor vector_of(const char *name, enum dtype type, size_t n, void *data) {
    return (struct tensor){.name = name,
                           .dtype = type,
                           .n_dims = 1,
                           .shape = {n},
                           .bytes = n * dtype_size(type),
                           .data = data};
}

static void state_tensors(const struct trainer *t, int64_t counters[COUNTERS],
                          struct tensor out[STATE_TENSORS]) {
    size_t n = t->network.params.total;
    out[0] = vector_of("weights", DTYPE_F32, n, t->network.values);
    out[1] = vector_of("moment1", DTYPE_F32, n, t->moment1);
    out[2] = vector_of("moment2", DTYPE_F32, n, t->moment2);
    out[3] = vector_of("counters", DTYPE_I64, COUNTERS, counters);
}

bool trainer_save(const struct trainer *t, const char *path, struct error *err) {
    int64_t counters[COUNTERS];
    struct tensor tensors[STATE_TENSORS];
    counters_of(t, counters);
    state_tensors(t, counters, tensors);
    return safetensors_write(path, tensors, STATE_TENSORS, err);
}

// Checks all before anything is changed.
static bool find_state(const struct safetensors *file, const struct tensor *wanted,
                       const struct tensor **found, const char *path, struct error *err) {
    for (int i = 0; i < STATE_TENSORS; i++) {
        found[i] = safetensors_find(file, wanted[i].name);
        if (!found[i])
            return error_set(err, "%s: no tensor '%s'", path, wanted[i].name);
        if (found[i]->dtype != wanted[i].dtype || found[i]->bytes != wanted[i].bytes)
            return error_set(err, "%s: '%s' has %zu bytes of %s, expected %zu of %s", path,
                             wanted[i].name, found[i]->bytes, dtype_name(found[i]->dtype),
                             wanted[i].bytes, dtype_name(wanted[i].dtype));
    }
    return true;
}

bool trainer_restore(struct trainer *t, const char *path, struct error *err) {
    int64_t mine[COUNTERS], theirs[COUNTERS];
    struct tensor wanted[STATE_TENSORS];
    const struct tensor *found[STATE_TENSORS];
    struct safetensors file = {0};
    counters_of(t, mine);
    state_tensors(t, theirs, wanted);
    if (!safetensors_open_file(&file, path, err))
        return false;
    bool ok = find_state(&file, wanted, found, path, err);
    if (ok) {
        memcpy(theirs, found[3]->data, sizeof theirs);
        if (mine[4] != theirs[4])
            ok = error_set(err, "%s: a run %s Muon, expected one %s it", path,
                           theirs[4] ? "with" : "without", mine[4] ? "with" : "without");
        else if (memcmp(mine + 1, theirs + 1, sizeof mine - sizeof *mine) != 0 || theirs[0] < 0)
            ok = error_set(err,
                           "%s: a run of seed %lld, batch %lld, context %lld at step %lld; "
                           "expected %lld, %lld, %lld",
                           path, (long long)theirs[1], (long long)theirs[2], (long long)theirs[3],
                           (long long)theirs[0], (long long)mine[1], (long long)mine[2],
                           (long long)mine[3]);
    }
    for (int i = 0; ok && i < 3; i++)
        memcpy(wanted[i].data, found[i]->data, wanted[i].bytes);
    if (ok)
        t->step = (uint64_t)theirs[0];
    safetensors_close(&file);
    return ok;
}

// ---- the model ----------------------------------------------------------------------------------

static bool write_model(const struct network *net, const char *path, struct error *err) {
    const struct train_params *p = &net->params;
    struct tensor *tensors = memory_alloc(p->n, sizeof *tensors, "tensors", err);
    uint16_t *bits = memory_alloc(p->total, sizeof *bits, "bfloat16 weights", err);
    size_t n = 0;
    bool ok = tensors && bits;
    for (size_t i = 0; ok && i < p->n; i++) {
        const struct train_param *param = &p->list[i];
        if (param->size == 0)
            continue;
        uint16_t *to = bits + param->offset;
        dtype_from_f32(DTYPE_BF16, net->values + param->offset, param->size, to);
        tensors[n++] = (struct tensor){.name = param->name,
                                       .dtype = DTYPE_BF16,
                                       .n_dims = param->n_dims,
                                       .shape = {param->shape[0], param->shape[1]},
                                       .bytes = param->size * sizeof *to,
                                       .data = to};
    }
    ok = ok && safetensors_write(path, tensors, n, err);
    free(tensors);
    free(bits);
    return ok;
}

bool network_export(const struct network *net, const char *folder, struct error *err) {
    char *config = path_join(folder, "config.json", err);
    char *model = path_join(folder, "model.safetensors", err);
    bool ok = config && model && folder_create(folder, err) &&
              train_shape_write(&net->shape, config, err) && write_model(net, model, err);
    free(config);
    free(model);
    return ok;
}

static bool import_param(struct network *net, const struct train_param *param,
                         const struct safetensors *file, const char *folder, struct error *err) {
    const struct tensor *t = safetensors_find(file, param->name);
    if (!t)
        return error_set(err, "%s: no tensor '%s'", folder, param->name);
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16)
        return error_set(err, "%s: '%s' is %s, expected F32, F16 or BF16", folder, param->name,
                         dtype_name(t->dtype));
    if (t->bytes != param->size * dtype_size(t->dtype) || t->n_dims != param->n_dims ||
        t->shape[0] != param->shape[0])
        return error_set(err,
                         "%s: '%s' has %d dimensions, %zu rows, %zu bytes; expected %d, %zu, %zu",
                         folder, param->name, t->n_dims, t->shape[0], t->bytes, param->n_dims,
                         param->shape[0], param->size * dtype_size(t->dtype));
    dtype_to_f32(t->dtype, t->data, param->size, net->values + param->offset);
    return true;
}

bool network_import(struct network *net, const char *folder, struct error *err) {
    struct safetensors file = {0};
    if (!safetensors_open(&file, folder, err))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < net->params.n; i++)
        if (net->params.list[i].size)
            ok = import_param(net, &net->params.list[i], &file, folder, err);
    safetensors_close(&file);
    return ok;
}
