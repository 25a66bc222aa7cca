// Which files make up a model: its config, its tokenizer, and either one safetensors file or the
// shards that an index names. Never a repository's other formats.
#ifndef NIBBLE_IO_HUB_FILES_H
#define NIBBLE_IO_HUB_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"
#include "io/json.h"

#define HUB_SINGLE "model.safetensors"
#define HUB_INDEX "model.safetensors.index.json"

struct hub_names {
    char **name;
    size_t n;
};

void hub_names_free(struct hub_names *names);
bool hub_names_have(const struct hub_names *names, const char *name);

// The files to fetch from a repository that holds `listed` ("siblings" of the API's answer): small
// ones first, then HUB_SINGLE or HUB_INDEX. `repo` begins the message when something is missing.
bool hub_files_choose(const cJSON *listed, const char *repo, struct hub_names *out,
                      struct error *err);
// The shards that an index names, each once. Names that could leave the folder are refused.
bool hub_files_shards(const cJSON *index, const char *path, struct hub_names *out,
                      struct error *err);
// Every file of `names` is in the API's list.
bool hub_files_listed(const cJSON *listed, const char *repo, const struct hub_names *names,
                      struct error *err);
// Whether a file of this name is read where it lies in a model's folder.
bool hub_files_read(const char *name);
// Config, tokenizer and all weights are in the folder; else the message says what is not.
bool hub_files_complete(const char *folder, struct error *err);

#endif
