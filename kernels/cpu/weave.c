#include "kernels/cpu/weave.h"

#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/memory.h"

enum { LINE = 64, QUAD = 4, K4_SUB = 32, K6_SUB = 16 };
// Of 256 columns: the small integers, then the float16s.
enum { K4_LOW = 128, K4_BYTES = 256, K4_D = 192, K4_MIN = 224, K6_BYTES = 288, K6_D = 256 };

static size_t pad(size_t a, size_t multiple) {
    return (a + multiple - 1) / multiple * multiple;
}

static size_t scale_plane(const struct weave *w) {
    size_t supers = w->k / WEAVE_SUPER;
    switch (w->kind.scale) {
    case WEAVE_SCALE_ROW:
        return WEAVE_ROWS * sizeof(float);
    case WEAVE_SCALE_F16:
        return w->groups * WEAVE_ROWS * sizeof(uint16_t);
    case WEAVE_SCALE_F32:
        return w->groups * WEAVE_ROWS * sizeof(float);
    case WEAVE_SCALE_K4:
        return supers * K4_BYTES;
    default:
        return supers * K6_BYTES;
    }
}

static size_t zero_plane(const struct weave *w) {
    if (w->kind.zero == WEAVE_ZERO_GROUP)
        return w->groups * WEAVE_ROWS * (w->kind.bits == 4 ? 4 : 8) / 8;
    return w->kind.zero == WEAVE_ZERO_OFFSET ? w->groups * WEAVE_ROWS * sizeof(uint16_t) : 0;
}

static size_t blocks_of(size_t n) {
    return n / WEAVE_ROWS + (n % WEAVE_ROWS != 0);
}

bool weave_layout(struct weave *w, const struct weave_kind *kind, size_t n, size_t k) {
    enum { MOST = 1 << 26 }; // a block of such rows is 1 GB
    bool super = kind->scale == WEAVE_SCALE_K4 || kind->scale == WEAVE_SCALE_K6;
    *w = (struct weave){.kind = *kind, .n = n, .k = k, .k_padded = pad(k, WEAVE_COLUMNS)};
    bool levels = kind->scale == WEAVE_SCALE_F32; // then all three, else none
    if (k == 0 || k > MOST || (super && k % WEAVE_SUPER) || levels != (kind->levels != NULL) ||
        levels != (kind->step > 0) || (levels && !kind->table))
        return false;
    size_t group = kind->group ? kind->group : w->k_padded;
    w->unit = group < WEAVE_UNIT_MAX ? group : WEAVE_UNIT_MAX;
    w->units = (k + w->unit - 1) / w->unit;
    w->groups = (k + group - 1) / group;
    w->high = pad(w->k_padded * WEAVE_ROWS * (kind->bits == 8 ? 8 : 4) / 8, LINE);
    size_t high_bits = kind->bits == 8 ? 0 : (size_t)kind->bits - 4;
    w->scales = w->high + pad(w->k_padded * WEAVE_ROWS * high_bits / 8, LINE);
    w->zeros = w->scales + pad(scale_plane(w), LINE);
    w->block_bytes = w->zeros + pad(zero_plane(w), LINE);
    size_t bytes;
    return size_mul(blocks_of(n), w->block_bytes, &bytes);
}

size_t weave_bytes(const struct weave *w) {
    return blocks_of(w->n) * w->block_bytes;
}

// ---- a row, spelled out -------------------------------------------------------------------------

bool weave_row_init(struct weave_row *row, const struct weave *w) {
    size_t subs = w->k / K6_SUB + 1;
    *row = (struct weave_row){.codes = calloc(w->k_padded, 1),
                              .scales = calloc(w->groups, sizeof(uint16_t)),
                              .wide_scales = calloc(w->groups, sizeof(float)),
                              .offsets = calloc(w->groups, sizeof(uint16_t)),
                              .zeros = calloc(w->groups, 1),
                              .small = calloc(subs, 1),
                              .small_offsets = calloc(subs, 1)};
    if (row->codes && row->scales && row->wide_scales && row->offsets && row->zeros && row->small &&
        row->small_offsets)
        return true;
    weave_row_free(row);
    return false;
}

void weave_row_free(struct weave_row *row) {
    free(row->codes);
    free(row->scales);
    free(row->wide_scales);
    free(row->offsets);
    free(row->zeros);
    free(row->small);
    free(row->small_offsets);
    *row = (struct weave_row){0};
}

