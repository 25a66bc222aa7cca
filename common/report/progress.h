// A progress bar on stderr: only on a terminal, only for work longer than about half a second, with
// rate and time left. Colours follow NO_COLOR.
//
//     perplexity  42 % ━━━━━━━━━━━━━━────────────────────  12.3k/29.3k tokens  812/s  0:21 left
#ifndef NIBBLE_REPORT_PROGRESS_H
#define NIBBLE_REPORT_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
    char label[64];
    const char *unit; // "tokens", "tensors"; "B" shows MB and GB
    double start, shown;
    bool active, drawn;
};

// For all bars of the process: --quiet. (The one global here: there is one terminal.)
void progress_set_quiet(bool quiet);
void progress_start(struct progress *p, const char *label, const char *unit);
// note: a few words shown at the end ("ppl 12.3"), or NULL. total 0: unknown.
void progress_update(struct progress *p, uint64_t done, uint64_t total, const char *note);
void progress_finish(struct progress *p); // clears the line

// What update draws after `elapsed` seconds, in at most `columns` columns: first the bar gives way,
// then the note.
void progress_format(const struct progress *p, double elapsed, uint64_t done, uint64_t total,
                     const char *note, int columns, bool colour, char *out, size_t out_size);

#endif
