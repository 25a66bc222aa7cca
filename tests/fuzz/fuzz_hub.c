// io/hub: any JSON as the API's list of files, and as an index of shards. No accepted shard name
// may be able to leave its folder.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "io/hub_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct error err = {0};
    struct hub_names chosen = {0}, shards = {0};
    cJSON *json = json_parse((const char *)data, size, "fuzz", &err);
    if (!json)
        return 0;
    hub_files_choose(json_get(json, "siblings"), "org/name", &chosen, &err);
    hub_files_shards(json, "fuzz", &shards, &err);
    for (size_t i = 0; i < shards.n; i++)
        if (!*shards.name[i] || strchr(shards.name[i], '/') || *shards.name[i] == '.')
            abort();
    hub_names_free(&chosen);
    hub_names_free(&shards);
    cJSON_Delete(json);
    return 0;
}
