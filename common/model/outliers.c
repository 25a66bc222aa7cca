// The columns that stand out are drawn, scaled and measured here; outliers_folder.c has the files.
#include "model/outliers.h"

#include <fcntl.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/random.h"
#include "io/safetensors.h"

enum { GROUP = 128, RUN = 32 };

// Found by trial on a model of 8 layers, width 256, MLP 768, seeds 1 to 4. Perplexity times: INT8
// per channel 1.002 to 1.005, INT4 per channel 16 to 48, group 128 1.03 to 1.04, group 32 1.004
// to 1.009. Columns of 16 to 64 cost INT8 1.2 %; no shoulder costs group 128 7 % and more.
const struct outlier_options outlier_defaults = {
    .columns = 0.01, .down = {5, 5}, .norm = {1, 2}, .shoulder = {1, 2}};

// ---- which columns ------------------------------------------------------------------------------

static size_t size_min(size_t a, size_t b) {
    return a < b ? a : b;
}

static uint8_t draw_scale(struct random *r, struct outlier_range range) {
    return (uint8_t)(range.lo + random_below(r, range.hi - range.lo + 1));
}

// The group of 128 (in a short row: a quarter of it) that the outliers share, the run of 32 within
// it (more, if there are more outliers than that), and the outliers within the run.
static void draw_columns(uint8_t *log2, size_t k, double share, struct outlier_range range,
                         struct outlier_range shoulder, struct random *r) {
    size_t group = k >= 4 * GROUP ? GROUP : k / 4 ? k / 4 : 1;
    size_t begin = group * random_below(r, (uint32_t)(k / group));
    size_t count = (size_t)fmax(1, fmin(round(share * (double)k), (double)group));
    size_t run = size_min(group, (count + RUN - 1) / RUN * RUN);
    for (size_t i = 0; i < group; i++)
        log2[begin + i] = draw_scale(r, shoulder);
    begin += run * random_below(r, (uint32_t)(group / run));
    // Knuth's selection sampling: each column of the run with the probability that is left.
    for (size_t i = 0; i < run; i++)
        if (random_below(r, (uint32_t)(run - i)) < count) {
            log2[begin + i] = draw_scale(r, range);
            count--;
        }
}

bool outlier_plan_init(struct outlier_plan *p, const struct model_config *c, struct error *err) {
    size_t n = 0;
    *p = (struct outlier_plan){
        .hidden = c->hidden, .intermediate = c->intermediate, .n_layers = c->n_layers};
    if (c->arch->layernorm || c->arch->fused_qkv || c->arch->transposed || c->arch->gelu)
        return error_set(err, "architecture %s: outliers need RMSNorm and a gated MLP",
                         c->arch->name);
    if (!size_mul(c->n_layers, c->intermediate, &n))
        return error_set(err, "%zu layers of width %zu are too many", c->n_layers, c->intermediate);
    p->residual = memory_alloc(c->hidden, 1, "outlier columns", err);
    p->mlp = p->residual ? memory_alloc(n, 1, "outlier columns", err) : NULL;
    if (!p->mlp)
        outlier_plan_free(p);
    return p->mlp != NULL;
}

static bool range_valid(struct outlier_range r) {
    return r.lo <= r.hi && r.hi <= OUTLIER_MAX_LOG2;
}

bool outlier_plan_make(struct outlier_plan *p, const struct model_config *c,
                       const struct outlier_options *o, struct error *err) {
    *p = (struct outlier_plan){0};
    if (!(o->columns > 0 && o->columns <= 0.25))
        return error_set(err, "the share of columns is %g, expected more than 0, at most 0.25",
                         o->columns);
    if (!range_valid(o->down) || !range_valid(o->norm) || !range_valid(o->shoulder))
        return error_set(err, "scales of outliers must be in order and at most %d",
                         1 << OUTLIER_MAX_LOG2);
    if (!outlier_plan_init(p, c, err))
        return false;
    struct random r = {o->seed};
    draw_columns(p->residual, p->hidden, o->columns, o->norm, (struct outlier_range){0}, &r);
    size_t layers = o->layers ? size_min(o->layers, p->n_layers) : p->n_layers;
    for (size_t i = 0; i < layers; i++)
        draw_columns(p->mlp + i * p->intermediate, p->intermediate, o->columns, o->down,
                     o->shoulder, &r);
    return true;
}

