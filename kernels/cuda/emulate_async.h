// What is started now and done later: cp.async, and Hopper's bulk copies, mbarriers and wgmma
// (hopper.cuh). Included by emulate.h.
//
// Between start and end the bytes that a copy writes are 0xff, neither the old ones nor the new. A
// copy of cp.async ends, and a product is computed, when it is waited for; a bulk copy, when no
// thread of the block can go on without it, in the order of the schedule. The race detector knows
// no mbarriers: who reads too early reads 0xff, and who fills too early destroys what others read.
#ifndef NIBBLE_EMULATE_ASYNC_H
#define NIBBLE_EMULATE_ASYNC_H

// cp.async: noted here, carried out by emulate_copy_wait.
EMULATOR inline void emulate_copy(void *to, const void *from, unsigned bytes, unsigned filled) {
    emulate::thread *t = emulate::current->now;
    if (t->n_copies == emulate::MAX_COPIES)
        emulate::fail("thread %u has %u copies under way", t->number, t->n_copies);
    else
        t->copies[t->n_copies++] = {to, from, bytes, filled, t->groups};
    if (emulate_access)
        emulate_access(to, bytes, true);
    memset(to, 0xff, bytes); // in flight: neither the old bytes nor the new ones
}

inline void emulate_copy_commit() {
    emulate::current->now->groups++;
}

// Returns when no more than `pending` committed groups of this thread are under way.
EMULATOR inline void emulate_copy_wait(unsigned pending) {
    emulate::thread *t = emulate::current->now;
    unsigned kept = 0;
    for (unsigned i = 0; i < t->n_copies; i++) {
        emulate::copy *c = &t->copies[i];
        if (c->group + pending >= t->groups) {
            t->copies[kept++] = *c;
            continue;
        }
        if (emulate_access)
            emulate_access(c->to, c->bytes, true);
        memcpy(c->to, c->from, c->filled);
        memset((char *)c->to + c->filled, 0, c->bytes - c->filled);
    }
    t->n_copies = kept;
}

// ---- shared memory by address, mbarriers, bulk copies ------------------------------------------

// Where a block's shared memory starts, to these instructions: aligned as SHARED asks, not better.
enum { EMULATE_SHARED_START = 128 };

EMULATOR inline unsigned emulate_shared_address(const void *p) {
    return EMULATE_SHARED_START + (unsigned)((const char *)p - emulate::current->shared);
}

namespace emulate {

EMULATOR inline bool phase_over(const thread *t) {
    return t->awaited->phase != t->parity;
}

EMULATOR inline void end_phase(mbarrier *b) {
    if (b->missing == 0 && b->bytes == 0)
        b->phase ^= 1, b->missing = b->count;
}

// The bytes of one bulk copy come, if someone waits and cannot go on without.
EMULATOR inline bool deliver(machine *m) {
    bool waits = false;
    for (unsigned i = 0; i < m->block.count(); i++)
        waits |= m->threads[i].is == AT_PHASE;
    if (!waits || m->n_bulks == 0)
        return false;
    unsigned last = m->n_bulks - 1;
    unsigned i = m->order == FORWARD ? 0 : m->order == BACKWARD ? last : random_below(m, last + 1);
    bulk c = m->bulks[i];
    memmove(m->bulks + i, m->bulks + i + 1, (last - i) * sizeof c);
    m->n_bulks = last;
    memcpy(c.to, c.from, c.bytes);
    c.tells->bytes -= (int)c.bytes;
    end_phase(c.tells);
    return true;
}

// Nobody can go on: not those, if there are any, who wait for a phase.
EMULATOR inline void check_phases(const machine *m) {
    for (unsigned i = 0; i < m->block.count(); i++) {
        const thread *t = &m->threads[i];
        if (t->is == AT_PHASE)
            fail("thread %u waits for the phase of parity %u of the mbarrier at shared byte %zu: "
                 "%u arrivals and %d bytes are missing",
                 t->number, t->parity, (size_t)((const char *)t->awaited - m->shared),
                 t->awaited->missing, t->awaited->bytes);
    }
}

// Whether these bytes are the block's, and aligned.
EMULATOR inline bool is_shared(const void *p, size_t bytes, size_t alignment) {
    const machine *m = current;
    size_t at = (size_t)((const char *)p - m->shared);
    return at < m->shared_bytes && bytes <= m->shared_bytes - at && at % alignment == 0;
}

EMULATOR inline mbarrier *barrier_at(void *p) {
    mbarrier *b = (mbarrier *)p;
    static_assert(sizeof *b == 8, "as large as the hardware's");
    if (!is_shared(p, sizeof *b, sizeof *b))
        fail("an mbarrier that is not 8 aligned bytes of shared memory");
    else if (b->missing > b->count) // 0xff: what nobody wrote
        fail("the mbarrier at shared byte %zu is not initialized",
             (size_t)((char *)p - current->shared));
    return current->failed ? nullptr : b;
}

} // namespace emulate

