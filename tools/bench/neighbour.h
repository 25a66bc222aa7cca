// Another process that keeps one processor busy.
#ifndef NIBBLE_TOOLS_BENCH_NEIGHBOUR_H
#define NIBBLE_TOOLS_BENCH_NEIGHBOUR_H

#include <sys/types.h>

// The last of the processors that this process may use.
int neighbour_processor(void);
// Starts one there; it ends with its parent. Ends the program where it cannot be started.
pid_t neighbour_start(void);
void neighbour_stop(pid_t neighbour);

#endif
