// Blocks of 32 weights with one scale, LANES weights at a time.
#include "quant/format_ggml_simd.h"

#define encode_symmetric SIMD(encode_symmetric)
#define encode_range SIMD(encode_range)
#define store_codes SIMD(store_codes)
#define round_from SIMD(round_from)
#define range_of SIMD(range_of)
#define range32 SIMD(range32)
#define store_fifth_bits SIMD(store_fifth_bits)
#define load_fifth_bits SIMD(load_fifth_bits)
#define unpack_nibbles SIMD(unpack_nibbles)

// ---- reading -----------------------------------------------------------------------------------

INLINE void SIMD(unpack_q8_0)(const uint8_t *block, float *out) {
    float d = ggml_load_f16(block);
    for (int i = 0; i < 32; i += LANES)
        vec_store(out + i, vec_of_ints(ints_of_bytes(block + 2 + i) << 24 >> 24) * d);
}

// 16 in every lane whose bit is set, bit 0 for lane 0.
INLINE ivec load_fifth_bits(uint32_t high) {
    ivec bit;
    for (int i = 0; i < LANES; i++)
        bit[i] = 1 << i;
    ivec set = (((ivec){0} + (int32_t)high) & bit) != 0;
    return set & 16;
}

// 16 bytes of nibbles, and four of fifth bits or NULL: d * (code - zero) + m.
INLINE void unpack_nibbles(const uint8_t *qs, const uint8_t *qh, float d, int zero, bool offset,
                           float m, float *out) {
    uint32_t high = qh ? ggml_load16(qh) | (uint32_t)ggml_load16(qh + 2) << 16 : 0;
    for (int i = 0; i < 16; i += LANES) {
        ivec pair = ints_of_bytes(qs + i), low = pair & 15, up = pair >> 4;
        if (qh) {
            low |= load_fifth_bits(high >> i);
            up |= load_fifth_bits(high >> (16 + i));
        }
        vec a = vec_of_ints(low - zero) * d, b = vec_of_ints(up - zero) * d;
        vec_store(out + i, offset ? a + m : a);
        vec_store(out + 16 + i, offset ? b + m : b);
    }
}

INLINE void SIMD(unpack_q4_0)(const uint8_t *block, float *out) {
    unpack_nibbles(block + 2, NULL, ggml_load_f16(block), 8, false, 0, out);
}

INLINE void SIMD(unpack_q4_1)(const uint8_t *block, float *out) {
    unpack_nibbles(block + 4, NULL, ggml_load_f16(block), 0, true, ggml_load_f16(block + 2), out);
}

INLINE void SIMD(unpack_q5_0)(const uint8_t *block, float *out) {
    unpack_nibbles(block + 6, block + 2, ggml_load_f16(block), 16, false, 0, out);
}

INLINE void SIMD(unpack_q5_1)(const uint8_t *block, float *out) {
    unpack_nibbles(block + 8, block + 4, ggml_load_f16(block), 0, true, ggml_load_f16(block + 2),
                   out);
}

GGML_DEQUANTIZE(q8_0)
GGML_DEQUANTIZE(q4_0)
GGML_DEQUANTIZE(q4_1)
GGML_DEQUANTIZE(q5_0)
GGML_DEQUANTIZE(q5_1)

// ---- writing: the reference's rounding ---------------------------------------------------------

INLINE void store_fifth_bits(struct codes32 q, uint8_t *out) {
    uint32_t high = 0;
    for (int i = 0; i < VECS; i++)
        high |= lane_bits(q.v[i] << 27) << i * LANES;
    ggml_store16(out, (uint16_t)high);
    ggml_store16(out + 2, (uint16_t)(high >> 16));
}

// Codes of four or five bits to where the scales end.
INLINE void store_codes(struct codes32 q, int bits, uint8_t *out) {
    if (bits == 5)
        store_fifth_bits(q, out);
    store_nibbles(q, out + (bits == 5 ? 4 : 0));
}

// (x - from) * inverse + shift, cut to an integer of at most `most`.
INLINE struct codes32 round_from(struct weights32 x, float from, float inverse, float shift,
                                 int most) {
    struct codes32 q;
    for (int i = 0; i < VECS; i++) {
        ivec code = __builtin_convertvector((x.v[i] - from) * inverse + shift, ivec);
        ivec over = code > most;
        q.v[i] = (code & ~over) | (over & most);
    }
    return q;
}

