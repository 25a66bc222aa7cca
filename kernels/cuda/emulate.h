// CUDA's execution model on a CPU: the kernels of this folder compile as C++ and run, slowly and
// correctly, with nothing but this header.
//
//     grid      blocks run one after another
//     block     its threads are fibers: each runs until it has to wait for others
//     barrier   __syncthreads: a thread stops here until all threads of the block have come
//     warp      shuffles, votes and matrix products: the last lane to come does it for all
//     shared    one allocation of exactly the launch's size, filled with 0xff before every block,
//               so that reading what nobody wrote gives NaN and ASan sees one byte too far
//     later     cp.async, bulk copies and wgmma (emulate_async.h) do their work as late as waiting
//               allows: who forgets to wait reads 0xff, or sums of before
//
// A launch fails, with one line saying where, if threads of a block wait in different places or for
// one that has ended, if a lane that its mask names does not come, if a shuffle reads from a lane
// that is not in the mask, or if an mbarrier's phase cannot end. With emulate_race.cc, accesses
// that nothing orders are found too. Threads take turns in the order of `schedule`: a kernel whose
// result depends on it has a race.
//
// What a GPU would do at the same time happens here one after another, so a block must not wait for
// another one.
#ifndef NIBBLE_EMULATE_H
#define NIBBLE_EMULATE_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/emulate_fiber.h"

// emulate_race.cc, where it is linked: a kernel's access to memory.
void emulate_access(const void *p, size_t bytes, bool write) __attribute__((weak));

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// Emulator functions that touch a kernel's memory on its behalf are no accesses of the kernel.
#define EMULATOR __attribute__((no_sanitize_thread))

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {
    }
    unsigned count() const {
        return x * y * z;
    }
};

