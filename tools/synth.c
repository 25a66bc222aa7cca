// Writes a checkpoint of a real model's exact shape, filled with seeded random weights: for
// measuring speed and memory where the real one cannot be had.
//
//     build/tools/synth qwen2.5-3b data/synth/qwen2.5-3b
//
// Hugging Face layout, bf16, shards of at most 2 GB. Weights are normal with std 1/sqrt(inputs), so
// that activations stay near 1. One input column in 200 is 10 to 20 times larger, as in trained
// models, and the norm before it that much smaller: what the matrix computes stays tame, but one
// scale per row fits it badly. The tokenizer knows single bytes only.
// The same shape gives the same bytes with any number of threads. The folder takes its name when it
// is complete; one that is there already is left alone.
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/dtype.h"
#include "core/file.h"
#include "core/folder.h"
#include "core/memory.h"
#include "core/random.h"
#include "report/progress.h"
#include "synth_shapes.h"

// ---- the plan: every tensor, its statistics and its place ------------------------------

enum { MAX_SHARDS = 64 };

struct part {
    char name[80];
    size_t rows, cols; // rows 0: a vector
    float mean, std;
    uint64_t outliers;   // seed of the outlier columns; 0: none
    bool divide;         // a norm: divided where the matrices behind it are multiplied
    size_t shard, begin; // file, and bytes behind its header
};

struct plan {
    const struct shape *shape;
    struct part *parts;
    size_t n_parts, n_shards, bytes;
    size_t shard_bytes[MAX_SHARDS];
    char *headers[MAX_SHARDS]; // 8 bytes of length, then JSON
    size_t header_bytes[MAX_SHARDS];
};

static size_t part_elements(const struct part *p) {
    return (p->rows ? p->rows : 1) * p->cols;
}

static struct part *plan_add(struct plan *plan, const char *prefix, const char *name, size_t rows,
                             size_t cols, float mean, float std) {
    struct part *p = &plan->parts[plan->n_parts++];
    *p = (struct part){.rows = rows, .cols = cols, .mean = mean, .std = std};
    snprintf(p->name, sizeof p->name, "%s%s", prefix, name);
    size_t bytes = 2 * part_elements(p);
    if (plan->n_shards == 0 || plan->shard_bytes[plan->n_shards - 1] + bytes > plan->shape->shard)
        plan->n_shards++;
    p->shard = plan->n_shards - 1;
    p->begin = plan->shard_bytes[p->shard];
    plan->shard_bytes[p->shard] += bytes;
    plan->bytes += bytes;
    return p;
}

static void plan_matrix(struct plan *plan, const char *prefix, const char *name, size_t rows,
                        size_t cols, double gain, uint64_t outliers) {
    float std = (float)(gain / sqrt((double)cols));
    plan_add(plan, prefix, name, rows, cols, 0, std)->outliers = outliers;
}

static void plan_norm(struct plan *plan, const char *prefix, const char *name, uint64_t outliers) {
    struct part *p = plan_add(plan, prefix, name, 0, plan->shape->hidden, 1, 0.1f);
    p->outliers = outliers;
    p->divide = true;
}

