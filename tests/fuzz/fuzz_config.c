// A config.json from anyone.
#include <stddef.h>
#include <stdint.h>

#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct model_config c;
    struct error err;
    if (model_config_parse(&c, (const char *)data, size, "fuzz", &err)) {
        model_config_layer_windowed(&c, c.n_layers - 1);
        model_config_free(&c);
    }
    return 0;
}
