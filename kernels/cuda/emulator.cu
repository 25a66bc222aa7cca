// The ladder on the emulator: cuda_emulator. Memory is this process's own.
#include "kernels/cuda/ladder.h"

#include <stdio.h>
#include <stdlib.h>

namespace emulated {

const char *emulate_launched(const cuda_call *, const char *kernel, const char *message) {
    static char line[640];
    if (!message)
        return nullptr;
    snprintf(line, sizeof line, "%s: %s", kernel, message);
    return line;
}

static const char *describe(cuda_description *d) {
    *d = {};
    snprintf(d->device, sizeof d->device, "emulator");
    d->processors = 3; // few, so that shares of work begin and end in the middle of rows
    return nullptr;
}

static void *allocate(size_t bytes) {
    return calloc(1, bytes ? bytes : 1);
}

static const char *copy(void *to, const void *from, size_t bytes) {
    memcpy(to, from, bytes);
    return nullptr;
}

static const char *run(const cuda_kernel *kernel, const cuda_call *call) {
    return kernel->run(call);
}

} // namespace emulated

static const cuda_kernel *const kernels[] = {
    &emulated::kernel_dequantize,
    &emulated::kernel_naive,
    &emulated::kernel_warp,
    &emulated::kernel_wide,
    &emulated::kernel_half2,
    &emulated::kernel_dp4a,
    &emulated::kernel_packed,
    &emulated::kernel_async,
    &emulated::kernel_stream,
    &emulated::kernel_batch,
    nullptr,
};

extern "C" const cuda_backend cuda_emulator = {
    "emulator", kernels,        emulated::describe, emulated::allocate,
    free,       emulated::copy, emulated::copy,     emulated::run,
    nullptr,    nullptr,
};
