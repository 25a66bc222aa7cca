// The layout of kernels 6 and on: a stream of records, each 16 rows by 128 columns of the matrix,
// codes first and then the scales that belong to them. Records go along a row of tiles, then down:
//
//     tile row 0, columns 0…127 | tile row 0, columns 128…255 | … | tile row 1, columns 0…127 | …
//     | codes, 16·bits bytes per lane pair | scales of group 0: 16 halves | group 1 … | zeros … |
//
// Within a record the codes lie as the tensor cores want them. A product m16n8k16 takes from lane
// `4g + t` of a warp the weights of rows g and g + 8 at four places k; which four columns these are
// is ours to choose, as long as x is read at the same ones. We let lane t have eight columns in a
// row of x, 16 bytes, for every two products:
//
//     product p, lane t:   columns p/2·32 + t·8 + p%2·4 + {0, 1, 2, 3}
//
// and one 16-byte load of a lane's codes feeds four products of INT4, two of INT8, one of F16.
// In INT4 a 32-bit word is one product of one lane; (r, c): row g + 8r, column c of the four:
//
//     bits 31…28  27…24  23…20  19…16  15…12  11…8   7…4    3…0
//          (1,3)  (0,3)  (1,1)  (0,1)  (1,2)  (0,2)  (1,0)  (0,0)
//
// so that word & 0x000f000f is the pair of columns 0 and 1 of row g, each in its own half.
// INT8: a word is two columns of both rows, bytes (0,0) (1,0) (0,1) (1,1), as code + 128.
// Scales of a group: pairs (row g, row g + 8). Scales per row (float32) follow all records.
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/packed.h"

static unsigned divide_up(unsigned a, unsigned b) {
    return a / b + (a % b != 0);
}

bool cuda_packed_shape(const struct cuda_matrix *w, struct packed_shape *s) {
    int bits = w->format == CUDA_F16    ? 16
               : w->format == CUDA_INT8 ? 8
               : w->format == CUDA_INT4 ? 4
                                        : 0;
    bool grouped = w->scales && !w->wide_scales;
    bool fits = w->group == 32 || w->group == 64 || (w->group && w->group % PACKED_COLUMNS == 0);
    if (!bits || w->n == 0 || w->k == 0 || (grouped && !fits) || (w->zeros && !grouped))
        return false;
    *s = (struct packed_shape){.bits = (unsigned)bits,
                               .tiles = divide_up(w->n, PACKED_ROWS),
                               .records = divide_up(w->k, PACKED_COLUMNS),
                               .row_scales = bits < 16 && !grouped,
                               .zeros = w->zeros != NULL};
    s->sets = !grouped ? 0 : w->group < PACKED_COLUMNS ? PACKED_COLUMNS / w->group : 1;
    s->code_bytes = PACKED_ROWS * PACKED_COLUMNS / 8 * s->bits;
    s->record_bytes = s->code_bytes + s->sets * PACKED_ROWS * 2 * (s->zeros ? 2 : 1);
    s->scales = (size_t)s->tiles * s->records * s->record_bytes;
    s->bytes = s->scales + (s->row_scales ? (size_t)s->tiles * PACKED_ROWS * sizeof(float) : 0);
    return true;
}

bool cuda_pack_bytes(const struct cuda_matrix *w, size_t *bytes) {
    struct packed_shape s;
    if (!cuda_packed_shape(w, &s))
        return false;
    *bytes = s.bytes;
    return true;
}

static unsigned nibble_at(const uint8_t *codes, unsigned k, unsigned col) {
    unsigned block = col / 32 * 32, length = k - block < 32 ? k - block : 32;
    unsigned half = (length + 1) / 2, i = col - block;
    return i < half ? codes[block / 2 + i] & 15 : codes[block / 2 + i - half] >> 4;
}

static unsigned zero_at(const struct cuda_matrix *w, unsigned row, unsigned col) {
    if (!w->zeros || row >= w->n || col >= w->k)
        return 8;
    unsigned g = col / w->group;
    return w->zeros[row * w->zero_bytes + g / 2] >> (g % 2 ? 4 : 0) & 15;
}

