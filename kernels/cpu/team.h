// The threads that share a kernel's work.
//
// OpenMP's threads all have to arrive where a parallel region ends, also those that did nothing:
// when something else runs on one core, its thread arrives milliseconds late, hundreds of times a
// token. Here the work is chunks that are claimed one by one; the caller waits for claimed chunks
// only, and a thread that comes too late finds nothing and nobody waits for it.
//
// The team is this folder's one piece of shared state: started at the first call, its threads sleep
// between calls after 20 µs of looking for more.
#ifndef NIBBLE_TEAM_H
#define NIBBLE_TEAM_H

#include <stddef.h>

typedef void team_work(void *context, size_t chunk);

// Calls work for every chunk 0 … chunks - 1, on as many threads as OpenMP would use now; returns
// when all are done. Who does which chunk is decided as they come. Inside a parallel region, within
// another team_run, or while another thread has the team, the caller does it all.
void team_run(size_t chunks, team_work *work, void *context);

#endif
