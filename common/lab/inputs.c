#include "lab/inputs.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/folder.h"
#include "core/memory.h"
#include "eval/generate.h"
#include "io/gguf.h"
#include "io/hub.h"
#include "io/hub_files.h"
#include "text/chat.h"

enum { TEXT_MAX = 1 << 30 };

// ---- finding the model -------------------------------------------------------------------------

static void show_download(void *user, const char *file, uint64_t done, uint64_t total) {
    struct progress *p = user;
    if (!p->active || strcmp(p->label, file) != 0) {
        progress_finish(p);
        progress_start(p, file, "B");
    }
    progress_update(p, done, total, NULL);
}

// A folder with a checkpoint, or the GGUF file that lies in one without.
static char *model_in_folder(const char *folder, struct error *err) {
    struct error why = {0};
    char *config = path_join(folder, "config.json", err), *gguf = NULL;
    if (!config)
        return NULL;
    if (!file_exists(config))
        gguf = gguf_in_folder(folder, &why);
    free(config);
    if (*why.message)
        error_set(err, "%s", why.message);
    return gguf || *why.message ? gguf : memory_strdup(folder, err);
}

// --model is nothing (the bundled one), a folder, a GGUF file, or a name to look up.
char *inputs_find_model(const char *model, struct error *err) {
    if (!model) {
        char *bundled = lab_project_path("data/model", err);
        if (!bundled || folder_exists(bundled))
            return bundled;
        error_set(err, "%s: the bundled model is missing; choose one with --model", bundled);
        free(bundled);
        return NULL;
    }
    if (folder_exists(model))
        return model_in_folder(model, err);
    if (file_exists(model)) {
        if (gguf_is_file(model))
            return memory_strdup(model, err);
        error_set(err, "%s: no GGUF file; expected one, or a folder with config.json", model);
        return NULL;
    }
    if (!hub_repo_of(model)) {
        error_set(err,
                  "%s: no such folder or file, and no name of a model (org/name, or one that "
                  "--help lists)",
                  model);
        return NULL;
    }
    struct progress p = {0};
    char *folder = hub_resolve(model, show_download, &p, err);
    progress_finish(&p);
    return folder;
}

// ---- what is read is not written --------------------------------------------------------------

static bool is_in_folder(const char *folder, const char *path) {
    DIR *d = opendir(folder);
    bool found = false;
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        char *file = hub_files_read(e->d_name) ? path_join(folder, e->d_name, NULL) : NULL;
        found = file && file_same(file, path);
        free(file);
    }
    if (d)
        closedir(d);
    return found;
}

static bool is_bundled(const char *path) {
    static const char *const texts[] = {"data/eval.txt", "data/calib.txt", "data/choices.jsonl"};
    bool found = false;
    for (size_t i = 0; !found && i < sizeof texts / sizeof *texts; i++) {
        char *text = lab_project_path(texts[i], NULL);
        found = text && file_same(text, path);
        free(text);
    }
    return found;
}

bool inputs_read_file(const struct lab *lab, const char *path) {
    const struct cli_options *o = &lab->options;
    const char *const named[] = {o->text,   o->calib,    o->choices,
                                 o->recipe, o->tokenize, o->detokenize};
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (named[i] && file_same(named[i], path))
            return true;
    return is_bundled(path) || gguf_has_part(lab->folder, path) || is_in_folder(lab->folder, path);
}

void inputs_keep_apart(const struct lab *lab) {
    const struct cli_options *o = &lab->options;
    const char *const outputs[][2] = {{"json", o->json}, {"csv", o->csv}, {"logits", o->logits}};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
        if (outputs[i][1] && inputs_read_file(lab, outputs[i][1]))
            cli_usage_error(lab->program,
                            "--%s %s: this run reads that file, expected another to write",
                            outputs[i][0], outputs[i][1]);
}

// ---- text and tokens ---------------------------------------------------------------------------

static bool encode_file(struct lab *lab, const char *path, struct token_list *out,
                        struct error *err) {
    size_t size;
    char *text = file_read(path, TEXT_MAX, &size, err);
    bool ok = text && tokenizer_encode(lab->tokenizer, text, size, out, err);
    free(text);
    return ok;
}

static bool flush_stdout(struct error *err) {
    return (fflush(stdout) == 0 && !ferror(stdout)) ||
           error_set(err, "stdout: cannot write: %s", strerror(errno));
}