// The bits of one weight; outside the matrix, of the weight 0.
static unsigned code_at(const struct cuda_matrix *w, unsigned row, unsigned col) {
    const uint8_t *codes = (const uint8_t *)w->codes + row * w->row_bytes;
    bool inside = row < w->n && col < w->k;
    uint16_t half;
    switch (w->format) {
    case CUDA_F16:
        if (!inside)
            return 0;
        memcpy(&half, codes + 2 * (size_t)col, 2);
        return half;
    case CUDA_INT8:
        return inside ? codes[col] ^ 128u : 128;
    default:
        return inside ? nibble_at(codes, w->k, col) : zero_at(w, row, col);
    }
}

// Word `i` of lane's words of a record, each with 32 / bits codes.
static uint32_t word_at(const struct cuda_matrix *w, unsigned bits, unsigned row0, unsigned col0,
                        unsigned lane, unsigned i) {
    unsigned per_product = bits / 4; // words
    unsigned p = i / per_product, part = i % per_product;
    unsigned row = row0 + lane / 4, col = col0 + p / 2 * 32 + lane % 4 * 8 + p % 2 * 4;
    uint32_t word = 0;
    for (unsigned n = 0; n < 32 / bits; n++) {
        unsigned r, c;
        if (bits == 16) // words a0 … a3 of the product: rows alternate, then columns
            r = part % 2, c = part / 2 * 2 + n;
        else if (bits == 8)
            r = n % 2, c = part * 2 + n / 2;
        else // nibble n: rows alternate, column pairs are 16 bits apart
            r = n % 2, c = n / 2 % 2 * 2 + n / 4;
        word |= code_at(w, row + 8 * r, col + c) << bits * n;
    }
    return word;
}

static uint16_t scale_bits(const struct cuda_matrix *w, unsigned row, unsigned col) {
    uint16_t half = 0;
    if (row < w->n && col < w->k)
        memcpy(&half, (const uint16_t *)w->scales + (size_t)row * w->groups + col / w->group, 2);
    return half;
}

static void pack_record(const struct cuda_matrix *w, const struct packed_shape *s, unsigned row,
                        unsigned col, uint8_t *out) {
    for (unsigned load = 0; load < s->code_bytes / 512; load++)
        for (unsigned lane = 0; lane < 32; lane++)
            for (unsigned i = 0; i < 4; i++, out += 4)
                memcpy(out, &(uint32_t){word_at(w, s->bits, row, col, lane, load * 4 + i)}, 4);
    unsigned columns = s->sets ? PACKED_COLUMNS / s->sets : 0;
    for (unsigned set = 0; set < s->sets; set++)
        for (unsigned i = 0; i < PACKED_ROWS; i++, out += 2)
            memcpy(out, &(uint16_t){scale_bits(w, row + i / 2 + i % 2 * 8, col + set * columns)},
                   2);
    for (unsigned set = 0; s->zeros && set < s->sets; set++)
        for (unsigned i = 0; i < PACKED_ROWS; i++, out += 2) {
            unsigned zero = zero_at(w, row + i / 2 + i % 2 * 8, col + set * columns);
            memcpy(out, &(uint16_t){(uint16_t)(0x6400 + zero)}, 2); // the half 1024 + zero
        }
}

void cuda_pack(const struct cuda_matrix *w, void *out) {
    struct packed_shape s;
    if (!cuda_packed_shape(w, &s))
        return;
#pragma omp parallel for
    for (unsigned tile = 0; tile < s.tiles; tile++)
        for (unsigned i = 0; i < s.records; i++)
            pack_record(w, &s, tile * PACKED_ROWS, i * PACKED_COLUMNS,
                        (uint8_t *)out + ((size_t)tile * s.records + i) * s.record_bytes);
    for (unsigned row = 0; s.row_scales && row < s.tiles * PACKED_ROWS; row++)
        memcpy((uint8_t *)out + s.scales + row * sizeof(float),
               &(float){row < w->n ? ((const float *)w->scales)[row] : 0}, sizeof(float));
}
