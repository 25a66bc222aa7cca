// The threads that share a kernel's work.
#ifndef NIBBLE_TEAM_H
#define NIBBLE_TEAM_H

#include <stddef.h>

typedef void team_work(void *context, size_t chunk);

// Calls work for every chunk 0 … chunks - 1, on as many threads as OpenMP has now; returns when all
// are done. Who does which chunk is decided as they come: where a neighbour slows one thread down,
// the others do more. Inside a parallel region, or with one chunk, the caller does it all.
void team_run(size_t chunks, team_work *work, void *context);

#endif