bool inputs_tokenize(struct lab *lab, struct error *err) {
    struct token_list ids = {0};
    bool ok = encode_file(lab, lab->options.tokenize, &ids, err);
    for (size_t i = 0; ok && i < ids.n; i++)
        printf("%s%d", i ? " " : "", ids.ids[i]);
    if (ok)
        printf("\n");
    token_list_free(&ids);
    return ok && flush_stdout(err);
}

// What inputs_tokenize() prints, in any number of lines; commas, as --tokens has them, will do too.
static bool parse_ids(const char *text, const char *path, struct token_list *ids,
                      struct error *err) {
    static const char separators[] = " ,\t\r\n";
    for (const char *s = text + strspn(text, separators); *s; s += strspn(s, separators)) {
        size_t digits = strspn(s, "0123456789");
        long id = digits && digits <= 10 ? strtol(s, NULL, 10) : -1;
        if (id < 0 || id > INT32_MAX || (s[digits] && !strchr(separators, s[digits])))
            return error_set(err, "%s: found '%.20s' at byte %zu, expected a token id", path, s,
                             (size_t)(s - text));
        if (!token_list_push(ids, (int32_t)id, err))
            return false;
        s += digits;
    }
    return true;
}

bool inputs_detokenize(struct lab *lab, struct error *err) {
    const char *path = lab->options.detokenize;
    size_t size;
    struct token_list ids = {0};
    char *text = file_read(path, TEXT_MAX, NULL, err), *out = NULL;
    if (text && parse_ids(text, path, &ids, err))
        out = tokenizer_decode(lab->tokenizer, ids.ids, ids.n, false, &size, err);
    if (out)
        fwrite(out, 1, size, stdout);
    token_list_free(&ids);
    free(text);
    free(out);
    return out && flush_stdout(err);
}

// Too small a --limit is not the text's fault.
static void check_limit(const struct lab *lab) {
    const struct cli_options *o = &lab->options;
    bool half = o->ppl_mode == PPL_HALF; // scores whole windows
    size_t least = half ? o->ctx : 2;
    if (o->limit && o->limit < least)
        cli_usage_error(lab->program,
                        "--limit is '%zu', expected 0 or at least %zu%s so that a token is scored",
                        o->limit, least, half ? ", a window," : "");
}

// The text's tokens, a BOS first where the tokenizer puts one, at most --limit of them.
bool inputs_read_text(struct lab *lab, struct error *err) {
    const char *given = lab->options.text;
    check_limit(lab);
    char *path = given ? memory_strdup(given, err) : lab_project_path("data/eval.txt", err);
    int32_t bos = tokenizer_bos(lab->tokenizer);
    bool ok = path && (bos < 0 || token_list_push(&lab->text, bos, err)) &&
              encode_file(lab, path, &lab->text, err);
    free(path);
    if (ok && lab->options.limit && lab->text.n > lab->options.limit)
        lab->text.n = lab->options.limit;
    lab->table.text = given ? given : "data/eval.txt";
    return ok;
}

static bool encode_prompt(struct lab *lab, struct error *err) {
    const struct cli_options *o = &lab->options;
    if (!o->chat) {
        int32_t bos = tokenizer_bos(lab->tokenizer);
        return (bos < 0 || token_list_push(&lab->prompt, bos, err)) &&
               tokenizer_encode(lab->tokenizer, o->prompt, strlen(o->prompt), &lab->prompt, err);
    }
    struct chat_message messages[2] = {{"system", o->system}, {"user", o->prompt}};
    size_t skip = o->system ? 0 : 1;
    char *text = chat_format(lab->tokenizer, NULL, messages + skip, 2 - skip, err);
    bool ok = text && tokenizer_encode(lab->tokenizer, text, strlen(text), &lab->prompt, err);
    free(text);
    return ok;
}

// One that cannot be continued is refused now, not when everything else has been measured.
bool inputs_read_prompt(struct lab *lab, struct error *err) {
    return !lab->options.prompt ||
           (encode_prompt(lab, err) && generate_takes(lab->model, &lab->prompt, err));
}

// The bundled model is asked the bundled questions; other models only those of --choices.
bool inputs_read_questions(struct lab *lab, struct error *err) {
    const char *given = lab->options.choices;
    if (given ? strcmp(given, "none") == 0 : lab->options.model != NULL)
        return true;
    char *path = given ? memory_strdup(given, err) : lab_project_path("data/choices.jsonl", err);
    bool ok = path && questions_read(&lab->questions, path, err);
    free(path);
    return ok;
}
