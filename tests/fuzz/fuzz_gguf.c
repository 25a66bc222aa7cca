// A GGUF file from anyone: read, shown, as a tokenizer, as a model that computes.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/gguf.h"
#include "model/model.h"
#include "report/gguf_inspect.h"
#include "text/chat.h"
#include "text/tokenizer_gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned sum_of(const void *data, size_t size) {
    unsigned sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += ((const unsigned char *)data)[i];
    return sum;
}

// Every byte that is claimed must be there; every getter is asked for every key.
static unsigned read_all(const struct gguf *g) {
    unsigned sum = 0;
    struct error err;
    for (size_t i = 0; i < g->n_tensors; i++)
        sum += sum_of(g->tensors[i].view.data, g->tensors[i].view.bytes);
    for (size_t i = 0; i < g->n_keys; i++) {
        const struct gguf_key *key = &g->keys[i];
        const struct gguf_value *array = NULL;
        struct gguf_string text = {0};
        int64_t whole;
        double number;
        bool flag;
        sum += sum_of(key->value.data, key->value.bytes);
        gguf_get_int(g, key->name, INT64_MIN, INT64_MAX, &whole, &err);
        gguf_get_number(g, key->name, &number, &err);
        gguf_get_bool(g, key->name, &flag, &err);
        if (gguf_get_string(g, key->name, &text, &err))
            sum += sum_of(text.text, text.size);
        if (gguf_get_array(g, key->name, GGUF_STRING, &array, &err) && array) {
            const unsigned char *at = array->data;
            for (size_t j = 0; j < array->n; j++) {
                text = gguf_next_string(&at);
                sum += sum_of(text.text, text.size);
            }
        }
    }
    return sum;
}

static void tokenize(const struct gguf *g) {
    static const char text[] = "Hello w\xc3\xb6rld 123\n\n  <|im_end|> </s> don't \xe4\xb8\xad\xff";
    struct error err;
    struct token_list ids = {0};
    struct tokenizer *t = tokenizer_from_gguf(g, &err);
    if (!t)
        return;
    if (tokenizer_encode(t, text, sizeof text - 1, &ids, &err))
        free(tokenizer_decode(t, ids.ids, ids.n, false, NULL, &err));
    const struct chat_message message = {"user", "hi"};
    free(chat_format(t, NULL, &message, 1, &err));
    token_list_free(&ids);
    tokenizer_free(t);
}

static void compute(const char *path) {
    struct error err;
    struct model *m = model_load(path, &err);
    if (!m)
        return;
    struct kv_cache kv;
    int32_t tokens[] = {0, 1}, positions[] = {0, 1};
    struct batch b = {.n = 2, .tokens = tokens, .positions = positions};
    if (model_parameters(m) < 1 << 16 && m->config.n_heads * m->config.head_dim < 1 << 16 &&
        kv_cache_init(&kv, &m->config, 1, 2, &err)) {
        float *logits = malloc(2 * m->config.vocab * sizeof *logits);
        if (logits)
            model_forward(m, &kv, &b, logits, &err);
        free(logits);
        kv_cache_free(&kv);
    }
    model_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct gguf g;
    struct error err;
    if (!gguf_parse(&g, data, size, "fuzz", &err))
        return 0;
    unsigned sum = read_all(&g);
    tokenize(&g);
    gguf_close(&g);
    char path[64];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    FILE *out = fopen("/dev/null", "w");
    if (fd < 0 || !out || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    gguf_inspect(path, out, &err);
    compute(path);
    fclose(out);
    close(fd);
    return sum == UINT32_MAX;
}
