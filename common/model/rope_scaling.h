// Rotary frequencies and how longer contexts stretch them.
#ifndef NIBBLE_MODEL_ROPE_SCALING_H
#define NIBBLE_MODEL_ROPE_SCALING_H

#include "model/config.h"

// *inv_freq [D/2]: pair i turns by position * theta^(-2i/D), divided by `factor` (linear: all of
// them; llama3: only the slow ones, with a smooth passage; Llama 3.1's model card), and by its own
// number where the config lists one for each. NULL without rotary embedding. The caller frees it.
bool rope_frequencies(const struct model_config *c, float **inv_freq, struct error *err);

#endif
