// quant/format_ggml: the blocks of GGUF files against recorded ones and plain rounding.
#include "format_data.h"

#include <cjson/cJSON.h>
#include <fenv.h>
#include <openssl/evp.h>

#include "core/file.h"
#include "shared.h"

// The instruction sets of this CPU, one after the other; the last one stays in force.
#define FOR_EACH_ISA(isa)                                                                          \
    for (int isa = 0; isa < ISA_COUNT && (int)kernels_isa_force((enum isa)isa) == isa; isa++)

Test(format_ggml, names_types_and_sizes_are_those_of_the_files) {
    static const struct {
        const char *name, *label;
        uint32_t type;
        size_t weights, bytes;
        double bits;
    } table[] = {
        {"q4_0", "Q4_0", 2, 32, 18, 4.5},       {"q4_1", "Q4_1", 3, 32, 20, 5},
        {"q5_0", "Q5_0", 6, 32, 22, 5.5},       {"q5_1", "Q5_1", 7, 32, 24, 6},
        {"q8_0", "Q8_0", 8, 32, 34, 8.5},       {"q2_k", "Q2_K", 10, 256, 84, 2.625},
        {"q3_k", "Q3_K", 11, 256, 110, 3.4375}, {"q4_k", "Q4_K", 12, 256, 144, 4.5},
        {"q5_k", "Q5_K", 13, 256, 176, 5.5},    {"q6_k", "Q6_K", 14, 256, 210, 6.5625},
        {"iq4_nl", "IQ4_NL", 20, 32, 18, 4.5},  {"iq4_xs", "IQ4_XS", 23, 256, 136, 4.25},
        {"mxfp4", "MXFP4", 39, 32, 17, 4.25},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct quant_format *f = quant_format_of_gguf(table[i].type);
        size_t bytes;
        double bits;
        cr_assert_not_null(f, "%s", table[i].name);
        cr_assert_str_eq(f->name, table[i].name);
        cr_assert_str_eq(f->label, table[i].label);
        cr_assert_eq(quant_format_find(table[i].name), f);
        cr_assert_eq(quant_format_find(table[i].label), f);
        cr_assert_eq(f->block_weights, table[i].weights);
        cr_assert(f->bytes(f, 3, 512, &bytes));
        cr_assert_eq(bytes, 3 * 512 / table[i].weights * table[i].bytes, "%s", f->name);
        cr_assert(quant_bits_per_weight(f, 3, 512, &bits));
        cr_assert_eq(bits, table[i].bits, "%s", f->name);
    }
}

Test(format_ggml, rows_that_are_not_whole_blocks_have_no_bytes) {
    const struct quant_format *f = quant_format_find("q4_k");
    size_t bytes = 7;
    struct error err;
    struct quant_hints hints = {0};
    cr_assert_not(f->bytes(f, 2, 300, &bytes));
    cr_assert_not(f->bytes(f, SIZE_MAX / 144, 512, &bytes));
    cr_assert_not(f->bytes(f, 1, SIZE_MAX / 256 * 256, &bytes) && bytes < SIZE_MAX / 2);
    cr_assert(f->bytes(f, 2, 0, &bytes));
    cr_assert_eq(bytes, 0);
    cr_assert_not(f->quantize(f, NULL, 0, 2, 2, 300, &hints, NULL, &err));
    cr_assert_str_eq(err.message, "rows have 300 weights, expected a multiple of 256 for Q4_K");
    cr_assert_not(f->quantize(f, NULL, 0, 0, SIZE_MAX / 144, 512, &hints, NULL, &err));
    cr_assert(strstr(err.message, "overflow the address space"));
}

// ---- reading -----------------------------------------------------------------------------------

