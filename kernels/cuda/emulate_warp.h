// What the lanes of a warp tell each other, shuffles and votes, and what threads do to the same
// word, atomics. Included by emulate.h.
//
// A lane leaves its value and waits for the others of its mask (emulate::meet); the last to come
// hands all of them out.
#ifndef NIBBLE_EMULATE_WARP_H
#define NIBBLE_EMULATE_WARP_H

namespace emulate {

// One lane's part of a shuffle: its value in, another lane's value out.
struct shuffle {
    uint32_t in, out;
    int source; // lane
};

EMULATOR inline void shuffle_act(void **lanes) {
    for (int i = 0; i < WARP; i++) {
        shuffle *mine = (shuffle *)lanes[i];
        if (!mine)
            continue;
        const shuffle *theirs = (const shuffle *)lanes[mine->source];
        if (theirs)
            mine->out = theirs->in;
        else
            fail("%s:%d: %s of lane %d reads lane %d, which does not take part",
                 base_name(current->now->where.file), current->now->where.line,
                 current->now->where.name, i, mine->source);
    }
}

template <class T> EMULATOR T shuffle_from(unsigned mask, T value, int source, place where) {
    static_assert(sizeof(T) == 4, "shuffles move 32 bits");
    shuffle s = {};
    memcpy(&s.in, &value, 4);
    s.source = source;
    meet(mask, shuffle_act, &s, where);
    memcpy(&value, &s.out, 4);
    return value;
}

inline int lane() {
    return (int)(current->now->number % WARP);
}

struct vote {
    bool yes;
    unsigned ballot;
};

EMULATOR inline void vote_act(void **lanes) {
    unsigned ballot = 0;
    for (int i = 0; i < WARP; i++)
        ballot |= (unsigned)(lanes[i] && ((vote *)lanes[i])->yes) << i;
    for (int i = 0; i < WARP; i++)
        if (lanes[i])
            ((vote *)lanes[i])->ballot = ballot;
}

} // namespace emulate

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATE_CALLER) {
    int first = emulate::lane() & ~(width - 1);
    return emulate::shuffle_from(mask, value, first | (source & (width - 1)),
                                 EMULATE_PLACE("__shfl_sync"));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMULATE_CALLER) {
    int self = emulate::lane(), source = self ^ bits;
    return emulate::shuffle_from(mask, value, source / width > self / width ? self : source,
                                 EMULATE_PLACE("__shfl_xor_sync"));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int by, int width = 32, EMULATE_CALLER) {
    int self = emulate::lane(), source = self + by;
    return emulate::shuffle_from(mask, value, source / width != self / width ? self : source,
                                 EMULATE_PLACE("__shfl_down_sync"));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int by, int width = 32, EMULATE_CALLER) {
    int self = emulate::lane();
    return emulate::shuffle_from(mask, value, self % width < by ? self : self - by,
                                 EMULATE_PLACE("__shfl_up_sync"));
}
inline unsigned __ballot_sync(unsigned mask, bool yes, EMULATE_CALLER) {
    emulate::vote v = {yes, 0};
    emulate::meet(mask, emulate::vote_act, &v, EMULATE_PLACE("__ballot_sync"));
    return v.ballot;
}
inline bool __any_sync(unsigned mask, bool yes, EMULATE_CALLER) {
    emulate::vote v = {yes, 0};
    emulate::meet(mask, emulate::vote_act, &v, EMULATE_PLACE("__any_sync"));
    return v.ballot != 0;
}
inline bool __all_sync(unsigned mask, bool yes, EMULATE_CALLER) {
    emulate::vote v = {!yes, 0};
    emulate::meet(mask, emulate::vote_act, &v, EMULATE_PLACE("__all_sync"));
    return v.ballot == 0;
}

// Blocks and threads run one at a time, so plain arithmetic is atomic.
template <class T> EMULATOR T atomicAdd(T *p, T value) {
    T old = *p;
    *p = (T)(old + value);
    return old;
}
template <class T> EMULATOR T atomicMax(T *p, T value) {
    T old = *p;
    *p = old > value ? old : value;
    return old;
}
template <class T> EMULATOR T atomicExch(T *p, T value) {
    T old = *p;
    *p = value;
    return old;
}
template <class T> EMULATOR T atomicCAS(T *p, T expected, T value) {
    T old = *p;
    *p = old == expected ? value : old;
    return old;
}

#endif
