// Writes the texts that the bundled model is trained, evaluated, calibrated and questioned on.
//
// All files have one form: a story is two lines, and a blank line lies between stories. In the
// training text one story in four is followed by <|endoftext|> instead, so that a model learns
// where a text may stop; the others have no special token, so that every program reads them alike.
// The same seed gives the same bytes on any machine. data/README.md has the commands.
#include <cjson/cJSON.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/file.h"
#include "tools/stories/tale.h"

enum kind { KIND_TRAIN, KIND_EVAL, KIND_CALIB, KIND_CHOICES };

struct job {
    enum kind kind;
    uint64_t seed;
    size_t amount;  // bytes to reach, or questions
    uint32_t facts; // a story ends with 1 to this many of its facts
    bool parts;     // two stories in three are a part of one
    bool balanced;  // rare kinds of facts are told more often
    const char *out;
};

struct totals {
    size_t stories, bytes;
    double bits;
};

static const char usage[] =
    "usage: make_stories [--eval | --calib | --choices N] [--seed N] [--bytes N] [--facts N]\n"
    "                    [--parts] [--balanced] --out FILE\n"
    "Writes seeded stories: for training (without a kind), held out for evaluation, for\n"
    "calibration, or N multiple-choice questions as JSON lines. Bytes may end in kB or MB. A\n"
    "story ends with one to --facts of its facts, told or asked [3], or all of them.\n"
    "  --parts     two stories in three are a part of one, so that what is asked for is near\n"
    "  --balanced  no kind of fact (a person, a day) is told more than twice as often as the\n"
    "              average one\n"
    "  make_stories --bytes 24MB --out data/train/stories.txt\n"
    "  make_stories --eval --bytes 240kB --out data/eval.txt     and its entropy, data/eval.json\n";

_Noreturn static void fail(int status, const char *message) {
    fprintf(stderr, "make_stories: %s\n", message);
    exit(status);
}

static uint64_t parse_number(const char *text, bool bytes) {
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    if (bytes && (strcmp(end, "kB") == 0 || strcmp(end, "MB") == 0)) {
        n *= *end == 'k' ? 1000 : 1000000;
        end += 2;
    }
    if (*text < '0' || *text > '9' || *end || n > (uint64_t)1 << 40)
        fail(2, "a number is wrong; see --help");
    return n;
}

static struct job parse_arguments(int argc, char **argv) {
    static const struct option options[] = {
        {"eval", no_argument, NULL, 'e'},
        {"calib", no_argument, NULL, 'c'},
        {"choices", required_argument, NULL, 'q'},
        {"seed", required_argument, NULL, 's'},
        {"bytes", required_argument, NULL, 'b'},
        {"facts", required_argument, NULL, 'f'},
        {"parts", no_argument, NULL, 'p'},
        {"balanced", no_argument, NULL, 'B'},
        {"out", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct job job = {.kind = KIND_TRAIN, .facts = 3};
    size_t bytes = 0;
    bool seeded = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'e' || c == 'c')
            job.kind = c == 'e' ? KIND_EVAL : KIND_CALIB;
        else if (c == 'q') {
            job.kind = KIND_CHOICES;
            job.amount = parse_number(optarg, false);
        } else if (c == 's') {
            job.seed = parse_number(optarg, false);
            seeded = true;
        } else if (c == 'b')
            bytes = parse_number(optarg, true);
        else if (c == 'f')
            job.facts =
                strcmp(optarg, "all") ? (uint32_t)parse_number(optarg, false) : TALE_ALL_FACTS;
        else if (c == 'p')
            job.parts = true;
        else if (c == 'B')
            job.balanced = true;
        else if (c == 'o')
            job.out = optarg;
        else {
            fputs(usage, c == 'h' ? stdout : stderr);
            exit(c == 'h' ? 0 : 2);
        }
    }
    if (!job.out || optind < argc)
        fail(2, "expected --out FILE and no other words; see --help");
    if (job.kind != KIND_CHOICES)
        job.amount = bytes ? bytes : job.kind == KIND_TRAIN ? 24000000 : 240000;
    if (!seeded)
        job.seed = 1 + (uint64_t)job.kind;
    return job;
}

