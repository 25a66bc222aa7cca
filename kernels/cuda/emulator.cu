// The ladder on the emulator: cuda_emulator. Memory is this process's own.
#include "kernels/cuda/ladder.h"

#include <stdio.h>
#include <stdlib.h>

namespace emulated {

const char *emulate_launched(const char *kernel, const char *message) {
    static char line[640];
    if (!message)
        return nullptr;
    snprintf(line, sizeof line, "%s: %s", kernel, message);
    return line;
}

// ---- graphs: launches in a list ----------------------------------------------------------------

struct noted {
    noted *next;
    const char *(*run)(const void *launch);
    alignas(16) char launch[];
};
struct graph {
    noted *first, **end;
};
static graph *capturing;

const char *emulate_graph_add(const void *launch, size_t bytes,
                              const char *(*run)(const void *launch)) {
    if (!capturing)
        return run(launch);
    noted *n = (noted *)malloc(sizeof *n + bytes);
    if (!n)
        return "no memory for the graph";
    n->next = nullptr, n->run = run;
    memcpy(n->launch, launch, bytes);
    *capturing->end = n;
    capturing->end = &n->next;
    return nullptr;
}

static const char *begin_capture(void *) {
    capturing = (graph *)calloc(1, sizeof *capturing);
    if (!capturing)
        return "no memory for the graph";
    capturing->end = &capturing->first;
    return nullptr;
}

static const char *end_capture(void *, void **out) {
    *out = capturing;
    capturing = nullptr;
    return *out ? nullptr : "no graph was begun";
}

static const char *replay(void *p, void *) {
    const char *failed = nullptr;
    for (const noted *n = ((graph *)p)->first; n && !failed; n = n->next)
        failed = n->run(n->launch);
    return failed;
}

static void graph_free(void *p) {
    for (noted *n = p ? ((graph *)p)->first : nullptr, *next; n; n = next) {
        next = n->next;
        free(n);
    }
    free(p);
}

// ---- memory ------------------------------------------------------------------------------------

// As much as the card has that the original lab used. In front of every array: its size.
static size_t card_bytes = (size_t)8 << 30, used_bytes;
enum { BEFORE = 64 };

static void *allocate(size_t bytes) {
    if (bytes > card_bytes - used_bytes)
        return nullptr;
    char *p = (char *)calloc(1, BEFORE + (bytes ? bytes : 1));
    if (!p)
        return nullptr;
    used_bytes += bytes;
    memcpy(p, &bytes, sizeof bytes);
    return p + BEFORE;
}

static void release(void *p) {
    size_t bytes;
    if (!p)
        return;
    memcpy(&bytes, (char *)p - BEFORE, sizeof bytes);
    used_bytes -= bytes;
    free((char *)p - BEFORE);
}

static const char *memory(size_t *left, size_t *total) {
    *total = card_bytes;
    *left = card_bytes - used_bytes;
    return nullptr;
}

static void *allocate_host(size_t bytes) {
    return calloc(1, bytes ? bytes : 1);
}

static void *stream_open() {
    return nullptr;
}

static void stream_close(void *) {
}

static const char *copy_in_order(void *to, const void *from, size_t bytes, void *) {
    if (capturing)
        return "a copy in the middle of a graph";
    memcpy(to, from, bytes);
    return nullptr;
}

static const char *wait(void *) {
    return nullptr;
}

static const char *describe(cuda_description *d) {
    *d = {};
    snprintf(d->device, sizeof d->device, "emulator");
    d->memory_bytes = card_bytes;
    d->processors = 3; // few, so that shares of work begin and end in the middle of rows
    return nullptr;
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
    &emulated::kernel_wgmma,
    &emulated::kernel_int8,
    nullptr,
};

extern "C" const cuda_backend cuda_emulator = {
    "emulator",
    kernels,
    emulated::describe,
    emulated::allocate,
    emulated::release,
    emulated::copy,
    emulated::copy,
    emulated::run,
    nullptr,
    nullptr,
    &emulated::ops,
    emulated::memory,
    emulated::allocate_host,
    free,
    emulated::stream_open,
    emulated::stream_close,
    emulated::copy_in_order,
    emulated::copy_in_order,
    emulated::wait,
    emulated::begin_capture,
    emulated::end_capture,
    emulated::replay,
    emulated::graph_free,
};

extern "C" void cuda_emulator_memory(size_t bytes) {
    emulated::card_bytes = bytes > emulated::used_bytes ? bytes : emulated::used_bytes;
}
