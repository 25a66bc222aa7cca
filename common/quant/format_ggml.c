#include "quant/format_ggml.h"

#include "core/memory.h"

bool ggml_bytes(const struct quant_format *f, size_t n, size_t k, size_t *out) {
    size_t row_bytes;
    return k % f->block_weights == 0 &&
           size_mul(k / f->block_weights, f->block_bytes, &row_bytes) &&
           size_mul(n, row_bytes, out);
}

bool ggml_within_reach(const float *w, size_t k, size_t block_weights, float reach,
                       struct ggml_failure *why) {
    for (size_t col = 0; col < k; col += block_weights) {
        float scale = quant_absmax(w + col, block_weights) / reach;
        if (!(scale <= 65504))
            return ggml_fail(why, col, scale);
    }
    return true;
}

bool ggml_quantize(const struct quant_format *f, ggml_encode *encode, const float *w, size_t row,
                   size_t count, size_t n, size_t k, const struct quant_hints *hints, void *out,
                   struct error *err) {
    size_t bytes;
    if (k % f->block_weights != 0)
        return error_set(err, "rows have %zu weights, expected a multiple of %zu for %s", k,
                         f->block_weights, f->label);
    if (!ggml_bytes(f, n, k, &bytes))
        return quant_fail_size(n, k, err);
    size_t row_bytes = k / f->block_weights * f->block_bytes;
    for (size_t r = row; r < row + count; r++, w += k) {
        struct ggml_failure why;
        if (encode(w, k, hints, (uint8_t *)out + r * row_bytes, &why))
            continue;
        size_t len = f->block_weights;
        if (isfinite(quant_absmax(w + why.col, len)))
            return quant_fail_scale(why.scale, sizeof(uint16_t), r, why.col, len, err);
        return quant_fail_not_finite(w + why.col, r, why.col, len, err);
    }
    return true;
}

void ggml_dequantize_ref(const struct quant_format *f, ggml_value *value, const void *data,
                         size_t k, size_t row, size_t col, size_t count, float *out) {
    size_t weights = f->block_weights;
    const uint8_t *blocks = (const uint8_t *)data + row * (k / weights) * f->block_bytes;
    for (size_t i = col; i < col + count; i++)
        out[i - col] = value(blocks + i / weights * f->block_bytes, i % weights);
}
