// The parts of a tokenizer.json around the model: normalizer, pre-tokenizer, decoder and
// post-processor. A part may be a Sequence of parts; what we do not know is an error, because
// leaving it out would give other ids without a word.
#include "text/tokenizer_internal.h"

#include "core/memory.h"

static const char GPT2_PATTERN[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|"
                                   " ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

// Real files have a few. Every step may lengthen the text and is a call within the one before.
enum { MAX_STEPS = 64 };

static const char *part_type(const cJSON *part) {
    const char *type = cJSON_GetStringValue(json_get(part, "type"));
    return type ? type : "";
}

static bool unknown_part(const char *what, const cJSON *part, const char *name, struct error *err) {
    return error_set(err, "%s: %s of type '%s' is not supported", name, what, part_type(part));
}

typedef bool part_reader(struct tokenizer *t, const cJSON *part, const char *name,
                         struct error *err);

// A Sequence keeps its parts under `key`; they may not be Sequences of Sequences without end, as
// the JSON parser limits the depth.
static bool read_sequence(struct tokenizer *t, const cJSON *part, const char *key,
                          part_reader *reader, const char *name, struct error *err) {
    const cJSON *list = json_get(part, key), *item;
    if (!cJSON_IsArray(list))
        return error_set(err, "%s: a Sequence has no list '%s'", name, key);
    cJSON_ArrayForEach (item, list)
        if (!reader(t, item, name, err))
            return false;
    return true;
}

static bool missing(const char *type, const char *key, const char *name, struct error *err) {
    return error_set(err, "%s: %s has no '%s'", name, type, key);
}

// {"String": "…"} or {"Regex": "…"}.
static bool read_pattern(struct pattern *p, const cJSON *part, const char *name,
                         struct error *err) {
    const cJSON *pattern = json_get(part, "pattern");
    const char *literal = cJSON_GetStringValue(json_get(pattern, "String"));
    const char *regex = cJSON_GetStringValue(json_get(pattern, "Regex"));
    if (!literal && !regex)
        return missing(part_type(part), "pattern", name, err);
    return pattern_compile(p, literal ? literal : regex, literal != NULL, name, err);
}

static struct normalizer *add_normalizer(struct tokenizer *t, enum normalizer_kind kind,
                                         const char *name, struct error *err) {
    if (t->n_normalizers == MAX_STEPS) {
        error_set(err, "%s: more than %d normalizers", name, MAX_STEPS);
        return NULL;
    }
    struct normalizer *list = realloc(t->normalizers, (t->n_normalizers + 1) * sizeof *list);
    if (!list) {
        error_set(err, "%s: out of memory for a normalizer", name);
        return NULL;
    }
    t->normalizers = list;
    list[t->n_normalizers] = (struct normalizer){.kind = kind};
    return &list[t->n_normalizers++];
}

static bool read_content(char **out, const cJSON *part, const char *key, const char *name,
                         struct error *err) {
    const char *content = cJSON_GetStringValue(json_get(part, key));
    if (!content)
        return missing(part_type(part), key, name, err);
    *out = memory_strdup(content, err);
    return *out;
}

bool tokenizer_read_normalizer(struct tokenizer *t, const cJSON *part, const char *name,
                               struct error *err) {
    const char *type = part_type(part);
    if (!part)
        return true;
    if (strcmp(type, "Sequence") == 0)
        return read_sequence(t, part, "normalizers", tokenizer_read_normalizer, name, err);
    static const char *const forms[] = {"NFD", "NFC", "NFKD", "NFKC"};
    for (unsigned i = 0; i < 4; i++) {
        if (strcmp(type, forms[i]) != 0)
            continue;
        struct normalizer *n = add_normalizer(t, NORMALIZER_UNICODE, name, err);
        if (n)
            n->compose = i & 1, n->compatible = i & 2;
        return n;
    }
    if (strcmp(type, "Prepend") == 0) {
        struct normalizer *n = add_normalizer(t, NORMALIZER_PREPEND, name, err);
        return n && read_content(&n->content, part, "prepend", name, err);
    }
    if (strcmp(type, "Replace") == 0) {
        struct normalizer *n = add_normalizer(t, NORMALIZER_REPLACE, name, err);
        return n && read_content(&n->content, part, "content", name, err) &&
               read_pattern(&n->pattern, part, name, err);
    }
    return unknown_part("normalizer", part, name, err);
}

static struct splitter *add_splitter(struct tokenizer *t, enum splitter_kind kind, const char *name,
                                     struct error *err) {
    if (t->byte_level) {
        error_set(err, "%s: a pre-tokenizer after ByteLevel is not supported", name);
        return NULL;
    }
    if (t->n_splitters == MAX_STEPS) {
        error_set(err, "%s: more than %d steps of the pre-tokenizer", name, MAX_STEPS);
        return NULL;
    }
    struct splitter *list = realloc(t->splitters, (t->n_splitters + 1) * sizeof *list);
    if (!list) {
        error_set(err, "%s: out of memory for a pre-tokenizer", name);
        return NULL;
    }
    t->splitters = list;
    list[t->n_splitters] = (struct splitter){.kind = kind, .behavior = SPLIT_ISOLATED};
    return &list[t->n_splitters++];
}

static bool add_pattern_splitter(struct tokenizer *t, const char *pattern, bool literal,
                                 enum split_behavior behavior, const char *name,
                                 struct error *err) {
    struct splitter *s = add_splitter(t, SPLITTER_PATTERN, name, err);
    if (!s)
        return false;
    s->behavior = behavior;
    return pattern_compile(&s->pattern, pattern, literal, name, err);
}

static bool add_content_splitter(struct tokenizer *t, enum splitter_kind kind, const char *content,
                                 const char *name, struct error *err) {
    struct splitter *s = add_splitter(t, kind, name, err);
    return s && (s->content = memory_strdup(content, err));
}

static bool read_behavior(enum split_behavior *behavior, const cJSON *part, const char *name,
                          struct error *err) {
    static const char *const names[] = {
        [SPLIT_REMOVED] = "Removed",
        [SPLIT_ISOLATED] = "Isolated",
        [SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
        [SPLIT_CONTIGUOUS] = "Contiguous",
    };
    const char *found = "Isolated";
    if (!json_get_string(part, "behavior", &found, name, err))
        return false;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(found, names[i]) == 0) {
            *behavior = (enum split_behavior)i;
            return true;
        }
    return error_set(err, "%s: behavior '%s' of %s is not supported", name, found, part_type(part));
}

static bool read_split(struct tokenizer *t, const cJSON *part, const char *name,
                       struct error *err) {
    struct splitter *s = add_splitter(t, SPLITTER_PATTERN, name, err);
    return s && read_behavior(&s->behavior, part, name, err) &&
           json_get_bool(part, "invert", &s->invert, name, err) &&
           read_pattern(&s->pattern, part, name, err);
}

static bool read_digits(struct tokenizer *t, const cJSON *part, const char *name,
                        struct error *err) {
    bool individual = false;
    return json_get_bool(part, "individual_digits", &individual, name, err) &&
           add_pattern_splitter(t, "\\p{N}", false, individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS,
                                name, err);
}

static bool read_punctuation(struct tokenizer *t, const cJSON *part, const char *name,
                             struct error *err) {
    enum split_behavior behavior = SPLIT_ISOLATED;
    return read_behavior(&behavior, part, name, err) &&
           add_pattern_splitter(t, "[\\p{P}!-/:-@\\[-`{-~]", false, behavior, name, err);
}

static bool read_byte_level(struct tokenizer *t, const cJSON *part, const char *name,
                            struct error *err) {
    bool prefix = true, regex = true;
    if (!json_get_bool(part, "add_prefix_space", &prefix, name, err) ||
        !json_get_bool(part, "use_regex", &regex, name, err) ||
        (prefix && !add_content_splitter(t, SPLITTER_PREFIX, " ", name, err)) ||
        (regex && !add_pattern_splitter(t, GPT2_PATTERN, false, SPLIT_ISOLATED, name, err)))
        return false;
    t->byte_level = true;
    return true;
}

// What a Metaspace says, in its old form (add_prefix_space) and its new one (prepend_scheme).
struct metaspace {
    const char *replacement, *scheme;
    bool split;
};

static bool read_metaspace_fields(struct metaspace *m, const cJSON *part, const char *name,
                                  struct error *err) {
    bool prefix = true;
    *m = (struct metaspace){"\xe2\x96\x81", NULL, true};
    if (!json_get_string(part, "replacement", &m->replacement, name, err) ||
        !json_get_string(part, "prepend_scheme", &m->scheme, name, err) ||
        !json_get_bool(part, "add_prefix_space", &prefix, name, err) ||
        !json_get_bool(part, "split", &m->split, name, err))
        return false;
    if (!m->scheme)
        m->scheme = prefix ? "always" : "never";
    if (strcmp(m->scheme, "always") && strcmp(m->scheme, "never") && strcmp(m->scheme, "first"))
        return error_set(err, "%s: prepend_scheme '%s', expected always, first or never", name,
                         m->scheme);
    return *m->replacement || missing("Metaspace", "replacement", name, err);
}

static bool read_metaspace(struct tokenizer *t, const cJSON *part, const char *name,
                           struct error *err) {
    struct metaspace m;
    if (!read_metaspace_fields(&m, part, name, err) ||
        !add_content_splitter(t, SPLITTER_SPACES, m.replacement, name, err))
        return false;
    enum splitter_kind kind =
        strcmp(m.scheme, "first") == 0 ? SPLITTER_PREFIX_FIRST : SPLITTER_PREFIX;
    if (strcmp(m.scheme, "never") != 0 && !add_content_splitter(t, kind, m.replacement, name, err))
        return false;
    return !m.split ||
           add_pattern_splitter(t, m.replacement, true, SPLIT_MERGED_WITH_NEXT, name, err);
}

static bool read_white_space(struct tokenizer *t, const cJSON *part, const char *name,
                             struct error *err) {
    (void)part;
    return add_pattern_splitter(t, "\\s", false, SPLIT_REMOVED, name, err);
}

bool tokenizer_read_splitter(struct tokenizer *t, const cJSON *part, const char *name,
                             struct error *err) {
    static const struct {
        const char *type;
        part_reader *reader;
    } readers[] = {
        {"Split", read_split},
        {"ByteLevel", read_byte_level},
        {"Metaspace", read_metaspace},
        {"Digits", read_digits},
        {"Punctuation", read_punctuation},
        {"WhitespaceSplit", read_white_space},
    };
    if (!part)
        return true;
    const char *type = part_type(part);
    if (strcmp(type, "Sequence") == 0)
        return read_sequence(t, part, "pretokenizers", tokenizer_read_splitter, name, err);
    for (unsigned i = 0; i < sizeof readers / sizeof *readers; i++)
        if (strcmp(type, readers[i].type) == 0)
            return readers[i].reader(t, part, name, err);
    return unknown_part("pre_tokenizer", part, name, err);
}

static bool add_replace(struct decoder *d, const char *from, const char *to, bool drop_in_first,
                        const char *name, struct error *err) {
    size_t limit = sizeof d->replace / sizeof *d->replace;
    if (d->n_replace == limit || !*from)
        return error_set(err, "%s: decoder: %s", name,
                         *from ? "too many replacements" : "replaces an empty text");
    struct text_replace *r = &d->replace[d->n_replace++];
    r->drop_in_first = drop_in_first;
    r->from = memory_strdup(from, err);
    r->to = memory_strdup(to, err);
    return r->from && r->to;
}

static bool read_decoder_replace(struct decoder *d, const cJSON *part, const char *name,
                                 struct error *err) {
    const char *from = cJSON_GetStringValue(json_get(json_get(part, "pattern"), "String"));
    const char *to = cJSON_GetStringValue(json_get(part, "content"));
    if (!from || !to)
        return missing("a decoder's Replace", from ? "content" : "pattern' with a 'String", name,
                       err);
    return add_replace(d, from, to, false, name, err);
}

static bool read_decoder_strip(struct decoder *d, const cJSON *part, const char *name,
                               struct error *err) {
    int64_t start = 0, stop = 0;
    const char *content = cJSON_GetStringValue(json_get(part, "content"));
    if (!content || !*content || strlen(content) >= sizeof d->strip)
        return error_set(err, "%s: decoder: Strip has no 'content' of one character", name);
    if (!json_get_int(part, "start", 0, 1 << 20, &start, name, err) ||
        !json_get_int(part, "stop", 0, 1 << 20, &stop, name, err))
        return false;
    if (stop || d->strip_start)
        return error_set(err, "%s: decoder: a Strip at the end, or a second, is not supported",
                         name);
    strcpy(d->strip, content);
    d->strip_start = (size_t)start;
    return true;
}

bool tokenizer_read_decoder(struct tokenizer *t, const cJSON *part, const char *name,
                            struct error *err) {
    struct decoder *d = &t->decoder;
    const char *type = part_type(part);
    d->joined_by_spaces = !part;
    if (!part || strcmp(type, "Fuse") == 0)
        return true;
    if (strcmp(type, "Sequence") == 0)
        return read_sequence(t, part, "decoders", tokenizer_read_decoder, name, err);
    if (strcmp(type, "ByteLevel") == 0)
        return d->byte_level = true;
    if (strcmp(type, "ByteFallback") == 0)
        return d->byte_fallback = true;
    if (strcmp(type, "Replace") == 0)
        return read_decoder_replace(d, part, name, err);
    if (strcmp(type, "Strip") == 0)
        return read_decoder_strip(d, part, name, err);
    struct metaspace m;
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace_fields(&m, part, name, err) &&
               add_replace(d, m.replacement, " ", strcmp(m.scheme, "never") != 0, name, err);
    return unknown_part("decoder", part, name, err);
}

// {"single": [{"SpecialToken": {"id": "<s>"}}, …], "special_tokens": {"<s>": {"ids": [1]}}}
static bool read_template(struct tokenizer *t, const cJSON *part, const char *name,
                          struct error *err) {
    const cJSON *first = cJSON_GetArrayItem(json_get(part, "single"), 0);
    const char *token = cJSON_GetStringValue(json_get(json_get(first, "SpecialToken"), "id"));
    if (!token)
        return true;
    const cJSON *ids = json_get(json_get(json_get(part, "special_tokens"), token), "ids");
    size_t id;
    if (!json_size(cJSON_GetArrayItem(ids, 0), &id) || id > VOCAB_MAX_ID)
        return error_set(err, "%s: post_processor: special token '%s' has no id", name, token);
    t->bos = (int32_t)id;
    return true;
}

bool tokenizer_read_processor(struct tokenizer *t, const cJSON *part, const char *name,
                              struct error *err) {
    const char *type = part_type(part);
    if (!part || strcmp(type, "ByteLevel") == 0) // it only moves offsets
        return true;
    if (strcmp(type, "Sequence") == 0)
        return read_sequence(t, part, "processors", tokenizer_read_processor, name, err);
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(t, part, name, err);
    return unknown_part("post_processor", part, name, err);
}
