// Any text is a recipe or a one-line message; a recipe survives being written and read back.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "quant/recipe.h"

static void check_rules(const struct recipe *r) {
    struct recipe copy = {0};
    for (size_t i = 0; i < r->n_rules; i++)
        if (!recipe_add(&copy, r->rules[i].pattern, r->rules[i].format, NULL))
            abort();
    recipe_format(r, "model.layers.12.self_attn.q_proj.weight");
    recipe_format(r, "lm_head");
    recipe_free(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = memory_alloc(size + 1, 1, "text", NULL);
    memcpy(text, data, size);
    struct recipe r;
    struct error err = {0};
    if (recipe_parse(&r, text, "recipe", &err))
        check_rules(&r);
    else if (!err.message[0] || strchr(err.message, '\n') || r.rules)
        abort();
    recipe_free(&r);
    free(text);
    return 0;
}
