// Where the documents of a text begin, and which of its tokens are learned.
#ifndef NIBBLE_TOOLS_TRAINING_DOCUMENTS_H
#define NIBBLE_TOOLS_TRAINING_DOCUMENTS_H

#include "text/tokenizer.h"
#include "train/data.h"

enum { DOCUMENT_START = 1, DOCUMENT_FIRST_LINE = 2 };

// Marks of each of n ids, which all belong to the tokenizer. A document begins at the text's start,
// behind an end token and behind a blank line. The caller frees them; NULL with a message.
uint8_t *documents_find(const int32_t *ids, size_t n, const struct tokenizer *t, struct error *err);
// Windows that begin where documents do.
bool documents_align(struct token_data *d, const uint8_t *marks, struct error *err);
// Turns the marks into token_data's `unscored`: all but a random share of the first lines.
void documents_skip_first_lines(uint8_t *marks, size_t n, double share, uint64_t seed);

#endif
