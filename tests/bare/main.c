// Runs the tests that were linked in, at every level the CPU has: bare-tests [SUITE...].
#include <criterion/criterion.h>
#include <stdarg.h>

#include "kernels/cpu/kernels.h"

static struct bare_test *tests;
static const struct bare_test *running;

void bare_register(struct bare_test *test) {
    test->next = tests;
    tests = test;
}

void bare_check(bool holds, const char *file, int line, const char *what, const char *format, ...) {
    if (holds)
        return;
    printf("%s:%d: %s/%s: not so: %s: ", file, line, running->suite, running->name, what);
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    puts("");
    exit(1);
}

static bool wanted(const char *suite, char **names) {
    if (!*names)
        return true;
    while (*names && strcmp(*names, suite) != 0)
        names++;
    return *names;
}

int main(int argc, char **argv) {
    int count = 0;
    (void)argc;
    for (running = tests; running; running = running->next)
        if (wanted(running->suite, argv + 1)) {
            kernels_level_force(LEVEL_COUNT);
            running->run();
            count++;
        }
    kernels_level_force(LEVEL_COUNT);
    printf("%d tests passed, at levels up to %s\n", count, kernels_level_name(kernels_level()));
    return count == 0;
}
