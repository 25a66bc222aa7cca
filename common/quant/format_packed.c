// Two to six bits a weight, several weights in a byte. A code is a number from 0 to 2^bits - 1, and
// a zero point says which code means 0:
//
//     w = scale * (code - zero)
//
// Symmetric: zero is 2^(bits - 1) and scale = max |w| / (zero - 1), so that code 0 is not used:
// with four bits zero is 8, codes are 1 … 15. With a zero point, all codes are spread over what the
// group really has, from min(w, 0) to max(w, 0): scale = (max - min) / (2^bits - 1), zero =
// round(-min / scale), itself a code.
//
// Codes lie one after another, the first in the lowest bits: eight of them take `bits` whole bytes.
// Three bits:
//
//     byte            0                 1                 2
//     bits 7 … 0      w2 w2|w1 …|w0 …   w5|w4 …|w3 …|w2   w7 …|w6 …|w5 w5
//
// Four bits are packed differently, so that unpacking takes a mask or a shift for 16 neighbours
// together: a row is blocks of 32 weights, 16 bytes; byte j holds weight j below weight j + 16.
//
//     byte            0     1     2           15
//     bits 7 … 4     w16   w17   w18    …    w31
//     bits 3 … 0     w0    w1    w2     …    w15
//
// A last block of len < 32 weights takes (len + 1) / 2 bytes; byte j holds weights j and
// (len + 1) / 2 + j. When len is odd, the last byte's upper half is 0 and belongs to nobody.
//
// A row's zero points lie one after another like codes: with four bits, two to a byte.
//
// A search for better scales (scale_search.h) uses all codes in symmetric groups too; their scale
// may then be negative, so that the largest weight is the one that gets code 0.
#include "quant/format_shared.h"
#include "quant/scale_search.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { BLOCK = 32, HALF = BLOCK / 2, MAX_BITS = 8 };

// Columns packed at a time: whole bytes in every width, whole groups of every size.
enum { CHUNK = 256 };

// ---- codes and bytes ----------------------------------------------------------------------------

static inline int code_max(int bits) {
    return (1 << bits) - 1;
}

// Code i of an array of them, one after another.
static inline int code_load(const uint8_t *bytes, size_t i, int bits) {
    size_t at = i * (size_t)bits, shift = at % 8;
    unsigned window = bytes[at / 8];
    if (shift + (size_t)bits > 8)
        window |= (unsigned)bytes[at / 8 + 1] << 8;
    return (int)(window >> shift) & code_max(bits);
}

// Into bits that are 0.
static void code_store(uint8_t *bytes, size_t i, int bits, int code) {
    size_t at = i * (size_t)bits, shift = at % 8;
    bytes[at / 8] |= (uint8_t)(code << shift);
    if (shift + (size_t)bits > 8)
        bytes[at / 8 + 1] |= (uint8_t)(code >> (8 - shift));
}

static void pack_codes(const uint8_t *codes, size_t len, int bits, uint8_t *bytes) {
    for (size_t i = 0; i < len; i += 8, bytes += bits) {
        size_t n = size_min(len - i, 8);
        uint64_t window = 0;
        for (size_t j = 0; j < n; j++)
            window |= (uint64_t)codes[i + j] << (size_t)bits * j;
        memcpy(bytes, &window, (n * (size_t)bits + 7) / 8);
    }
}

// A block of four-bit codes.
static inline void pack_block(const uint8_t *codes, size_t len, uint8_t *bytes) {
    size_t half = (len + 1) / 2;
    for (size_t j = 0; j < half; j++)
        bytes[j] = (uint8_t)(codes[j] | (half + j < len ? codes[half + j] : 0) << 4);
}

static void pack_row(const uint8_t *codes, size_t len, int bits, uint8_t *bytes) {
    if (bits != 4)
        pack_codes(codes, len, bits, bytes);
    else
        for (size_t i = 0; i < len; i += BLOCK)
            pack_block(codes + i, size_min(len - i, BLOCK), bytes + i / 2);
}

