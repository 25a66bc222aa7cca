// Weight matrices as the CUDA kernels see them: from the project's formats, or made up.
#ifndef NIBBLE_CUDA_MATRIX_H
#define NIBBLE_CUDA_MATRIX_H

#include "core/error.h"
#include "kernels/cuda/cuda.h"
#include "quant/format.h"

// The planes or blocks of an [n, k] matrix in format f. False for formats that no kernel reads
// (float32, one scale per tensor). w points into data.
bool cuda_matrix_of(const struct quant_format *f, const void *data, size_t n, size_t k,
                    struct cuda_matrix *w);

// A matrix of random codes and scales, made in a moment however large it is: for measuring and for
// comparing with cuda_matmul_ref. Its weights are of size 1/√k, so results are of size 1.
struct cuda_sample {
    struct cuda_matrix w;
    size_t bytes; // of codes, scales and zero points
    void *data;
};
// Every format's name, NULL-terminated: f16, bf16, int8, int8-g32 …, int4, int4-g32 …,
// int4-g32-zp …, nf4, q8_0, q4_0, q4_k, q6_k.
extern const char *const cuda_sample_formats[];
// False if k does not fit the format (blocks), it has no such name, or memory is short.
bool cuda_sample_init(struct cuda_sample *s, const char *format, unsigned n, unsigned k,
                      uint64_t seed, struct error *err);
void cuda_sample_free(struct cuda_sample *s);

// [m, stride] float16 from a normal distribution, zeros from k on; stride: k rounded up to a
// multiple of 256. The caller frees it.
uint16_t *cuda_sample_x(unsigned m, unsigned k, unsigned *stride, uint64_t seed, struct error *err);

#endif