static void plan_attention(struct plan *plan, const char *prefix, double into_residual,
                           uint64_t seed) {
    const struct shape *s = plan->shape;
    size_t kv = s->hidden / s->heads * s->kv_heads;
    const char *names[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
    plan_norm(plan, prefix, "input_layernorm.weight", seed);
    for (int i = 0; i < 3; i++) {
        char name[40];
        snprintf(name, sizeof name, "%s.weight", names[i]);
        plan_matrix(plan, prefix, name, i ? kv : s->hidden, s->hidden, 1, seed);
        snprintf(name, sizeof name, "%s.bias", names[i]);
        if (s->family == QWEN2)
            plan_add(plan, prefix, name, 0, i ? kv : s->hidden, 0, 0.1f);
    }
    plan_matrix(plan, prefix, "self_attn.o_proj.weight", s->hidden, s->hidden, into_residual,
                seed + 1);
}

static void plan_mlp(struct plan *plan, const char *prefix, double into_residual, uint64_t seed) {
    const struct shape *s = plan->shape;
    plan_norm(plan, prefix, "post_attention_layernorm.weight", seed);
    plan_matrix(plan, prefix, "mlp.gate_proj.weight", s->intermediate, s->hidden, 1, seed);
    plan_matrix(plan, prefix, "mlp.up_proj.weight", s->intermediate, s->hidden, 1, seed);
    plan_matrix(plan, prefix, "mlp.down_proj.weight", s->hidden, s->intermediate, into_residual,
                seed + 1);
}

static bool plan_header(struct plan *plan, size_t shard, struct error *err) {
    FILE *f = open_memstream(&plan->headers[shard], &plan->header_bytes[shard]);
    if (!f)
        return error_set(err, "header: %s", strerror(errno));
    fprintf(f, "%8s{\"__metadata__\":{\"format\":\"pt\"}", "");
    for (size_t i = 0; i < plan->n_parts; i++) {
        const struct part *p = &plan->parts[i];
        if (p->shard != shard)
            continue;
        fprintf(f, ",\"%s\":{\"dtype\":\"BF16\",\"shape\":[", p->name);
        if (p->rows)
            fprintf(f, "%zu,", p->rows);
        fprintf(f, "%zu],\"data_offsets\":[%zu,%zu]}", p->cols, p->begin,
                p->begin + 2 * part_elements(p));
    }
    long end = ftell(f) + 1;
    fprintf(f, "}%*s", (int)((8 - end % 8) % 8), "");
    if (fclose(f) != 0)
        return error_set(err, "header: %s", strerror(errno));
    uint64_t length = plan->header_bytes[shard] - 8;
    for (int i = 0; i < 8; i++)
        plan->headers[shard][i] = (char)(length >> 8 * i);
    return true;
}

static bool plan_init(struct plan *plan, const struct shape *s, struct error *err) {
    *plan = (struct plan){.shape = s};
    plan->parts = memory_alloc(12 * s->layers + 3, sizeof *plan->parts, "tensors", err);
    if (!plan->parts)
        return false;
    // The residual stream adds up two outputs per layer; together they should be as large as one.
    double into_residual = 1 / sqrt(2.0 * (double)s->layers);
    plan_matrix(plan, "", "model.embed_tokens.weight", s->vocab, s->hidden, 2, 0);
    for (size_t i = 0; i < s->layers; i++) {
        char prefix[40];
        snprintf(prefix, sizeof prefix, "model.layers.%zu.", i);
        plan_attention(plan, prefix, into_residual, 4 * i + 1);
        plan_mlp(plan, prefix, into_residual, 4 * i + 3);
    }
    plan_norm(plan, "", "model.norm.weight", 0);
    if (!s->tied)
        plan_matrix(plan, "", "lm_head.weight", s->vocab, s->hidden, 2, 0);
    for (size_t i = 0; i < plan->n_shards; i++)
        if (!plan_header(plan, i, err))
            return false;
    return true;
}

static void plan_free(struct plan *plan) {
    for (size_t i = 0; i < plan->n_shards; i++)
        free(plan->headers[i]);
    free(plan->parts);
}

// ---- weights ---------------------------------------------------------------------------
//
// A normal number is a uniform 16-bit one looked up in the table of the normal distribution's
// quantiles: four to a 64-bit random number, several hundred million a second and thread.

enum { QUANTILES = 65536, CHUNK = 1 << 16 };

struct outlier {
    size_t col;
    float factor;
};

struct weights {
    float quantiles[QUANTILES];
    uint16_t values[QUANTILES]; // of the tensor being written, bf16
    struct outlier *outliers;   // of the tensor being written
    size_t n_outliers;
};

// Newton's method on the distribution function, from one quantile to the next.
static void quantiles_init(float *q) {
    double x = 0;
    for (int i = QUANTILES / 2; i < QUANTILES; i++) {
        double p = (i + 0.5) / QUANTILES;
        for (int step = 0; step < 4; step++)
            x += (p - 0.5 * erfc(-x / M_SQRT2)) * sqrt(2 * M_PI) * exp(0.5 * x * x);
        q[i] = (float)x;
        q[QUANTILES - 1 - i] = (float)-x;
    }
}

// One column in each stretch of 200.
static bool outliers_init(struct weights *w, const struct part *p, struct error *err) {
    free(w->outliers);
    w->n_outliers = p->outliers ? (p->cols + 199) / 200 : 0;
    w->outliers = memory_alloc(w->n_outliers, sizeof *w->outliers, "outliers", err);
    if (!w->outliers)
        return false;
    struct random r = {p->outliers};
    for (size_t i = 0; i < w->n_outliers; i++) {
        size_t stretch = p->cols - 200 * i < 200 ? p->cols - 200 * i : 200;
        w->outliers[i].col = 200 * i + random_below(&r, (uint32_t)stretch);
        float factor = 10 + 10 * (float)random_uniform(&r);
        w->outliers[i].factor = p->divide ? 1 / factor : factor;
    }
    return true;
}

// Elements [begin, begin + n) of tensor `index`; both multiples of 4 or at its end.
static void fill(const struct weights *w, const struct part *p, size_t index, size_t begin,
                 size_t n, uint16_t *out) {
    struct random seed = {index}, r = {random_u64(&seed)};
    r.state += begin / 4 * 0x9e3779b97f4a7c15u; // where the stream is after that many draws
    for (size_t i = 0; i < n; i += 4) {
        uint64_t bits = random_u64(&r);
        for (size_t j = 0; j < 4 && i + j < n; j++)
            out[i + j] = w->values[bits >> 16 * j & 0xffff];
    }
    for (size_t row = begin / p->cols; row * p->cols < begin + n; row++)
        for (size_t i = 0; i < w->n_outliers; i++) {
            size_t at = row * p->cols + w->outliers[i].col;
            if (at >= begin && at < begin + n)
                out[at - begin] = f32_to_bf16(bf16_to_f32(out[at - begin]) * w->outliers[i].factor);
        }
}

// Ctrl-C: the writes fail, and the half-written folder goes the way of every failure.
static volatile sig_atomic_t interrupted;

static void interrupt(int signal_number) {
    interrupted = signal_number;
}

static bool write_at(int fd, const void *data, size_t size, size_t at, const char *path,
                     struct error *err) {
    for (size_t done = 0; done < size;) {
        if (interrupted)
            return error_set(err, "%s: interrupted", path);
        ssize_t n = pwrite(fd, (const char *)data + done, size - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, "%s: cannot write %zu bytes at %zu: %s", path, size, at,
                             n < 0 ? strerror(errno) : "nothing was taken");
        done += (size_t)n;
    }
    return true;
}

static bool write_part(struct weights *w, const struct plan *plan, size_t index, int fd,
                       const char *path, struct error *err) {
    const struct part *p = &plan->parts[index];
    size_t n = part_elements(p), at = plan->header_bytes[p->shard] + p->begin;
    for (int i = 0; i < QUANTILES; i++)
        w->values[i] = f32_to_bf16(p->mean + p->std * w->quantiles[i]);
    if (!outliers_init(w, p, err))
        return false;
    bool ok = true;
#pragma omp parallel
    {
        struct error mine = {0};
        uint16_t *buffer = memory_alloc(CHUNK, sizeof *buffer, "buffer", &mine);
        bool good = buffer != NULL;
#pragma omp for schedule(dynamic)
        for (size_t begin = 0; begin < n; begin += CHUNK) {
            size_t count = n - begin < CHUNK ? n - begin : CHUNK;
            if (good) {
                fill(w, p, index, begin, count, buffer);
                good = write_at(fd, buffer, 2 * count, at + 2 * begin, path, &mine);
            }
        }
#pragma omp critical
        if (!good)
            ok = error_set(err, "%s", mine.message);
        free(buffer);
    }
    return ok;
}

static char *shard_path(const struct plan *plan, const char *folder, size_t i, struct error *err) {
    if (plan->n_shards == 1)
        return path_join(folder, "model.safetensors", err);
    return memory_printf(err, "%s/model-%05zu-of-%05zu.safetensors", folder, i + 1, plan->n_shards);
}

static bool write_shard(struct weights *w, const struct plan *plan, const char *folder,
                        size_t shard, struct progress *progress, uint64_t *done,
                        struct error *err) {
    char *path = shard_path(plan, folder, shard, err);
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
    bool ok = fd >= 0;
    if (path && !ok)
        error_set(err, "%s: cannot write: %s", path, strerror(errno));
    ok = ok && write_at(fd, plan->headers[shard], plan->header_bytes[shard], 0, path, err);
    for (size_t i = 0; ok && i < plan->n_parts; i++) {
        if (plan->parts[i].shard != shard)
            continue;
        ok = write_part(w, plan, i, fd, path, err);
        *done += 2 * part_elements(&plan->parts[i]);
        progress_update(progress, *done, plan->bytes, NULL);
    }
    if (fd >= 0 && close(fd) != 0 && ok)
        ok = error_set(err, "%s: cannot write: %s", path, strerror(errno));
    free(path);
    return ok;
}

static bool write_weights(const struct plan *plan, const char *folder, struct error *err) {
    struct weights *w = memory_alloc(1, sizeof *w, "weights", err);
    if (!w)
        return false;
    quantiles_init(w->quantiles);
    struct progress progress;
    progress_start(&progress, plan->shape->name, "B");
    uint64_t done = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < plan->n_shards; i++)
        ok = write_shard(w, plan, folder, i, &progress, &done, err);
    progress_finish(&progress);
    free(w->outliers);
    free(w);
    return ok;
}