// q4_0 and q5_0: the largest weight takes code 0, which is -half.
INLINE bool encode_symmetric(const float *w, size_t k, int bits, uint8_t *out,
                             struct ggml_failure *why) {
    int half = 1 << (bits - 1);
    size_t bytes = bits == 5 ? 22 : 18;
    for (size_t col = 0; col < k; col += 32, out += bytes) {
        struct weights32 x = load32(w + col);
        float d = largest_signed(x, w + col) / (float)-half;
        if (!isfinite(ggml_store_f16(out, d)))
            return ggml_fail(why, col, d);
        store_codes(round_from(x, 0, ggml_inverse(d), (float)half + 0.5f, 2 * half - 1), bits,
                    out + 2);
    }
    return true;
}

static bool SIMD(encode_q4_0)(const float *w, size_t k, uint8_t *out, struct ggml_failure *why) {
    return encode_symmetric(w, k, 4, out, why);
}

static bool SIMD(encode_q5_0)(const float *w, size_t k, uint8_t *out, struct ggml_failure *why) {
    return encode_symmetric(w, k, 5, out, why);
}

// The smallest and the largest of 32 finite weights. Of zeros of both signs the first is taken, as
// the reference does.
struct range32 {
    float lo, hi;
};

INLINE struct range32 range_of(struct weights32 x, const float *w) {
    vec lo = x.v[0], hi = x.v[0];
    for (int i = 1; i < VECS; i++) {
        lo = vec_min(lo, x.v[i]);
        hi = -vec_min(-hi, -x.v[i]);
    }
    struct range32 range = {-vec_largest(-lo), vec_largest(hi)};
    for (int i = 0; range.lo == 0 && i < 32; i++)
        if (w[i] == 0) {
            range.lo = w[i];
            break;
        }
    return range;
}

// q4_1 and q5_1: codes from the smallest weight to the largest.
INLINE bool encode_range(const float *w, size_t k, int bits, uint8_t *out,
                         struct ggml_failure *why) {
    int most = (1 << bits) - 1;
    size_t bytes = bits == 5 ? 24 : 20;
    for (size_t col = 0; col < k; col += 32, out += bytes) {
        struct weights32 x = load32(w + col);
        if (!isfinite(largest_of(x)))
            return ggml_fail(why, col, NAN);
        struct range32 range = range_of(x, w + col);
        float d = range.hi > range.lo ? (range.hi - range.lo) / (float)most : 0;
        if (!isfinite(ggml_store_f16(out, d)))
            return ggml_fail(why, col, d);
        if (!isfinite(ggml_store_f16(out + 2, range.lo)))
            return ggml_fail(why, col, range.lo);
        store_codes(round_from(x, range.lo, ggml_inverse(d), 0.5f, most), bits, out + 4);
    }
    return true;
}

static bool SIMD(encode_q4_1)(const float *w, size_t k, uint8_t *out, struct ggml_failure *why) {
    return encode_range(w, k, 4, out, why);
}

static bool SIMD(encode_q5_1)(const float *w, size_t k, uint8_t *out, struct ggml_failure *why) {
    return encode_range(w, k, 5, out, why);
}

// Halves are rounded away from zero, as roundf does.
static bool SIMD(encode_q8_0)(const float *w, size_t k, uint8_t *out, struct ggml_failure *why) {
    for (size_t col = 0; col < k; col += 32, out += 34) {
        struct weights32 x = load32(w + col);
        float d = largest_of(x) / 127, inverse = ggml_inverse(d);
        if (!isfinite(ggml_store_f16(out, d)))
            return ggml_fail(why, col, d);
        for (int i = 0; i < VECS; i++) {
            vec t = x.v[i] * inverse;
            ivec whole = __builtin_convertvector(t, ivec);
            vec rest = t - vec_of_ints(whole);
            bytes_of_ints(whole - (rest >= 0.5f) + (rest <= -0.5f), out + 2 + i * LANES);
        }
    }
    return true;
}

// ---- writing: scales that a search chose -------------------------------------------------------

// The nearest codes of 32 weights, behind the scales that are already in the block.
static void SIMD(round_block)(const struct legacy_type *type, const float *w, uint8_t *block) {
    float d = ggml_load_f16(block), m = type->offset ? ggml_load_f16(block + 2) : 0;
    float inverse = ggml_inverse(d);
    struct codes32 q;
    block += type->offset ? 4 : 2;
    for (int i = 0; i < VECS; i++) {
        vec x = (vec_load(w + i * LANES) - m) * inverse;
        vec code = vec_round(vec_clamp(x, type->grid.lo, type->grid.hi));
        q.v[i] = __builtin_convertvector(type->bits < 8 ? code - type->grid.lo : code, ivec);
        if (type->bits == 8)
            bytes_of_ints(q.v[i], block + i * LANES);
    }
    if (type->bits < 8)
        store_codes(q, type->bits, block);
}
