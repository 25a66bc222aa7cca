// A small seeded generator: the same numbers on every machine (SplitMix64, Steele et al. 2014).
#ifndef NIBBLE_CORE_RANDOM_H
#define NIBBLE_CORE_RANDOM_H

#include <math.h>
#include <stdint.h>

struct random {
    uint64_t state; // the seed; any value will do
};

static inline uint64_t random_u64(struct random *r) {
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

// Uniform in [0, 1) with 53 bits.
static inline double random_uniform(struct random *r) {
    return (double)(random_u64(r) >> 11) * 0x1p-53;
}

// Uniform in 0 … n-1; n > 0. The bias of the multiplication is below n / 2^32.
static inline uint32_t random_below(struct random *r, uint32_t n) {
    return (uint32_t)(((random_u64(r) >> 32) * n) >> 32);
}

// Standard normal (Box and Muller 1958).
static inline double random_normal(struct random *r) {
    double u = 1.0 - random_uniform(r), v = random_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

#endif
