// What kinds of questions a model answers, and how well it tells the answers apart.
//
//     build/tools/question_kinds QUESTIONS.jsonl MODEL…     e.g. data/choices.jsonl data/model
//
// For each kind of answer (a person, a day …): the share of questions answered right, and the
// spread of the embeddings of the words of that kind: how far they lie from their mean, on average,
// as a part of their norm. Words that are several tokens are left out of the spread.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "eval/choices.h"
#include "io/json.h"
#include "quant/format.h"
#include "report/progress.h"
#include "tools/stories/world.h"

struct kind_score {
    size_t asked, right;
};

struct examination {
    const uint8_t *about; // [questions] enum list_id
    struct kind_score kinds[LIST_COUNT];
    size_t right; // so far, of all
    struct progress progress;
};

static enum list_id list_named(const char *name) {
    size_t i = LIST_COUNT - 1;
    while (i > LIST_NONE && strcmp(name, world_lists[i].name) != 0)
        i--;
    return (enum list_id)i;
}

// The kind of each question, LIST_NONE where the file does not say.
static uint8_t *read_kinds(const char *path, size_t n, struct error *err) {
    size_t size;
    char *text = file_read(path, 1 << 28, &size, err), *rest = NULL;
    uint8_t *about = text ? memory_alloc(n, 1, "kinds of questions", err) : NULL;
    size_t i = 0;
    for (char *line = about ? strtok_r(text, "\n", &rest) : NULL; line && i < n;
         line = strtok_r(NULL, "\n", &rest)) {
        if (line[strspn(line, " \t\r")] == '\0')
            continue;
        cJSON *json = json_parse(line, strlen(line), path, err);
        const cJSON *kind = json ? json_get(json, "about") : NULL;
        about[i++] = (uint8_t)(cJSON_IsString(kind) ? list_named(kind->valuestring) : LIST_NONE);
        cJSON_Delete(json);
    }
    free(text);
    return about;
}

static void mark(void *user, size_t done, size_t total, size_t right) {
    struct examination *e = user;
    struct kind_score *kind = &e->kinds[e->about[done - 1]];
    kind->asked++;
    kind->right += right > e->right;
    e->right = right;
    progress_update(&e->progress, done, total, "");
}

// One row of floats per word of the list that is one token; returns how many.
static size_t read_embeddings(const struct model *m, const struct tokenizer *t,
                              const struct list *list, float *rows) {
    const struct tensor *w = &m->embedding.w;
    struct error err;
    size_t n = 0, k = w->shape[1];
    for (size_t i = 0; i < list->n; i++) {
        struct token_list ids = {0};
        char word[128];
        int size = snprintf(word, sizeof word, " %s", list->words[i].base);
        if (tokenizer_encode(t, word, (size_t)size, &ids, &err) && ids.n == 1)
            quant_read(w, (size_t)ids.ids[0], 0, k, rows + n++ * k);
        token_list_free(&ids);
    }
    return n;
}

// NAN for fewer than three words.
static double spread_of(const float *rows, size_t n, size_t k) {
    double away = 0, norms = 0;
    for (size_t i = 0; i < n; i++) {
        double distance2 = 0, norm2 = 0;
        for (size_t c = 0; c < k; c++) {
            double mean = 0, x = rows[i * k + c];
            for (size_t j = 0; j < n; j++)
                mean += rows[j * k + c] / (double)n;
            distance2 += (x - mean) * (x - mean);
            norm2 += x * x;
        }
        away += sqrt(distance2);
        norms += sqrt(norm2);
    }
    return n < 3 ? NAN : away / norms;
}

static bool examine(const char *path, const struct question_list *questions, const uint8_t *about,
                    struct kind_score kinds[LIST_COUNT], double spreads[LIST_COUNT],
                    struct error *err) {
    struct examination e = {.about = about};
    struct choices_result result;
    struct model *m = model_load(path, err);
    struct tokenizer *t = m ? tokenizer_load(path, err) : NULL;
    float *rows =
        t ? memory_alloc(LIST_MAX_WORDS * m->embedding.w.shape[1], sizeof *rows, "embeddings", err)
          : NULL;
    progress_start(&e.progress, path, "questions");
    bool ok = rows && choices_score(m, t, questions, 0, &result, mark, &e, err);
    progress_finish(&e.progress);
    for (size_t i = 1; ok && i < LIST_COUNT; i++)
        spreads[i] =
            spread_of(rows, read_embeddings(m, t, &world_lists[i], rows), m->embedding.w.shape[1]);
    memcpy(kinds, e.kinds, sizeof e.kinds);
    free(rows);
    tokenizer_free(t);
    model_free(m);
    return ok;
}

static void print_table(char **models, size_t n, struct kind_score (*kinds)[LIST_COUNT],
                        double (*spreads)[LIST_COUNT]) {
    printf("| asked for | questions |");
    for (size_t i = 0; i < n; i++)
        printf(" %s: spread | right |", models[i]);
    printf("\n|:--|--:|");
    for (size_t i = 0; i < n; i++)
        printf("--:|--:|");
    for (size_t list = 0; list < LIST_COUNT; list++) {
        if (kinds[0][list].asked == 0)
            continue;
        printf("\n| %s | %zu |", list ? world_lists[list].name : "?", kinds[0][list].asked);
        for (size_t i = 0; i < n; i++) {
            if (isnan(spreads[i][list]))
                printf(" – |");
            else
                printf(" %.2f |", spreads[i][list]);
            printf(" %.0f %% |",
                   100.0 * (double)kinds[i][list].right / (double)kinds[i][list].asked);
        }
    }
    printf("\n| all | ");
    for (size_t i = 0; i < n; i++) {
        struct kind_score all = {0};
        for (size_t list = 0; list < LIST_COUNT; list++) {
            all.asked += kinds[i][list].asked;
            all.right += kinds[i][list].right;
        }
        if (i == 0)
            printf("%zu |", all.asked);
        printf(" | %.1f %% |", 100.0 * (double)all.right / (double)all.asked);
    }
    printf("\n");
}

int main(int argc, char **argv) {
    enum { MODELS_MAX = 8 };
    static struct kind_score kinds[MODELS_MAX][LIST_COUNT];
    static double spreads[MODELS_MAX][LIST_COUNT];
    struct error err = {0};
    struct question_list questions = {0};
    size_t n = argc > 2 ? (size_t)argc - 2 : 0;
    if (n == 0 || n > MODELS_MAX) {
        fprintf(stderr, "usage: question_kinds QUESTIONS.jsonl MODEL… (at most %d)\n", MODELS_MAX);
        return 2;
    }
    bool ok = questions_read(&questions, argv[1], &err);
    uint8_t *about = ok ? read_kinds(argv[1], questions.n, &err) : NULL;
    ok = about != NULL;
    for (size_t i = 0; ok && i < n; i++)
        ok = examine(argv[2 + i], &questions, about, kinds[i], spreads[i], &err);
    if (ok)
        print_table(argv + 2, n, kinds, spreads);
    else
        fprintf(stderr, "question_kinds: %s\n", err.message);
    free(about);
    questions_free(&questions);
    return ok ? 0 : 1;
}
