// Stands in for device.cu where nvcc was not found.
#include "kernels/cuda/cuda.h"

const struct cuda_backend *cuda_device(const char **why) {
    *why = "built without CUDA: nvcc was not found";
    return NULL;
}
