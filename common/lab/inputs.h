// What the flags name and a lab reads: the model's place, texts, a prompt, questions. For lab.c.
#ifndef NIBBLE_LAB_INPUTS_H
#define NIBBLE_LAB_INPUTS_H

#include "lab/lab.h"

// Where --model is: a folder in the Hugging Face layout or a GGUF file, downloaded if it is a name
// that is not here yet; NULL: the bundled one. The caller frees it; NULL with a message.
char *inputs_find_model(const char *model, struct error *err);

// Whether this is a file that the flags have us read, by whatever name: a text, a recipe, a part of
// the model in lab->folder.
bool inputs_read_file(const struct lab *lab, const char *path);
// Ends the program (cli_usage_error) if a file of results, as flags name it, is one of these.
void inputs_keep_apart(const struct lab *lab);

// --tokenize and --detokenize, to stdout.
bool inputs_tokenize(struct lab *lab, struct error *err);
bool inputs_detokenize(struct lab *lab, struct error *err);

// Fill lab->text, lab->prompt and lab->questions.
bool inputs_read_text(struct lab *lab, struct error *err);
bool inputs_read_prompt(struct lab *lab, struct error *err);
bool inputs_read_questions(struct lab *lab, struct error *err);

#endif
