// Multiple choice: the answer a language model finds most likely.
//
// One JSON object per line; three spellings are read:
//     {"context": "…", "choices": ["…", …], "answer": 2}      this project's
//     {"ctx": "…", "endings": ["…", …], "label": 2}           HellaSwag's
//     {"query": "…", "choices": ["…", …], "gold": 2}          as ARC and PIQA are often shared
// A choice's score is the log-likelihood of its text after the context. Choices of different length
// are compared per byte of text (lm-evaluation-harness calls this acc_norm), so that a short answer
// is not preferred for being short.
#ifndef NIBBLE_EVAL_CHOICES_H
#define NIBBLE_EVAL_CHOICES_H

#include "model/model.h"
#include "text/tokenizer.h"

enum { CHOICES_MAX = 16 };

struct question {
    char *context;
    char *choices[CHOICES_MAX];
    size_t n_choices, answer;
};

struct question_list {
    struct question *questions;
    size_t n;
};

// Reads a file; errors name the line.
bool questions_read(struct question_list *list, const char *path, struct error *err);
bool questions_parse(struct question_list *list, const char *text, size_t size, const char *name,
                     struct error *err);
void questions_free(struct question_list *list);

struct choices_result {
    size_t asked, right;
    double accuracy;
};

typedef void choices_progress(void *user, size_t done, size_t total, size_t right);

// Asks the first `limit` questions (0: all). The context runs through the model once, every choice
// continues from its cache.
bool choices_score(const struct model *m, const struct tokenizer *t,
                   const struct question_list *list, size_t limit, struct choices_result *result,
                   choices_progress *progress, void *user, struct error *err);

#endif
