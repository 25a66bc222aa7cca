#include "kernels/cpu/team.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "core/timer.h"
#include "threads.h"

// `claim` is the number of the call and the next chunk in one word. A thread reads what the work
// is, then claims a chunk by raising the word by one: if that succeeds the call is still that one,
// and cannot end before the chunk is done. A thread that was delayed between the two fails.
enum { MAX_TEAM = 256, CALL_SHIFT = 32 };

static const double look_seconds = 20e-6;  // how long a thread looks for work before it sleeps
static const size_t stack_bytes = 4 << 20; // attention's blocks in tiles take 0.8 MB

static struct {
    _Atomic uint64_t claim;
    _Atomic size_t chunks, done, threads;
    _Atomic(team_work *) work;
    _Atomic(void *) context;
    atomic_bool taken, waiting; // a call is under way; its caller sleeps
    _Atomic int sleepers;
    int started;   // threads, the callers not counted; guarded by `taken`
    pid_t process; // that started them: a fork's child has none
    pthread_mutex_t mutex;
    pthread_cond_t work_came, work_done;
} team = {.mutex = PTHREAD_MUTEX_INITIALIZER,
          .work_came = PTHREAD_COND_INITIALIZER,
          .work_done = PTHREAD_COND_INITIALIZER};

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

// Claims and does chunks until there are none left.
static void work_on(void) {
    for (;;) {
        uint64_t claim = atomic_load(&team.claim);
        size_t chunk = claim & UINT32_MAX, chunks = atomic_load(&team.chunks);
        team_work *work = atomic_load(&team.work);
        void *context = atomic_load(&team.context);
        if (chunk >= chunks)
            return;
        if (!atomic_compare_exchange_weak(&team.claim, &claim, claim + 1))
            continue;
        work(context, chunk);
        if (atomic_fetch_add(&team.done, 1) + 1 == chunks && atomic_load(&team.waiting)) {
            pthread_mutex_lock(&team.mutex);
            pthread_cond_signal(&team.work_done);
            pthread_mutex_unlock(&team.mutex);
        }
    }
}

static bool looked_in_vain(uint64_t call) {
    double until = timer_now() + look_seconds;
    do
        for (int i = 0; i < 32; i++) {
            if (atomic_load(&team.claim) >> CALL_SHIFT != call)
                return false;
            pause_briefly();
        }
    while (timer_now() < until);
    return true;
}

static void *member(void *number) {
    uint64_t call = 0;
    for (;;) {
        if (looked_in_vain(call)) {
            pthread_mutex_lock(&team.mutex);
            atomic_fetch_add(&team.sleepers, 1);
            while (atomic_load(&team.claim) >> CALL_SHIFT == call)
                pthread_cond_wait(&team.work_came, &team.mutex);
            atomic_fetch_sub(&team.sleepers, 1);
            pthread_mutex_unlock(&team.mutex);
        }
        call = atomic_load(&team.claim) >> CALL_SHIFT;
        if ((uintptr_t)number < atomic_load(&team.threads))
            work_on();
    }
    return NULL;
}

// Threads that cannot be started are done without.
static void start_members(size_t threads) {
    if (team.process != getpid()) {
        team.process = getpid();
        team.started = 0;
        atomic_store(&team.sleepers, 0);
        // A child's condition still counts its parent's sleepers, and would wait for them for ever.
        pthread_mutex_init(&team.mutex, NULL);
        pthread_cond_init(&team.work_came, NULL);
        pthread_cond_init(&team.work_done, NULL);
    }
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setstacksize(&attributes, stack_bytes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while ((size_t)team.started + 1 < threads && team.started + 1 < MAX_TEAM) {
        pthread_t thread;
        void *number = (void *)(uintptr_t)(team.started + 1);
        if (pthread_create(&thread, &attributes, member, number) != 0)
            break;
        team.started++;
    }
    pthread_attr_destroy(&attributes);
}

static void wait_for_all(size_t chunks) {
    double until = timer_now() + look_seconds;
    while (atomic_load(&team.done) < chunks && timer_now() < until)
        pause_briefly();
    if (atomic_load(&team.done) == chunks)
        return;
    pthread_mutex_lock(&team.mutex);
    atomic_store(&team.waiting, true);
    while (atomic_load(&team.done) < chunks)
        pthread_cond_wait(&team.work_done, &team.mutex);
    atomic_store(&team.waiting, false);
    pthread_mutex_unlock(&team.mutex);
}

static bool inside_parallel(void) {
#ifdef _OPENMP
    return omp_in_parallel();
#else
    return false;
#endif
}

void team_run(size_t chunks, team_work *work, void *context) {
    size_t threads = threads_max();
    if (chunks < 2 || chunks >= UINT32_MAX || threads < 2 || inside_parallel() ||
        atomic_exchange(&team.taken, true)) {
        for (size_t i = 0; i < chunks; i++)
            work(context, i);
        return;
    }
    start_members(threads);
    // The last call's word becomes one that nobody can claim from before its chunks are forgotten:
    // a late thread would take the new number of chunks for the old call's.
    uint64_t call = (atomic_load(&team.claim) >> CALL_SHIFT) + 1;
    atomic_store(&team.claim, (call - 1) << CALL_SHIFT | UINT32_MAX);
    atomic_store(&team.done, 0);
    atomic_store(&team.work, work);
    atomic_store(&team.context, context);
    atomic_store(&team.chunks, chunks);
    atomic_store(&team.threads, threads);
    atomic_store(&team.claim, call << CALL_SHIFT);
    if (atomic_load(&team.sleepers) > 0) {
        pthread_mutex_lock(&team.mutex);
        pthread_cond_broadcast(&team.work_came);
        pthread_mutex_unlock(&team.mutex);
    }
    work_on();
    wait_for_all(chunks);
    atomic_store(&team.taken, false);
}
