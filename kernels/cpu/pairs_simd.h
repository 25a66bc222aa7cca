// Pairs of bfloat16, as tiles want them: one of the operands with its rows along k, the other with
// two k side by side for each of 16 columns.

enum {
    STEP = 32,                  // bfloat16 in a row of a tile
    STEP_BYTES = 2 * TILE_BYTES // two tiles of rows, or of columns, side by side
};

// 32 floats as bfloat16, in their order.
INLINE __m512i round_pair(vec low, vec high) {
    return (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
}

// Up to n of 32 floats; zeros behind them.
INLINE __m512i round_part(const float *p, size_t n) {
    return round_pair(vec_load_part(p, n),
                      n > LANES ? vec_load_part(p + LANES, n - LANES) : (vec){0});
}

// The permutation that puts the 16 high halves of a rounded pair between the 16 low ones.
INLINE __m512i pair_order(void) {
    uint16_t interleaved[32];
    for (int i = 0; i < 32; i++)
        interleaved[i] = (uint16_t)(i / 2 + i % 2 * 16);
    return _mm512_loadu_si512(interleaved);
}

// Sixteen rows of 16 pairs become sixteen pairs of 16 rows, `stride` bytes apart: a transpose of
// 32-bit elements.
INLINE void transpose_pairs(__m512i r[16], unsigned char *out, size_t stride) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            b[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + 2 + j]);
            b[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + 2 + j]);
        }
    for (int j = 0; j < 4; j++) {
        a[j] = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x88);
        a[4 + j] = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xdd);
        a[8 + j] = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x88);
        a[12 + j] = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xdd);
    }
    for (int j = 0; j < 4; j++) {
        _mm512_storeu_si512(out + j * stride, _mm512_shuffle_i32x4(a[j], a[8 + j], 0x88));
        _mm512_storeu_si512(out + (8 + j) * stride, _mm512_shuffle_i32x4(a[j], a[8 + j], 0xdd));
        _mm512_storeu_si512(out + (4 + j) * stride,
                            _mm512_shuffle_i32x4(a[4 + j], a[12 + j], 0x88));
        _mm512_storeu_si512(out + (12 + j) * stride,
                            _mm512_shuffle_i32x4(a[4 + j], a[12 + j], 0xdd));
    }
}
