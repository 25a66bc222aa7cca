// Step 4: codes times activations in int8, summed as integers; a scale of both sides for each
// group. No intrinsics: GCC finds the instructions that add products of bytes, with AVX-512 VNNI
// two of them for a group.

#define group_sum SIMD(group_sum)

// [integers]
// Σ codes * q of one group.
INLINE int32_t group_sum(const uint8_t *codes, const int8_t *q) {
    int32_t low = 0, high = 0;
    for (size_t block = 0; block < LADDER_GROUP / 32; block++, codes += 16, q += 32)
        for (size_t j = 0; j < 16; j++) {
            low += (uint8_t)(codes[j] & 15) * q[j];
            high += (uint8_t)(codes[j] >> 4) * q[16 + j];
        }
    return low + high;
}

// Σ scale (code - 8) x_scale q = Σ over groups of scale x_scale (Σ code q - 8 Σ q).
static void SIMD(integer_rows)(const struct ladder *l) {
    const struct weave_x *x = &l->q;
    const uint8_t *codes = l->codes;
    size_t groups = l->k / LADDER_GROUP;
    for (size_t row = 0; row < l->n; row++) {
        float y = 0, scales[groups];
        convert_f16_f32(l->scales + row * groups, groups, scales);
        for (size_t g = 0; g < groups; g++, codes += LADDER_GROUP / 2) {
            int32_t sum = group_sum(codes, x->q + g * LADDER_GROUP) - 8 * x->sum[g];
            y += scales[g] * x->scale[g] * (float)sum;
        }
        l->y[row] = y;
    }
}
// [/integers]
