// quant/format_ggml: the blocks of GGUF files against recorded ones and plain reference code.
#include "format_data.h"

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
