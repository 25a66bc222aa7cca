#include <stdio.h>

#include "core/file.h"
#include "text/bpe_split.h"
#include "text/bpe_train.h"
#include "text/byte_level.h"
#include "text/utf8.h"

static void write_character(FILE *f, uint32_t c) {
    char utf8[4];
    if (c == '"' || c == '\\')
        fputc('\\', f);
    fwrite(utf8, 1, utf8_write(c, utf8), f);
}

static void write_token(FILE *f, const struct bpe_token *t) {
    fputc('"', f);
    for (size_t i = 0; i < t->size; i++)
        write_character(f, byte_level_char(t->bytes[i]));
    fputc('"', f);
}

// Plain ASCII, as the patterns and names of special tokens are.
static void write_string(FILE *f, const char *s) {
    fputc('"', f);
    for (; *s; s++)
        write_character(f, (unsigned char)*s);
    fputc('"', f);
}

static void write_head(FILE *f, size_t first_special, const char *const *specials, size_t n) {
    fputs("{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"
          "  \"added_tokens\": [",
          f);
    for (size_t i = 0; i < n; i++) {
        fprintf(f, "%s\n    {\"id\": %zu, \"content\": ", i ? "," : "", first_special + i);
        write_string(f, specials[i]);
        fputs(", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
              "\"normalized\": false, \"special\": true}",
              f);
    }
    fputs("\n  ],\n  \"normalizer\": {\"type\": \"NFC\"},\n  \"pre_tokenizer\": {\n"
          "    \"type\": \"Sequence\",\n    \"pretokenizers\": [\n"
          "      {\"type\": \"Split\", \"pattern\": {\"Regex\": ",
          f);
    write_string(f, BPE_PATTERN);
    const char *byte_level = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                             "\"trim_offsets\": false, \"use_regex\": false}";
    fprintf(f,
            "}, \"behavior\": \"Isolated\", \"invert\": false},\n      %s\n    ]\n  },\n"
            "  \"post_processor\": %s,\n  \"decoder\": %s,\n",
            byte_level, byte_level, byte_level);
}

static void write_model(FILE *f, const struct bpe_trained *b) {
    fputs("  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n"
          "    \"unk_token\": null,\n    \"continuing_subword_prefix\": \"\",\n"
          "    \"end_of_word_suffix\": \"\",\n    \"fuse_unk\": false,\n"
          "    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n    \"vocab\": {",
          f);
    for (size_t i = 0; i < b->n_tokens; i++) {
        fputs(i ? ",\n      " : "\n      ", f);
        write_token(f, &b->tokens[i]);
        fprintf(f, ": %zu", i);
    }
    fputs("\n    },\n    \"merges\": [", f);
    for (size_t i = 0; i < b->n_merges; i++) {
        fputs(i ? ",\n      [" : "\n      [", f);
        write_token(f, &b->tokens[b->merges[i].left]);
        fputs(", ", f);
        write_token(f, &b->tokens[b->merges[i].right]);
        fputc(']', f);
    }
    fputs("\n    ]\n  }\n}\n", f);
}

bool bpe_write(const struct bpe_trained *b, const char *const *specials, size_t n_specials,
               const char *path, struct error *err) {
    struct file_writer w;
    if (!folder_create_for(path, err) || !file_writer_open(&w, path, err))
        return false;
    write_head(w.stream, b->n_tokens, specials, n_specials);
    write_model(w.stream, b);
    return file_writer_commit(&w, err);
}
