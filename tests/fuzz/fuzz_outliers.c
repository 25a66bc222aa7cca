// The record of a model's outlier columns, from anyone.
#include <stddef.h>
#include <stdint.h>

#include "model/outliers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct model_config c = {
        .arch = archs[0], .hidden = 8, .intermediate = 16, .n_layers = 2};
    struct outlier_plan p;
    struct error err;
    if (outlier_plan_parse(&p, &c, (const char *)data, size, "fuzz", &err))
        outlier_plan_free(&p);
    return 0;
}
