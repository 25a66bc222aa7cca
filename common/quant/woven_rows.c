// Two families: planes (format.h: codes, then scales, then zeros) and blocks that hold weights with
// their scales, GGUF's 32 or 256 and NF4's 64. Only the order of the bytes is told here; what they
// mean is told where the formats are defined.
#include "quant/woven_rows.h"

#include <string.h>

#include "quant/format_shared.h"
#include "quant/woven.h"

enum {
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ4_NL = 20
};

// NF4's values (format_nf4.c) in the 112ths of a block's largest that they are nearest to: of all
// steps that keep within int8, 1/112.03 leaves the least error, a root mean square of 0.0017 of the
// largest if all codes are equally likely.
static const int8_t nf4_table[16] = {-112, -78, -59, -44, -32, -21, -10, 0,
                                     9,    18,  28,  38,  49,  63,  81,  112};
static const float nf4_steps = 112.03f;

static bool block_kind(int type, struct weave_kind *kind) {
    const struct weave_kind f16 = {.bits = 4, .group = 32, .scale = WEAVE_SCALE_F16};
    const struct weave_kind k4 = {
        .bits = 4, .group = 32, .scale = WEAVE_SCALE_K4, .zero = WEAVE_ZERO_K4};
    *kind = type == Q4_K || type == Q5_K ? k4 : f16;
    if (type == Q5_0 || type == Q5_1 || type == Q5_K)
        kind->bits = 5;
    if (type == Q8_0)
        kind->bits = 8;
    if (type == Q4_0 || type == Q5_0)
        kind->zero_code = type == Q4_0 ? 8 : 16;
    if (type == Q4_1 || type == Q5_1)
        kind->zero = WEAVE_ZERO_OFFSET;
    if (type == IQ4_NL)
        kind->table = quant_iq4_values;
    if (type == Q6_K)
        *kind =
            (struct weave_kind){.bits = 6, .group = 16, .scale = WEAVE_SCALE_K6, .zero_code = 32};
    static const int known[] = {Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_NL};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i] == type)
            return true;
    return false;
}

bool woven_kind(const struct quant_format *f, size_t k, struct weave_kind *kind) {
    struct weave w;
    if (!f || f->dtype != DTYPE_BLOCK)
        return false;
    if (f->block_weights) {
        if (f == &quant_nf4)
            *kind = (struct weave_kind){.bits = 4,
                                        .group = f->block_weights,
                                        .scale = WEAVE_SCALE_F32,
                                        .table = nf4_table,
                                        .levels = quant_nf4_values,
                                        .step = 1 / nf4_steps};
        else if (!block_kind(f->gguf_type - 1, kind))
            return false;
        if (k % f->block_weights)
            return false;
    } else {
        bool packed = f->bits >= 4 && f->bits <= 6;
        if ((!packed && f->bits != 8) || (f->bits == 8 && f->zero_point))
            return false;
        *kind =
            (struct weave_kind){.bits = f->bits,
                                .group = f->span == SPAN_GROUP ? f->group : 0,
                                .scale = f->span == SPAN_GROUP ? WEAVE_SCALE_F16 : WEAVE_SCALE_ROW,
                                .zero = f->zero_point ? WEAVE_ZERO_GROUP : WEAVE_ZERO_ALL};
        if (packed && !f->zero_point)
            kind->zero_code = 1 << (f->bits - 1);
    }
    return weave_layout(&w, kind, WEAVE_ROWS, k);
}

size_t woven_row_bytes(const struct tensor *w) {
    const struct quant_format *f = w->format;
    struct quant_planes p = {0};
    if (f->block_weights)
        return w->shape[1] / f->block_weights * f->block_bytes;
    return quant_planes(f, w->shape[0], w->shape[1], &p) ? p.code_stride : 0;
}

// ---- planes -----------------------------------------------------------------------------------

// Code i of codes that lie one after another.
static uint8_t packed_code(const uint8_t *bytes, size_t i, int bits) {
    size_t at = i * (size_t)bits, shift = at % 8;
    unsigned window = bytes[at / 8];
    if (shift + (size_t)bits > 8)
        window |= (unsigned)bytes[at / 8 + 1] << 8;
    return (uint8_t)(window >> shift & ((1u << bits) - 1));
}

