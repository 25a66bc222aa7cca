// Fills the marked places of a Markdown file from the files they name, so that prose cannot drift
// from code and results. Paths start at the repository's root, the current folder.
//
//     <!-- code: common/quant/absmax.c#fn:absmax_scale -->   a function with the comment above it
//     <!-- code: common/quant/format.h#struct:q4_block -->   a struct (or enum:) likewise
//     <!-- code: common/quant/absmax.c#pack -->              from `// [pack]` to `// [/pack]`
//     <!-- table: results/phase2.md -->                      the file as it is
//     <!-- table: results/phase2.csv columns=config,ppl -->  a table made of a CSV file
//     <!-- output: results/phase2.txt -->                    what a program printed
//     <!-- end -->                                           closes each of them
//
// What stands between a marker and its end is replaced. Markers inside fenced blocks are left
// alone.
#ifndef NIBBLE_REPORT_EXPAND_H
#define NIBBLE_REPORT_EXPAND_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

// The file's text with all places filled, for the caller to free; NULL with "path:line: …" where a
// marker is not closed or its source is missing. *drifted_line (may be NULL) is the first line that
// differs from what the file has now, 0 if none does.
char *expand_file(const char *path, size_t *drifted_line, struct error *err);

#endif
