#include "kernels/cpu/kernels.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const char *const isa_names[ISA_COUNT] = {"scalar", "avx2", "avx512"};

// What kernels_isa() answers, plus one; 0 until it is first asked. The only state of this folder.
static _Atomic int isa_in_force;

static enum isa isa_of_cpu(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return ISA_AVX512;
    // Every CPU with AVX2 has F16C, which clang 14 cannot be asked for.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return ISA_AVX2;
#endif
    return ISA_SCALAR;
}

enum isa kernels_isa_force(enum isa isa) {
    enum isa best = isa_of_cpu();
    enum isa chosen = isa < best ? isa : best;
    atomic_store_explicit(&isa_in_force, (int)chosen + 1, memory_order_relaxed);
    return chosen;
}

static enum isa isa_asked_for(void) {
    const char *name = getenv("NIBBLE_ISA");
    for (int i = 0; name && i < ISA_COUNT; i++)
        if (strcmp(name, isa_names[i]) == 0)
            return (enum isa)i;
    return ISA_COUNT - 1;
}

enum isa kernels_isa(void) {
    int known = atomic_load_explicit(&isa_in_force, memory_order_relaxed);
    return known ? (enum isa)(known - 1) : kernels_isa_force(isa_asked_for());
}

const char *kernels_isa_name(enum isa isa) {
    return (unsigned)isa < ISA_COUNT ? isa_names[isa] : "?";
}