// d = 1, m = -2 (a float16 of 0xc000); the codes are chosen by hand.
Test(format_ggml, hand_made_blocks_are_read_weight_by_weight) {
    uint8_t q4_0[18] = {0x00, 0x3c, 0x18, [2 + 15] = 0xf0};
    uint8_t q4_1[20] = {0x00, 0x3c, 0x00, 0xc0, 0x21, [4 + 15] = 0xf3};
    uint8_t q5_0[22] = {0x00, 0x3c, 0x01, 0, 0, 0x80, 0x11, [6 + 15] = 0xf0};
    uint8_t q8_0[34] = {0x00, 0xbc, 0x7f, 0x81}; // d = -1
    uint8_t mxfp4[17] = {128, 0x92};             // 2^1
    float out[32];
    quant_q4_0.dequantize_ref(&quant_q4_0, q4_0, 1, 32, 0, 0, 32, out);
    cr_assert(out[0] == 0 && out[16] == -7 && out[15] == -8 && out[31] == 7);
    quant_q4_1.dequantize_ref(&quant_q4_1, q4_1, 1, 32, 0, 0, 32, out);
    cr_assert(out[0] == -1 && out[16] == 0 && out[15] == 1 && out[31] == 13);
    quant_q5_0.dequantize_ref(&quant_q5_0, q5_0, 1, 32, 0, 0, 32, out);
    cr_assert(out[0] == 1 && out[16] == -15 && out[15] == -16 && out[31] == 15);
    quant_q8_0.dequantize_ref(&quant_q8_0, q8_0, 1, 32, 0, 0, 32, out);
    cr_assert(out[0] == -127 && out[1] == 127);
    quant_mxfp4.dequantize_ref(&quant_mxfp4, mxfp4, 1, 32, 0, 0, 32, out);
    cr_assert(out[0] == 2 && out[16] == -1);
}

Test(format_ggml, hand_made_super_blocks_are_read_group_by_group) {
    uint8_t q4_k[144] = {0x00, 0x3c, 0x00, 0x38}, q6_k[210] = {0}; // d = 1, dmin = 0.5
    float out[256];
    q4_k[4 + 1] = 0x80 | 5;     // scale 1 is 5; scale 5 has high bits 2
    q4_k[4 + 4 + 1] = 0x40 | 3; // min 1 is 3; min 5 has high bits 1
    q4_k[4 + 8 + 1] = 0x97;     // scale 5 is 2 * 16 + 7, min 5 is 1 * 16 + 9
    q4_k[16 + 0 + 4] = 0xb2;    // weight 32 + 4 has code 11
    q4_k[16 + 64 + 31] = 0xc0;  // weight 160 + 31 has code 12
    quant_q4_k.dequantize_ref(&quant_q4_k, q4_k, 1, 256, 0, 0, 256, out);
    cr_assert_eq(out[36], 5 * 11 - 1.5f);
    cr_assert_eq(out[37], -1.5f);
    cr_assert_eq(out[191], 39 * 12 - 12.5f);
    cr_assert_eq(out[4], 0);
    q6_k[208 + 1] = 0x3c;
    q6_k[192 + 13] = (uint8_t)-3; // weights 208 … 223
    q6_k[64 + 32 + 17] = 0x0e;    // low bits of weight 128 + 32 + 17 below those of 128 + 96 + 17
    q6_k[64 + 0 + 17] = 0x50;     // low bits of weight 128 + 64 + 17
    q6_k[128 + 32 + 17] = 0x20;   // its high bits are 2: code 37
    quant_q6_k.dequantize_ref(&quant_q6_k, q6_k, 1, 256, 0, 0, 256, out);
    cr_assert_eq(out[209], -3.0f * (37 - 32));
    cr_assert_eq(out[208], -3.0f * -32);
    cr_assert_eq(out[177], 0);
}

static char *read_all(const char *folder, const char *name, const char *suffix, size_t *bytes) {
    char path[1200];
    struct error err;
    snprintf(path, sizeof path, "%s/%s%s", folder, name, suffix);
    char *text = file_read(path, 1 << 20, bytes, &err);
    cr_assert_not_null(text, "%s", err.message);
    return text;
}

Test(format_ggml, recorded_blocks_are_read_bit_for_bit) {
    const char *folder = shared_path("data/ggml-blocks");
    const char *names[] = {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct quant_format *f = quant_format_find(names[i]);
        size_t block_bytes, bytes;
        char *blocks = read_all(folder, names[i], ".blocks.bin", &block_bytes);
        char *expected = read_all(folder, names[i], ".dequant.f32", &bytes);
        size_t k = bytes / sizeof(float);
        cr_assert(k > 0 && k / f->block_weights * f->block_bytes == block_bytes, "%s", f->name);
        float *out = memory_alloc(k, sizeof *out, f->name, NULL);
        f->dequantize_ref(f, blocks, 1, k, 0, 0, k, out);
        cr_assert_arr_eq(out, expected, bytes, "%s", f->name);
        FOR_EACH_ISA(isa) {
            memset(out, 0, bytes);
            f->dequantize(f, blocks, 1, k, 0, 0, k, out);
            cr_assert_arr_eq(out, expected, bytes, "%s, %s", f->name,
                             kernels_isa_name((enum isa)isa));
        }
        free(out);
        free(blocks);
        free(expected);
    }
}

