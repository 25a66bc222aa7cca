// How products in AMX tiles divide their rows among the threads.
#ifndef NIBBLE_PANELS_H
#define NIBBLE_PANELS_H

#include "kernels/cpu/threads.h"

enum {
    PANEL = 256,      // rows a thread takes at a time, which share what it fetches of the tokens
    PANEL_LEAST = 32, // two tiles
    PANELS_MIN = 4    // for each thread, or panels get smaller
};

// The rows of a panel where the matrices of a call have so many together: enough panels that the
// threads end together.
static inline size_t panel_rows(size_t rows) {
    size_t panel = PANEL;
    while (panel > PANEL_LEAST && rows < panel * PANELS_MIN * threads_max())
        panel /= 2;
    return panel;
}

#endif
