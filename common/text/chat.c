// The templates are Jinja programs; we do not run them but know what the four families write, and
// read from the program's text in which of the small ways it differs from its family:
//
//     chatml   a default system message, if the program holds one as a literal
//     llama3   since 3.1 a system header with two dates, always
//     mistral  spaces around [INST] and [/INST]; system text in the first or the last question
#include "text/chat.h"

#include <ctype.h>
#include <stdio.h>

#include "core/memory.h"
#include "text/tokenizer_internal.h"

enum family { CHATML, LLAMA3, LLAMA2, MISTRAL, FAMILIES };

// What marks a family's template, in the order to look for it: Llama-2's holds [INST], too.
static const struct {
    const char *name, *mark, *end_token;
} families[FAMILIES] = {
    [CHATML] = {"chatml", "<|im_start|>", "<|im_end|>"},
    [LLAMA3] = {"llama3", "<|start_header_id|>", "<|eot_id|>"},
    [LLAMA2] = {"llama2", "<<SYS>>", NULL},
    [MISTRAL] = {"mistral", "[INST]", NULL},
};

#define KNOWN_NAMES "chatml, llama3, mistral or llama2"

// Everything a format writes goes through here; after a failure nothing more is written.
struct writer {
    struct bytes out;
    const char *template; // "" if the checkpoint has none of this family
    const char *bos, *eos;
    struct error *err;
    bool failed;
};

static void put_part(struct writer *w, const char *text, size_t size) {
    w->failed = w->failed || !bytes_append(&w->out, text, size, w->err);
}

static void put(struct writer *w, const char *text) {
    put_part(w, text, strlen(text));
}

static void put_trimmed(struct writer *w, const char *text) {
    size_t size = strlen(text);
    while (size && isspace((unsigned char)*text))
        text++, size--;
    while (size && isspace((unsigned char)text[size - 1]))
        size--;
    put_part(w, text, size);
}

static bool has(const struct writer *w, const char *text) {
    return strstr(w->template, text) != NULL;
}

// text stands in the program, quoted either way.
static bool has_quoted(const struct writer *w, const char *text) {
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s'", text);
    if (has(w, quoted))
        return true;
    quoted[0] = quoted[strlen(text) + 1] = '"';
    return has(w, quoted);
}

static bool is_role(const struct chat_message *m, const char *role) {
    return strcmp(m->role, role) == 0;
}

// ---- chatml

// '<|im_start|>system\nYou are …<|im_end|>\n' as a literal: what stands in for a system message.
static void write_default_system(struct writer *w) {
    static const char start[] = "<|im_start|>system";
    for (const char *p = w->template; (p = strstr(p, start));) {
        p += sizeof start - 1;
        size_t newline = *p == '\n' ? 1 : strncmp(p, "\\n", 2) == 0 ? 2 : 0;
        const char *end = strstr(p, "<|im_end|>");
        if (!newline || !end || strcspn(p, "'\"{") < (size_t)(end - p))
            continue;
        put(w, "<|im_start|>system\n");
        put_part(w, p + newline, (size_t)(end - p) - newline);
        put(w, "<|im_end|>\n");
        return;
    }
}

static void write_chatml(struct writer *w, const struct chat_message *messages, size_t n) {
    if (has(w, "bos_token"))
        put(w, w->bos);
    if (!is_role(messages, "system"))
        write_default_system(w);
    for (size_t i = 0; i < n; i++) {
        const char *content = messages[i].content;
        const char *thought = has(w, "</think>") && is_role(&messages[i], "assistant")
                                  ? strstr(content, "</think>")
                                  : NULL;
        for (; thought; thought = strstr(content, "</think>")) // earlier thoughts are not repeated
            for (content = thought + strlen("</think>"); *content == '\n';)
                content++;
        put(w, "<|im_start|>");
        put(w, messages[i].role);
        put(w, "\n");
        put(w, content);
        put(w, "<|im_end|>\n");
    }
    put(w, "<|im_start|>assistant\n");
}

// ---- llama3

static void write_llama3_header(struct writer *w, const char *role) {
    put(w, "<|start_header_id|>");
    put(w, role);
    put(w, "<|end_header_id|>\n\n");
}