// Any bytes are a block: scales may be negative, subnormal, infinite or NaN.
Test(format_ggml, blocks_of_any_bytes_are_read_like_the_reference) {
    enum { N = 3, K = 4096 };
    float *out = memory_alloc(K, sizeof *out, "weights", NULL);
    float *expected = memory_alloc(K, sizeof *out, "weights", NULL);
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        struct random r = {i};
        size_t bytes;
        if (!f->block_weights)
            continue;
        cr_assert(f->bytes(f, N, K, &bytes));
        uint8_t *data = memory_alloc(bytes, 1, f->name, NULL);
        for (size_t b = 0; b < bytes; b++)
            data[b] = (uint8_t)random_below(&r, 256);
        f->dequantize_ref(f, data, N, K, 1, 256, K - 256, expected);
        FOR_EACH_ISA(isa) {
            f->dequantize(f, data, N, K, 1, 256, K - 256, out);
            for (size_t j = 0; j < K - 256; j++)
                cr_assert(isnan(expected[j]) ? isnan(out[j]) : same_bits(out + j, expected + j, 1),
                          "%s %zu: %a, expected %a", f->name, j, (double)out[j],
                          (double)expected[j]);
        }
        free(data);
    }
    free(out);
    free(expected);
}

// ---- the reference's rounding ------------------------------------------------------------------

