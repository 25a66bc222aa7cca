#include "eval/choices.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "eval/perplexity.h"
#include "io/json.h"

// ---- reading ----------------------------------------------------------------------------------

static const cJSON *first_of(const cJSON *object, const char *const *keys) {
    for (; *keys; keys++)
        if (json_get(object, *keys))
            return json_get(object, *keys);
    return NULL;
}

// The answer as a number, or as text ("2", as HellaSwag's files have it).
static bool read_answer(const cJSON *v, size_t n_choices, size_t *out) {
    double d = cJSON_IsNumber(v) ? v->valuedouble : -1;
    if (cJSON_IsString(v)) {
        char *end;
        d = strtod(v->valuestring, &end);
        if (end == v->valuestring || *end)
            return false;
    }
    if (!(d >= 0 && d < (double)n_choices) || d != floor(d))
        return false;
    *out = (size_t)d;
    return true;
}

static bool read_question(const cJSON *line, struct question *q, const char *name, size_t number,
                          struct error *err) {
    const cJSON *context = first_of(line, (const char *const[]){"context", "ctx", "query", NULL});
    const cJSON *choices = first_of(line, (const char *const[]){"choices", "endings", NULL});
    const cJSON *answer = first_of(line, (const char *const[]){"answer", "label", "gold", NULL});
    int n = cJSON_GetArraySize(choices);
    if (!cJSON_IsString(context) || !cJSON_IsArray(choices) || n < 2 || n > CHOICES_MAX)
        return error_set(err, "%s:%zu: expected a context and 2 to %d choices", name, number,
                         CHOICES_MAX);
    if (!read_answer(answer, (size_t)n, &q->answer))
        return error_set(err, "%s:%zu: the answer is no number from 0 to %d", name, number, n - 1);
    if (!(q->context = memory_strdup(context->valuestring, err)))
        return false;
    const cJSON *choice;
    cJSON_ArrayForEach (choice, choices) {
        if (!cJSON_IsString(choice) || !*choice->valuestring)
            return error_set(err, "%s:%zu: a choice is no text", name, number);
        if (!(q->choices[q->n_choices] = memory_strdup(choice->valuestring, err)))
            return false;
        q->n_choices++;
    }
    return true;
}

static bool is_blank(const char *text, const char *end) {
    while (text < end && (*text == ' ' || *text == '\t' || *text == '\r'))
        text++;
    return text == end;
}

static bool add_question(struct question_list *list, const char *line, size_t size,
                         const char *name, size_t number, struct error *err) {
    struct question *grown = realloc(list->questions, (list->n + 1) * sizeof *grown);
    if (!grown)
        return error_set(err, "%s: out of memory for %zu questions", name, list->n + 1);
    list->questions = grown;
    list->questions[list->n] = (struct question){0};
    cJSON *json = json_parse(line, size, name, err);
    if (!json)
        return error_set(err, "%s:%zu: not a JSON object", name, number);
    bool ok = read_question(json, &list->questions[list->n++], name, number, err);
    cJSON_Delete(json);
    return ok;
}

bool questions_parse(struct question_list *list, const char *text, size_t size, const char *name,
                     struct error *err) {
    *list = (struct question_list){0};
    const char *end = text + size;
    for (size_t number = 1; text < end; number++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *stop = newline ? newline : end;
        if (!is_blank(text, stop) &&
            !add_question(list, text, (size_t)(stop - text), name, number, err)) {
            questions_free(list);
            return false;
        }
        text = stop + 1;
    }
    return list->n || error_set(err, "%s: no questions", name);
}

bool questions_read(struct question_list *list, const char *path, struct error *err) {
    size_t size;
    char *text = file_read(path, (size_t)1 << 28, &size, err);
    bool ok = text && questions_parse(list, text, size, path, err);
    free(text);
    return ok;
}

void questions_free(struct question_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        free(list->questions[i].context);
        for (size_t c = 0; c < list->questions[i].n_choices; c++)
            free(list->questions[i].choices[c]);
    }
    free(list->questions);
    *list = (struct question_list){0};
}

// ---- scoring ----------------------------------------------------------------------------------

// A question in tokens: what all choices share, and how each goes on.
struct encoded {
    struct token_list whole[CHOICES_MAX]; // context and choice
    size_t n_choices;
    size_t shared; // leading tokens that are the same in all of them and lie in the context
};

static void encoded_free(struct encoded *e) {
    for (size_t c = 0; c < CHOICES_MAX; c++)
        token_list_free(&e->whole[c]);
}

static size_t common_prefix(const struct token_list *a, const struct token_list *b) {
    size_t n = 0;
    while (n < a->n && n < b->n && a->ids[n] == b->ids[n])
        n++;
    return n;
}

static bool encode_parts(const struct tokenizer *t, const char *context, const char *choice,
                         struct token_list *out, struct error *err) {
    int32_t bos = tokenizer_bos(t);
    char *text = memory_printf(err, "%s%s", context, choice);
    bool ok = text && (bos < 0 || token_list_push(out, bos, err)) &&
              tokenizer_encode(t, text, strlen(text), out, err);
    free(text);
    return ok;
}

