// The ladder of kernels/cuda in the emulator, against cuda_matmul_ref: every kernel, every format,
// odd shapes. Inputs and outputs are allocations of exactly their size, outputs start as NaN, and
// what lies between the rows must stay.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/memory.h"
#include "cuda/matrix.h"
#include "tests/format_data.h"

// What a call needs, and its answers.
struct product {
    struct cuda_sample sample;
    void *packed;
    uint16_t *x;
    struct cuda_call call;
    float *want;
};

static void *exactly(size_t bytes, int fill) {
    void *p = malloc(bytes ? bytes : 1);
    cr_assert_not_null(p);
    memset(p, fill, bytes);
    return p;
}

static void product_init(struct product *p, const char *format, unsigned m, unsigned n,
                         unsigned k) {
    struct error err = {0};
    *p = (struct product){0};
    cr_assert(cuda_sample_init(&p->sample, format, n, k, n * 7919 + k, &err), "%s", err.message);
    size_t bytes;
    if (cuda_pack_bytes(&p->sample.w, &bytes)) {
        p->packed = aligned_alloc(64, (bytes + 63) / 64 * 64);
        cuda_pack(&p->sample.w, p->packed);
        p->sample.w.packed = p->packed;
    }
    unsigned x_stride;
    p->x = cuda_sample_x(m, k, &x_stride, m + k, &err);
    cr_assert_not_null(p->x, "%s", err.message);
    p->call = (struct cuda_call){.w = p->sample.w,
                                 .x = p->x,
                                 .m = m,
                                 .x_stride = x_stride,
                                 .y_stride = n + 3,
                                 .processors = 3};
    p->want = exactly((size_t)m * (n + 3) * sizeof(float), 0xff);
    cuda_matmul_ref(&p->call.w, p->x, x_stride, m, p->want, n + 3);
}

static void product_free(struct product *p) {
    cuda_sample_free(&p->sample);
    free(p->packed);
    free(p->x);
    free(p->want);
}

// The kernel's result in a new array.
static float *run(struct product *p, const struct cuda_kernel *kernel, int schedule) {
    struct cuda_call call = p->call;
    size_t bytes = (size_t)call.m * call.y_stride * sizeof(float);
    call.y = exactly(bytes, 0xff);
    call.workspace = exactly(kernel->workspace ? kernel->workspace(&call) : 0, 0);
    call.schedule = schedule;
    const char *failed = cuda_emulator.run(kernel, &call);
    cr_assert_null(failed, "kernel %d%s: %s", kernel->number, kernel->variant, failed);
    free(call.workspace);
    return call.y;
}

// Relative L2 error over all rows; results are of size 1, and few of them may cancel to almost
// nothing. NaN if anything is.
static double error_of(const struct cuda_call *c, const float *y, const float *want) {
    double error = 0, power = 0;
    for (unsigned i = 0; i < c->m; i++)
        for (unsigned j = 0; j < c->w.n; j++) {
            double expected = want[(size_t)i * c->y_stride + j];
            error += pow(y[(size_t)i * c->y_stride + j] - expected, 2);
            power += expected * expected;
        }
    return sqrt(error / fmax(power, 0.1 * c->m * c->w.n));
}

static void compare(const struct product *p, const struct cuda_kernel *kernel, const char *format,
                    const float *y) {
    const struct cuda_call *c = &p->call;
    double error = error_of(c, y, p->want);
    cr_assert(error <= kernel->tolerance, "kernel %d%s %s m %u n %u k %u: %g > %g", kernel->number,
              kernel->variant, format, c->m, c->w.n, c->w.k, error, kernel->tolerance);
    for (unsigned i = 0; i < c->m; i++)
        for (unsigned j = c->w.n; j < c->y_stride; j++)
            cr_assert(isnan(y[(size_t)i * c->y_stride + j]), "wrote between rows");
}

// All kernels that take this product; returns how many.
static int check(const char *format, unsigned m, unsigned n, unsigned k) {
    struct product p;
    int count = 0;
    product_init(&p, format, m, n, k);
    for (const struct cuda_kernel *const *kernel = cuda_emulator.kernels; *kernel; kernel++) {
        if (!(*kernel)->takes(&p.call.w, m))
            continue;
        float *y = run(&p, *kernel, 0);
        compare(&p, *kernel, format, y);
        free(y);
        count++;
    }
    product_free(&p);
    return count;
}