static void digest_of(const void *data, size_t bytes, char hex[65]) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    cr_assert_eq(EVP_Digest(data, bytes, digest, &length, EVP_sha256(), NULL), 1);
    for (unsigned int i = 0; i < length; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

Test(format_ggml, recorded_weights_become_the_recorded_blocks) {
    const char *folder = shared_path("data/ggml-blocks");
    size_t bytes, length;
    char *w = read_all(folder, "cosine4096", ".f32", &bytes);
    char *text = read_all(folder, "known_answers", ".json", &length);
    cJSON *answers = cJSON_ParseWithLength(text, length);
    const char *names[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"};
    cr_assert_eq(bytes, 4096 * sizeof(float));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const cJSON *cosine = cJSON_GetObjectItem(answers, "cosine4096");
        const cJSON *answer = cJSON_GetObjectItem(cosine, names[i]);
        const struct quant_format *f = quant_format_find(names[i]);
        FOR_EACH_ISA(isa) {
            char hex[65] = "";
            void *data = quantize_new(f, (const float *)(const void *)w, 1, 4096);
            cr_assert(f->bytes(f, 1, 4096, &bytes));
            digest_of(data, bytes, hex);
            cr_assert_str_eq(hex, cJSON_GetObjectItem(answer, "sha256")->valuestring, "%s",
                             f->name);
            free(data);
        }
    }
    cJSON_Delete(answers);
    free(text);
    free(w);
}

// A block's codes as the reference makes them, written down as plainly as possible. float values
// are rounded after each operation: volatile keeps the compiler from fusing them.
static int plain_code(float x, float from, float inverse, float shift, int most) {
    volatile float t = x - from;
    t = t * inverse;
    t = t + shift;
    int code = (int)t;
    return code < most ? code : most;
}

static void plain_nibbles(const int *codes, int bits, uint8_t *out) {
    if (bits == 5) {
        memset(out, 0, 4);
        for (int i = 0; i < 32; i++)
            out[i / 8] |= (uint8_t)(codes[i] >> 4 << i % 8);
        out += 4;
    }
    for (int i = 0; i < 16; i++)
        out[i] = (uint8_t)((codes[i] & 15) | (codes[i + 16] & 15) << 4);
}

static void plain_symmetric(const float *w, int bits, uint8_t *out) {
    float largest = 0;
    int half = 1 << (bits - 1), codes[32];
    for (int i = 0; i < 32; i++)
        largest = fabsf(w[i]) > fabsf(largest) ? w[i] : largest;
    float d = largest / (float)-half, inverse = d != 0 ? 1 / d : 0;
    uint16_t h = f32_to_f16(d);
    for (int i = 0; i < 32; i++)
        codes[i] = plain_code(w[i], 0, inverse, (float)half + 0.5f, 2 * half - 1);
    memcpy(out, &h, 2);
    plain_nibbles(codes, bits, out + 2);
}

static void plain_range(const float *w, int bits, uint8_t *out) {
    float lo = w[0], hi = w[0];
    int most = (1 << bits) - 1, codes[32];
    for (int i = 1; i < 32; i++) {
        lo = w[i] < lo ? w[i] : lo;
        hi = w[i] > hi ? w[i] : hi;
    }
    float d = (hi - lo) / (float)most, inverse = d != 0 ? 1 / d : 0;
    uint16_t h[2] = {f32_to_f16(d), f32_to_f16(lo)};
    for (int i = 0; i < 32; i++)
        codes[i] = plain_code(w[i], lo, inverse, 0.5f, most);
    memcpy(out, h, 4);
    plain_nibbles(codes, bits, out + 4);
}

static void plain_q8_0(const float *w, int bits, uint8_t *out) {
    (void)bits;
    float d = quant_absmax(w, 32) / 127, inverse = d != 0 ? 1 / d : 0;
    uint16_t h = f32_to_f16(d);
    memcpy(out, &h, 2);
    for (int i = 0; i < 32; i++)
        out[2 + i] = (uint8_t)(int)roundf(w[i] * inverse);
}

static void plain_mxfp4(const float *w, int bits, uint8_t *out) {
    (void)bits;
    static const float values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    float largest = quant_absmax(w, 32);
    int codes[32], e = largest > 0 ? (int)floorf(log2f(largest)) - 2 + 127 : 0;
    for (int i = 0; i < 32; i++) {
        codes[i] = 0;
        for (int c = 1; c < 16; c++)
            if (fabsf(ldexpf(values[c], e - 128) - w[i]) <
                fabsf(ldexpf(values[codes[i]], e - 128) - w[i]))
                codes[i] = c;
    }
    out[0] = (uint8_t)e;
    plain_nibbles(codes, 4, out + 1);
}

// Weights where rounding is difficult: ties, equal magnitudes of both signs, zeros of both signs,
// all alike, and everything at several scales.
static float difficult_weight(struct random *r, int kind, float scale) {
    int n = (int)random_below(r, 33) - 16;
    switch (kind % 5) {
    case 0:
        return scale * (float)random_normal(r);
    case 1:
        return scale * (float)n * 0.5f;
    case 2:
        return n % 2 ? scale : -scale;
    case 3:
        return n > 14 ? -0.0f : n > 12 ? scale : 0.0f;
    default:
        return -scale;
    }
}

Test(format_ggml, the_legacy_types_round_like_the_reference) {
    static const struct {
        const char *name;
        int bits;
        void (*plain)(const float *w, int bits, uint8_t *out);
    } types[] = {{"q4_0", 4, plain_symmetric}, {"q5_0", 5, plain_symmetric},
                 {"q4_1", 4, plain_range},     {"q5_1", 5, plain_range},
                 {"q8_0", 8, plain_q8_0},      {"mxfp4", 4, plain_mxfp4}};
    enum { BLOCKS = 400 };
    float *w = memory_alloc(BLOCKS * 32, sizeof *w, "weights", NULL);
    struct random r = {11};
    for (int i = 0; i < BLOCKS * 32; i++)
        w[i] = difficult_weight(&r, i / 32, ldexpf(1, i / 160 % 40 - 28));
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        const struct quant_format *f = quant_format_find(types[t].name);
        FOR_EACH_ISA(isa) {
            uint8_t *data = quantize_new(f, w, 1, BLOCKS * 32), expected[34];
            for (size_t b = 0; b < BLOCKS; b++) {
                types[t].plain(w + 32 * b, types[t].bits, expected);
                cr_assert_arr_eq(data + b * f->block_bytes, expected, f->block_bytes,
                                 "%s, %s, block %zu", f->name, kernels_isa_name((enum isa)isa), b);
            }
            free(data);
        }
    }
    free(w);
}

// ---- what cannot be stored ---------------------------------------------------------------------

static const char *failure_of(const struct quant_format *f, const float *w, size_t k, bool search) {
    static struct error err;
    size_t bytes;
    cr_assert(f->bytes(f, 1, k, &bytes));
    void *data = memory_alloc(bytes, 1, f->name, NULL);
    struct quant_hints hints = {.search = search};
    err.message[0] = 0;
    cr_assert_not(f->quantize(f, w, 0, 1, 1, k, &hints, data, &err), "%s", f->name);
    free(data);
    return err.message;
}