// Blocks of 32: byte j holds weight j below weight j + 16; a last block of n < 32, j and
// j + (n + 1) / 2.
static void split_nibbles(const uint8_t *bytes, size_t n, uint8_t *codes) {
    size_t half = (n + 1) / 2;
    for (size_t j = 0; j < half; j++) {
        codes[j] = bytes[j] & 15;
        if (half + j < n)
            codes[half + j] = bytes[j] >> 4;
    }
}

static void read_planes(const struct tensor *w, size_t i, struct weave_row *row) {
    const struct quant_format *f = w->format;
    size_t k = w->shape[1];
    struct quant_planes p;
    if (!quant_planes(f, w->shape[0], k, &p))
        return;
    const uint8_t *data = w->data, *codes = data + i * p.code_stride;
    if (f->bits == 8)
        memcpy(row->codes, codes, k);
    else if (f->bits == 4)
        for (size_t c = 0; c < k; c += 32)
            split_nibbles(codes + c / 2, k - c < 32 ? k - c : 32, row->codes + c);
    else
        for (size_t c = 0; c < k; c++)
            row->codes[c] = packed_code(codes, c, f->bits);
    size_t first = f->span == SPAN_TENSOR ? 0 : i * p.groups;
    if (p.scale_bytes == sizeof(float))
        memcpy(&row->row_scale, data + p.scales + first * sizeof(float), sizeof(float));
    else
        memcpy(row->scales, data + p.scales + first * sizeof(uint16_t),
               p.groups * sizeof(uint16_t));
    for (size_t g = 0; f->zero_point && g < p.groups; g++)
        row->zeros[g] = packed_code(data + p.zeros + i * p.zero_stride, g, f->bits);
}

// ORs: a byte may have bits of two codes.
static void put_packed_code(uint8_t *bytes, size_t i, int bits, uint8_t code) {
    size_t at = i * (size_t)bits, shift = at % 8;
    unsigned window = (code & ((1u << bits) - 1)) << shift;
    bytes[at / 8] |= (uint8_t)window;
    if (shift + (size_t)bits > 8)
        bytes[at / 8 + 1] |= (uint8_t)(window >> 8);
}

static void join_nibbles(const uint8_t *codes, size_t n, uint8_t *bytes) {
    size_t half = (n + 1) / 2;
    for (size_t j = 0; j < half; j++)
        bytes[j] = (uint8_t)((codes[j] & 15) | (half + j < n ? codes[half + j] << 4 : 0));
}

// The one scale of a whole matrix (SPAN_TENSOR) is written with its first row.
static void write_planes(const struct tensor *w, size_t i, const struct weave_row *row,
                         uint8_t *data) {
    const struct quant_format *f = w->format;
    size_t k = w->shape[1];
    struct quant_planes p;
    if (!quant_planes(f, w->shape[0], k, &p))
        return;
    uint8_t *codes = data + i * p.code_stride;
    if (f->bits == 8)
        memcpy(codes, row->codes, k);
    else if (f->bits == 4)
        for (size_t c = 0; c < k; c += 32)
            join_nibbles(row->codes + c, k - c < 32 ? k - c : 32, codes + c / 2);
    else
        for (size_t c = 0; c < k; c++)
            put_packed_code(codes, c, f->bits, row->codes[c]);
    if (p.scale_bytes == sizeof(uint16_t))
        memcpy(data + p.scales + i * p.groups * sizeof(uint16_t), row->scales,
               p.groups * sizeof(uint16_t));
    else if (f->span != SPAN_TENSOR || i == 0)
        memcpy(data + p.scales + i * sizeof(float), &row->row_scale, sizeof(float));
    for (size_t g = 0; f->zero_point && g < p.groups; g++)
        put_packed_code(data + p.zeros + i * p.zero_stride, g, f->bits, row->zeros[g]);
}

// ---- blocks -----------------------------------------------------------------------------------