void outlier_plan_free(struct outlier_plan *p) {
    free(p->residual);
    free(p->mlp);
    *p = (struct outlier_plan){0};
}

// ---- scaling the weights ------------------------------------------------------------------------

enum axis { NONE, RESIDUAL, MLP };

// Rows are divided, columns multiplied. A vector (gain, bias) is rows.
static const struct scaling {
    enum layer_part part;
    const char *suffix;
    enum axis rows, cols;
} scalings[] = {
    {PART_ATTENTION_NORM, "weight", RESIDUAL, NONE},
    {PART_Q, "weight", NONE, RESIDUAL},
    {PART_K, "weight", NONE, RESIDUAL},
    {PART_V, "weight", NONE, RESIDUAL},
    {PART_MLP_NORM, "weight", RESIDUAL, NONE},
    {PART_GATE, "weight", NONE, RESIDUAL},
    {PART_UP, "weight", MLP, RESIDUAL},
    {PART_UP, "bias", MLP, NONE}, // only where the MLP has biases
    {PART_DOWN, "weight", NONE, MLP},
};

// *out: a tensor of that layer under either prefix, in a type we compute with; NULL where there is
// no such bias.
static bool find_part(const struct safetensors *s, const struct arch *arch, size_t layer,
                      enum layer_part part, const char *suffix, const struct tensor **out,
                      struct error *err) {
    char name[256];
    const struct tensor *t = NULL;
    for (size_t i = 0; i < 2 && !t; i++) {
        snprintf(name, sizeof name, "%s%s.%zu.%s.%s", arch->prefixes[i], arch->layer, layer,
                 arch->parts[part], suffix);
        t = safetensors_find(s, name);
    }
    *out = t;
    if (!t)
        return strcmp(suffix, "bias") == 0 ||
               error_set(err, "%s: tensor '%s' is missing", s->paths[0], name);
    return t->dtype == DTYPE_F32 || t->dtype == DTYPE_F16 || t->dtype == DTYPE_BF16 ||
           error_set(err, "%s: tensor '%s' is %s, expected F32, F16 or BF16", t->file, t->name,
                     dtype_name(t->dtype));
}

// rows [N] or NULL, cols [K] or NULL; sign -1 undoes. *rounded counts weights whose new value does
// not lead back to the old one.
static bool scale_tensor(const struct tensor *t, unsigned char *data, const uint8_t *rows,
                         const uint8_t *cols, int sign, size_t *rounded, struct error *err) {
    size_t n = t->shape[0], k = t->n_dims == 2 ? t->shape[1] : 1, size = dtype_size(t->dtype);
    for (size_t r = 0; r < n; r++)
        for (size_t c = 0; c < k; c++) {
            int e = sign * ((cols ? cols[c] : 0) - (rows ? rows[r] : 0));
            if (!e)
                continue;
            unsigned char *at = data + (r * k + c) * size;
            float old, scaled, stored;
            dtype_to_f32(t->dtype, at, 1, &old);
            scaled = ldexpf(old, e);
            dtype_from_f32(t->dtype, &scaled, 1, at);
            dtype_to_f32(t->dtype, at, 1, &stored);
            if (isfinite(old) && !isfinite(stored))
                return error_set(err, "%s: tensor '%s': %g times %g is too large for %s", t->file,
                                 t->name, old, ldexp(1, e), dtype_name(t->dtype));
            *rounded += isfinite(old) && ldexpf(stored, -e) != old;
        }
    return true;
}