EMULATOR inline void emulate_barrier_init(void *p, unsigned arrivals) {
    if (emulate::is_shared(p, 8, 8))
        *(emulate::mbarrier *)p = {0, arrivals, arrivals, 0};
    else
        emulate::fail("an mbarrier that is not 8 aligned bytes of shared memory");
}

// Announces bytes, then arrives.
EMULATOR inline void emulate_barrier_arrive(void *p, unsigned bytes) {
    emulate::mbarrier *b = emulate::barrier_at(p);
    if (!b)
        return;
    if (b->missing == 0) {
        emulate::fail("more than %u arrivals in one phase of the mbarrier at shared byte %zu",
                      b->count, (size_t)((char *)p - emulate::current->shared));
        return;
    }
    b->bytes += (int)bytes, b->missing--;
    emulate::end_phase(b);
}

EMULATOR inline void emulate_barrier_wait(void *p, unsigned parity) {
    emulate::thread *t = emulate::current->now;
    t->awaited = emulate::barrier_at(p), t->parity = parity;
    if (!t->awaited || !emulate::phase_over(t))
        emulate::wait_as(emulate::AT_PHASE);
}

EMULATOR inline void emulate_bulk(void *to, const void *from, unsigned bytes, void *tells) {
    emulate::machine *m = emulate::current;
    emulate::mbarrier *b = emulate::barrier_at(tells);
    if (!b)
        return;
    if (!emulate::is_shared(to, bytes, 16) || (uintptr_t)from % 16 || bytes % 16 || bytes == 0)
        emulate::fail("a bulk copy of %u bytes: not multiples of 16, or not into shared memory",
                      bytes);
    else if (m->n_bulks == emulate::MAX_BULKS)
        emulate::fail("thread %u has a block's %u bulk copies under way", m->now->number,
                      m->n_bulks);
    else
        m->bulks[m->n_bulks++] = {to, from, bytes, b}, memset(to, 0xff, bytes);
}

// ---- wgmma -------------------------------------------------------------------------------------

EMULATOR inline void emulate_wgmma_fence() {
    emulate::current->now->fenced = true;
}

// d: 32 sums, a: 4 registers, which stay the product's until it is waited for.
EMULATOR inline void emulate_wgmma(float *d, const unsigned *a, uint64_t b, bool add) {
    emulate::thread *t = emulate::current->now;
    unsigned group = 4 * emulate::WARP;
    if (!t->fenced)
        emulate::fail("thread %u: wgmma without a wgmma.fence behind the last group", t->number);
    else if ((t->number / group + 1) * group > emulate::current->block.count())
        emulate::fail("thread %u: wgmma in a warpgroup of fewer than four warps", t->number);
    else if (t->n_products == emulate::MAX_PRODUCTS)
        emulate::fail("thread %u has %u products under way", t->number, t->n_products);
    else
        t->products[t->n_products++] = {d, a, b, add, t->product_groups};
    t->multiplied = (t->multiplied + b + add) * 0x9e3779b97f4a7c15u;
}

EMULATOR inline void emulate_wgmma_commit() {
    emulate::current->now->product_groups++;
    emulate::current->now->fenced = false;
}