// Draws stories until one is, or is not, held out.
static void tell_next(struct tale *t, struct story *s, struct random *r, bool held_out, bool part) {
    do {
        story_init(s, r, NULL, 0);
        (part ? tale_tell_part : tale_tell)(t, s);
    } while (tale_held_out(t, s) != held_out && !s->broken);
}

static void write_text(const struct job *job, FILE *f, struct totals *sum) {
    static struct story s;
    struct tale t;
    struct random r = {job->seed};
    size_t kept[LIST_COUNT] = {0};
    while (sum->bytes < job->amount && !s.broken) {
        do
            tell_next(&t, &s, &r, job->kind == KIND_EVAL, job->parts && sum->stories % 3);
        while (job->balanced && !tale_balance(&t, &s, kept) && !s.broken);
        tale_end(&t, &s, job->facts);
        bool stop = job->kind == KIND_TRAIN && random_below(&r, 4) == 0;
        const char *mark = stop ? "<|endoftext|>" : "\n\n";
        fprintf(f, "%s%s", s.text, mark);
        sum->stories++;
        sum->bytes += s.size + strlen(mark);
        sum->bits += s.bits + (stop ? 2 : log2(4.0 / 3));
    }
    if (s.broken)
        fail(1, s.broken);
}

static void write_questions(const struct job *job, FILE *f, struct totals *sum) {
    static struct story s;
    static struct question q;
    struct tale t;
    struct random r = {job->seed};
    for (; sum->stories < job->amount; sum->stories++) {
        tell_next(&t, &s, &r, true, false);
        tale_ask(&t, &s, &q);
        cJSON *line = cJSON_CreateObject();
        cJSON_AddStringToObject(line, "context", q.context);
        cJSON *choices = cJSON_AddArrayToObject(line, "choices");
        for (int i = 0; i < QUESTION_CHOICES; i++)
            cJSON_AddItemToArray(choices, cJSON_CreateString(q.choices[i]));
        cJSON_AddNumberToObject(line, "answer", q.answer);
        enum list_id about = variable_list(q.fact->variable);
        cJSON_AddStringToObject(line, "about", world_lists[about].name);
        char *text = cJSON_PrintUnformatted(line);
        cJSON_Delete(line);
        if (!text || s.broken)
            fail(1, s.broken ? s.broken : "out of memory");
        fprintf(f, "%s\n", text);
        sum->bytes += strlen(text) + 1;
        free(text);
    }
}

// What the generator knows about its text and a model can at best learn: FILE.json beside FILE.txt.
static void write_floor(const struct job *job, const struct totals *sum) {
    struct error err;
    struct file_writer w;
    char path[4096];
    const char *dot = strrchr(job->out, '.');
    int stem = dot && !strchr(dot, '/') ? (int)(dot - job->out) : (int)strlen(job->out);
    snprintf(path, sizeof path, "%.*s.json", stem, job->out);
    if (!file_writer_open(&w, path, &err))
        fail(1, err.message);
    const char *slash = strrchr(job->out, '/');
    fprintf(w.stream,
            "{\"text\": \"%s\", \"seed\": %llu, \"stories\": %zu, \"bytes\": %zu, "
            "\"bits\": %.3f, \"nats\": %.3f}\n",
            slash ? slash + 1 : job->out, (unsigned long long)job->seed, sum->stories, sum->bytes,
            sum->bits, sum->bits * M_LN2);
    if (!file_writer_commit(&w, &err))
        fail(1, err.message);
}

int main(int argc, char **argv) {
    struct job job = parse_arguments(argc, argv);
    struct error err;
    struct file_writer w;
    struct totals sum = {0};
    if (!folder_create_for(job.out, &err) || !file_writer_open(&w, job.out, &err))
        fail(1, err.message);
    if (job.kind == KIND_CHOICES)
        write_questions(&job, w.stream, &sum);
    else
        write_text(&job, w.stream, &sum);
    if (!file_writer_commit(&w, &err))
        fail(1, err.message);
    if (job.kind == KIND_EVAL)
        write_floor(&job, &sum);
    printf("%s: %zu %s, %zu bytes", job.out, sum.stories,
           job.kind == KIND_CHOICES ? "questions" : "stories", sum.bytes);
    if (job.kind != KIND_CHOICES)
        printf(", %.2f bits per story, %.4f bits per byte", sum.bits / (double)sum.stories,
               sum.bits / (double)sum.bytes);
    printf("\n");
}
