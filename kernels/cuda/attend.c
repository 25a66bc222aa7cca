#include "kernels/cuda/forward.h"

enum { KEYS_PER_PIECE = 64, MOST_PIECES = 32, BLOCKS = 2 }; // of a multiprocessor

unsigned cuda_attend_splits(unsigned processors, unsigned count, unsigned kv_heads,
                            unsigned capacity) {
    unsigned heads = count * kv_heads, blocks = heads ? heads : 1;
    unsigned wanted = (BLOCKS * processors + blocks - 1) / blocks;
    unsigned most = (capacity + KEYS_PER_PIECE - 1) / KEYS_PER_PIECE;
    wanted = wanted < most ? wanted : most;
    return wanted < 1 ? 1 : wanted < MOST_PIECES ? wanted : MOST_PIECES;
}
