#include "kernels/cpu/team.h"

void team_run(size_t chunks, team_work *work, void *context) {
#pragma omp parallel for schedule(dynamic, 1) if (chunks > 1)
    for (size_t i = 0; i < chunks; i++)
        work(context, i);
}
