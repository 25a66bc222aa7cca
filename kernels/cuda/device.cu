// The ladder on a GPU: memory, launches, timing, and what the card is. Compiled by nvcc; the
// runtime library is linked statically and loads the driver itself, so that the program starts
// without one.
#include "kernels/cuda/ladder.h"

#include <algorithm>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <stdio.h>
#include <vector>

namespace on_gpu {

static const char *message(const char *what, const char *why) {
    static char line[512];
    snprintf(line, sizeof line, "%s: %s", what, why);
    return line;
}

static const char *failed(cudaError_t e, const char *what) {
    return e == cudaSuccess ? nullptr : message(what, cudaGetErrorString(e));
}

// Returns from the function it stands in when the call fails.
#define TRY(call)                                                                                  \
    do {                                                                                           \
        if (const char *why = failed(call, #call))                                                 \
            return why;                                                                            \
    } while (0)

void cuda_allow_shared(const void *kernel, size_t bytes) {
    if (bytes > 48 << 10)
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

bool cuda_is_hopper() {
    int major = 0, minor = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
    return major == 9 && minor == 0;
}

const char *cuda_launched(const char *kernel) {
    return failed(cudaGetLastError(), kernel);
}

// Clocks and the driver's version are known to the management library, which comes with the driver;
// without it they stay unknown.
static void ask_nvml(cuda_description *d, const char *bus_id) {
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW), *handle = nullptr;
    if (!library)
        return;
    auto init = (int (*)())dlsym(library, "nvmlInit_v2");
    auto find = (int (*)(const char *, void **))dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2");
    auto clock = (int (*)(void *, int, unsigned *))dlsym(library, "nvmlDeviceGetClockInfo");
    auto driver = (int (*)(char *, unsigned))dlsym(library, "nvmlSystemGetDriverVersion");
    enum { SM = 1, MEMORY = 2 };
    if (init && driver && clock && find && init() == 0 && find(bus_id, &handle) == 0) {
        driver(d->driver, sizeof d->driver);
        clock(handle, SM, &d->sm_mhz);
        clock(handle, MEMORY, &d->memory_mhz);
    }
    dlclose(library);
}

static const char *describe(cuda_description *d) {
    cudaDeviceProp p;
    char bus_id[32];
    int driver = 0, clock = 0, width = 0;
    *d = {};
    TRY(cudaGetDeviceProperties(&p, 0));
    TRY(cudaDriverGetVersion(&driver));
    TRY(cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, 0));
    cudaDeviceGetAttribute(&clock, cudaDevAttrMemoryClockRate, 0);
    cudaDeviceGetAttribute(&width, cudaDevAttrGlobalMemoryBusWidth, 0);
    snprintf(d->device, sizeof d->device, "%.100s", p.name);
    snprintf(d->driver, sizeof d->driver, "CUDA %d.%d", driver / 1000, driver % 1000 / 10);
    d->processors = (unsigned)p.multiProcessorCount;
    d->memory_bytes = p.totalGlobalMem;
    d->l2_bytes = (size_t)p.l2CacheSize;
    d->limit_gb_s = 2e-6 * clock * width / 8; // kHz, bits; two transfers per clock
    ask_nvml(d, bus_id);
    return nullptr;
}

static void *allocate(size_t bytes) {
    void *p = nullptr;
    if (cudaMalloc(&p, bytes ? bytes : 1) != cudaSuccess ||
        cudaMemset(p, 0, bytes) != cudaSuccess || cudaStreamSynchronize(0) != cudaSuccess) {
        cudaGetLastError(); // said once, by NULL
        return nullptr;
    }
    return p;
}

static void release(void *p) {
    cudaFree(p);
}

// Complete when it returns: from memory that is not pinned cudaMemcpy may still be on its way, and
// a model's stream does not wait for the default one.
static const char *upload(void *to, const void *from, size_t bytes) {
    TRY(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
    return failed(cudaStreamSynchronize(0), "upload");
}

static const char *download(void *to, const void *from, size_t bytes) {
    return failed(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "download");
}

static const char *run(const cuda_kernel *kernel, const cuda_call *call) {
    if (const char *why = kernel->run(call))
        return why;
    return failed(cudaStreamSynchronize((cudaStream_t)call->stream), kernel->name);
}

// ---- whole models ------------------------------------------------------------------------------

static const char *memory(size_t *free, size_t *total) {
    return failed(cudaMemGetInfo(free, total), "memory");
}

static void *allocate_host(size_t bytes) {
    void *p = nullptr;
    if (cudaMallocHost(&p, bytes ? bytes : 1) != cudaSuccess) {
        cudaGetLastError();
        return nullptr;
    }
    return p;
}

static void release_host(void *p) {
    cudaFreeHost(p);
}

static void *stream_open() {
    cudaStream_t stream = nullptr;
    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) {
        cudaGetLastError();
        return nullptr;
    }
    return stream;
}

static void stream_close(void *stream) {
    if (stream)
        cudaStreamDestroy((cudaStream_t)stream);
}

static const char *send(void *to, const void *from, size_t bytes, void *stream) {
    return failed(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, (cudaStream_t)stream),
                  "upload");
}

static const char *fetch(void *to, const void *from, size_t bytes, void *stream) {
    return failed(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, (cudaStream_t)stream),
                  "download");
}

static const char *wait(void *stream) {
    return failed(cudaStreamSynchronize((cudaStream_t)stream), "the GPU");
}

static const char *begin_capture(void *stream) {
    return failed(cudaStreamBeginCapture((cudaStream_t)stream, cudaStreamCaptureModeRelaxed),
                  "graph");
}

