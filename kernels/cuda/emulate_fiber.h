// Fibers: functions with a stack of their own that hand the processor to one another. The threads
// of an emulated block are fibers, because a thread must be able to stop in the middle of a kernel
// and go on when the others have come as far.
//
// On x86-64 a switch is a few instructions: push what a call preserves, exchange stack pointers,
// pop. Elsewhere it is swapcontext, which also makes two system calls. AddressSanitizer is told
// about every switch, or it would take another stack for an overflow of this one.
#ifndef NIBBLE_EMULATE_FIBER_H
#define NIBBLE_EMULATE_FIBER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif
#ifdef FIBER_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulate {

enum { STACK_BYTES = 128 << 10, GUARD_BYTES = 4096 };

struct fiber {
#if defined(__x86_64__)
    void *pointer; // of the stack, where the fiber stopped
#else
    ucontext_t context;
#endif
    void *fake_stack;   // AddressSanitizer's own
    const void *bottom; // of the stack
    size_t bytes;
};

#if defined(__x86_64__)
// Stops here, goes on where `to` stopped. System V ABI: rbx, rbp and r12 … r15 survive a call.
__attribute__((naked, noinline)) inline void fiber_exchange(void **from, void *to) {
    (void)from, (void)to;
    __asm__("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
            "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
            "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
#endif

// A fiber that starts in `start` (which never returns) when it is first switched to. stack:
// GUARD_BYTES + STACK_BYTES from fiber_stacks.
inline void fiber_init(fiber *f, char *stack, void (*start)()) {
    f->bottom = stack + GUARD_BYTES;
    f->bytes = STACK_BYTES;
    f->fake_stack = nullptr;
#ifdef FIBER_ASAN
    __asan_unpoison_memory_region(stack + GUARD_BYTES, STACK_BYTES);
#endif
#if defined(__x86_64__)
    // As fiber_exchange leaves a stack: six registers, then where to go on; at entry the pointer is
    // 8 past a multiple of 16, as behind a call.
    void **top = (void **)(stack + GUARD_BYTES + STACK_BYTES) - 2;
    *--top = nullptr;
    *--top = (void *)start;
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    f->pointer = top;
#else
    getcontext(&f->context);
    f->context.uc_stack.ss_sp = stack + GUARD_BYTES;
    f->context.uc_stack.ss_size = STACK_BYTES;
    f->context.uc_link = nullptr;
    makecontext(&f->context, start, 0);
#endif
}

// Called first by whoever comes back from a switch, or starts; from: whom it came from.
inline void fiber_arrived(fiber *self, fiber *from) {
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(self->fake_stack, &from->bottom, &from->bytes);
#endif
    (void)self, (void)from;
}

inline void fiber_switch(fiber *from, fiber *to, bool from_ends) {
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(from_ends ? nullptr : &from->fake_stack, to->bottom, to->bytes);
#endif
    (void)from_ends;
#if defined(__x86_64__)
    fiber_exchange(&from->pointer, to->pointer);
#else
    swapcontext(&from->context, &to->context);
#endif
    fiber_arrived(from, to);
}

// n stacks in one mapping, below each a page that nobody may touch; NULL when memory is short.
inline char *fiber_stacks(size_t n) {
    size_t each = GUARD_BYTES + STACK_BYTES;
    void *p = mmap(nullptr, n * each, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return nullptr;
    for (size_t i = 0; i < n; i++)
        mprotect((char *)p + i * each, GUARD_BYTES, PROT_NONE);
    return (char *)p;
}

inline void fiber_stacks_free(char *stacks, size_t n) {
#ifdef FIBER_ASAN
    for (size_t i = 0; i < n; i++)
        __asan_unpoison_memory_region(stacks + i * (GUARD_BYTES + STACK_BYTES) + GUARD_BYTES,
                                      STACK_BYTES);
#endif
    munmap(stacks, n * (GUARD_BYTES + STACK_BYTES));
}

} // namespace emulate

#endif