namespace emulate {

enum { WARP = 32, MAX_THREADS = 1024, MAX_COPIES = 256, MAX_PRODUCTS = 16, MAX_BULKS = 256 };
enum schedule { FORWARD, BACKWARD, SHUFFLED };
enum state { READY, AT_BARRIER, AT_MEETING, AT_PHASE, ENDED };

// Where in the kernel's source a thread waits.
struct place {
    const char *name, *file;
    int line;
};

// What a warp does together: `act` gets one argument per lane, NULL for lanes that don't take part.
typedef void meeting_act(void **arguments);

struct copy {
    void *to;
    const void *from;
    unsigned bytes, filled; // `filled` bytes are copied, the others become 0
    unsigned group;         // which cp.async.commit_group it belongs to
};

// What a kernel's mbarrier, eight bytes of shared memory, holds here.
struct mbarrier {
    unsigned phase : 1;    // parity of the one that runs
    unsigned count : 15;   // arrivals that end a phase
    unsigned missing : 16; // of these, not yet come
    int bytes;             // of bulk copies, announced and not yet there
};

// A bulk copy under way.
struct bulk {
    void *to;
    const void *from;
    unsigned bytes;
    mbarrier *tells;
};

// A thread's part of a wgmma under way.
struct product {
    float *d;
    const unsigned *a;
    uint64_t b; // descriptor
    bool add;
    unsigned group; // which wgmma.commit_group it belongs to
};

struct thread {
    fiber self;
    state is;
    dim3 index;
    unsigned number;
    place where;
    unsigned mask;
    meeting_act *act;
    void *argument;
    copy copies[MAX_COPIES];
    unsigned n_copies, groups; // copies not yet waited for; groups committed
    unsigned warp_epoch;       // __syncwarp()s passed
    unsigned fence;            // the launch's count of __threadfence()s at this thread's last
    const mbarrier *awaited;   // by a thread AT_PHASE
    unsigned parity;           // of the phase that it waits for
    product products[MAX_PRODUCTS];
    unsigned n_products, product_groups; // not yet waited for; groups committed
    bool fenced;                         // wgmma.fence since the last of these
    uint64_t multiplied;                 // a hash of all its products
};

// All there is of one launch.
struct machine {
    fiber scheduler;
    thread threads[MAX_THREADS];
    thread *now;
    dim3 grid, block, block_index;
    char *shared, *stacks;
    size_t shared_bytes;
    unsigned barrier_epoch; // grows with every barrier and every block
    unsigned fences;        // __threadfence()s of all threads
    bulk bulks[MAX_BULKS];  // of this block
    unsigned n_bulks;
    enum schedule order;
    uint64_t random;
    void (*kernel)(const void *arguments);
    const void *arguments;
    bool failed;
    char message[512];
};

inline machine *current; // of the launch that is running; one at a time

// ---- failing -----------------------------------------------------------------------------------

inline void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
inline void fail(const char *format, ...) {
    machine *m = current;
    if (m->failed)
        return;
    m->failed = true;
    int n = snprintf(m->message, sizeof m->message, "block (%u, %u): ", m->block_index.x,
                     m->block_index.y);
    va_list args;
    va_start(args, format);
    vsnprintf(m->message + n, sizeof m->message - (size_t)n, format, args);
    va_end(args);
}

inline const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// ---- waiting -----------------------------------------------------------------------------------

// emulate_async.h
inline bool phase_over(const thread *t);
inline bool deliver(machine *m);
inline void check_phases(const machine *m);
inline void check_end(const machine *m);

// Hands over to the scheduler; comes back when the thread is READY again, or never.
EMULATOR inline void wait_as(state s) {
    machine *m = current;
    thread *t = m->now;
    t->is = s;
    fiber_switch(&t->self, &m->scheduler, s == ENDED);
}

EMULATOR inline void barrier(place where) {
    current->now->where = where;
    wait_as(AT_BARRIER);
}

EMULATOR inline bool all_came(thread *warp, unsigned lanes, const thread *t) {
    for (unsigned i = 0; i < lanes; i++)
        if (t->mask >> i & 1 && (warp[i].is != AT_MEETING || warp[i].act != t->act ||
                                 warp[i].mask != t->mask || warp[i].where.line != t->where.line))
            return false;
    return true;
}

// Waits until every lane of the mask is here; the last one acts for all.
EMULATOR inline void meet(unsigned mask, meeting_act *act, void *argument, place where) {
    machine *m = current;
    thread *t = m->now, *warp = m->threads + t->number / WARP * WARP;
    unsigned left = m->block.count() - t->number / WARP * WARP;
    unsigned lanes = left < WARP ? left : (unsigned)WARP;
    unsigned exist = lanes == WARP ? ~0u : (1u << lanes) - 1;
    if (mask & ~exist && mask == ~0u)
        mask = exist; // hardware fills the last warp with lanes that never were
    t->where = where, t->mask = mask, t->act = act, t->argument = argument;
    t->is = AT_MEETING;
    if (!(mask >> t->number % WARP & 1) || mask & ~exist)
        fail("%s:%d: %s with mask %08x by lane %u, which is not in it", base_name(where.file),
             where.line, where.name, mask, t->number % WARP);
    if (current->failed || !all_came(warp, lanes, t)) {
        wait_as(AT_MEETING);
        return;
    }
    void *arguments[WARP] = {};
    for (unsigned i = 0; i < lanes; i++)
        if (mask >> i & 1) {
            arguments[i] = warp[i].argument;
            warp[i].is = READY;
        }
    act(arguments);
    if (m->failed)
        wait_as(AT_MEETING);
}

// ---- running blocks ----------------------------------------------------------------------------

EMULATOR inline void thread_start() {
    machine *m = current;
    thread *t = m->now;
    fiber_arrived(&t->self, &m->scheduler);
    m->kernel(m->arguments);
    t->where = {"the kernel's end", "", 0};
    wait_as(ENDED);
}

EMULATOR inline unsigned random_below(machine *m, unsigned n) {
    m->random = m->random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((m->random >> 33) * n >> 31);
}

// Nobody can go on. Either all are at one barrier, or this is how the kernel hangs on a GPU, or
// worse: does not.
EMULATOR inline void release_barrier(machine *m) {
    unsigned n = m->block.count();
    check_phases(m);
    const thread *first = nullptr, *other = nullptr;
    for (unsigned i = 0; i < n; i++)
        if (m->threads[i].is != ENDED && (!first || m->threads[i].is == AT_MEETING))
            first = &m->threads[i];
    for (unsigned i = 0; i < n && !other; i++) {
        const thread *t = &m->threads[i];
        bool expected = first->is == AT_BARRIER || (t->number / WARP == first->number / WARP &&
                                                    first->mask >> t->number % WARP & 1);
        if (expected && (t->is != first->is || t->where.line != first->where.line ||
                         (t->is == AT_MEETING && t->mask != first->mask)))
            other = t;
    }
    if (other || first->is == AT_MEETING) {
        const thread *t = other ? other : first;
        fail("%s:%d: thread %u waits in %s for thread %u, which %s %s (line %d)",
             base_name(first->where.file), first->where.line, first->number, first->where.name,
             t->number, t->is == ENDED ? "is at" : "waits in", t->where.name, t->where.line);
        return;
    }
    m->barrier_epoch++;
    for (unsigned i = 0; i < n; i++)
        m->threads[i].is = READY;
}

// The order in which threads (or blocks) take turns.
EMULATOR inline void make_order(machine *m, unsigned *order, unsigned n) {
    for (unsigned i = 0; i < n; i++)
        order[i] = m->order == BACKWARD ? n - 1 - i : i;
    for (unsigned i = n; m->order == SHUFFLED && i > 1; i--) {
        unsigned j = random_below(m, i), swap = order[i - 1];
        order[i - 1] = order[j], order[j] = swap;
    }
}

EMULATOR inline void run_block(machine *m) {
    unsigned n = m->block.count(), ended = 0, order[MAX_THREADS];
    m->barrier_epoch++;
    m->n_bulks = 0;
    if (m->shared_bytes)
        memset(m->shared, 0xff, m->shared_bytes);
    for (unsigned i = 0; i < n; i++) {
        thread *t = &m->threads[i];
        t->is = READY, t->number = i, t->n_copies = t->groups = t->warp_epoch = t->fence = 0;
        t->n_products = t->product_groups = 0, t->fenced = false, t->multiplied = 0;
        t->index = dim3(i % m->block.x, i / m->block.x % m->block.y, i / m->block.x / m->block.y);
        fiber_init(&t->self, m->stacks + i * (GUARD_BYTES + STACK_BYTES), thread_start);
    }
    while (ended < n && !m->failed) {
        bool moved = false;
        make_order(m, order, n);
        for (unsigned i = 0; i < n && !m->failed; i++) {
            thread *t = m->now = &m->threads[order[i]];
            if (t->is == AT_PHASE && phase_over(t))
                t->is = READY;
            if (t->is != READY)
                continue;
            moved = true;
            fiber_switch(&m->scheduler, &t->self, false);
            m->now = nullptr;
            ended += t->is == ENDED;
        }
        if (!moved && !m->failed && !deliver(m))
            release_barrier(m);
    }
    check_end(m);
}

// Runs kernel(arguments) for every thread of the grid. NULL, or what went wrong, valid until the
// next launch.
inline const char *run(dim3 grid, dim3 block, size_t shared_bytes, enum schedule order,
                       void (*kernel)(const void *), const void *arguments) {
    static char message[sizeof(machine::message)];
    static unsigned epoch; // never starts again: what happened before a launch is over
    size_t n = block.count(), blocks = grid.count();
    if (n == 0 || n > MAX_THREADS || blocks == 0 || shared_bytes > 227 << 10) {
        snprintf(message, sizeof message, "launch of %zu blocks of %zu threads, %zu shared bytes",
                 blocks, n, shared_bytes);
        return message;
    }
    // Kept from launch to launch: a forward pass has hundreds of them.
    static machine *kept;
    static char *stacks;
    static size_t n_stacks;
    machine *m = kept = kept ? kept : (machine *)calloc(1, sizeof *kept);
    if (n > n_stacks) {
        if (stacks)
            fiber_stacks_free(stacks, n_stacks);
        stacks = fiber_stacks(n);
        n_stacks = stacks ? n : 0;
    }
    unsigned *turn = (unsigned *)malloc(blocks * sizeof *turn);
    char *shared =
        shared_bytes ? (char *)aligned_alloc(128, shared_bytes + (-shared_bytes & 127)) : nullptr;
    bool ready = m && turn && stacks && (shared || !shared_bytes);
    if (ready) {
        // The end of the allocation, not its start, is the kernel's: one byte too far is outside.
        m->shared = shared ? shared + (-shared_bytes & 127 & ~15u) : nullptr;
        m->grid = grid, m->block = block, m->stacks = stacks, m->shared_bytes = shared_bytes;
        m->barrier_epoch = epoch, m->order = order, m->kernel = kernel, m->arguments = arguments;
        m->fences = 0, m->random = 0, m->failed = false, m->message[0] = '\0';
        current = m;
        make_order(m, turn, (unsigned)blocks);
        for (size_t i = 0; i < blocks && !m->failed; i++) {
            unsigned b = turn[i];
            m->block_index = dim3(b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y);
            run_block(m);
        }
        current = nullptr;
        epoch = m->barrier_epoch;
        memcpy(message, m->message, sizeof message);
    } else {
        snprintf(message, sizeof message, "no memory for a block of %zu threads", n);
    }
    bool ok = ready && !m->failed;
    free(shared), free(turn);
    return ok ? nullptr : message;
}

// Any callable, so that a launch can capture the kernel's arguments.
template <class Kernel>
const char *launch(dim3 grid, dim3 block, size_t shared_bytes, enum schedule order, Kernel kernel) {
    return run(
        grid, block, shared_bytes, order, [](const void *k) { (*(const Kernel *)k)(); }, &kernel);
}

} // namespace emulate

// ---- what a kernel sees ------------------------------------------------------------------------

#define threadIdx (emulate::current->now->index)
#define blockIdx (emulate::current->block_index)
#define blockDim (emulate::current->block)
#define gridDim (emulate::current->grid)

#define EMULATE_PLACE(name)                                                                        \
    emulate::place {                                                                               \
        name, file, line                                                                           \
    }
#define EMULATE_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATE_CALLER) {
    emulate::barrier(EMULATE_PLACE("__syncthreads"));
}

EMULATOR inline void __syncwarp(unsigned mask = ~0u, EMULATE_CALLER) {
    emulate::meet(
        mask, [](void **) {}, nullptr, EMULATE_PLACE("__syncwarp"));
    emulate::current->now->warp_epoch++;
}

EMULATOR inline void __threadfence() {
    emulate::current->now->fence = ++emulate::current->fences;
}

#include "kernels/cuda/emulate_warp.h"

#include "kernels/cuda/emulate_types.h"

#include "kernels/cuda/emulate_async.h"

#endif
