// Finds races: accesses of two threads of a block to the same bytes, one of them a write, with
// nothing between them that orders them. Compiled kernels call these functions at every load and
// store, because GCC's and Clang's -fsanitize=thread inserts the calls; ThreadSanitizer itself,
// which knows operating-system threads and not fibers, is not linked.
//
// What orders two accesses: a __syncthreads between them, or, within a warp, a __syncwarp. A
// shuffle does not. For every four bytes the table remembers the last write and the last two
// readers of the block that runs; stacks are private and the emulator's own state is left out.
#include <stdint.h>

#include "kernels/cuda/emulate.h"

namespace {

struct access {
    unsigned thread, warp_epoch; // thread + 1; 0: none
    unsigned fences;             // of the launch before it
    uint8_t bytes;               // mask
};

struct cell {
    uintptr_t address; // of four bytes
    unsigned epoch;    // barriers and blocks before it
    access write, reads[2];
};

enum { CELLS = 1 << 16, PROBES = 16 };
cell *cells;

bool inside(uintptr_t p, const void *start, size_t bytes) {
    return p >= (uintptr_t)start && p - (uintptr_t)start < bytes;
}

// The cell of an address, cleared if what it remembers is ordered before this epoch; NULL if the
// table is full there: an access is then not checked.
cell *cell_of(uintptr_t address, unsigned epoch) {
    size_t first = (address >> 2) * 0x9e3779b97f4a7c15u >> 48;
    cell *old = nullptr;
    for (size_t i = 0; i < PROBES; i++) {
        cell *c = &cells[(first + i) % CELLS];
        if (c->epoch == epoch && c->address == address)
            return c;
        if (c->epoch != epoch && !old)
            old = c;
    }
    if (old)
        *old = {address, epoch, {}, {}};
    return old;
}

bool conflicts(const emulate::thread *t, const access &a, uint8_t bytes) {
    if (!a.thread || a.thread == t->number + 1 || !(a.bytes & bytes))
        return false;
    bool same_warp = (a.thread - 1) / emulate::WARP == t->number / emulate::WARP;
    return !(same_warp && a.warp_epoch < t->warp_epoch) && t->fence < a.fences + 2;
}

void note(const emulate::thread *t, access &a, uint8_t bytes) {
    bool mine = a.thread == t->number + 1 && a.warp_epoch == t->warp_epoch;
    a = {t->number + 1, t->warp_epoch, emulate::current->fences,
         (uint8_t)(mine ? a.bytes | bytes : bytes)};
}

void race(const emulate::machine *m, uintptr_t p, const access &a, const char *first,
          const char *then) {
    bool shared = inside(p, m->shared, m->shared_bytes);
    emulate::fail(
        "race: thread %u %s what thread %u %s, %s memory byte %zu, with no barrier between",
        m->now->number, then, a.thread - 1, first, shared ? "shared" : "global",
        (size_t)(shared ? p - (uintptr_t)m->shared : p));
}

void check(emulate::machine *m, uintptr_t address, uint8_t bytes, bool write) {
    const emulate::thread *t = m->now;
    cell *c = cell_of(address, m->barrier_epoch);
    if (!c)
        return;
    if (conflicts(t, c->write, bytes))
        race(m, address, c->write, "wrote", write ? "writes" : "reads");
    for (int i = 0; write && i < 2; i++)
        if (conflicts(t, c->reads[i], bytes))
            race(m, address, c->reads[i], "read", "writes");
    if (write) {
        note(t, c->write, bytes);
    } else if (c->reads[0].thread && c->reads[0].thread != t->number + 1) {
        c->reads[1] = c->reads[0];
        c->reads[0] = {};
        note(t, c->reads[0], bytes);
    } else {
        note(t, c->reads[0], bytes);
    }
}

} // namespace

void emulate_access(const void *pointer, size_t bytes, bool write) {
    emulate::machine *m = emulate::current;
    uintptr_t p = (uintptr_t)pointer, end = p + bytes;
    size_t stack = emulate::GUARD_BYTES + emulate::STACK_BYTES;
    if (!m || !m->now || m->failed || inside(p, m, sizeof *m) ||
        inside(p, m->stacks, m->block.count() * stack) ||
        inside(p, &emulate::current, sizeof emulate::current))
        return;
    if (!cells)
        cells = (cell *)calloc(CELLS, sizeof *cells);
    for (uintptr_t a = p & ~(uintptr_t)3; cells && a < end; a += 4) {
        unsigned from = p > a ? (unsigned)(p - a) : 0, to = end - a < 4 ? (unsigned)(end - a) : 4;
        check(m, a, (uint8_t)((1u << to) - (1u << from)), write);
    }
}

// The names that the compilers call.
extern "C" {
#define ACCESS(name, bytes)                                                                        \
    void __tsan_read##name(void *p) {                                                              \
        emulate_access(p, bytes, false);                                                           \
    }                                                                                              \
    void __tsan_write##name(void *p) {                                                             \
        emulate_access(p, bytes, true);                                                            \
    }
ACCESS(1, 1)
ACCESS(2, 2)
ACCESS(4, 4)
ACCESS(8, 8)
ACCESS(16, 16)
#define UNALIGNED(bytes)                                                                           \
    void __tsan_unaligned_read##bytes(void *p) {                                                   \
        emulate_access(p, bytes, false);                                                           \
    }                                                                                              \
    void __tsan_unaligned_write##bytes(void *p) {                                                  \
        emulate_access(p, bytes, true);                                                            \
    }
UNALIGNED(2)
UNALIGNED(4)
UNALIGNED(8)
UNALIGNED(16)
void __tsan_read_range(void *p, size_t bytes) {
    emulate_access(p, bytes, false);
}
void __tsan_write_range(void *p, size_t bytes) {
    emulate_access(p, bytes, true);
}
void __tsan_vptr_update(void **, void *) {
}
void __tsan_init() {
}
void __tsan_func_entry(void *) {
}
void __tsan_func_exit() {
}
}