static const char *end_capture(void *stream, void **graph) {
    cudaGraph_t noted = nullptr;
    cudaGraphExec_t exec = nullptr;
    *graph = nullptr;
    TRY(cudaStreamEndCapture((cudaStream_t)stream, &noted));
    cudaError_t e = cudaGraphInstantiate(&exec, noted, 0);
    cudaGraphDestroy(noted);
    *graph = exec;
    return failed(e, "graph");
}

static const char *replay_graph(void *graph, void *stream) {
    return failed(cudaGraphLaunch((cudaGraphExec_t)graph, (cudaStream_t)stream), "graph");
}

static void graph_free(void *graph) {
    if (graph)
        cudaGraphExecDestroy((cudaGraphExec_t)graph);
}

// ---- timing ------------------------------------------------------------------------------------

// All calls in one graph, so that the host's launches are not what is timed.
static const char *capture(const cuda_kernel *kernel, const cuda_call *calls, size_t n,
                           cudaStream_t stream, cudaGraphExec_t *exec) {
    cudaGraph_t graph;
    const char *why = nullptr;
    TRY(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    for (size_t i = 0; i < n && !why; i++) {
        cuda_call call = calls[i];
        call.stream = stream;
        why = kernel->run(&call);
    }
    cudaError_t e = cudaStreamEndCapture(stream, &graph);
    if (why)
        return why;
    TRY(e);
    e = cudaGraphInstantiate(exec, graph, 0);
    cudaGraphDestroy(graph);
    return failed(e, "graph");
}

// Microseconds of each of `samples` replays, after a few that don't count.
static const char *replay(cudaGraphExec_t exec, cudaStream_t stream, size_t samples,
                          std::vector<float> &us) {
    cudaEvent_t start, stop;
    TRY(cudaEventCreate(&start));
    TRY(cudaEventCreate(&stop));
    for (size_t i = 0; i < samples + 3; i++) {
        float ms = 0;
        TRY(cudaEventRecord(start, stream));
        TRY(cudaGraphLaunch(exec, stream));
        TRY(cudaEventRecord(stop, stream));
        TRY(cudaEventSynchronize(stop));
        TRY(cudaEventElapsedTime(&ms, start, stop));
        if (i >= 3)
            us.push_back(1000 * ms);
    }
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    std::sort(us.begin(), us.end());
    return nullptr;
}

static const char *time_calls(const cuda_kernel *kernel, const cuda_call *calls, size_t n,
                              size_t samples, double *us, double *us_p99) {
    cudaStream_t stream;
    cudaGraphExec_t exec;
    std::vector<float> all;
    if (const char *why = run(kernel, calls)) // loads the module, creates handles
        return why;
    TRY(cudaStreamCreate(&stream));
    const char *why = capture(kernel, calls, n, stream, &exec);
    if (!why) {
        why = replay(exec, stream, samples, all);
        cudaGraphExecDestroy(exec);
    }
    cudaStreamDestroy(stream);
    if (why)
        return why;
    *us = all[all.size() / 2] / (double)n;
    *us_p99 = all[std::min(all.size() - 1, all.size() * 99 / 100)] / (double)n;
    return nullptr;
}

static const char *copy_speed(double *gb_s) {
    const size_t bytes = (size_t)1 << 30;
    char *p = (char *)allocate(2 * bytes);
    cudaEvent_t start, stop;
    float best = 0;
    if (!p)
        return message("copy", "no memory for 2 GB");
    TRY(cudaEventCreate(&start));
    TRY(cudaEventCreate(&stop));
    for (int i = 0; i < 20; i++) {
        float ms = 0;
        TRY(cudaEventRecord(start));
        TRY(cudaMemcpyAsync(p + bytes, p, bytes, cudaMemcpyDeviceToDevice));
        TRY(cudaEventRecord(stop));
        TRY(cudaEventSynchronize(stop));
        TRY(cudaEventElapsedTime(&ms, start, stop));
        best = i == 0 || ms < best ? ms : best;
    }
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    release(p);
    *gb_s = 2.0 * (double)bytes / best / 1e6;
    return nullptr;
}

} // namespace on_gpu

static const cuda_kernel *const kernels[] = {
    &on_gpu::kernel_dequantize,
    &on_gpu::kernel_naive,
    &on_gpu::kernel_warp,
    &on_gpu::kernel_wide,
    &on_gpu::kernel_half2,
    &on_gpu::kernel_dp4a,
    &on_gpu::kernel_packed,
    &on_gpu::kernel_async,
    &on_gpu::kernel_stream,
    &on_gpu::kernel_batch,
    &on_gpu::kernel_wgmma,
    &on_gpu::kernel_int8,
    nullptr,
};

static const cuda_backend device = {
    "cuda",
    kernels,
    on_gpu::describe,
    on_gpu::allocate,
    on_gpu::release,
    on_gpu::upload,
    on_gpu::download,
    on_gpu::run,
    on_gpu::time_calls,
    on_gpu::copy_speed,
    &on_gpu::ops,
    on_gpu::memory,
    on_gpu::allocate_host,
    on_gpu::release_host,
    on_gpu::stream_open,
    on_gpu::stream_close,
    on_gpu::send,
    on_gpu::fetch,
    on_gpu::wait,
    on_gpu::begin_capture,
    on_gpu::end_capture,
    on_gpu::replay_graph,
    on_gpu::graph_free,
};

extern "C" const struct cuda_backend *cuda_device(const char **why) {
    int n = 0, driver = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n > 0)
        return &device;
    bool none = cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0;
    *why = none               ? "no NVIDIA driver on this machine"
           : e == cudaSuccess ? "no NVIDIA GPU on this machine"
                              : on_gpu::message("no GPU", cudaGetErrorString(e));
    return nullptr;
}