static size_t axis_length(const struct outlier_plan *p, enum axis a) {
    return a == RESIDUAL ? p->hidden : p->intermediate;
}

static const uint8_t *axis_scales(const struct outlier_plan *p, enum axis a, size_t layer) {
    return a == NONE ? NULL : a == RESIDUAL ? p->residual : p->mlp + layer * p->intermediate;
}

static bool check_shape(const struct outlier_plan *p, const struct scaling *s,
                        const struct tensor *t, struct error *err) {
    bool vector = s->cols == NONE;
    if (t->n_dims != (vector ? 1 : 2) || !t->bytes)
        return error_set(err, "%s: tensor '%s' has %d dimensions, expected %d", t->file, t->name,
                         t->n_dims, vector ? 1 : 2);
    if (s->rows != NONE && t->shape[0] != axis_length(p, s->rows))
        return error_set(err, "%s: tensor '%s' has %zu rows, expected %zu", t->file, t->name,
                         t->shape[0], axis_length(p, s->rows));
    if (s->cols != NONE && t->shape[1] != axis_length(p, s->cols))
        return error_set(err, "%s: tensor '%s' has %zu columns, expected %zu", t->file, t->name,
                         t->shape[1], axis_length(p, s->cols));
    return true;
}

// The mapped checkpoint is read-only: the bytes of one tensor are mapped a second time to write.
static bool scale_in_file(const struct outlier_plan *p, const struct safetensors *files,
                          const struct scaling *s, size_t layer, const struct tensor *t, int sign,
                          size_t *rounded, struct error *err) {
    size_t i = 0;
    while (strcmp(files->paths[i], t->file) != 0)
        i++;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t at = (size_t)((const unsigned char *)t->data - files->mappings[i].data);
    size_t before = at % page;
    int fd = open(t->file, O_RDWR | O_CLOEXEC);
    void *mapped = fd < 0 ? MAP_FAILED
                          : mmap(NULL, before + t->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                                 (off_t)(at - before));
    if (mapped == MAP_FAILED)
        error_set(err, "%s: cannot write: %s", t->file, strerror(errno));
    if (fd >= 0)
        close(fd);
    if (mapped == MAP_FAILED)
        return false;
    bool ok = scale_tensor(t, (unsigned char *)mapped + before, axis_scales(p, s->rows, layer),
                           axis_scales(p, s->cols, layer), sign, rounded, err);
    if (msync(mapped, before + t->bytes, MS_SYNC) != 0 && ok)
        ok = error_set(err, "%s: cannot write: %s", t->file, strerror(errno));
    munmap(mapped, before + t->bytes);
    return ok;
}

bool outlier_plan_apply(const struct outlier_plan *p, const struct model_config *c,
                        const char *folder, bool undo, size_t *rounded, struct error *err) {
    struct safetensors files;
    *rounded = 0;
    if (!safetensors_open(&files, folder, err))
        return false;
    bool ok = true;
    for (size_t layer = 0; ok && layer < p->n_layers; layer++)
        for (size_t i = 0; ok && i < sizeof scalings / sizeof *scalings; i++) {
            const struct scaling *s = &scalings[i];
            const struct tensor *t;
            ok = find_part(&files, c->arch, layer, s->part, s->suffix, &t, err);
            if (ok && t)
                ok = check_shape(p, s, t, err) &&
                     scale_in_file(p, &files, s, layer, t, undo ? -1 : 1, rounded, err);
        }
    safetensors_close(&files);
    return ok;
}

// ---- measuring ----------------------------------------------------------------------------------

struct moments {
    double sum[5]; // of w^0 … w^4
    size_t lost, lost128;
};