static uint32_t load4(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static void or4(unsigned char *p, uint32_t v) {
    v |= load4(p);
    memcpy(p, &v, sizeof v);
}

// Four codes at a time, as bytes of a word, to the row's four bytes of a line.
static void put_codes(const struct weave *w, unsigned char *at, const uint8_t *codes) {
    unsigned char *high = at + w->high;
    for (size_t q = 0; q < w->k_padded / QUAD; q++) {
        uint32_t four = load4(codes + q * QUAD), top = four >> 4;
        if (w->kind.bits == 8)
            memcpy(at + q * LINE, &four, sizeof four);
        else
            or4(at + q / 2 * LINE, (four & 0x0f0f0f0f) << q % 2 * 4);
        if (w->kind.bits == 5)
            or4(high + q / 8 * LINE, (top & 0x01010101) << q % 8);
        else if (w->kind.bits == 6)
            or4(high + q / 4 * LINE, (top & 0x03030303) << q % 4 * 2);
    }
}

static void get_codes(const struct weave *w, const unsigned char *at, size_t first, size_t count,
                      uint8_t *codes) {
    const unsigned char *high = at + w->high;
    for (size_t q = first / QUAD; q < (first + count + QUAD - 1) / QUAD; q++) {
        uint32_t four = load4(at + (w->kind.bits == 8 ? q : q / 2) * LINE);
        if (w->kind.bits != 8)
            four = four >> q % 2 * 4 & 0x0f0f0f0f;
        if (w->kind.bits == 5)
            four |= (load4(high + q / 8 * LINE) >> q % 8 & 0x01010101) << 4;
        else if (w->kind.bits == 6)
            four |= (load4(high + q / 4 * LINE) >> q % 4 * 2 & 0x03030303) << 4;
        memcpy(codes + q * QUAD - first, &four, sizeof four);
    }
}

static unsigned char *half_at(unsigned char *plane, size_t group, size_t r) {
    return plane + (group * WEAVE_ROWS + r) * sizeof(uint16_t);
}

static unsigned char *float_at(unsigned char *plane, size_t group, size_t r) {
    return plane + (group * WEAVE_ROWS + r) * sizeof(float);
}

// Scale and offset of sub-block j, six bits each: low four in one plane, high two in the next.
static void put_k4(unsigned char *super, size_t r, const struct weave_row *row, size_t s) {
    for (size_t j = 0; j < WEAVE_SUPER / K4_SUB; j++) {
        uint8_t scale = row->small[s * 8 + j], offset = row->small_offsets[s * 8 + j];
        super[j * WEAVE_ROWS + r] = (unsigned char)((scale & 15) | (offset & 15) << 4);
        super[K4_LOW + j % 4 * WEAVE_ROWS + r] |=
            (unsigned char)((scale >> 4 | offset >> 4 << 2) << j / 4 * 4);
    }
    memcpy(half_at(super + K4_D, 0, r), &row->scales[s], sizeof(uint16_t));
    memcpy(half_at(super + K4_MIN, 0, r), &row->offsets[s], sizeof(uint16_t));
}

static void get_k4(unsigned char *super, size_t r, struct weave_row *row, size_t s) {
    for (size_t j = 0; j < WEAVE_SUPER / K4_SUB; j++) {
        unsigned low = super[j * WEAVE_ROWS + r];
        unsigned high = super[K4_LOW + j % 4 * WEAVE_ROWS + r] >> j / 4 * 4;
        row->small[s * 8 + j] = (uint8_t)((low & 15) | (high & 3) << 4);
        row->small_offsets[s * 8 + j] = (uint8_t)(low >> 4 | (high >> 2 & 3) << 4);
    }
    memcpy(&row->scales[s], half_at(super + K4_D, 0, r), sizeof(uint16_t));
    memcpy(&row->offsets[s], half_at(super + K4_MIN, 0, r), sizeof(uint16_t));
}

static void put_scales(const struct weave *w, unsigned char *block, size_t r,
                       const struct weave_row *row) {
    unsigned char *plane = block + w->scales;
    if (w->kind.scale == WEAVE_SCALE_ROW)
        memcpy(plane + r * sizeof(float), &row->row_scale, sizeof(float));
    else if (w->kind.scale == WEAVE_SCALE_F16)
        for (size_t g = 0; g < w->groups; g++)
            memcpy(half_at(plane, g, r), &row->scales[g], sizeof(uint16_t));
    else if (w->kind.scale == WEAVE_SCALE_F32)
        for (size_t g = 0; g < w->groups; g++)
            memcpy(float_at(plane, g, r), &row->wide_scales[g], sizeof(float));
    else if (w->kind.scale == WEAVE_SCALE_K4)
        for (size_t s = 0; s < w->k / WEAVE_SUPER; s++)
            put_k4(plane + s * K4_BYTES, r, row, s);
    else
        for (size_t s = 0; s < w->k / WEAVE_SUPER; s++) {
            unsigned char *super = plane + s * K6_BYTES;
            for (size_t j = 0; j < WEAVE_SUPER / K6_SUB; j++)
                super[j * WEAVE_ROWS + r] = row->small[s * 16 + j];
            memcpy(half_at(super + K6_D, 0, r), &row->scales[s], sizeof(uint16_t));
        }
}

static void get_scales(const struct weave *w, unsigned char *block, size_t r,
                       struct weave_row *row) {
    unsigned char *plane = block + w->scales;
    if (w->kind.scale == WEAVE_SCALE_ROW)
        memcpy(&row->row_scale, plane + r * sizeof(float), sizeof(float));
    else if (w->kind.scale == WEAVE_SCALE_F16)
        for (size_t g = 0; g < w->groups; g++)
            memcpy(&row->scales[g], half_at(plane, g, r), sizeof(uint16_t));
    else if (w->kind.scale == WEAVE_SCALE_F32)
        for (size_t g = 0; g < w->groups; g++)
            memcpy(&row->wide_scales[g], float_at(plane, g, r), sizeof(float));
    else if (w->kind.scale == WEAVE_SCALE_K4)
        for (size_t s = 0; s < w->k / WEAVE_SUPER; s++)
            get_k4(plane + s * K4_BYTES, r, row, s);
    else
        for (size_t s = 0; s < w->k / WEAVE_SUPER; s++) {
            unsigned char *super = plane + s * K6_BYTES;
            for (size_t j = 0; j < WEAVE_SUPER / K6_SUB; j++)
                row->small[s * 16 + j] = super[j * WEAVE_ROWS + r];
            memcpy(&row->scales[s], half_at(super + K6_D, 0, r), sizeof(uint16_t));
        }
}

// Zeros of four bits: rows 0 to 7 below rows 8 to 15.
static void put_zeros(const struct weave *w, unsigned char *plane, size_t r,
                      const struct weave_row *row) {
    for (size_t g = 0; g < w->groups; g++) {
        if (w->kind.zero == WEAVE_ZERO_OFFSET)
            memcpy(half_at(plane, g, r), &row->offsets[g], sizeof(uint16_t));
        else if (w->kind.bits == 4)
            plane[g * 8 + r % 8] |= (unsigned char)(row->zeros[g] << r / 8 * 4);
        else
            plane[g * WEAVE_ROWS + r] = row->zeros[g];
    }
}

static void get_zeros(const struct weave *w, unsigned char *plane, size_t r,
                      struct weave_row *row) {
    for (size_t g = 0; g < w->groups; g++) {
        if (w->kind.zero == WEAVE_ZERO_OFFSET)
            memcpy(&row->offsets[g], half_at(plane, g, r), sizeof(uint16_t));
        else if (w->kind.bits == 4)
            row->zeros[g] = plane[g * 8 + r % 8] >> r / 8 * 4 & 15;
        else
            row->zeros[g] = plane[g * WEAVE_ROWS + r];
    }
}

static bool has_zero_plane(const struct weave *w) {
    return w->kind.zero == WEAVE_ZERO_GROUP || w->kind.zero == WEAVE_ZERO_OFFSET;
}

void weave_put(const struct weave *w, size_t i, const struct weave_row *row) {
    size_t r = i % WEAVE_ROWS;
    unsigned char *block = w->data + i / WEAVE_ROWS * w->block_bytes;
    if (r == 0)
        memset(block, 0, w->block_bytes);
    put_codes(w, block + r * QUAD, row->codes);
    put_scales(w, block, r, row);
    if (has_zero_plane(w))
        put_zeros(w, block + w->zeros, r, row);
}

void weave_get(const struct weave *w, size_t i, struct weave_row *row) {
    size_t r = i % WEAVE_ROWS;
    unsigned char *block = w->data + i / WEAVE_ROWS * w->block_bytes;
    get_codes(w, block + r * QUAD, 0, w->k_padded, row->codes);
    get_scales(w, block, r, row);
    if (has_zero_plane(w))
        get_zeros(w, block + w->zeros, r, row);
}

// ---- reading a row ------------------------------------------------------------------------------

static float half_float(unsigned char *plane, size_t group, size_t r) {
    uint16_t h;
    memcpy(&h, half_at(plane, group, r), sizeof h);
    return f16_to_f32(h);
}

// What column c's codes are multiplied by, what stands for 0, and what is added.
struct meaning {
    float scale, offset;
    int zero;
};

static struct meaning k_meaning(const struct weave *w, unsigned char *plane, size_t r, size_t c) {
    size_t in = c % WEAVE_SUPER, j = in / K4_SUB;
    if (w->kind.scale == WEAVE_SCALE_K6) {
        unsigned char *super = plane + c / WEAVE_SUPER * K6_BYTES;
        int8_t small = (int8_t)super[in / K6_SUB * WEAVE_ROWS + r];
        return (struct meaning){half_float(super + K6_D, 0, r) * small, 0, w->kind.zero_code};
    }
    unsigned char *super = plane + c / WEAVE_SUPER * K4_BYTES;
    unsigned low = super[j * WEAVE_ROWS + r];
    unsigned high = super[K4_LOW + j % 4 * WEAVE_ROWS + r] >> j / 4 * 4;
    float scale = (float)((low & 15) | (high & 3) << 4);
    float offset = (float)(low >> 4 | (high >> 2 & 3) << 4);
    return (struct meaning){half_float(super + K4_D, 0, r) * scale,
                            -(half_float(super + K4_MIN, 0, r) * offset), 0};
}

static struct meaning meaning_of(const struct weave *w, unsigned char *block, size_t r, size_t c) {
    unsigned char *plane = block + w->scales, *zeros = block + w->zeros;
    if (w->kind.scale == WEAVE_SCALE_K4 || w->kind.scale == WEAVE_SCALE_K6)
        return k_meaning(w, plane, r, c);
    struct meaning m = {0, 0, w->kind.zero_code};
    size_t g = w->kind.group ? c / w->kind.group : 0;
    if (w->kind.scale == WEAVE_SCALE_ROW)
        memcpy(&m.scale, plane + r * sizeof(float), sizeof(float));
    else if (w->kind.scale == WEAVE_SCALE_F32)
        memcpy(&m.scale, float_at(plane, g, r), sizeof(float));
    else
        m.scale = half_float(plane, g, r);
    if (w->kind.zero == WEAVE_ZERO_OFFSET)
        m.offset = half_float(zeros, g, r);
    else if (w->kind.zero == WEAVE_ZERO_GROUP)
        m.zero =
            w->kind.bits == 4 ? zeros[g * 8 + r % 8] >> r / 8 * 4 & 15 : zeros[g * WEAVE_ROWS + r];
    return m;
}

void weave_read(const struct weave *w, size_t i, size_t col, size_t count, float *out) {
    size_t r = i % WEAVE_ROWS;
    size_t group = w->unit < WEAVE_COLUMNS ? w->unit : WEAVE_COLUMNS;
    unsigned char *block = w->data + i / WEAVE_ROWS * w->block_bytes;
    for (size_t done = 0; done < count; done += group) {
        uint8_t codes[WEAVE_COLUMNS];
        size_t n = count - done < group ? count - done : group;
        struct meaning m = meaning_of(w, block, r, col + done);
        get_codes(w, block + r * QUAD, col + done, n, codes);
        for (size_t c = 0; c < n; c++) {
            int code = w->kind.table       ? w->kind.table[codes[c]]
                       : w->kind.bits == 8 ? (int8_t)codes[c]
                                           : codes[c];
            float value =
                m.scale * (w->kind.levels ? w->kind.levels[codes[c]] : (float)(code - m.zero));
            out[done + c] = w->kind.zero == WEAVE_ZERO_OFFSET || w->kind.zero == WEAVE_ZERO_K4
                                ? value + m.offset
                                : value;
        }
    }
}
