#include "tools/bench/neighbour.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench/bench.h"

int neighbour_processor(void) {
    cpu_set_t all;
    int last = 0;
    if (sched_getaffinity(0, sizeof all, &all) != 0)
        return 0;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &all))
            last = i;
    return last;
}

_Noreturn static void keep_busy(void) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(neighbour_processor(), &one);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sched_setaffinity(0, sizeof one, &one);
    for (volatile unsigned i = 0;; i++)
        ;
}

pid_t neighbour_start(void) {
    pid_t neighbour = fork();
    if (neighbour == 0)
        keep_busy();
    if (neighbour < 0)
        bench_fail("a process cannot be started");
    return neighbour;
}

void neighbour_stop(pid_t neighbour) {
    kill(neighbour, SIGKILL);
    waitpid(neighbour, NULL, 0);
}
