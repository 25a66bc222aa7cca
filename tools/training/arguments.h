// The command line of tools/train: one table of flags; parsing, checking, defaults.
#ifndef NIBBLE_TOOLS_TRAINING_ARGUMENTS_H
#define NIBBLE_TOOLS_TRAINING_ARGUMENTS_H

#include "train/trainer.h"

struct train_job {
    const char *config, *data, *ids, *tokenizer, *valid, *out, *log;
    const char *init; // a checkpoint to start from; NULL: random weights
    char *state;      // owned
    struct train_options options;
    double save_minutes;
    uint64_t snapshot;  // step of the first snapshot, 0: none; the next ones each at twice the step
    bool documents;     // windows begin with a document
    double first_lines; // share of the tokens in documents' first lines that is scored
    bool resume;
};

// Prints to stderr and exits 2 on a bad command line; prints the usage and exits 0 on --help. Sets
// the number of threads and whether there is a progress bar.
struct train_job train_job_parse(int argc, char **argv);

#endif