// The four-bit code of weight i of a row of k.
static inline int unpack_int4(const uint8_t *row, size_t k, size_t i) {
    size_t block = i / BLOCK * BLOCK, half = (size_min(BLOCK, k - block) + 1) / 2;
    size_t j = i - block;
    return j < half ? row[block / 2 + j] & 15 : row[block / 2 + j - half] >> 4;
}

static inline int unpack_one(const uint8_t *row, size_t k, size_t i, int bits) {
    return bits == 4 ? unpack_int4(row, k, i) : code_load(row, i, bits);
}

// ---- quantizing ---------------------------------------------------------------------------------

// scale: as stored. A scale of 0 (all weights 0, or too small for one) makes every ŵ 0.
static struct quant_grid grid_choose(const struct quant_format *f, float scale, float min) {
    int max = code_max(f->bits), half = 1 << (f->bits - 1);
    if (!f->zero_point)
        return (struct quant_grid){scale, half, 1 - half, half - 1};
    int zero = scale > 0 ? round_even(clamp(-min / scale, 0, (float)max)) : 0;
    return (struct quant_grid){scale, zero, -zero, max - zero};
}

static inline void round_codes(const float *w, size_t n, const struct quant_grid *g,
                               uint8_t *codes) {
    if (g->scale == 0) {
        memset(codes, g->zero, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        codes[i] =
            (uint8_t)(round_even(clamp(w[i] / g->scale, (float)g->lo, (float)g->hi)) + g->zero);
}

// The grid of the len weights of row r from column col on.
static bool choose_group(const struct quant_format *f, const float *w, size_t len, size_t r,
                         size_t col, size_t scale_bytes, const struct quant_hints *hints,
                         struct quant_grid *grid, struct error *err) {
    struct quant_range range = quant_range(w, len);
    if (!isfinite(range.lo) || !isfinite(range.hi))
        return quant_fail_not_finite(w, r, col, len, err);
    float exact = f->zero_point ? (range.hi - range.lo) / (float)code_max(f->bits)
                                : fmaxf(range.hi, -range.lo) / (float)((1 << (f->bits - 1)) - 1);
    float scale = scale_round(scale_bytes, exact);
    if (!isfinite(scale))
        return quant_fail_scale(exact, scale_bytes, r, col, len, err);
    *grid = grid_choose(f, scale, range.lo);
    if (!hints->search)
        return true;
    grid->lo = -grid->zero; // code 0 too: of no use to plain rounding, one more value for a search
    quant_grid_search(w, hints->importance ? hints->importance + col : NULL, len, f->zero_point,
                      scale_bytes, grid);
    return true;
}

static bool quantize_row(const struct quant_format *f, const struct quant_planes *p, const float *w,
                         size_t r, size_t k, const struct quant_hints *hints, char *out,
                         struct error *err) {
    uint8_t codes[CHUNK], *zeros = (uint8_t *)out + p->zeros + r * p->zero_stride;
    uint8_t *bytes = (uint8_t *)out + r * p->code_stride;
    struct quant_grid grid = {0};
    memset(zeros, 0, p->zero_stride);
    for (size_t col = 0, len; col < k; col += len) {
        size_t chunk = col / CHUNK * CHUNK, g = col / p->group, begin = g * p->group;
        if (col == begin) {
            if (!choose_group(f, w + col, size_min(p->group, k - col), r, col, p->scale_bytes,
                              hints, &grid, err))
                return false;
            scale_store(out + p->scales, p->scale_bytes, r * p->groups + g, grid.scale);
            if (f->zero_point)
                code_store(zeros, g, f->bits, grid.zero);
        }
        len = size_min(size_min(begin + p->group, chunk + CHUNK), k) - col;
        round_codes(w + col, len, &grid, codes + (col - chunk));
        if (col + len == chunk + CHUNK || col + len == k)
            pack_row(codes, col + len - chunk, f->bits, bytes + chunk * (size_t)f->bits / 8);
    }
    return true;
}

static bool quantize_packed(const struct quant_format *f, const float *w, size_t row, size_t count,
                            size_t n, size_t k, const struct quant_hints *hints, void *out,
                            struct error *err) {
    struct quant_planes p;
    if (!quant_planes(f, n, k, &p))
        return quant_fail_size(n, k, err);
    for (size_t r = row; r < row + count; r++, w += k)
        if (!quantize_row(f, &p, w, r, k, hints, out, err))
            return false;
    return true;
}

// ---- dequantizing -------------------------------------------------------------------------------

// The code of group g of this row that means 0.
static inline int zero_load(const struct quant_format *f, const uint8_t *zeros, size_t g,
                            int bits) {
    return f->zero_point ? code_load(zeros, g, bits) : 1 << (bits - 1);
}

static void dequantize_packed_ref(const struct quant_format *f, const void *data, size_t n,
                                  size_t k, size_t row, size_t col, size_t count, float *out) {
    struct quant_planes p;
    if (!quant_planes(f, n, k, &p))
        return;
    const uint8_t *codes = (const uint8_t *)data + row * p.code_stride;
    const uint8_t *zeros = (const uint8_t *)data + p.zeros + row * p.zero_stride;
    for (size_t i = col; i < col + count; i++) {
        size_t g = i / p.group;
        float scale = scale_load((const char *)data + p.scales, p.scale_bytes, row * p.groups + g);
        int zero = zero_load(f, zeros, g, f->bits);
        out[i - col] = scale * (float)(unpack_one(codes, k, i, f->bits) - zero);
    }
}

// The eight codes of these `bits` bytes. Copied with one memcpy they would go through the stack,
// and wait there for each other, ten times as long as all the rest takes.
static inline __attribute__((always_inline)) uint64_t load_window(const uint8_t *bytes, int bits) {
    uint64_t window = 0;
    uint32_t four;
    uint16_t two;
    if (bits == 8) {
        memcpy(&window, bytes, sizeof window);
        return window;
    }
    if (bits & 1)
        window = bytes[bits - 1];
    if (bits & 2) {
        memcpy(&two, bytes + (bits & 4), sizeof two);
        window = window << 16 | two;
    }
    if (bits & 4) {
        memcpy(&four, bytes, sizeof four);
        window = window << 32 | four;
    }
    return window;
}

// One whole block, or only one of its halves. `bits` is known when it is compiled. The compilers'
// own vectors of the plain loops are up to four times slower.
enum { LOW = 1, HIGH = 2 };
typedef void unpack_block(int bits, const uint8_t *block, int halves, float scale, int zero,
                          float *out);
#define UNPACK_BLOCK static inline __attribute__((always_inline)) void

UNPACK_BLOCK unpack_half(int bits, const uint8_t *restrict block, bool high, float scale, int zero,
                         float *restrict out) {
    if (bits == 4) {
        for (size_t j = 0; j < HALF; j++)
            out[j] = scale * (float)((block[j] >> (high ? 4 : 0) & 15) - zero);
        return;
    }
    block += high ? 2 * bits : 0;
    for (size_t i = 0; i < HALF; i += 8, block += bits) {
        uint64_t window = load_window(block, bits);
        for (size_t j = 0; j < 8; j++, window >>= bits)
            out[i + j] = scale * (float)((int)(window & (uint64_t)code_max(bits)) - zero);
    }
}

UNPACK_BLOCK unpack_scalar(int bits, const uint8_t *block, int halves, float scale, int zero,
                           float *out) {
    if (halves & LOW)
        unpack_half(bits, block, false, scale, zero, out);
    if (halves & HIGH)
        unpack_half(bits, block, true, scale, zero, out + (halves & LOW ? HALF : 0));
}

#if defined(__x86_64__)
// at: the bit that a lane's code begins at. For a shuffle that gives each 32-bit lane the two bytes
// that its code lies in, and for the shift that is left to do.
#define BYTES_OF(at) ((at) / 8 | ((at) / 8 + 1) << 8 | (int)0x80800000)
#define SHIFT_OF(at) ((at) % 8)
typedef int lanes8 __attribute__((vector_size(32)));
typedef int lanes16 __attribute__((vector_size(64)));

// Eight codes of a block, from the one of that number on.
FORMAT_TARGET_AVX2 static inline __attribute__((always_inline)) __m256i
codes_avx2(int bits, const uint8_t *block, size_t first) {
    const lanes8 at = bits * (lanes8){0, 1, 2, 3, 4, 5, 6, 7};
    const __m256i mask = _mm256_set1_epi32(code_max(bits));
    if (bits == 4) {
        __m256i pairs = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(block + first % HALF)));
        return first < HALF ? _mm256_and_si256(pairs, mask) : _mm256_srli_epi32(pairs, 4);
    }
    uint64_t window = load_window(block + first / 8 * (size_t)bits, bits);
    __m256i bytes =
        _mm256_shuffle_epi8(_mm256_set1_epi64x((long long)window), (__m256i)BYTES_OF(at));
    return _mm256_and_si256(_mm256_srlv_epi32(bytes, (__m256i)SHIFT_OF(at)), mask);
}

