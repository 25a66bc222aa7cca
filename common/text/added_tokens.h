// Added tokens: strings such as <|im_start|> that are cut out of a text before anything else and
// become one id each, whatever the merges say.
//
// Those with `normalized` are looked for after the normalizer has run, the others before, so there
// are two sets. A set is a trie; the leftmost match wins, then the longest.
#ifndef NIBBLE_TEXT_ADDED_TOKENS_H
#define NIBBLE_TEXT_ADDED_TOKENS_H

#include "text/bytes.h"

struct added_token {
    char *content; // as it is looked for; NUL-terminated
    int32_t id;
    bool special;        // left out of decoded text on request
    bool single_word;    // only where no letter or digit touches it
    bool lstrip, rstrip; // takes the white space before (after) it along
    bool normalized;
};

struct trie_node {
    uint32_t child, sibling; // 0: none
    uint32_t token;          // index + 1, or 0
    char byte;
};

struct token_set {
    uint32_t first[256]; // node of that first byte, or 0
    struct trie_node *nodes;
    size_t n, capacity;
};

void token_set_free(struct token_set *s);
// content is not empty; `index` is what a match gives back.
bool token_set_put(struct token_set *s, const char *content, size_t size, uint32_t index,
                   struct error *err);
// The next token in text[from..size): its first byte, or `size` if there is none.
size_t token_set_find(const struct token_set *s, const char *text, size_t size, size_t from,
                      uint32_t *index, size_t *end);

#endif