// ---- the small files -------------------------------------------------------------------

typedef void shape_printer(FILE *f, const struct shape *s);

static char *shape_text(shape_printer *print, const struct shape *s, struct error *err) {
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (f)
        print(f, s);
    if (f && fclose(f) == 0)
        return text;
    error_set(err, "%s: %s", s->name, strerror(errno));
    free(text);
    return NULL;
}

static bool write_text(const struct plan *plan, const char *folder, const char *name,
                       shape_printer *print, struct error *err) {
    struct file_writer w = {0};
    char *path = path_join(folder, name, err);
    char *text = path ? shape_text(print, plan->shape, err) : NULL;
    bool ok = text && file_writer_open(&w, path, err);
    if (ok) {
        fputs(text, w.stream);
        ok = file_writer_commit(&w, err);
    }
    free(text);
    free(path);
    return ok;
}

static bool write_index(const struct plan *plan, const char *folder, struct error *err) {
    struct file_writer w = {0};
    char *path = path_join(folder, "model.safetensors.index.json", err);
    bool ok = path && file_writer_open(&w, path, err);
    free(path);
    if (!ok)
        return false;
    fprintf(w.stream, "{\n  \"metadata\": {\"total_size\": %zu},\n  \"weight_map\": {",
            plan->bytes);
    for (size_t i = 0; i < plan->n_parts; i++)
        fprintf(w.stream, "%s\n    \"%s\": \"model-%05zu-of-%05zu.safetensors\"", i ? "," : "",
                plan->parts[i].name, plan->parts[i].shard + 1, plan->n_shards);
    fputs("\n  }\n}\n", w.stream);
    return file_writer_commit(&w, err);
}