// 32 weights: scale, offset (…_1), fifth bits (Q5_…), codes.
static void read_block_32(int type, const uint8_t *block, size_t b, struct weave_row *row) {
    uint8_t *codes = row->codes + 32 * b;
    uint32_t high = 0;
    memcpy(&row->scales[b], block, sizeof(uint16_t));
    block += sizeof(uint16_t);
    if (type == Q8_0) {
        memcpy(codes, block, 32);
        return;
    }
    if (type == Q4_1 || type == Q5_1) {
        memcpy(&row->offsets[b], block, sizeof(uint16_t));
        block += sizeof(uint16_t);
    }
    if (type == Q5_0 || type == Q5_1) {
        memcpy(&high, block, sizeof high);
        block += sizeof high;
    }
    split_nibbles(block, 32, codes);
    for (size_t j = 0; high && j < 32; j++)
        codes[j] |= (uint8_t)((high >> j & 1) << 4);
}

static void write_block_32(int type, const struct weave_row *row, size_t b, uint8_t *block) {
    const uint8_t *codes = row->codes + 32 * b;
    uint32_t high = 0;
    memcpy(block, &row->scales[b], sizeof(uint16_t));
    block += sizeof(uint16_t);
    if (type == Q8_0) {
        memcpy(block, codes, 32);
        return;
    }
    if (type == Q4_1 || type == Q5_1) {
        memcpy(block, &row->offsets[b], sizeof(uint16_t));
        block += sizeof(uint16_t);
    }
    if (type == Q5_0 || type == Q5_1) {
        for (size_t j = 0; j < 32; j++)
            high |= (uint32_t)(codes[j] >> 4 & 1) << j;
        memcpy(block, &high, sizeof high);
        block += sizeof high;
    }
    join_nibbles(codes, 32, block);
}

// Two float16s, eight scales and offsets of six bits in 12 bytes, fifth bits (Q5_K), codes.
static void read_block_k4(int type, const uint8_t *block, size_t b, struct weave_row *row) {
    const uint8_t *s = block + 4, *high = block + 16, *low = high + (type == Q5_K ? 32 : 0);
    memcpy(&row->scales[b], block, sizeof(uint16_t));
    memcpy(&row->offsets[b], block + 2, sizeof(uint16_t));
    for (size_t j = 0; j < 8; j++) {
        uint8_t *scale = &row->small[8 * b + j], *offset = &row->small_offsets[8 * b + j];
        *scale = j < 4 ? s[j] & 63 : (uint8_t)((s[j + 4] & 15) | s[j - 4] >> 6 << 4);
        *offset = j < 4 ? s[j + 4] & 63 : (uint8_t)(s[j + 4] >> 4 | s[j] >> 6 << 4);
    }
    uint8_t *codes = row->codes + 256 * b;
    for (size_t j = 0; j < 256; j++) {
        size_t byte = j / 64 * 32 + j % 32;
        codes[j] = low[byte] >> j / 32 % 2 * 4 & 15;
        if (type == Q5_K)
            codes[j] |= (uint8_t)((high[j % 32] >> j / 32 & 1) << 4);
    }
}