// Weights of w[0..n) below half a step of absmax / 7.
static size_t count_lost(const float *w, size_t n) {
    float absmax = 0;
    size_t lost = 0;
    for (size_t i = 0; i < n; i++)
        absmax = fmaxf(absmax, fabsf(w[i]));
    for (size_t i = 0; i < n; i++)
        lost += fabsf(w[i]) <= absmax / 14;
    return lost;
}

static void measure_row(const float *w, size_t k, float *column, struct moments *m) {
    for (size_t c = 0; c < k; c++) {
        double power = 1;
        for (int i = 0; i < 5; i++, power *= w[c])
            m->sum[i] += power;
        column[c] = fmaxf(column[c], fabsf(w[c]));
    }
    m->lost += count_lost(w, k);
    for (size_t c = 0; c < k; c += GROUP)
        m->lost128 += count_lost(w + c, size_min(GROUP, k - c));
}

static int compare_floats(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double kurtosis(const double *sum) {
    double n = sum[0], mean = sum[1] / n, m2 = sum[2] / n, m3 = sum[3] / n, m4 = sum[4] / n;
    double variance = m2 - mean * mean;
    double fourth = m4 - 4 * mean * m3 + 6 * mean * mean * m2 - 3 * pow(mean, 4);
    return variance > 0 ? fourth / (variance * variance) : 0;
}

static bool measure_matrix(const struct tensor *t, struct outlier_row *row, struct error *err) {
    if (t->n_dims != 2 || !t->bytes)
        return error_set(err, "%s: tensor '%s' is not a matrix", t->file, t->name);
    size_t n = t->shape[0], k = t->shape[1], size = dtype_size(t->dtype);
    struct moments m = {0};
    float *w = memory_alloc(k, sizeof *w, t->name, err);
    float *column = w ? memory_alloc(k, sizeof *column, t->name, err) : NULL;
    for (size_t r = 0; column && r < n; r++) {
        dtype_to_f32(t->dtype, (const unsigned char *)t->data + r * k * size, k, w);
        measure_row(w, k, column, &m);
    }
    if (column) {
        qsort(column, k, sizeof *column, compare_floats);
        float median = column[k / 2];
        row->matrices++;
        row->peak = fmax(row->peak, median > 0 ? column[k - 1] / median : 0);
        for (size_t c = 0; c < k; c++)
            row->columns += column[c] > 6 * median;
        row->kurtosis += kurtosis(m.sum);
        row->lost += (double)m.lost / m.sum[0];
        row->lost128 += (double)m.lost128 / m.sum[0];
    }
    free(w);
    free(column);
    return column != NULL;
}

static bool measure_part(const struct safetensors *s, const struct model_config *c,
                         enum layer_part part, struct outlier_row *row, struct error *err) {
    *row = (struct outlier_row){.name = c->arch->parts[part]};
    for (size_t layer = 0; layer < c->n_layers; layer++) {
        const struct tensor *t;
        if (!find_part(s, c->arch, layer, part, "weight", &t, err) || !measure_matrix(t, row, err))
            return false;
    }
    double n = (double)row->matrices;
    row->columns /= n, row->kurtosis /= n, row->lost /= n, row->lost128 /= n;
    return true;
}

bool outliers_measure(const char *folder, struct outlier_row rows[OUTLIER_ROWS],
                      struct error *err) {
    static const enum layer_part parts[OUTLIER_ROWS] = {PART_Q,    PART_K,  PART_V,   PART_O,
                                                        PART_GATE, PART_UP, PART_DOWN};
    struct model_config c;
    struct safetensors s;
    if (!model_config_read(&c, folder, err))
        return false;
    bool ok = c.arch->parts[PART_GATE] ||
              error_set(err, "%s: architecture %s has no gated MLP", folder, c.arch->name);
    if (ok && (ok = safetensors_open(&s, folder, err))) {
        for (int i = 0; ok && i < OUTLIER_ROWS; i++)
            ok = measure_part(&s, &c, parts[i], &rows[i], err);
        safetensors_close(&s);
    }
    model_config_free(&c);
    return ok;
}
