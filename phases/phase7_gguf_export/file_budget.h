// --bits and --size: the best mix of GGUF's types for a file.
#ifndef NIBBLE_PHASE7_FILE_BUDGET_H
#define NIBBLE_PHASE7_FILE_BUDGET_H

#include "lab/lab.h"

#define FILE_BUDGET_FORMATS "q2_k,q3_k,iq4_xs,iq4_nl,q4_k,q5_0,q5_k,q6_k,q8_0"

struct file_budget_flags {
    float bits;          // 0: not given
    const char *size;    // or NULL
    const char *formats; // names joined by ','; NULL: FILE_BUDGET_FORMATS
};

struct file_budget {
    const struct quant_format **formats; // the candidates
    size_t n_formats;                    // 0: there is no budget
    size_t bytes;                        // of the matrices that are chosen for
    bool padded;                         // each as it lies in a file: --size
};

// What the flags ask for; model: its name, which is in the file too. Fails where no mix can do it,
// naming the least that one can: that follows from shapes alone. A command line that makes no sense
// ends the program.
bool file_budget_open(struct file_budget *b, const struct lab *lab, const char *model,
                      const struct file_budget_flags *flags, struct error *err);
void file_budget_close(struct file_budget *b);
// Measures every matrix in every format, or reads in `folder` what was measured before, and solves.
// mix: a rule for each matrix that --only and --skip leave; recipe_free frees it.
bool file_budget_solve(const struct file_budget *b, const struct lab *lab, const char *folder,
                       struct recipe *mix, struct error *err);

#endif
