// Which tokens come when: a text's ids cut into windows of `context`, each epoch from another
// offset and in another order; or windows that each begin with a document. Window number i is a
// function of the seed and i alone, so a resumed run needs to know nothing but how many windows it
// has used.
#ifndef NIBBLE_TRAIN_DATA_H
#define NIBBLE_TRAIN_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

struct token_data {
    const int32_t *ids; // [n], the caller's
    size_t n, context, n_windows;
    uint64_t seed, epoch; // the epoch that order and offset belong to
    uint32_t *order;      // [n_windows]
    size_t offset;
    size_t *starts;          // [n_windows] where each begins, or NULL: one behind the other
    const uint8_t *unscored; // [n] tokens that are read but not learned, or NULL; the caller's
};

// Checks that there is at least one window (context + 1 ids) and every id is below vocab.
bool token_data_init(struct token_data *d, const int32_t *ids, size_t n, size_t context,
                     size_t vocab, uint64_t seed, struct error *err);
void token_data_free(struct token_data *d);
// Begins every window where a document begins: at the first of `starts` [n_starts], ascending,
// that lies behind the window before. A window cut out of a text at any place begins, most often,
// in the middle of a document, and asks for what was told before it. Fails if no window fits.
bool token_data_align(struct token_data *d, const size_t *starts, size_t n_starts,
                      struct error *err);
// Window number i, counted through all epochs: tokens [context] and what follows each, -1 where
// that is not scored.
void token_data_window(struct token_data *d, uint64_t i, int32_t *tokens, int32_t *targets);

// The ids of a file of little-endian uint16. The caller frees them.
int32_t *token_data_read(const char *path, size_t *n, struct error *err);

#endif