static void write_llama3(struct writer *w, const struct chat_message *messages, size_t n) {
    put(w, *w->bos ? w->bos : "<|begin_of_text|>");
    size_t i = 0;
    if (has(w, "Cutting Knowledge Date")) {
        // The template's own date, so that a prompt is the same tomorrow.
        write_llama3_header(w, "system");
        put(w, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
        if (is_role(messages, "system"))
            put_trimmed(w, messages[i++].content);
        put(w, "<|eot_id|>");
    }
    for (; i < n; i++) {
        write_llama3_header(w, messages[i].role);
        put_trimmed(w, messages[i].content);
        put(w, "<|eot_id|>");
    }
    write_llama3_header(w, "assistant");
}

// ---- llama2 and mistral

static void write_llama2(struct writer *w, const struct chat_message *messages, size_t n) {
    const char *system = is_role(messages, "system") ? messages->content : NULL;
    for (size_t i = system != NULL, first = i; i < n; i++) {
        if (is_role(&messages[i], "assistant")) {
            put(w, " ");
            put_trimmed(w, messages[i].content);
            put(w, " ");
            put(w, w->eos);
            continue;
        }
        put(w, w->bos);
        put(w, "[INST] ");
        if (system && i == first) {
            put(w, "<<SYS>>\n");
            put(w, system);
            put(w, "\n<</SYS>>\n\n");
            // Trimmed as one text with what stands before it: on the right only.
            size_t size = strlen(messages[i].content);
            while (size && isspace((unsigned char)messages[i].content[size - 1]))
                size--;
            put_part(w, messages[i].content, size);
        } else {
            put_trimmed(w, messages[i].content);
        }
        put(w, " [/INST]");
    }
}

static void write_mistral(struct writer *w, const struct chat_message *messages, size_t n) {
    const char *open = has_quoted(w, " [INST] ") ? " [INST] "
                       : has_quoted(w, "[INST]") ? "[INST]"
                                                 : "[INST] ";
    const char *close = *w->template && !has(w, " [/INST]") ? "[/INST]" : " [/INST]";
    bool spaced_answer = has(w, "' ' + message") || has(w, "\" \" + message");
    bool spaced_end = has(w, "+ ' ' + eos_token") || has(w, "+ \" \" + eos_token");
    const char *system = is_role(messages, "system") ? messages->content : NULL;
    size_t first = system != NULL, with_system = has(w, "loop.last and system") ? n - 1 : first;
    put(w, w->bos);
    for (size_t i = first; i < n; i++) {
        bool answer = is_role(&messages[i], "assistant");
        put(w, answer ? (spaced_answer ? " " : "") : open);
        if (system && i == with_system) {
            put(w, system);
            put(w, "\n\n");
        }
        put(w, messages[i].content);
        put(w, answer ? (spaced_end ? " " : "") : close);
        if (answer)
            put(w, w->eos);
    }
}

// ---- choosing

static bool choose(const struct tokenizer *t, const char *format, enum family *family,
                   struct error *err) {
    for (int i = 0; i < FAMILIES; i++) {
        bool chosen = format ? strcmp(format, families[i].name) == 0
                             : t->chat_template && strstr(t->chat_template, families[i].mark);
        if (!chosen)
            continue;
        *family = (enum family)i;
        if (format || (!strstr(t->chat_template, "<|im_sep|>") &&
                       !strstr(t->chat_template, "[SYSTEM_PROMPT]")))
            return true;
        break;
    }
    if (format)
        return error_set(err, "chat format '%s', expected " KNOWN_NAMES, format);
    return error_set(err, "the checkpoint's chat template is %s; choose " KNOWN_NAMES,
                     t->chat_template ? "of a kind we do not know" : "missing");
}

// Llama-2's and Mistral's templates refuse what the models have not seen.
static bool check_roles(enum family family, const struct chat_message *messages, size_t n,
                        struct error *err) {
    bool inst = family == LLAMA2 || family == MISTRAL;
    size_t first = n && is_role(messages, "system");
    if (!n || (inst && n == first))
        return error_set(err, "a chat of no messages");
    for (size_t i = 0; i < n; i++) {
        bool user = is_role(&messages[i], "user"), assistant = is_role(&messages[i], "assistant");
        if (!user && !assistant && !is_role(&messages[i], "system"))
            return error_set(err, "chat role '%s', expected system, user or assistant",
                             messages[i].role);
        bool alternates = i < first || ((i - first) % 2 ? assistant : user);
        if (inst && !alternates)
            return error_set(err,
                             "chat message %zu is of role '%s': in format %s user and "
                             "assistant alternate",
                             i + 1, messages[i].role, families[family].name);
    }
    return true;
}

char *chat_format(const struct tokenizer *t, const char *format,
                  const struct chat_message *messages, size_t n, struct error *err) {
    static void (*const writers[])(struct writer *, const struct chat_message *, size_t) = {
        [CHATML] = write_chatml,
        [LLAMA3] = write_llama3,
        [LLAMA2] = write_llama2,
        [MISTRAL] = write_mistral,
    };
    enum family family = CHATML;
    if (!choose(t, format, &family, err) || !check_roles(family, messages, n, err))
        return NULL;
    bool ours = t->chat_template && strstr(t->chat_template, families[family].mark);
    struct writer w = {.template = ours ? t->chat_template : "", .err = err};
    bool inst = family == LLAMA2 || family == MISTRAL;
    w.bos = t->bos_text ? t->bos_text : inst ? "<s>" : "";
    w.eos = t->eos_text ? t->eos_text : "</s>";
    writers[family](&w, messages, n);
    put_part(&w, "", 1);
    if (!w.failed)
        return w.out.data;
    bytes_free(&w.out);
    return NULL;
}

int32_t chat_end_token(const struct tokenizer *t, const char *format) {
    enum family family = CHATML;
    if (!choose(t, format, &family, NULL))
        return -1;
    const char *end = families[family].end_token;
    return end ? tokenizer_id(t, end) : t->eos >= 0 ? t->eos : tokenizer_id(t, "</s>");
}
