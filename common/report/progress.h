// A progress bar on stderr, for work longer than about half a second, with rate and time left.
// Colours follow NO_COLOR.
//
//     perplexity  42 % ━━━━━━━━━━━━━━────────────────────  12.3k/29.3k tokens  812/s  0:21 left
//
// Where stderr is no terminal (a log, a pipe) the same without a bar, as a line of its own, once in
// 30 seconds of the process: who reads a log knows that it goes on, and short work says nothing.
#ifndef NIBBLE_REPORT_PROGRESS_H
#define NIBBLE_REPORT_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
    char label[64];
    const char *unit;    // "tokens", "tensors"; "B" shows MB and GB
    double start, shown; // shown: for plain lines, when the process last printed one
    double left;         // seconds, where the caller knows better than the rate so far; or 0
    bool active, plain, drawn;
};

// For all bars of the process: --quiet. (This and the time of the last plain line are the globals
// here: there is one stderr.)
void progress_set_quiet(bool quiet);
void progress_start(struct progress *p, const char *label, const char *unit);
// note: a few words shown at the end ("ppl 12.3"), or NULL. total 0: unknown.
void progress_update(struct progress *p, uint64_t done, uint64_t total, const char *note);
void progress_finish(struct progress *p); // clears the line

// What update draws after `elapsed` seconds, in at most `columns` columns: first the bar gives way,
// then the note. columns 0: a plain line, whole and without a bar.
void progress_format(const struct progress *p, double elapsed, uint64_t done, uint64_t total,
                     const char *note, int columns, bool colour, char *out, size_t out_size);

#endif