// Context and choice are encoded together, as the model would read them; a choice that does not
// bring its own space is set off by one.
static bool encode_question(const struct tokenizer *t, const struct question *q, struct encoded *e,
                            struct error *err) {
    *e = (struct encoded){.n_choices = q->n_choices};
    struct token_list context = {0};
    bool ok = encode_parts(t, q->context, "", &context, err);
    e->shared = context.n;
    for (size_t c = 0; ok && c < q->n_choices; c++) {
        size_t n = strlen(q->context);
        bool joined = !n || strchr(" \n", q->context[n - 1]) || strchr(" \n", q->choices[c][0]);
        char *choice = memory_printf(err, "%s%s", joined ? "" : " ", q->choices[c]);
        ok = choice && encode_parts(t, q->context, choice, &e->whole[c], err);
        free(choice);
        size_t same = common_prefix(&context, &e->whole[c]);
        if (same >= e->whole[c].n) // the last token must be there to be scored
            same = e->whole[c].n - 1;
        e->shared = same < e->shared ? same : e->shared;
    }
    token_list_free(&context);
    if (ok && !e->shared)
        ok = error_set(err, "a question needs a context to be scored");
    return ok;
}

struct scorer {
    const struct model *m;
    struct kv_cache kv; // sequence 0: the context; 1 + c: choice c
    size_t capacity;
    float *logits; // [rows, V]
    size_t rows;
};

// Room for this question; grown when a longer one comes.
static bool scorer_reserve(struct scorer *s, const struct encoded *e, struct error *err) {
    size_t longest = 0, rows = 1;
    for (size_t c = 0; c < e->n_choices; c++) {
        longest = e->whole[c].n > longest ? e->whole[c].n : longest;
        rows += e->whole[c].n - e->shared;
    }
    if (longest > s->capacity || e->n_choices >= s->kv.n_sequences) {
        kv_cache_free(&s->kv);
        s->capacity = longest;
        if (!kv_cache_init(&s->kv, &s->m->config, CHOICES_MAX + 1, longest, err))
            return false;
    }
    if (rows > s->rows) {
        free(s->logits);
        s->rows = rows;
        s->logits = memory_alloc(rows, s->m->config.vocab * sizeof(float), "logits", err);
    }
    return s->logits != NULL;
}

static bool feed_context(struct scorer *s, const struct encoded *e, struct error *err) {
    int32_t *positions = memory_alloc(e->shared, sizeof *positions, "positions", err);
    uint8_t *wants = memory_alloc(e->shared, 1, "positions", err);
    bool ok = positions && wants;
    if (ok) {
        for (size_t i = 0; i < e->shared; i++)
            positions[i] = (int32_t)i;
        wants[e->shared - 1] = 1;
        struct batch b = {.n = e->shared,
                          .tokens = e->whole[0].ids,
                          .positions = positions,
                          .wants_logits = wants};
        ok = model_forward(s->m, &s->kv, &b, s->logits, err);
    }
    free(positions);
    free(wants);
    return ok;
}

// All choices in one batch, each in a sequence of its own that begins with the context's cache.
static bool feed_choices(struct scorer *s, const struct encoded *e, struct error *err) {
    size_t n = s->rows;
    int32_t *memory = memory_alloc(3 * n, sizeof *memory, "choices", err);
    if (!memory)
        return false;
    int32_t *tokens = memory, *positions = memory + n, *sequences = memory + 2 * n;
    struct batch b = {0, tokens, positions, sequences, NULL};
    for (size_t c = 0; c < e->n_choices; c++) {
        kv_cache_copy(&s->kv, 0, c + 1, e->shared);
        for (size_t i = e->shared; i < e->whole[c].n; i++, b.n++) {
            tokens[b.n] = e->whole[c].ids[i];
            positions[b.n] = (int32_t)i;
            sequences[b.n] = (int32_t)c + 1;
        }
    }
    bool ok = model_forward(s->m, &s->kv, &b, s->logits + s->m->config.vocab, err);
    free(memory);
    return ok;
}

// Row 0 of the logits predicts every choice's first token, a choice's own rows the next ones.
static size_t best_choice(const struct scorer *s, const struct encoded *e,
                          const struct question *q) {
    size_t v = s->m->config.vocab, row = 1, best = 0;
    double best_score = -INFINITY;
    for (size_t c = 0; c < e->n_choices; c++) {
        double score = 0;
        for (size_t i = e->shared; i < e->whole[c].n; i++) {
            const float *logits = s->logits + (i == e->shared ? 0 : row + i - e->shared - 1) * v;
            score -= nll_of(logits, v, e->whole[c].ids[i]);
        }
        row += e->whole[c].n - e->shared;
        score /= (double)strlen(q->choices[c]);
        if (score > best_score)
            best = c, best_score = score;
    }
    return best;
}

bool choices_score(const struct model *m, const struct tokenizer *t,
                   const struct question_list *list, size_t limit, struct choices_result *result,
                   choices_progress *progress, void *user, struct error *err) {
    size_t total = limit && limit < list->n ? limit : list->n;
    struct scorer s = {.m = m};
    *result = (struct choices_result){0};
    bool ok = true;
    for (size_t i = 0; ok && i < total; i++) {
        const struct question *q = &list->questions[i];
        struct encoded e;
        ok = encode_question(t, q, &e, err) && scorer_reserve(&s, &e, err) &&
             feed_context(&s, &e, err) && feed_choices(&s, &e, err);
        if (ok) {
            result->right += best_choice(&s, &e, q) == q->answer;
            result->asked++;
        }
        encoded_free(&e);
        if (ok && progress)
            progress(user, result->asked, total, result->right);
    }
    result->accuracy = result->asked ? (double)result->right / (double)result->asked : NAN;
    kv_cache_free(&s.kv);
    free(s.logits);
    return ok;
}
