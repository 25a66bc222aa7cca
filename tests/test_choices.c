// eval/choices: the three spellings, what is refused, and accuracies checked by brute force.
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "eval/choices.h"
#include "eval/perplexity.h"
#include "shared.h"

static bool parse(struct question_list *list, const char *text, struct error *err) {
    *err = (struct error){0};
    return questions_parse(list, text, strlen(text), "q.jsonl", err);
}

Test(choices, three_spellings_are_read) {
    struct question_list list;
    struct error err;
    cr_assert(parse(&list,
                    "{\"context\":\"A\",\"choices\":[\"b\",\"c\"],\"answer\":1}\n\n"
                    "{\"ctx\":\"D\",\"endings\":[\"e\",\"f\",\"g\"],\"label\":\"2\"}\r\n"
                    "{\"id\":\"x\",\"query\":\"H\",\"choices\":[\"i\",\"j\"],\"gold\":0}",
                    &err),
              "%s", err.message);
    cr_assert_eq(list.n, 3);
    cr_assert(strcmp(list.questions[1].context, "D") == 0 && list.questions[1].answer == 2);
    cr_assert(list.questions[1].n_choices == 3 && strcmp(list.questions[1].choices[2], "g") == 0);
    cr_assert_eq(list.questions[2].answer, 0);
    questions_free(&list);
}

Test(choices, bad_lines_are_named) {
    static const char *const cases[][2] = {
        {"", "q.jsonl: no questions"},
        {"\n{\"context\":\"A\"}", "q.jsonl:2: expected a context"},
        {"{\"context\":\"A\",\"choices\":[\"b\"],\"answer\":0}", "2 to 16 choices"},
        {"{\"context\":\"A\",\"choices\":[\"b\",7],\"answer\":0}", "a choice is no text"},
        {"{\"context\":\"A\",\"choices\":[\"b\",\"c\"],\"answer\":2}", "number from 0 to 1"},
        {"{\"context\":\"A\",\"choices\":[\"b\",\"c\"]}", "number from 0 to 1"},
        {"{\"context\":\"A\",\"choices\":[\"b\",\"c\"],\"answer\":\"B\"}", "number from 0 to 1"},
        {"{\"context\":\"A\",\"choices\":[\"b\",\"c\"],\"answer\":\"\"}", "number from 0 to 1"},
        {"nonsense", "q.jsonl:1: not a JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct question_list list;
        struct error err;
        cr_assert_not(parse(&list, cases[i][0], &err));
        cr_assert(strstr(err.message, cases[i][1]), "'%s' lacks '%s'", err.message, cases[i][1]);
    }
}

// The definition, without sharing: every choice with its whole context through the model alone.
static size_t answer_ref(const struct model *m, const struct tokenizer *t,
                         const struct question *q) {
    struct error err = {0};
    size_t best = 0, v = m->config.vocab;
    double best_score = -1e300;
    for (size_t c = 0; c < q->n_choices; c++) {
        char text[4096];
        struct token_list context = {0}, whole = {0};
        int32_t bos = tokenizer_bos(t), positions[1024];
        snprintf(text, sizeof text, "%s %s", q->context, q->choices[c]);
        cr_assert(token_list_push(&context, bos, &err) && token_list_push(&whole, bos, &err));
        cr_assert(tokenizer_encode(t, q->context, strlen(q->context), &context, &err));
        cr_assert(tokenizer_encode(t, text, strlen(text), &whole, &err));
        for (int32_t i = 0; i < (int32_t)whole.n; i++)
            positions[i] = i;
        struct kv_cache kv;
        float *logits = malloc(whole.n * v * sizeof *logits);
        cr_assert(kv_cache_init(&kv, &m->config, 1, whole.n, &err));
        struct batch b = {whole.n, whole.ids, positions, NULL, NULL};
        cr_assert(model_forward(m, &kv, &b, logits, &err), "%s", err.message);
        double score = 0;
        for (size_t i = context.n; i < whole.n; i++)
            score -= nll_of(logits + (i - 1) * v, v, whole.ids[i]);
        score /= (double)strlen(q->choices[c]);
        if (score > best_score)
            best = c, best_score = score;
        kv_cache_free(&kv);
        free(logits);
        token_list_free(&context);
        token_list_free(&whole);
    }
    return best;
}

Test(choices, sharing_the_context_gives_the_same_answers) {
    const char *folder = shared_path("data/models/stories260K");
    struct question_list list;
    struct error err = {0};
    cr_assert(questions_read(&list, shared_path("data/choices/arc_easy_val.jsonl"), &err), "%s",
              err.message);
    struct model *m = model_load(folder, &err);
    struct tokenizer *t = tokenizer_load(folder, &err);
    cr_assert(m && t, "%s", err.message);
    enum { N = 30 };
    size_t right = 0;
    for (size_t i = 0; i < N; i++)
        right += answer_ref(m, t, &list.questions[i]) == list.questions[i].answer;
    struct choices_result r;
    cr_assert(choices_score(m, t, &list, N, &r, NULL, NULL, &err), "%s", err.message);
    cr_assert_eq(r.asked, N);
    cr_assert_eq(r.right, right);
    cr_assert_float_eq(r.accuracy, (double)right / N, 1e-12);
    questions_free(&list);
    tokenizer_free(t);
    model_free(m);
}