FORMAT_TARGET_AVX2 UNPACK_BLOCK unpack_avx2(int bits, const uint8_t *block, int halves, float scale,
                                            int zero, float *out) {
    const __m256i zeros = _mm256_set1_epi32(zero);
    const __m256 scales = _mm256_set1_ps(scale);
    size_t first = halves & LOW ? 0 : HALF, end = halves & HIGH ? BLOCK : HALF;
#pragma GCC unroll 4
    for (size_t i = first; i < end; i += 8, out += 8) {
        __m256i codes = _mm256_sub_epi32(codes_avx2(bits, block, i), zeros);
        _mm256_storeu_ps(out, _mm256_mul_ps(scales, _mm256_cvtepi32_ps(codes)));
    }
}

FORMAT_TARGET_AVX512 static inline __attribute__((always_inline)) __m512i
codes_avx512(int bits, const uint8_t *block, size_t first) {
    const lanes16 at = bits * (lanes16){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const __m512i mask = _mm512_set1_epi32(code_max(bits));
    if (bits == 4) {
        __m512i pairs = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)block));
        return first < HALF ? _mm512_and_si512(pairs, mask) : _mm512_srli_epi32(pairs, 4);
    }
    __mmask16 present = (__mmask16)((1u << 2 * bits) - 1); // the bytes that are these codes'
    __m128i window = _mm_maskz_loadu_epi8(present, block + first / 8 * (size_t)bits);
    __m512i bytes = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(window), (__m512i)BYTES_OF(at));
    return _mm512_and_si512(_mm512_srlv_epi32(bytes, (__m512i)SHIFT_OF(at)), mask);
}

