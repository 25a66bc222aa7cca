#include "text/added_tokens.h"

void token_set_free(struct token_set *s) {
    free(s->nodes);
    *s = (struct token_set){0};
}

static uint32_t node_new(struct token_set *s, char byte, struct error *err) {
    if (s->n + 1 >= s->capacity) {
        size_t capacity = s->capacity * 2 + 64;
        struct trie_node *nodes = realloc(s->nodes, capacity * sizeof *nodes);
        if (!nodes || capacity > UINT32_MAX) {
            s->nodes = nodes ? nodes : s->nodes;
            error_set(err, "out of memory for added tokens");
            return 0;
        }
        s->nodes = nodes;
        s->capacity = capacity;
    }
    uint32_t node = (uint32_t)++s->n; // node 0 stays unused: it means none
    s->nodes[node] = (struct trie_node){.byte = byte};
    return node;
}

static uint32_t child_of(const struct token_set *s, uint32_t node, char byte) {
    uint32_t child = s->nodes[node].child;
    while (child && s->nodes[child].byte != byte)
        child = s->nodes[child].sibling;
    return child;
}

bool token_set_put(struct token_set *s, const char *content, size_t size, uint32_t index,
                   struct error *err) {
    uint32_t *root = &s->first[(unsigned char)content[0]];
    if (!*root && !(*root = node_new(s, content[0], err)))
        return false;
    uint32_t node = *root;
    for (size_t i = 1; i < size; i++) {
        uint32_t child = child_of(s, node, content[i]);
        if (!child) {
            if (!(child = node_new(s, content[i], err)))
                return false;
            s->nodes[child].sibling = s->nodes[node].child;
            s->nodes[node].child = child;
        }
        node = child;
    }
    s->nodes[node].token = index + 1;
    return true;
}

size_t token_set_find(const struct token_set *s, const char *text, size_t size, size_t from,
                      uint32_t *index, size_t *end) {
    for (size_t start = from; s->n && start < size; start++) {
        uint32_t node = s->first[(unsigned char)text[start]];
        bool found = false;
        for (size_t i = start + 1; node; i++) {
            if (s->nodes[node].token) {
                *index = s->nodes[node].token - 1;
                *end = i;
                found = true; // and on, for a longer one
            }
            node = i < size ? child_of(s, node, text[i]) : 0;
        }
        if (found)
            return start;
    }
    return size;
}