Test(format_ggml, scales_too_large_for_float16_are_errors) {
    float w[512] = {[300] = 3e9f};
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        if (!f->block_weights || f == &quant_mxfp4 || f == &quant_nf4) // float32 and exponents
            continue;
        const char *columns =
            f->block_weights == 32 ? "row 0, columns 288 to 319:" : "row 0, columns 256 to 511:";
        for (int search = 0; search < 2; search++) {
            const char *message = failure_of(f, w, 512, search);
            cr_assert(strncmp(message, columns, strlen(columns)) == 0, "%s: %s", f->name, message);
            cr_assert(strstr(message, "expected at most 65504"), "%s: %s", f->name, message);
        }
    }
    w[300] = -70000;
    cr_assert_str_eq(failure_of(&quant_q4_1, w, 512, false),
                     "row 0, columns 288 to 319: scale is -70000, expected at most 65504");
}

// Up to there, what is written is finite and close.
Test(format_ggml, large_weights_that_fit_come_back) {
    static const struct {
        const char *name;
        float largest;
    } table[] = {{"q8_0", 8.3e6f}, {"q4_0", 5e5f},   {"q4_1", 6e4f},   {"q5_0", 1e6f},
                 {"q5_1", 6e4f},   {"q2_k", 9.8e5f}, {"q3_k", 8e6f},   {"q4_k", 4.1e6f},
                 {"q5_k", 4.1e6f}, {"q6_k", 2.6e8f}, {"iq4_nl", 8e6f}, {"iq4_xs", 2.6e8f},
                 {"mxfp4", 3e38f}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct quant_format *f = quant_format_find(table[i].name);
        float w[256], out[256];
        for (int j = 0; j < 256; j++)
            w[j] = table[i].largest * ((j % 2 ? 1.0f : -1.0f) * (float)(j % 16) / 15);
        void *data = quantize_new(f, w, 1, 256);
        f->dequantize_ref(f, data, 1, 256, 0, 0, 256, out);
        for (int j = 0; j < 256; j++) // Q2_K's steps are two thirds of the largest weight wide
            cr_assert(fabsf(out[j] / table[i].largest - w[j] / table[i].largest) <= 0.34f,
                      "%s: %g became %g", f->name, (double)w[j], (double)out[j]);
        free(data);
    }
}

Test(format_ggml, a_huge_outlier_is_kept) {
    for (size_t i = 0; quant_formats[i]; i++) {
        const struct quant_format *f = quant_formats[i];
        if (!f->block_weights)
            continue;
        float w[256], out[256];
        for (int j = 0; j < 256; j++)
            w[j] = 0.01f * (float)(j % 15 - 7);
        w[77] = -1000;
        void *data = quantize_new(f, w, 1, 256);
        f->dequantize_ref(f, data, 1, 256, 0, 0, 256, out);
        cr_assert_float_eq(out[77], -1000, f == &quant_mxfp4 ? 250 : 3, "%s: %g", f->name,
                           (double)out[77]);
        for (int j = 0; j < 256; j++) // IQ4 has no 0: the nearest value is 1000 / 127
            cr_assert(j == 77 || fabsf(out[j]) <= 8, "%s: %g", f->name, (double)out[j]);
        free(data);
    }
}

// ---- what lies on the stack --------------------------------------------------------------------

static __attribute__((noinline)) void dirty_stack(int byte) {
    unsigned char garbage[1 << 16];
    memset(garbage, byte, sizeof garbage);
    __asm__ volatile("" : : "r"(garbage) : "memory");
}

// A search once read sums that no pass had made, and compared them: with NaN there, as any caller
// may leave it, that is an invalid operation.
Test(format_ggml, what_is_on_the_stack_does_not_matter) {
    enum { K = 256 };
    float w[K];
    struct random r = {5};
    for (int i = 0; i < K; i++)
        w[i] = (float)random_normal(&r);
    for (const struct quant_format *const *f = quant_formats; *f; f++) {
        size_t bytes;
        cr_assert((*f)->bytes(*f, 1, K, &bytes));
        dirty_stack(0);
        void *clean = quantize_new(*f, w, 1, K);
        feclearexcept(FE_ALL_EXCEPT);
        dirty_stack(0xff);
        void *dirty = quantize_new(*f, w, 1, K);
        cr_assert_eq(fetestexcept(FE_DIVBYZERO | FE_INVALID), 0, "%s", (*f)->name);
        cr_assert_arr_eq(clean, dirty, bytes, "%s", (*f)->name);
        free(clean), free(dirty);
    }
}
