// Text to token ids and back, as the checkpoint's own tokenizer does it.
//
// Reads tokenizer.json (byte-level BPE: GPT-2, Qwen2, Llama-3; SentencePiece-style BPE with byte
// fallback: Llama-2, Mistral) or GPT-2's vocab.json + merges.txt. A text goes through
//     added tokens split out -> normalizer -> pre-tokenizer (the file's own regex) -> BPE merges
// and the ids equal those of the Hugging Face `tokenizers` library.
#ifndef NIBBLE_TEXT_TOKENIZER_H
#define NIBBLE_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "text/bytes.h"

struct tokenizer;

struct token_list {
    int32_t *ids;
    size_t n, capacity;
};
void token_list_free(struct token_list *list);
// Appends one id; false when memory is short.
bool token_list_push(struct token_list *list, int32_t id, struct error *err);

// The tokenizer of a checkpoint folder or a GGUF file. NULL with a message if there is none or it
// uses a part we do not know (named in the message). Not changed by use: threads may share it.
struct tokenizer *tokenizer_load(const char *path, struct error *err);
// From the text of a tokenizer.json, and optionally of tokenizer_config.json (may be NULL).
// `name` begins every message.
struct tokenizer *tokenizer_parse(const char *json, size_t size, const char *config_json,
                                  size_t config_size, const char *name, struct error *err);
void tokenizer_free(struct tokenizer *t);

// Appends the ids of text[0..size). Special tokens in the text are recognised; no BOS is added.
// Invalid UTF-8 is replaced by U+FFFD as Python's errors="replace" does.
bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t size,
                      struct token_list *out, struct error *err);

// The text of n ids; special tokens are left out if skip_special. *size (may be NULL) gets the
// length; there is a NUL behind it. The caller frees it. An id outside the vocabulary is an error.
// The text is valid UTF-8: bytes that make no character (ids cut between two) become U+FFFD.
char *tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                       size_t *size, struct error *err);

size_t tokenizer_vocab_size(const struct tokenizer *t); // highest id + 1, added tokens too
int32_t tokenizer_id(const struct tokenizer *t, const char *token); // -1 if there is none
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
// The id a post-processor (or add_bos_token) puts before a text, or -1.
int32_t tokenizer_bos(const struct tokenizer *t);
// The token "eos_token" of tokenizer_config.json, or -1. Checkpoints have more: see model_config.
int32_t tokenizer_eos(const struct tokenizer *t);
// chat_template.jinja, or tokenizer_config.json's "chat_template", or NULL. Owned by t.
const char *tokenizer_chat_template(const struct tokenizer *t);

// What decoding remembers from one token to the next.
struct token_decoding {
    struct bytes held; // of a character or a run of byte tokens that is not complete
    size_t n_tokens;   // decoded so far
    size_t n_stripped; // characters taken off the beginning
    bool begun;        // something has been emitted: nothing more is taken off
};

// Streaming: feed ids one at a time, get the text that is complete so far. Never half a character;
// special tokens are left out. All pieces together, flush included, are tokenizer_decode's text.
struct token_stream {
    const struct tokenizer *tokenizer;
    struct token_decoding decoding;
    struct bytes text; // what the last call returned; text.size counts NULs within, too
};
void token_stream_init(struct token_stream *s, const struct tokenizer *t);
void token_stream_free(struct token_stream *s);
// The new text (may be ""), valid until the next call; NULL on an error.
const char *token_stream_push(struct token_stream *s, int32_t id, struct error *err);
// What is left at the end (an incomplete character becomes U+FFFD).
const char *token_stream_flush(struct token_stream *s, struct error *err);

#endif
