// Rules by which others give some tensors more bits than the rest, without measuring anything.
// Phase 5 shows what they are worth beside a mix that was measured.
#ifndef NIBBLE_QUANT_HEURISTICS_H
#define NIBBLE_QUANT_HEURISTICS_H

#include <stdbool.h>
#include <stddef.h>

// What enters the model and what leaves it matters most: the first and the last layer.
bool heuristic_first_last(size_t layer, size_t n_layers);

// As llama.cpp's K_M mixes of GGUF types do: all value projections, and half of the down
// projections (the first and the last eighth of the layers, and every third between). `kind` is
// what stands behind a tensor's layer number: "self_attn.v_proj", "mlp.down_proj"; GPT-2's fused
// attention matrix counts as a value projection.
bool heuristic_k_m(const char *kind, size_t layer, size_t n_layers);

#endif
