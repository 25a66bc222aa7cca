#include "kernels/cpu/kernels.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

static const char *const isa_names[ISA_COUNT] = {"scalar", "avx2", "avx512"};
static const char *const level_names[LEVEL_COUNT] = {"scalar", "neon",   "dotprod", "i8mm",
                                                     "avx2",   "avx512", "vnni",    "amx"};

// What kernels_level() answers, plus one; 0 until it is first asked.
static _Atomic int level_in_force;

#if defined(__x86_64__)
// Tiles are 8 KB more to save for each thread, so Linux wants to be asked.
static bool has_amx(void) {
#if defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return false;
    bool bf16 = d >> 22 & 1, tile = d >> 24 & 1, int8 = d >> 25 & 1;
    return bf16 && tile && int8 &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}
#endif

enum cpu_level kernels_level_best(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        if (!__builtin_cpu_supports("avx512vnni"))
            return LEVEL_AVX512;
        return has_amx() ? LEVEL_AMX : LEVEL_VNNI;
    }
    // Every CPU with AVX2 has F16C, which clang 14 cannot be asked for.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return LEVEL_AVX2;
    return LEVEL_SCALAR;
#elif defined(__aarch64__)
    unsigned long dotprod = 0, i8mm = 0;
#if defined(__linux__)
    enum { HAS_ASIMDDP = 1 << 20, HAS_2_I8MM = 1 << 13 };
    dotprod = getauxval(AT_HWCAP) & HAS_ASIMDDP;
    i8mm = getauxval(AT_HWCAP2) & HAS_2_I8MM;
#endif
    return !dotprod ? LEVEL_NEON : !i8mm ? LEVEL_DOTPROD : LEVEL_I8MM;
#else
    return LEVEL_SCALAR;
#endif
}

bool kernels_level_known(enum cpu_level level) {
#if defined(__x86_64__)
    return level == LEVEL_SCALAR || (level >= LEVEL_AVX2 && level < LEVEL_COUNT);
#elif defined(__aarch64__)
    return level <= LEVEL_I8MM;
#else
    return level == LEVEL_SCALAR;
#endif
}

enum cpu_level kernels_level_force(enum cpu_level level) {
    enum cpu_level best = kernels_level_best();
    enum cpu_level chosen = kernels_level_known(level) && level < best ? level : best;
    atomic_store_explicit(&level_in_force, (int)chosen + 1, memory_order_relaxed);
    return chosen;
}

enum cpu_level kernels_level_find(const char *name) {
    int i = 0;
    while (i < LEVEL_COUNT && strcmp(name, level_names[i]) != 0)
        i++;
    return (enum cpu_level)i;
}

// What NIBBLE_ISA asks for, NULL if it is not set.
static const char *asked_for(void) {
    const char *name = getenv("NIBBLE_ISA");
    return name && *name ? name : NULL;
}

enum cpu_level kernels_level(void) {
    int known = atomic_load_explicit(&level_in_force, memory_order_relaxed);
    if (known)
        return (enum cpu_level)(known - 1);
    const char *name = asked_for();
    return kernels_level_force(name ? kernels_level_find(name) : LEVEL_COUNT);
}

bool kernels_check_environment(struct error *err) {
    const char *name = asked_for();
    if (!name || strcmp(name, "best") == 0 || kernels_level_known(kernels_level_find(name)))
        return true;
    return error_set(err, "NIBBLE_ISA is '%s', expected best, scalar%s", name,
                     kernels_level_known(LEVEL_NEON) ? ", neon, dotprod or i8mm"
                                                     : ", avx2, avx512, vnni or amx");
}

const char *kernels_level_name(enum cpu_level level) {
    return (unsigned)level < LEVEL_COUNT ? level_names[level] : "?";
}

// ---- how wide the vectors are -----------------------------------------------------------------

static enum isa isa_of_level(enum cpu_level level) {
    return level >= LEVEL_AVX512 ? ISA_AVX512 : level == LEVEL_AVX2 ? ISA_AVX2 : ISA_SCALAR;
}

enum isa kernels_isa(void) {
    return isa_of_level(kernels_level());
}

enum isa kernels_isa_force(enum isa isa) {
    return isa_of_level(kernels_level_force(isa == ISA_SCALAR ? LEVEL_SCALAR
                                            : isa == ISA_AVX2 ? LEVEL_AVX2
                                                              : LEVEL_COUNT));
}

const char *kernels_isa_name(enum isa isa) {
    return (unsigned)isa < ISA_COUNT ? isa_names[isa] : "?";
}
