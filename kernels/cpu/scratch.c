#include "kernels/cpu/scratch.h"

#include <pthread.h>
#include <stdlib.h>

struct scratch {
    void *memory[SCRATCH_COUNT];
    size_t size[SCRATCH_COUNT];
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key; // each thread's struct scratch

static void scratch_free(void *p) {
    struct scratch *s = p;
    for (int i = 0; i < SCRATCH_COUNT; i++)
        free(s->memory[i]);
    free(s);
}

static void make_key(void) {
    pthread_key_create(&key, scratch_free);
}

void *scratch_get(enum scratch_slot slot, size_t size) {
    pthread_once(&once, make_key);
    struct scratch *s = pthread_getspecific(key);
    if (!s) {
        s = calloc(1, sizeof *s);
        if (!s || pthread_setspecific(key, s) != 0) {
            free(s);
            return NULL;
        }
    }
    if (size > s->size[slot]) {
        free(s->memory[slot]);
        s->size[slot] = 0;
        size = (size + 4095) / 4096 * 4096;
        if (!(s->memory[slot] = aligned_alloc(64, size)))
            return NULL;
        s->size[slot] = size;
    }
    return s->memory[slot];
}
