#include "model/rope_scaling.h"

#include <math.h>

#include "core/memory.h"

// Frequencies whose wavelength fits high_freq_factor times into the original context stay; those
// that fit less than low_freq_factor times are slowed down by `factor`; between, both are mixed.
static double llama3_scale(const struct rope_config *r, double frequency) {
    double turns = r->original_context * frequency / (2 * 3.14159265358979323846);
    if (turns >= r->high_freq_factor)
        return frequency;
    if (turns <= r->low_freq_factor)
        return frequency / r->factor;
    double mix = (turns - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1 - mix) * frequency / r->factor + mix * frequency;
}

bool rope_frequencies(const struct model_config *c, float **inv_freq, struct error *err) {
    *inv_freq = NULL;
    if (c->rope.kind == ROPE_NONE)
        return true;
    size_t half = c->head_dim / 2;
    float *f = memory_alloc(half, sizeof *f, "rotary frequencies", err);
    if (!f)
        return false;
    for (size_t i = 0; i < half; i++) {
        double frequency = pow(c->rope.theta, -2.0 * (double)i / (double)c->head_dim);
        if (c->rope.kind == ROPE_LINEAR)
            frequency /= c->rope.factor;
        else if (c->rope.kind == ROPE_LLAMA3)
            frequency = llama3_scale(&c->rope, frequency);
        f[i] = (float)(c->rope.factors ? frequency / c->rope.factors[i] : frequency);
    }
    *inv_freq = f;
    return true;
}