Test(cuda, every_kernel_of_every_format_equals_the_reference) {
    int count = 0;
    for (const char *const *f = cuda_sample_formats; *f; f++)
        count += check(*f, 1, 37, 512);
    cr_assert(count >= 100, "%d", count);
}

Test(cuda, several_rows_of_x) {
    const char *formats[] = {"f16", "int8", "int4-g128", "int4-g32-zp", "q4_k"};
    for (int i = 0; i < 5; i++)
        check(formats[i], 3, 19, 256);
}

Test(cuda, more_rows_of_x_than_one_tile_holds) {
    const unsigned ms[] = {9, 17, 33, 70};
    for (int i = 0; i < 4; i++)
        check("int4-g128", ms[i], 21, 384);
    check("int8-g64", 12, 33, 256);
    check("f16", 65, 17, 128);
}

static const struct cuda_kernel *kernel_of(int number) {
    for (const struct cuda_kernel *const *kernel = cuda_emulator.kernels; *kernel; kernel++)
        if ((*kernel)->number == number)
            return *kernel;
    return NULL;
}

// Rounds of a ring of up to eight stages (128 columns each), blocks of one warpgroup and of two,
// and a block whose second half has no rows of x.
Test(cuda, rings_of_stages_go_round_in_every_order) {
    const struct {
        const char *format;
        unsigned m, n, k;
    } cases[] = {
        {"int4-g128", 16, 70, 2300}, {"int4-g32-zp", 130, 33, 1500}, {"f16", 66, 150, 900}};
    const struct cuda_kernel *kernel = kernel_of(10);
    cr_assert_not_null(kernel);
    for (int i = 0; i < 3; i++) {
        struct product p;
        product_init(&p, cases[i].format, cases[i].m, cases[i].n, cases[i].k);
        for (int schedule = 0; schedule < 3; schedule++) {
            float *y = run(&p, kernel, schedule);
            compare(&p, kernel, cases[i].format, y);
            free(y);
        }
        product_free(&p);
    }
}

// x that int8 has exactly: integers up to 127, which is the first of every 32, times a power of
// two, another one wherever x may have another scale: in each row and, unless w has one scale per
// row, in each of w's groups.
static void make_x_exact(struct product *p) {
    struct cuda_call *c = &p->call;
    struct random r = {c->m + c->w.k};
    unsigned group = c->w.wide_scales ? c->w.k : c->w.group < 128 ? c->w.group : 128;
    for (unsigned i = 0; i < c->m; i++)
        for (unsigned col = 0; col < c->w.k; col++) {
            int code = col % 32 ? (int)random_below(&r, 255) - 127 : 127;
            float x = ldexpf((float)code, -(int)((i + col / group) % 5));
            p->x[(size_t)i * c->x_stride + col] = f32_to_f16(x);
        }
    cuda_matmul_ref(&c->w, p->x, c->x_stride, c->m, p->want, c->y_stride);
}

// Kernel 11 rounds x and may be off by a hundredth. Where there is nothing to round, only float32's
// sums are left. Blocks and steps of 128, warps of 32 by 64, tiles of 16 and 8: all with
// remainders.
Test(cuda, int8_activations_are_multiplied_exactly) {
    const struct {
        const char *format;
        unsigned m, n, k;
    } cases[] = {
        {"int8", 130, 150, 291},      {"int8", 9, 5, 1},           {"int4", 65, 33, 200},
        {"int8-g32", 70, 129, 300},   {"int8-g64", 1, 17, 129},    {"int8-g128", 64, 16, 700},
        {"int4-g32", 129, 37, 95},    {"int4-g64", 33, 21, 257},   {"int4-g128", 17, 260, 900},
        {"int4-g32-zp", 12, 47, 333}, {"int4-g64-zp", 73, 40, 70}, {"int4-g128-zp", 3, 1, 1200},
        {"int4-g256", 66, 18, 640},
    };
    struct cuda_kernel kernel = *kernel_of(11);
    kernel.tolerance = 1e-6;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct product p;
        product_init(&p, cases[i].format, cases[i].m, cases[i].n, cases[i].k);
        make_x_exact(&p);
        size_t bytes = (size_t)p.call.m * p.call.y_stride * sizeof(float);
        float *first = run(&p, &kernel, 0);
        compare(&p, &kernel, cases[i].format, first);
        for (int schedule = 1; schedule <= 2; schedule++) {
            float *y = run(&p, &kernel, schedule);
            cr_assert(memcmp(first, y, bytes) == 0, "%s in order %d", cases[i].format, schedule);
            free(y);
        }
        free(first);
        product_free(&p);
    }
}

