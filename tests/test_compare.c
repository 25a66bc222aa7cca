// The comparators every kernel test relies on.
#include <criterion/criterion.h>

#include "tests/compare.h"

static const float want[4] = {1, -2, 3, -4};

Test(compare, equal_arrays_are_at_distance_zero) {
    cr_assert_eq(nmse(want, want, 4), 0);
    cr_assert_eq(nmse((float[4]){0}, (float[4]){0}, 4), 0);
    cr_assert_eq(max_abs(want, want, 4), 0);
}

Test(compare, one_wrong_element_is_seen) {
    float got[4] = {1, -2, 3, -3};
    cr_assert_float_eq(nmse(got, want, 4), 1.0 / 30, 1e-12);
    cr_assert_float_eq(rel_l2(got, want, 4), sqrt(1.0 / 30), 1e-12);
    cr_assert_eq(max_abs(got, want, 4), 1);
    cr_assert_float_eq(dot_error(got, want, (float[1]){2}, want, NULL, 4, 1), 1.0 / 8, 1e-12);
    cr_assert_not(nmse(got, (float[4]){0}, 4) <= 1e9);
}

Test(compare, nan_and_infinity_never_pass) {
    const float bad[3] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        float got[4] = {1, -2, bad[i], -4};
        cr_assert_not(nmse(got, want, 4) <= 1e30);
        cr_assert_not(rel_l2(got, want, 4) <= 1e30);
        cr_assert_not(max_abs(got, want, 4) <= 1e30);
        cr_assert_not(dot_error(got, want, want, want, NULL, 4, 1) <= 1e30);
        cr_assert_not(nmse(want, got, 4) <= 1e30);
        cr_assert_not(nmse(got, got, 4) <= 1e30, "NaN where NaN is wanted is still not a number");
    }
}