FORMAT_TARGET_AVX512 UNPACK_BLOCK unpack_avx512(int bits, const uint8_t *block, int halves,
                                                float scale, int zero, float *out) {
    const __m512i zeros = _mm512_set1_epi32(zero);
    const __m512 scales = _mm512_set1_ps(scale);
    __m512i low = _mm512_sub_epi32(codes_avx512(bits, block, 0), zeros);
    __m512i high = _mm512_sub_epi32(codes_avx512(bits, block, HALF), zeros);
    if (halves & LOW)
        _mm512_storeu_ps(out, _mm512_mul_ps(scales, _mm512_cvtepi32_ps(low)));
    if (halves & HIGH)
        _mm512_storeu_ps(out + (halves & LOW ? HALF : 0),
                         _mm512_mul_ps(scales, _mm512_cvtepi32_ps(high)));
}
#else
#define unpack_avx2 unpack_scalar
#define unpack_avx512 unpack_scalar
#endif

static inline __attribute__((always_inline)) void
dequantize_packed(int bits, unpack_block *unpack, const struct quant_format *f, const void *data,
                  size_t n, size_t k, size_t row, size_t col, size_t count, float *out) {
    struct quant_planes p;
    if (!quant_planes(f, n, k, &p))
        return;
    const uint8_t *codes = (const uint8_t *)data + row * p.code_stride;
    const uint8_t *zeros = (const uint8_t *)data + p.zeros + row * p.zero_stride;
    size_t end = col + count, block_bytes = BLOCK / 8 * (size_t)bits;
    for (size_t g = col / p.group; col < end; g++) {
        float scale = scale_load((const char *)data + p.scales, p.scale_bytes, row * p.groups + g);
        int zero = zero_load(f, zeros, g, bits);
        size_t group_end = size_min((g + 1) * p.group, end);
        const uint8_t *block = codes + col / BLOCK * block_bytes;
        for (; col + BLOCK <= group_end; col += BLOCK, out += BLOCK, block += block_bytes)
            unpack(bits, block, LOW | HIGH, scale, zero, out);
        bool whole = col / BLOCK * BLOCK + BLOCK <= k; // of a short block there are no halves
        if (whole && col + HALF <= group_end) {
            unpack(bits, block, col % BLOCK ? HIGH : LOW, scale, zero, out);
            col += HALF;
            out += HALF;
        }
        for (; col < group_end; col++)
            *out++ = scale * (float)(unpack_one(codes, k, col, bits) - zero);
    }
}

