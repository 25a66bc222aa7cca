// One row of activations to int8, unit by unit.
#define abs_bits SIMD(abs_bits)

typedef int8_t SIMD(signed_bytes) __attribute__((vector_size(LANES)));

INLINE ivec abs_bits(vec v) {
    return (ivec)v & 0x7fffffff;
}

static void SIMD(weave_x_row)(const struct weave_x *out, size_t i, const float *x) {
    int8_t *q = out->q + i * out->q_stride;
    for (size_t u = 0; u < out->units; u++) {
        size_t from = u * out->unit, to = min_size(from + out->unit, out->q_stride);
        ivec most = {0}, sum = {0}; // bits of magnitudes are ordered like them, NaN above all
        for (size_t c = from; c < to && c < out->k; c += LANES) {
            ivec bits = abs_bits(vec_load_part(x + c, out->k - c));
            most = (ivec)vec_select(bits > most, (vec)bits, (vec)most);
        }
        int32_t largest_bits = 0;
        for (int lane = 0; lane < LANES; lane++)
            largest_bits = most[lane] > largest_bits ? most[lane] : largest_bits;
        float largest;
        memcpy(&largest, &largest_bits, sizeof largest);
        float inverse = 127.0f / largest;
        bool usable = inverse < INFINITY && inverse > 0;
        for (size_t c = from; c < to; c += LANES) {
            vec v = c < out->k && usable ? vec_load_part(x + c, out->k - c) * inverse : (vec){0};
            ivec steps = (ivec)(v + 0x1.8p23f) - 0x4b400000;
            SIMD(signed_bytes) bytes = __builtin_convertvector(steps, SIMD(signed_bytes));
            memcpy(q + c, &bytes, sizeof bytes);
            sum += steps;
        }
        int32_t total = 0;
        for (int lane = 0; lane < LANES; lane++)
            total += sum[lane];
        size_t at = i * out->units + u;
        out->scale[at] = largest / 127.0f;
        out->sum[at] = total;
        out->scaled_sum[at] = out->scale[at] * (float)total;
    }
}
