// Matrix products on a GPU: a ladder of kernels from naive to the memory limit, numbered. The same
// kernel sources run on two backends: `cuda_device`, where nvcc built them and a GPU is there, and
// `cuda_emulator`, anywhere.
//
//     y[m, n] = x[m, k] · wᵀ    x in float16, w in one of the formats below, y and sums in float32
//
// Functions that can fail return NULL when all went well and otherwise one line saying what did
// not, valid until the next call. Pointers in a struct cuda_call are the backend's: memory of the
// GPU, or of this process. Dimension letters: core/tensor.h.
#ifndef NIBBLE_CUDA_H
#define NIBBLE_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum cuda_format {
    CUDA_F16,
    CUDA_BF16,
    CUDA_INT8, // planes as in quant/format.h
    CUDA_INT4,
    CUDA_NF4,  // packed like CUDA_INT4; a code is an index into cuda_nf4
    CUDA_Q8_0, // blocks of 32 or 256, as GGUF files have them
    CUDA_Q4_0,
    CUDA_Q4_K,
    CUDA_Q6_K,
    CUDA_FORMATS
};

// A weight matrix [n, k]: planes, or rows of blocks.
struct cuda_matrix {
    enum cuda_format format;
    unsigned n, k;
    const void *codes; // row i starts at i * row_bytes
    size_t row_bytes;
    const void *scales;     // [n, groups]; NULL for floats and blocks
    const uint8_t *zeros;   // [n, zero_bytes], two to a byte; NULL: code 8 is 0
    size_t zero_bytes;      // of a row
    unsigned group, groups; // weights that share a scale; scales of a row
    bool wide_scales;       // float32, else float16
    const void *packed;     // the matrix as cuda_pack wrote it, for kernels that want that
};

// One product.
struct cuda_call {
    struct cuda_matrix w;
    const uint16_t *x;              // [m, x_stride] float16; columns from k on are 0
    float *y;                       // [m, y_stride]
    unsigned m, x_stride, y_stride; // x_stride: k rounded up to a multiple of 256
    void *workspace; // as many bytes as the kernel asks for, zeroed once; not shared by calls that
                     // may run at the same time
    unsigned processors; // multiprocessors to spread over
    void *stream;        // of the GPU
    int schedule;        // of the emulator: 0 threads and blocks in order, 1 backwards, 2 shuffled
};

// A rung. Number, row of the table and section of the write-up are one.
struct cuda_kernel {
    int number;
    const char *variant; // "", or what tells it from others of its number: "int8"
    const char *name;
    double tolerance; // relative L2 error against cuda_matmul_ref, for Gaussian x
    bool packed;      // reads w.packed and nothing else of w's arrays
    bool (*takes)(const struct cuda_matrix *w, unsigned m);
    size_t (*workspace)(const struct cuda_call *call); // bytes; NULL: none
    const char *(*run)(const struct cuda_call *call);  // on a GPU: starts it
};

struct cuda_description {
    char device[128], driver[32];
    unsigned processors;
    size_t memory_bytes, l2_bytes;
    double limit_gb_s;           // by the data sheet: bus width times memory clock
    unsigned sm_mhz, memory_mhz; // as they are now; 0: unknown
};

struct cuda_ops;
struct cuda_backend {
    const char *name;
    const struct cuda_kernel *const *kernels; // NULL-terminated, in the ladder's order
    const char *(*describe)(struct cuda_description *d);
    void *(*allocate)(size_t bytes); // zeroed; NULL: no memory
    void (*release)(void *p);
    const char *(*upload)(void *to, const void *from, size_t bytes);
    const char *(*download)(void *to, const void *from, size_t bytes);
    // Runs and waits.
    const char *(*run)(const struct cuda_kernel *kernel, const struct cuda_call *call);
    // Median and 99th percentile of the microseconds of one call, over `samples` runs of all n one
    // after another. Give it calls on different weights, together several times the L2 cache, and
    // none of them finds its weights there. NULL in the emulator, whose time means nothing.
    const char *(*time)(const struct cuda_kernel *kernel, const struct cuda_call *calls, size_t n,
                        size_t samples, double *us, double *us_p99);
    // 10^9 bytes per second of a large copy within the GPU, bytes read plus bytes written; NULL in
    // the emulator.
    const char *(*copy_speed)(double *gb_s);

    // What a whole model needs besides.
    const struct cuda_ops *ops; // forward.h
    const char *(*memory)(size_t *free, size_t *total);
    void *(*allocate_host)(size_t bytes); // pinned: copied from and to directly
    void (*release_host)(void *p);
    void *(*stream_open)(void); // NULL: no memory, or the emulator, which needs none
    void (*stream_close)(void *stream);
    // Copies in the order of the stream; the host's side is from allocate_host.
    const char *(*send)(void *to, const void *from, size_t bytes, void *stream);
    const char *(*fetch)(void *to, const void *from, size_t bytes, void *stream);
    const char *(*wait)(void *stream);
    // Between these two, what is started on the stream is noted instead of run: one launch for all
    // of a decode step, as often as wanted.
    const char *(*capture)(void *stream);
    const char *(*captured)(void *stream, void **graph);
    const char *(*replay)(void *graph, void *stream);
    void (*graph_free)(void *graph);
};

extern const struct cuda_backend cuda_emulator;
// For tests: the emulator's card has this much memory from now on (8 GiB at first).
void cuda_emulator_memory(size_t bytes);
// NULL, and why in *why: built without nvcc, no driver, no GPU.
const struct cuda_backend *cuda_device(const char **why);

// The definition, on the CPU: plain loops, sums in double. x as in struct cuda_call.
void cuda_matmul_ref(const struct cuda_matrix *w, const uint16_t *x, unsigned x_stride, unsigned m,
                     float *y, unsigned y_stride);
float cuda_weight_ref(const struct cuda_matrix *w, unsigned row, unsigned col);
extern const float cuda_nf4[16];

// Kernels 6 and on: codes and scales in the order in which they are read (pack.c has the picture).
// False: the format has no such layout.
bool cuda_pack_bytes(const struct cuda_matrix *w, size_t *bytes);
void cuda_pack(const struct cuda_matrix *w, void *out);

#ifdef __cplusplus
}
#endif

#endif
