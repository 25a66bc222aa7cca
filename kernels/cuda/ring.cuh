// A warp's own ring of records in shared memory, filled by asynchronous copies: while the warp
// multiplies one record, the copies of the next STAGES - 1 are under way, and cost no register.
//
//     stage   0        1        2        3
//             record i record   record   record      wait for i, multiply it,
//             ready    i + 1    i + 2    i + 3       then ask for i + 4 in its place
//
// Only the warp itself waits: no barrier of the block.
#ifndef NIBBLE_RING_CUH
#define NIBBLE_RING_CUH

#include "kernels/cuda/packed.cuh"

namespace NIBBLE_CUDA {

// As many stages as 72 KB hold for 8 warps, so that two blocks fit where 164 KB or more are there.
template <class L> constexpr unsigned ring_stages() {
    return L::BYTES * 8 * 8 <= 72 << 10 ? 8 : L::BYTES * 8 * 4 <= 72 << 10 ? 4 : 2;
}

// [ring]
template <class L> struct ring {
    static constexpr unsigned STAGES = ring_stages<L>(), BYTES = STAGES * L::BYTES; // per warp
    unsigned char *stages;                                                          // this warp's
    unsigned lane, write, read;

    __device__ __forceinline__ ring(unsigned char *shared, unsigned warp, unsigned lane_)
        : stages(shared + warp * BYTES), lane(lane_), write(0), read(0) {
    }

    // Starts the copy of a record; NULL: nothing left to copy. Every call is one group of copies.
    __device__ __forceinline__ void push(const unsigned char *record) {
        if (record)
            for (unsigned i = lane * 16; i < L::BYTES; i += 32 * 16)
                copy_async<true>(stages + write * L::BYTES + i, record + i);
        copy_commit();
        write = write + 1 == STAGES ? 0 : write + 1;
    }

    // The oldest record, when STAGES - 1 have been pushed that are not popped.
    __device__ __forceinline__ void pop(record<L> &r) {
        copy_wait<STAGES - 2>();
        // The copies of all lanes have come, not just this one's; and all lanes have read the
        // record before this one, whose stage the next push fills.
        __syncwarp();
        record_load<L, false>(r, stages + read * L::BYTES, lane);
        read = read + 1 == STAGES ? 0 : read + 1;
    }
};
// [/ring]

} // namespace NIBBLE_CUDA

#endif
