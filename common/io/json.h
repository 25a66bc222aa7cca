// JSON through cJSON, with the checks every reader here needs: a getter either returns the value in
// the expected type or says which key of which file was wrong.
//
// cJSON's own traps, kept out of sight: valueint saturates at 2^31 (we read valuedouble, exact to
// 2^53), object lookup is linear (iterate large objects, never look up), nesting is recursive.
#ifndef NIBBLE_IO_JSON_H
#define NIBBLE_IO_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

// Parses text[0..size); `name` (usually the path) begins every message. Free with cJSON_Delete.
// All strings in the document are valid UTF-8 (cJSON itself passes on any byte).
cJSON *json_parse(const char *text, size_t size, const char *name, struct error *err);
// Reads and parses a file of at most 256 MiB.
cJSON *json_parse_file(const char *path, struct error *err);

// The value under key, or NULL if it is absent or null. `object` may be NULL.
const cJSON *json_get(const cJSON *object, const char *key);

// Each leaves *out alone when the key is absent or null (so callers set the default first) and
// fails with "<name>: '<key>' is <found>, expected <type>" when the value has another type.
bool json_get_bool(const cJSON *object, const char *key, bool *out, const char *name,
                   struct error *err);
bool json_get_number(const cJSON *object, const char *key, double *out, const char *name,
                     struct error *err);
// A whole number in [min, max].
bool json_get_int(const cJSON *object, const char *key, int64_t min, int64_t max, int64_t *out,
                  const char *name, struct error *err);
// *out points into the document.
bool json_get_string(const cJSON *object, const char *key, const char **out, const char *name,
                     struct error *err);

// A byte count or offset: a whole number in [0, 2^53].
bool json_size(const cJSON *value, size_t *out);

#endif