// ---- the rows of the table ----------------------------------------------------------------------

#define PACKED_FORMAT(id, text, description, width, scale_span, group_size, zero)                  \
    _Static_assert((width) <= MAX_BITS, "a code is a byte while it is made");                      \
    _Static_assert((group_size) == 0 || CHUNK % (group_size) == 0,                                 \
                   "columns are read and packed from multiples of 256 on");                        \
    _Static_assert((group_size) % HALF == 0, "a group is whole halves of blocks");                 \
    const struct quant_format quant_##id = {.name = text,                                          \
                                            .label = description,                                  \
                                            .dtype = DTYPE_BLOCK,                                  \
                                            .bits = width,                                         \
                                            .span = scale_span,                                    \
                                            .group = group_size,                                   \
                                            .zero_point = zero,                                    \
                                            .bytes = quant_planes_bytes,                           \
                                            .quantize = quantize_packed,                           \
                                            .dequantize_ref = dequantize_packed_ref,               \
                                            .dequantize = dequantize_int##width};

#define PACKED_GROUP(width, group)                                                                 \
    PACKED_FORMAT(int##width##_g##group, "int" #width "-g" #group, "int" #width " group " #group,  \
                  width, SPAN_GROUP, group, false)
#define PACKED_GROUP_ZP(width, group)                                                              \
    PACKED_FORMAT(int##width##_g##group##_zp, "int" #width "-g" #group "-zp",                      \
                  "int" #width " group " #group " zero-point", width, SPAN_GROUP, group, true)
#define PACKED_ROW(width)                                                                          \
    PACKED_FORMAT(int##width, "int" #width, "int" #width " per-channel", width, SPAN_ROW, 0, false)
#define PACKED_ROW_ZP(width)                                                                       \
    PACKED_FORMAT(int##width##_zp, "int" #width "-zp", "int" #width " per-channel zero-point",     \
                  width, SPAN_ROW, 0, true)

#define PACKED_SCALAR(bits, ...) dequantize_packed(bits, unpack_scalar, __VA_ARGS__)
#define PACKED_AVX2(bits, ...) dequantize_packed(bits, unpack_avx2, __VA_ARGS__)
#define PACKED_AVX512(bits, ...) dequantize_packed(bits, unpack_avx512, __VA_ARGS__)
#define PACKED_DEQUANTIZE(width)                                                                   \
    FORMAT_VERSIONS_OF(width, dequantize_int##width, PACKED_SCALAR, PACKED_AVX2, PACKED_AVX512)

#define PACKED_WIDTH(width)                                                                        \
    PACKED_DEQUANTIZE(width)                                                                       \
    PACKED_ROW(width)                                                                              \
    PACKED_ROW_ZP(width)                                                                           \
    QUANT_GROUPS(PACKED_GROUP, width)                                                              \
    QUANT_GROUPS(PACKED_GROUP_ZP, width)

PACKED_WIDTH(2)
PACKED_WIDTH(3)
PACKED_WIDTH(4)
PACKED_WIDTH(5)
PACKED_WIDTH(6)

// Symmetric int8 is in format_int8.c.
PACKED_DEQUANTIZE(8)
PACKED_GROUP_ZP(8, 32)
PACKED_GROUP_ZP(8, 64)
PACKED_GROUP_ZP(8, 128)