static void write_block_k4(int type, const struct weave_row *row, size_t b, uint8_t *block) {
    uint8_t *s = block + 4, *high = block + 16, *low = high + (type == Q5_K ? 32 : 0);
    const uint8_t *scale = row->small + 8 * b, *offset = row->small_offsets + 8 * b;
    memcpy(block, &row->scales[b], sizeof(uint16_t));
    memcpy(block + 2, &row->offsets[b], sizeof(uint16_t));
    for (size_t j = 0; j < 4; j++) {
        s[j] = (uint8_t)(scale[j] | scale[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)(offset[j] | offset[j + 4] >> 4 << 6);
        s[j + 8] = (uint8_t)((scale[j + 4] & 15) | (offset[j + 4] & 15) << 4);
    }
    const uint8_t *codes = row->codes + 256 * b;
    for (size_t i = 0; i < 128; i++) { // byte i: codes 32 apart, of which 64 begin at `first`
        size_t first = i / 32 * 64 + i % 32;
        low[i] = (uint8_t)((codes[first] & 15) | (codes[first + 32] & 15) << 4);
    }
    for (size_t l = 0; type == Q5_K && l < 32; l++) {
        high[l] = 0;
        for (size_t j = 0; j < 8; j++)
            high[l] |= (uint8_t)((codes[32 * j + l] >> 4 & 1) << j);
    }
}

// Low four bits, high two, scales, one float16; each half of 128 weights in four strands of 32.
static void read_block_k6(const uint8_t *block, size_t b, struct weave_row *row) {
    uint8_t *codes = row->codes + 256 * b;
    for (size_t j = 0; j < 256; j++) {
        size_t half = j / 128, strand = j % 128 / 32, l = j % 32;
        unsigned low = block[64 * half + 32 * (strand % 2) + l] >> strand / 2 * 4 & 15;
        unsigned high = block[128 + 32 * half + l] >> strand * 2 & 3;
        codes[j] = (uint8_t)(low | high << 4);
    }
    memcpy(row->small + 16 * b, block + 192, 16);
    memcpy(&row->scales[b], block + 208, sizeof(uint16_t));
}

static void write_block_k6(const struct weave_row *row, size_t b, uint8_t *block) {
    const uint8_t *codes = row->codes + 256 * b;
    memset(block, 0, 192);
    for (size_t j = 0; j < 256; j++) {
        size_t half = j / 128, strand = j % 128 / 32, l = j % 32;
        block[64 * half + 32 * (strand % 2) + l] |= (uint8_t)((codes[j] & 15) << strand / 2 * 4);
        block[128 + 32 * half + l] |= (uint8_t)((codes[j] >> 4 & 3) << strand * 2);
    }
    memcpy(block + 192, row->small + 16 * b, 16);
    memcpy(block + 208, &row->scales[b], sizeof(uint16_t));
}

// One float32, then pairs of codes, the first above (format_nf4.c).
static void read_block_nf4(const uint8_t *block, size_t b, struct weave_row *row) {
    uint8_t *codes = row->codes + 64 * b;
    memcpy(&row->wide_scales[b], block, sizeof(float));
    block += sizeof(float);
    for (size_t j = 0; j < 64; j++)
        codes[j] = block[j / 2] >> (j % 2 ? 0 : 4) & 15;
}

static void write_block_nf4(const struct weave_row *row, size_t b, uint8_t *block) {
    const uint8_t *codes = row->codes + 64 * b;
    memcpy(block, &row->wide_scales[b], sizeof(float));
    block += sizeof(float);
    for (size_t j = 0; j < 32; j++)
        block[j] = (uint8_t)(codes[2 * j] << 4 | codes[2 * j + 1]);
}

// ---- rows -------------------------------------------------------------------------------------

void woven_row_read(const struct tensor *w, size_t i, struct weave_row *row) {
    const struct quant_format *f = w->format;
    if (!f->block_weights) {
        read_planes(w, i, row);
        return;
    }
    int type = f->gguf_type - 1;
    size_t blocks = w->shape[1] / f->block_weights;
    const uint8_t *block = (const uint8_t *)w->data + i * blocks * f->block_bytes;
    for (size_t b = 0; b < blocks; b++, block += f->block_bytes) {
        if (f == &quant_nf4)
            read_block_nf4(block, b, row);
        else if (f->block_weights == 32)
            read_block_32(type, block, b, row);
        else if (type == Q6_K)
            read_block_k6(block, b, row);
        else
            read_block_k4(type, block, b, row);
    }
}

void woven_row_write(const struct tensor *w, size_t i, const struct weave_row *row, void *data) {
    const struct quant_format *f = w->format;
    if (!f->block_weights) {
        write_planes(w, i, row, data);
        return;
    }
    int type = f->gguf_type - 1;
    size_t blocks = w->shape[1] / f->block_weights;
    uint8_t *block = (uint8_t *)data + i * blocks * f->block_bytes;
    for (size_t b = 0; b < blocks; b++, block += f->block_bytes) {
        if (f == &quant_nf4)
            write_block_nf4(row, b, block);
        else if (f->block_weights == 32)
            write_block_32(type, row, b, block);
        else if (type == Q6_K)
            write_block_k6(row, b, block);
        else
            write_block_k4(type, row, b, block);
    }
}
