// Buffers that a thread needs again and again. Fresh megabytes for every product would cost more in
// page faults than the product.
#ifndef NIBBLE_SCRATCH_H
#define NIBBLE_SCRATCH_H

#include <stddef.h>

enum scratch_slot {
    SCRATCH_PANEL,
    SCRATCH_ACTIVATIONS,
    SCRATCH_BLOCKS,
    SCRATCH_SUMS,
    SCRATCH_COUNT
};

// At least `size` bytes on a cache line, this thread's alone, until it asks for the same slot
// again. What they hold is unspecified. NULL when memory is short. Freed when the thread ends.
void *scratch_get(enum scratch_slot slot, size_t size);

#endif