// ---- the folder ------------------------------------------------------------------------

// Whether the folder holds what this plan would write: the same config, shards of the right size.
static bool is_complete(const struct plan *plan, const char *folder, struct error *err) {
    char *path = path_join(folder, "config.json", err);
    char *found = path ? file_read(path, 1 << 16, NULL, NULL) : NULL;
    char *wanted = found ? shape_text(print_config, plan->shape, err) : NULL;
    bool same = found && wanted && strcmp(found, wanted) == 0;
    free(found);
    free(wanted);
    free(path);
    for (size_t i = 0; same && i < plan->n_shards; i++) {
        struct stat st;
        path = shard_path(plan, folder, i, err);
        same = path && stat(path, &st) == 0 &&
               (size_t)st.st_size == plan->header_bytes[i] + plan->shard_bytes[i];
        free(path);
    }
    return same || error_set(err, "%s: is there, but is no complete %s; remove it first", folder,
                             plan->shape->name);
}

static bool has_room(const struct plan *plan, const char *folder, struct error *err) {
    struct statvfs v;
    if (statvfs(folder, &v) != 0)
        return true; // the writes will tell
    double room = (double)v.f_bavail * (double)v.f_frsize;
    return room > (double)plan->bytes ||
           error_set(err, "%s: %.1f GB are free, %s needs %.1f GB", folder, room / 1e9,
                     plan->shape->name, (double)plan->bytes / 1e9);
}

