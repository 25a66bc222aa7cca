// Enough of Criterion to run the kernels' tests where it is not installed, under an emulator: the
// tests one after another in one process, which the first failure ends.
#ifndef NIBBLE_TESTS_BARE_CRITERION_H
#define NIBBLE_TESTS_BARE_CRITERION_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bare_test {
    const char *suite, *name;
    void (*run)(void);
    struct bare_test *next;
};
void bare_register(struct bare_test *test);
// Prints where and what, and exits, unless it holds.
__attribute__((format(printf, 5, 6))) void bare_check(bool holds, const char *file, int line,
                                                      const char *what, const char *format, ...);

#define Test(suite, name)                                                                          \
    static void suite##_##name##_test(void);                                                       \
    __attribute__((constructor)) static void suite##_##name##_register(void) {                     \
        static struct bare_test test = {#suite, #name, suite##_##name##_test, NULL};               \
        bare_register(&test);                                                                      \
    }                                                                                              \
    static void suite##_##name##_test(void)

// The message is optional: "" and a literal are one literal.
#define BARE_CHECK(holds, what, ...)                                                               \
    bare_check(holds, __FILE__, __LINE__, what, "" __VA_ARGS__)
#define cr_assert(c, ...) BARE_CHECK((c), #c, __VA_ARGS__)
#define cr_assert_not(c, ...) BARE_CHECK(!(c), "not " #c, __VA_ARGS__)
#define cr_assert_null(p, ...) BARE_CHECK((p) == NULL, #p " == NULL", __VA_ARGS__)
#define cr_assert_not_null(p, ...) BARE_CHECK((p) != NULL, #p " != NULL", __VA_ARGS__)
#define cr_assert_eq(a, b, ...) BARE_CHECK((a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) BARE_CHECK((a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) BARE_CHECK((a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) BARE_CHECK((a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) BARE_CHECK((a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) BARE_CHECK((a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) BARE_CHECK(strcmp(a, b) == 0, #a " == " #b, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, size, ...)                                                          \
    BARE_CHECK(memcmp(a, b, size) == 0, #a " == " #b, __VA_ARGS__)
#define cr_assert_float_eq(a, b, near, ...)                                                        \
    BARE_CHECK(fabs((double)(a) - (double)(b)) <= (near), #a " is near " #b, __VA_ARGS__)
#define cr_expect cr_assert // here the first failure ends a test
#define cr_expect_not cr_assert_not
#define cr_expect_null cr_assert_null
#define cr_expect_eq cr_assert_eq
#define cr_expect_neq cr_assert_neq
#define cr_expect_lt cr_assert_lt
#define cr_expect_leq cr_assert_leq
#define cr_expect_gt cr_assert_gt
#define cr_expect_geq cr_assert_geq
#define cr_expect_str_eq cr_assert_str_eq
#define cr_expect_arr_eq cr_assert_arr_eq
#define cr_expect_float_eq cr_assert_float_eq
#define cr_skip_test(...) return

#endif