// A scale is the largest of its x: what it is if one is infinite, NaN, or all are 0.
Test(cuda, int8_activations_hide_no_overflow) {
    const char *formats[] = {"int8", "int4-g64"};
    for (int f = 0; f < 2; f++) {
        struct product p;
        product_init(&p, formats[f], 4, 20, 300);
        p.x[1 * p.call.x_stride + 299] = 0x7c00; // infinity
        p.x[2 * p.call.x_stride + 0] = 0x7e00;   // NaN
        memset(p.x + 3 * p.call.x_stride, 0, p.call.x_stride * sizeof *p.x);
        float *y = run(&p, kernel_of(11), 0);
        for (unsigned j = 0; j < 20; j++) {
            cr_assert(isfinite(y[j]) && y[3 * p.call.y_stride + j] == 0, "%s %u", formats[f], j);
            cr_assert(isnan(y[p.call.y_stride + j]) && isnan(y[2 * p.call.y_stride + j]), "%s %u",
                      formats[f], j);
        }
        free(y);
        product_free(&p);
    }
}

// Integers add up over a whole row where it has one scale: 2^31 is the end.
Test(cuda, int8_activations_refuse_rows_whose_sums_overflow) {
    float scale = 1;
    struct cuda_matrix w = {.format = CUDA_INT8,
                            .n = 1,
                            .k = 131072,
                            .scales = &scale,
                            .groups = 1,
                            .wide_scales = true};
    w.group = w.k;
    cr_assert(kernel_of(11)->takes(&w, 1));
    w.k = w.group = 131073;
    cr_assert_not(kernel_of(11)->takes(&w, 1));
    w.wide_scales = false, w.group = 128;
    cr_assert(kernel_of(11)->takes(&w, 1));
    w.format = CUDA_F16, w.scales = NULL;
    cr_assert_not(kernel_of(11)->takes(&w, 1));
}

// Nothing here is a multiple of anything.
Test(cuda, odd_shapes) {
    const char *formats[] = {"f16",      "bf16",      "int8",        "int8-g32",     "int4",
                             "int4-g32", "int4-g128", "int4-g32-zp", "int4-g128-zp", "nf4"};
    const unsigned ks[] = {1, 31, 33, 95, 129, 200, 291};
    for (int f = 0; f < 10; f++)
        for (int k = 0; k < 7; k++)
            check(formats[f], 1 + (unsigned)k % 2, 5, ks[k]);
}

Test(cuda, one_row_and_one_more_than_a_block) {
    check("int4-g128", 1, 1, 256);
    check("int4-g128", 1, 129, 256);
    check("int8", 1, 257, 64);
}

// More warps than records, rows of tiles that several warps share, and one that has them all.
Test(cuda, shares_of_work_of_every_size) {
    const unsigned ns[] = {16, 48, 400, 1000}, ks[] = {128, 1024, 5000};
    for (int n = 0; n < 4; n++)
        for (int k = 0; k < 3; k++) {
            if (ns[n] * ks[k] > 2000000)
                continue;
            struct product p;
            product_init(&p, "int4-g128", 2, ns[n], ks[k]);
            for (const struct cuda_kernel *const *kernel = cuda_emulator.kernels; *kernel; kernel++)
                if ((*kernel)->number == 8) {
                    float *y = run(&p, *kernel, 0);
                    compare(&p, *kernel, "int4-g128", y);
                    free(y);
                }
            product_free(&p);
        }
}

Test(cuda, the_order_of_threads_and_blocks_changes_no_bit) {
    const char *formats[] = {"int4-g128", "int8-g32", "f16"};
    for (int f = 0; f < 3; f++) {
        struct product p;
        product_init(&p, formats[f], 2, 70, 640);
        size_t bytes = (size_t)p.call.m * p.call.y_stride * sizeof(float);
        for (const struct cuda_kernel *const *kernel = cuda_emulator.kernels; *kernel; kernel++) {
            if (!(*kernel)->takes(&p.call.w, p.call.m))
                continue;
            float *forward = run(&p, *kernel, 0);
            for (int schedule = 1; schedule <= 2; schedule++) {
                float *y = run(&p, *kernel, schedule);
                cr_assert(memcmp(forward, y, bytes) == 0, "kernel %d%s %s", (*kernel)->number,
                          (*kernel)->variant, formats[f]);
                free(y);
            }
            free(forward);
        }
        product_free(&p);
    }
}

