// A model to be timed: what a decode step reads, and a cache that looks used.
#ifndef NIBBLE_TOOLS_BENCH_MODEL_H
#define NIBBLE_TOOLS_BENCH_MODEL_H

#include "model/model.h"

// `loaded` with the blocks' linears in that format (a name of quant/format.h); "keep": as they are.
// Ends the program where it cannot be done. `loaded` must outlive it.
struct model *bench_in_format(const struct model *loaded, const char *format);
// Bytes of weights that decoding a token reads: all, but of an embedding that is not the head too
// one row.
double bench_weight_bytes(const struct model *m);
// Bytes of keys and values at one position.
double bench_position_bytes(const struct model_config *c);
// Operations of one token's products, `seen` positions of attention included, the head left out.
double bench_token_operations(const struct model *m, double seen);
// Random keys and values: what they are does not change the time.
void bench_fill_cache(struct kv_cache *kv);

#endif