namespace emulate {

// Element (k, n) of the B that a descriptor names: swizzled rows of 128 bytes, eight and eight.
EMULATOR inline float b_element(uint64_t b, unsigned k, unsigned n) {
    const machine *m = current;
    unsigned address = (unsigned)(b & 0x3fff) * 16, eight_rows = (unsigned)(b >> 32 & 0x3fff) * 16;
    unsigned at = address + n / 8 * eight_rows + n % 8 * 128 + 2 * k;
    at ^= (at >> 7 & 7) << 4;
    uint16_t half;
    if (b >> 62 != 1 || address / 128 % 8 != 0 || at < EMULATE_SHARED_START ||
        at + 2 > EMULATE_SHARED_START + m->shared_bytes) {
        fail("wgmma reads shared address %u: outside, not swizzled, or in no tile aligned to 1024",
             at);
        return 0;
    }
    memcpy(&half, m->shared + at - EMULATE_SHARED_START, 2);
    return half_to_float(half);
}

// The warp's 16 rows of one product. lane's a and d: as mma_act's (device.cuh) A and, for every
// eight columns, C.
EMULATOR inline void multiply(const thread *lanes, unsigned which) {
    float a[16][16], b[64][16];
    const product *first = &lanes[0].products[which];
    for (unsigned n = 0; n < 64; n++)
        for (unsigned k = 0; k < 16; k++)
            b[n][k] = b_element(first->b, k, n);
    for (unsigned lane = 0; lane < WARP; lane++)
        for (unsigned i = 0; i < 8; i++)
            a[lane / 4 + i / 2 % 2 * 8][lane % 4 * 2 + i % 2 + i / 4 * 8] =
                half_to_float((uint16_t)(lanes[lane].products[which].a[i / 2] >> 16 * (i % 2)));
    for (unsigned lane = 0; lane < WARP; lane++)
        for (unsigned i = 0; i < 32; i++) {
            const product *p = &lanes[lane].products[which];
            const float *row = a[lane / 4 + i / 2 % 2 * 8],
                        *column = b[i / 4 * 8 + lane % 4 * 2 + i % 2];
            double sum = 0;
            for (unsigned k = 0; k < 16; k++)
                sum += (double)row[k] * column[k];
            p->d[i] = (p->add ? p->d[i] : 0) + (float)sum;
        }
}

// Computes the groups of the warp that are not among the last `pending`.
EMULATOR inline void multiply_act(void **arguments) {
    unsigned pending = *(const unsigned *)arguments[0], done = 0;
    thread *lanes = current->threads + current->now->number / WARP * WARP;
    for (unsigned i = 1; i < WARP; i++)
        if (lanes[i].n_products != lanes[0].n_products ||
            lanes[i].multiplied != lanes[0].multiplied) {
            fail("lane %u has other products than lane 0 of its warp", i);
            return;
        }
    while (done < lanes[0].n_products &&
           lanes[0].products[done].group + pending < lanes[0].product_groups)
        multiply(lanes, done++);
    for (unsigned i = 0; i < WARP; i++) {
        lanes[i].n_products -= done;
        memmove(lanes[i].products, lanes[i].products + done, lanes[i].n_products * sizeof(product));
    }
}

// Nothing may be under way when a block is gone; and the warps of a warpgroup multiply together.
EMULATOR inline void check_end(const machine *m) {
    const thread *t = m->threads;
    if (m->n_bulks)
        fail("the block ends before %u bulk copies have come", m->n_bulks);
    for (unsigned i = 0; i < m->block.count(); i++)
        if (t[i].n_products)
            fail("thread %u ends before %u of its products", i, t[i].n_products);
        else if (t[i].multiplied != t[i / (4 * WARP) * 4 * WARP].multiplied)
            fail("thread %u has other products than the first of its warpgroup", i);
}

} // namespace emulate

EMULATOR inline void emulate_wgmma_wait(unsigned pending) {
    emulate::meet(~0u, emulate::multiply_act, &pending, {"wgmma.wait_group", __FILE__, __LINE__});
}

#endif
