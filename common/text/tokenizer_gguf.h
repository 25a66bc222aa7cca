// The tokenizer inside a GGUF file: "gpt2" (byte-level tokens, merges, the name of a way to split
// words) or "llama" (SentencePiece: tokens with scores, bytes as a last resort).
#ifndef NIBBLE_TEXT_TOKENIZER_GGUF_H
#define NIBBLE_TEXT_TOKENIZER_GGUF_H

#include "io/gguf.h"
#include "text/tokenizer.h"

// NULL with a message if the file has none, or one of a kind we do not know. A file with nothing
// but a vocabulary will do.
struct tokenizer *tokenizer_from_gguf(const struct gguf *g, struct error *err);

// What tokens are merged by, [tokenizer_vocab_size]; NULL where it is a list of merges.
const float *tokenizer_scores(const struct tokenizer *t);

#endif