// A launch leaves its workspace as it found it: the next one may use it.
Test(cuda, a_workspace_serves_many_calls) {
    struct product p;
    product_init(&p, "int4-g128", 1, 200, 640);
    for (const struct cuda_kernel *const *kernel = cuda_emulator.kernels; *kernel; kernel++) {
        if ((*kernel)->number != 8)
            continue;
        struct cuda_call call = p.call;
        size_t bytes = (size_t)call.y_stride * sizeof(float);
        call.workspace = exactly((*kernel)->workspace(&call), 0);
        for (int i = 0; i < 3; i++) {
            call.y = exactly(bytes, 0xff);
            cr_assert_null(cuda_emulator.run(*kernel, &call));
            compare(&p, *kernel, "int4-g128", call.y);
            free(call.y);
        }
        free(call.workspace);
    }
    product_free(&p);
}

// The reference itself, and cuda_matrix_of: every weight as its format defines it.
Test(cuda, the_reference_reads_the_projects_formats) {
    enum { N = 5, K = 300 };
    int count = 0;
    for (const struct quant_format *const *f = quant_formats; *f; f++) {
        struct cuda_matrix matrix;
        size_t k = (*f)->block_weights ? 512 : K;
        float *w = weights_new(N, k, 5);
        void *data = quantize_new(*f, w, N, k);
        float *want = dequantize_new(*f, data, N, k);
        if (cuda_matrix_of(*f, data, N, k, &matrix)) {
            for (unsigned i = 0; i < N * k; i++) {
                float got = cuda_weight_ref(&matrix, i / (unsigned)k, i % (unsigned)k);
                cr_assert(fabsf(got - want[i]) <= 1e-6f * fabsf(want[i]), "%s %u: %g %g",
                          (*f)->name, i, (double)got, (double)want[i]);
            }
            count++;
        }
        free(w);
        free(data);
        free(want);
    }
    cr_assert(count >= 15, "%d", count);
}

// Blocks written out by hand.
Test(cuda, the_reference_reads_blocks) {
    uint8_t q4_0[18] = {0x00, 0x40, 0x9f}, q8_0[34] = {0x00, 0x38, 0xfe, 5}; // d 2 and 0.5
    struct cuda_matrix w = {.format = CUDA_Q4_0, .n = 1, .k = 32, .codes = q4_0, .row_bytes = 18};
    cr_assert_eq(cuda_weight_ref(&w, 0, 0), 14);
    cr_assert_eq(cuda_weight_ref(&w, 0, 16), 2);
    cr_assert_eq(cuda_weight_ref(&w, 0, 1), -16);
    w = (struct cuda_matrix){.format = CUDA_Q8_0, .n = 1, .k = 32, .codes = q8_0, .row_bytes = 34};
    cr_assert_eq(cuda_weight_ref(&w, 0, 0), -1);
    cr_assert_eq(cuda_weight_ref(&w, 0, 1), 2.5f);

    // d 1, dmin 0.5; group 5: scale 0b10'0011 = 35, minimum 0b01'0010 = 18.
    uint8_t q4_k[144] = {0x00, 0x3c, 0x00, 0x38};
    q4_k[4 + 5] = 0x23;           // scales[5] & 15 unused; low bits of group 5 are in scales[9]
    q4_k[4 + 9] = 0x3 | 0x2 << 4; // scale 3, minimum 2, low four bits
    q4_k[4 + 1] = 2 << 6;         // scale's high bits
    q4_k[4 + 5] = 1 << 6;         // minimum's high bits
    q4_k[16 + 2 * 32 + 7] = 0xb4; // groups 4 and 5, weight 7
    w = (struct cuda_matrix){
        .format = CUDA_Q4_K, .n = 1, .k = 256, .codes = q4_k, .row_bytes = 144};
    cr_assert_eq(cuda_weight_ref(&w, 0, 5 * 32 + 7), 35 * 11 - 9);

    // d 0.5; weight 128 + 96 + 3: half 1, quarter 3; group 14 has scale -4.
    uint8_t q6_k[210] = {0};
    q6_k[64 + 32 + 3] = 0xa0;
    q6_k[128 + 32 + 3] = 2 << 6;
    q6_k[192 + 14] = 0xfc;
    q6_k[209] = 0x38;
    w = (struct cuda_matrix){
        .format = CUDA_Q6_K, .n = 1, .k = 256, .codes = q6_k, .row_bytes = 210};
    cr_assert_eq(cuda_weight_ref(&w, 0, 128 + 96 + 3), 0.5f * -4 * (10 + 32 - 32));
}

