// What was measured, under the names in the command line's contract. Tables, CSV and JSON are views
// of rows.
#ifndef NIBBLE_REPORT_RESULT_H
#define NIBBLE_REPORT_RESULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "core/error.h"

// Every numeric key of a row, in the order of CSV columns. X(key)
#define RESULT_NUMBERS(X)                                                                          \
    X(bits_per_weight)                                                                             \
    X(model_bytes)                                                                                 \
    X(file_bytes)                                                                                  \
    X(peak_rss_bytes)                                                                              \
    X(vram_bytes)                                                                                  \
    X(ppl)                                                                                         \
    X(nll)                                                                                         \
    X(ppl_tokens)                                                                                  \
    X(kld_mean)                                                                                    \
    X(kld_p99)                                                                                     \
    X(top1_agree)                                                                                  \
    X(accuracy)                                                                                    \
    X(accuracy_n)                                                                                  \
    X(ttft_ms)                                                                                     \
    X(prefill_tps)                                                                                 \
    X(decode_tps)                                                                                  \
    X(tpot_ms)                                                                                     \
    X(tpot_sd_ms)                                                                                  \
    X(quantize_s)                                                                                  \
    X(rel_error)                                                                                   \
    X(us)                                                                                          \
    X(us_p99)                                                                                      \
    X(gb_s)                                                                                        \
    X(gop_s)                                                                                       \
    X(of_limit)                                                                                    \
    X(d_ratio)

// Which weights bits_per_weight is about where a whole model is meant. Scales and zero-points
// count; norms, biases and what a file adds to keep tensors aligned do not.
#define RESULT_BITS_OF                                                                             \
    "the matrices of the blocks, and the embedding and the head where they are quantized"

// A number that was not measured is NaN and left out of every view. Where ppl_tokens is known, a
// NaN ppl was measured: tables show "nan", JSON null.
struct result_row {
    char config[96];
    char format[48];
#define X(key) double key;
    RESULT_NUMBERS(X)
#undef X
    char *text; // generated text, owned, or NULL
};
void result_row_init(struct result_row *row, const char *config, const char *format);
void result_row_free(struct result_row *row);

struct result_table {
    int phase;
    const char *model, *arch, *text, *device; // NULL where there is none
    const char *isa;      // whose kernels the CPU runs (kernels_level_name); for people only
    const char *ppl_mode; // "full", "half" or NULL
    const char *bits_of;  // the weights that bits_per_weight is about, for a note; NULL: none
    size_t ctx;
    int threads;
    struct result_row *rows;
    size_t n_rows, capacity;
    char note[512]; // a line below the markdown table; "": none
};
// Takes over row (its text included).
bool result_table_add(struct result_table *t, struct result_row *row, struct error *err);
void result_table_free(struct result_table *t);

// The markdown table: one line saying model, text, window and mode; only the columns that some row
// measured, right-aligned, in units people read (GB, t/s); below it which weights bits are counted
// of, the note, and generated text, a quotation for each configuration.
bool result_print_markdown(const struct result_table *t, FILE *f, struct error *err);
bool result_print_json(const struct result_table *t, FILE *f, struct error *err);
// Rows with leading columns phase, model, arch, text, ctx, ppl_mode, threads, device; generated
// text is the last column, "generated".
bool result_print_csv(const struct result_table *t, bool header, FILE *f, struct error *err);
// To a file ("-": stdout). JSON replaces; CSV appends under a header, and fails if the file's
// header is another one.
bool result_write_json(const struct result_table *t, const char *path, struct error *err);
bool result_write_csv(const struct result_table *t, const char *path, struct error *err);
// Appends to results/metrics.csv if SAVE_EVAL_RESULTS is set (to anything but "" and "0"); the same
// columns behind a UTC time stamp.
bool result_save_metrics(const struct result_table *t, struct error *err);

#endif
