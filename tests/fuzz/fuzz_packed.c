// A packed model's weights from anyone: every matrix that is believed can be read to its last byte.
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/packed.h"
#include "quant/woven.h"

// The first and the last row of each matrix, all planes of it; woven ones, taken apart too.
static float read_tensor(const struct tensor *stored, unsigned *bytes) {
    static float row[1 << 16];
    size_t count = stored->n_dims == 3 ? stored->shape[0] : 1;
    float sum = 0;
    for (size_t i = 0; i < count; i++) {
        struct tensor t = packed_matrix(stored, i);
        size_t n = t.shape[0], k = t.shape[1];
        for (size_t b = 0; b < woven_bytes(&t); b++)
            *bytes += ((const unsigned char *)t.data)[b];
        if (k > sizeof row / sizeof *row)
            continue;
        if (t.woven)
            free(woven_undo(&t, &(struct error){0}));
        else
            t.format->dequantize_ref(t.format, t.data, n, k, n - 1, 0, k, row);
        quant_read(&t, n - 1, 0, k, row);
        quant_read(&t, 0, 0, k, row);
        sum += row[k - 1];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct safetensors s = {0};
    struct error err = {0};
    unsigned sum = 0;
    float floats = 0;
    char *paths[] = {(char[]){"fuzz"}};
    bool parsed = safetensors_parse(&s, data, size, "fuzz", &err);
    s.paths = paths; // for messages
    if (parsed && !packed_bind(&s, &err)) {
        if (!err.message[0] || strchr(err.message, '\n'))
            abort();
    } else if (parsed) {
        for (size_t i = 0; i < s.n_tensors; i++)
            if (s.tensors[i].format)
                floats += read_tensor(&s.tensors[i], &sum);
    }
    s.paths = NULL;
    safetensors_close(&s);
    return sum == UINT32_MAX && floats == 1;
}