Test(cuda, formats_without_a_packed_layout_are_refused) {
    struct error err = {0};
    size_t bytes;
    const char *formats[] = {"bf16", "nf4", "q4_k"};
    for (int i = 0; i < 3; i++) {
        struct cuda_sample s;
        cr_assert(cuda_sample_init(&s, formats[i], 3, 256, 1, &err));
        cr_assert_not(cuda_pack_bytes(&s.w, &bytes), "%s", formats[i]);
        cuda_sample_free(&s);
    }
    struct cuda_sample s;
    cr_assert_not(cuda_sample_init(&s, "q4_k", 3, 100, 1, &err));
    cr_assert_not(cuda_sample_init(&s, "int8-tensor", 3, 100, 1, &err));
    cr_assert_not(cuda_sample_init(&s, "nonsense", 3, 100, 1, &err));
}

Test(cuda, without_a_gpu_says_why) {
    const char *why = NULL;
    const struct cuda_backend *gpu = cuda_device(&why);
    cr_assert(gpu ? gpu->time != NULL : why && *why && !strchr(why, '\n'));
}

// Its code for sm_90 would be a trap. The flag that says whether there is code for sm_90a is the
// Makefile's, and hopper.cuh refuses to compile where the flag and the target disagree.
static bool offers_hopper(const char *archs) {
    char command[256], out[4096];
    snprintf(command, sizeof command,
             "env -u MAKEFLAGS make -nB NVCC=nvcc CUDA_ARCHS='%s' "
             "build/cuda/kernels/cuda/kernel10_wgmma.o 2>&1",
             archs);
    FILE *f = popen(command, "r");
    cr_assert_not_null(f);
    size_t n = fread(out, 1, sizeof out - 1, f);
    out[n] = '\0';
    cr_assert(pclose(f) == 0 && strstr(out, "nvcc -std"), "%s", out);
    return strstr(out, "-DNIBBLE_SM_90A");
}

Test(cuda, builds_for_plain_sm_90_do_not_offer_kernel_10) {
    if (access("Makefile", R_OK) != 0)
        cr_skip_test("no Makefile here");
    cr_assert(offers_hopper("80 86 89 90a"));
    cr_assert_not(offers_hopper("90"));
    cr_assert_not(offers_hopper("80 90"));
}

// What a user sees. Skips where the program is not built.
static int phase6(const char *arguments, char *out, size_t size) {
    char command[512];
    if (access("phase6", X_OK) != 0)
        cr_skip_test("no ./phase6");
    snprintf(command, sizeof command, "./phase6 %s 2>&1", arguments);
    FILE *f = popen(command, "r");
    cr_assert_not_null(f);
    size_t n = fread(out, 1, size - 1, f);
    out[n] = '\0';
    return WEXITSTATUS(pclose(f));
}

Test(cuda, phase6_shows_errors_without_a_gpu) {
    char out[65536];
    int status =
        phase6("--emulate --kernel 8 --format int4-g128 --batch 1,9 --json -", out, sizeof out);
    cr_assert_eq(status, 0, "%s", out);
    cr_assert(strstr(out, "\"kernel 8 int4-g128\"") && strstr(out, "\"kernel 8 int4-g128 m=9\""));
    cr_assert(strstr(out, "\"rel_error\"") && !strstr(out, "\"us\""));
}

Test(cuda, phase6_refuses_what_it_cannot_do) {
    char out[65536];
    cr_assert_eq(phase6("--emulate --format int5", out, sizeof out), 2, "%s", out);
    cr_assert_eq(phase6("--emulate --shape 80", out, sizeof out), 2, "%s", out);
    cr_assert_eq(phase6("--emulate --batch 1,0", out, sizeof out), 2, "%s", out);
    cr_assert_eq(phase6("--emulate --kernel 12", out, sizeof out), 2, "%s", out);
    cr_assert_eq(phase6("--emulate --kernel 6 --format q4_k", out, sizeof out), 1, "%s", out);
    const char *why;
    if (!cuda_device(&why)) {
        cr_assert_eq(phase6("--device cuda", out, sizeof out), 1, "%s", out);
        cr_assert(strstr(out, why), "'%s' lacks '%s'", out, why);
    }
}