static bool write_folder(const struct plan *plan, const char *path, struct error *err) {
    struct folder_writer w;
    if (!folder_writer_open(&w, path, err))
        return false;
    const char *folder = w.temporary;
    bool ok =
        has_room(plan, folder, err) && write_text(plan, folder, "config.json", print_config, err) &&
        write_text(plan, folder, "tokenizer.json", print_tokenizer, err) &&
        write_text(plan, folder, "tokenizer_config.json", print_tokenizer_config, err) &&
        (plan->n_shards == 1 || write_index(plan, folder, err)) && write_weights(plan, folder, err);
    if (ok)
        return folder_writer_commit(&w, err);
    folder_writer_abort(&w);
    return false;
}

static bool make(const struct shape *shape, const char *folder, struct error *err) {
    struct plan plan;
    bool there = access(folder, F_OK) == 0;
    bool ok = plan_init(&plan, shape, err) &&
              (there ? is_complete(&plan, folder, err) : write_folder(&plan, folder, err));
    if (ok)
        printf("%s: %s%zu tensors, %.3f GB\n", folder, there ? "complete already: " : "",
               plan.n_parts, (double)plan.bytes / 1e9);
    plan_free(&plan);
    return ok;
}

// ---- the program -----------------------------------------------------------------------

static void print_shapes(FILE *f) {
    for (size_t i = 0; i < N_SHAPES; i++)
        fprintf(f, " %s", shapes[i].name);
    fputc('\n', f);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        printf("usage: build/tools/synth SHAPE FOLDER\n"
               "Writes a checkpoint of that shape with random weights. Shapes:");
        print_shapes(stdout);
        return 0;
    }
    if (argc != 3 || !*argv[2]) {
        fprintf(stderr, "synth: expected SHAPE FOLDER; try 'build/tools/synth --help'\n");
        return 2;
    }
    const struct shape *shape = NULL;
    for (size_t i = 0; i < N_SHAPES; i++)
        if (strcmp(shapes[i].name, argv[1]) == 0)
            shape = &shapes[i];
    if (!shape) {
        fprintf(stderr, "synth: '%s' is not one of", argv[1]);
        print_shapes(stderr);
        return 2;
    }
    for (size_t n = strlen(argv[2]); n > 1 && argv[2][n - 1] == '/'; n--)
        argv[2][n - 1] = '\0';
    signal(SIGINT, interrupt);
    signal(SIGTERM, interrupt);
    struct error err = {0};
    if (make(shape, argv[2], &err))
        return 0;
    fprintf(stderr, "synth: %s\n", err.message);
    return 1;
}
