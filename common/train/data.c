#include "train/data.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/random.h"

// Fisher and Yates's shuffle.
static void start_epoch(struct token_data *d, uint64_t epoch) {
    struct random r = {d->seed};
    r.state = random_u64(&r) + epoch;
    size_t used = d->n_windows * d->context + 1;
    d->epoch = epoch;
    if (!d->starts)
        d->offset =
            random_below(&r, (uint32_t)(d->n - used < d->context ? d->n - used + 1 : d->context));
    for (size_t i = 0; i < d->n_windows; i++)
        d->order[i] = (uint32_t)i;
    for (size_t i = d->n_windows; i-- > 1;) {
        size_t j = random_below(&r, (uint32_t)i + 1);
        uint32_t swap = d->order[i];
        d->order[i] = d->order[j];
        d->order[j] = swap;
    }
}

bool token_data_init(struct token_data *d, const int32_t *ids, size_t n, size_t context,
                     size_t vocab, uint64_t seed, struct error *err) {
    *d = (struct token_data){.ids = ids, .n = n, .context = context, .seed = seed};
    if (context == 0 || n <= context)
        return error_set(err, "the text has %zu tokens, expected more than one window of %zu", n,
                         context);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= vocab)
            return error_set(err, "token %zu is %d, the vocabulary has %zu", i, (int)ids[i], vocab);
    // One window is given up, where there are several, so that every offset below context fits.
    d->n_windows = (n - 1) / context - ((n - 1) / context > 1);
    if (d->n_windows > UINT32_MAX)
        return error_set(err, "the text has %zu windows, expected at most 2^32", d->n_windows);
    d->order = memory_alloc(d->n_windows, sizeof *d->order, "order of windows", err);
    if (!d->order)
        return false;
    start_epoch(d, 0);
    return true;
}

bool token_data_align(struct token_data *d, const size_t *starts, size_t n_starts,
                      struct error *err) {
    size_t *chosen = memory_alloc(d->n_windows, sizeof *chosen, "starts of windows", err);
    size_t n = 0, next = 0;
    for (size_t i = 0; chosen && i < n_starts; i++)
        if (starts[i] >= next && starts[i] < d->n && d->n - starts[i] > d->context) {
            chosen[n++] = starts[i];
            next = starts[i] + d->context;
        }
    if (chosen && n == 0)
        error_set(err, "no document begins before the last %zu tokens", d->context);
    if (n == 0) {
        free(chosen);
        return false;
    }
    free(d->starts);
    d->starts = chosen;
    d->n_windows = n; // no more than before: windows do not overlap
    d->offset = 0;
    start_epoch(d, 0);
    return true;
}

void token_data_free(struct token_data *d) {
    free(d->order);
    free(d->starts);
    *d = (struct token_data){0};
}

void token_data_window(struct token_data *d, uint64_t i, int32_t *tokens, int32_t *targets) {
    if (i / d->n_windows != d->epoch)
        start_epoch(d, i / d->n_windows);
    size_t window = d->order[i % d->n_windows];
    const int32_t *from =
        d->ids + (d->starts ? d->starts[window] : d->offset + window * d->context);
    memcpy(tokens, from, d->context * sizeof *tokens);
    memcpy(targets, from + 1, d->context * sizeof *targets);
    for (size_t c = 0; d->unscored && c < d->context; c++)
        if (d->unscored[from + 1 - d->ids + c])
            targets[c] = -1;
}

int32_t *token_data_read(const char *path, size_t *n, struct error *err) {
    struct mapping file;
    if (!mapping_open(&file, path, err))
        return NULL;
    int32_t *ids = NULL;
    if (file.size == 0 || file.size % 2)
        error_set(err, "%s: %zu bytes, expected token ids of two bytes", path, file.size);
    else
        ids = memory_alloc(file.size / 2, sizeof *ids, path, err);
    for (size_t i = 0; ids && i < file.size / 2; i++)
        ids[i] = file.data[2 * i] | file.data[2 * i + 1] << 8;
    *n = file.size / 2;
    mapping_close(&file);
    return ids;
}
