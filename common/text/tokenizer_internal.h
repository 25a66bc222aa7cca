// What a tokenizer is made of. Only tokenizer*.c and chat.c see this.
#ifndef NIBBLE_TEXT_TOKENIZER_INTERNAL_H
#define NIBBLE_TEXT_TOKENIZER_INTERNAL_H

#include "io/json.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/normalize.h"
#include "text/pattern.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

// What becomes of a match when a text is split at it: of "a-b" split at "-",
//     removed: a b    isolated: a - b    with previous: a- b    with next: a -b
//     contiguous: isolated, but neighbouring matches stay together
enum split_behavior {
    SPLIT_REMOVED,
    SPLIT_ISOLATED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS,
};

enum splitter_kind {
    SPLITTER_PATTERN,      // cut at the pattern's matches
    SPLITTER_PREFIX,       // put `content` before the text, unless it begins with it
    SPLITTER_PREFIX_FIRST, // the same, only at the very beginning
    SPLITTER_SPACES,       // write `content` for every space
};

// One step of the pre-tokenizer. The file's types come apart into these: ByteLevel is a PREFIX and
// a PATTERN, Metaspace SPACES, a PREFIX and a PATTERN.
struct splitter {
    enum splitter_kind kind;
    enum split_behavior behavior;
    bool invert; // what does not match is the match
    struct pattern pattern;
    char *content;
};

// The decoder's steps work token by token, but for byte fallback (a run of bytes) and strip.
struct decoder {
    bool joined_by_spaces; // the file has no decoder
    bool byte_level;       // characters stand for bytes
    bool byte_fallback;    // <0x0A> stands for a byte
    struct text_replace {
        char *from, *to;
        bool drop_in_first; // Metaspace: the first token's spaces are left out
    } replace[4];
    size_t n_replace;
    char strip[5];      // UTF-8 of the character …
    size_t strip_start; // … of which so many are taken off the beginning of the text
};

struct tokenizer {
    struct vocab vocab; // of the model
    struct bpe merges;
    struct bpe
        joins;      // characters that a merge may join (last of left, first of right); may be empty
    float *scores;  // [vocab.size]: merged by these (spm.h); NULL: by the list of merges
    size_t longest; // bytes of the longest token, where there are scores
    bool byte_level, byte_fallback, fuse_unk, ignore_merges;
    int32_t unk;            // or -1
    int32_t byte_ids[256];  // symbol of a byte: byte-level, or the <0x0A> of byte fallback; or -1
    int32_t ascii_ids[128]; // symbol of an ASCII character, or -1
    int16_t alphabet[BYTE_LEVEL_END]; // byte that a byte-level character stands for, or -1

    struct added_token *added;
    size_t n_added;
    struct vocab added_ids;         // content to id
    uint32_t *added_by_id;          // [added_ids.size]: index into added + 1, or 0
    struct token_set before, after; // normalizing

    struct normalizer *normalizers;
    size_t n_normalizers;
    struct splitter *splitters;
    size_t n_splitters;
    struct decoder decoder;

    int32_t bos, eos, pad;
    char *bos_text, *eos_text; // as chat templates write them; NULL if the configuration has none
    char *chat_template;
};

// The added token of this id, or NULL.
const struct added_token *added_token_of(const struct tokenizer *t, int32_t id);
// From a parsed tokenizer.json; config may be NULL.
struct tokenizer *tokenizer_build(const cJSON *root, const cJSON *config, const char *name,
                                  struct error *err);
// The parts of it (tokenizer_model.c, tokenizer_pipeline.c).
bool tokenizer_read_model(struct tokenizer *t, const cJSON *model, const char *name,
                          struct error *err);
bool tokenizer_read_normalizer(struct tokenizer *t, const cJSON *part, const char *name,
                               struct error *err);
bool tokenizer_read_splitter(struct tokenizer *t, const cJSON *part, const char *name,
                             struct error *err);
bool tokenizer_read_decoder(struct tokenizer *t, const cJSON *part, const char *name,
                            struct error *err);
bool tokenizer_read_processor(struct tokenizer *t, const cJSON *part, const char *name,
                              struct error *err);

#endif
