#include "study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "eval/sensitivity_report.h"
#include "lab/analysis.h"

// One token through the model costs about a multiply-add per weight; two cores do 6·10¹² in about
// two minutes (eval/sensitivity.c).
static const double AFFORDABLE = 5e12;
enum { LEAST_FIT = 64 }; // tokens

bool study_affords(const struct study *st, double passes, size_t tokens) {
    return passes * (double)tokens * (double)model_parameters(st->lab->model) <= AFFORDABLE;
}

const char *study_name(const struct study *st) {
    const char *name = st->lab->table.model, *slash = strrchr(name, '/');
    return slash && slash[1] ? slash + 1 : name;
}

// ---- candidates ---------------------------------------------------------------------------------

// The checkpoint's own 16 bits; float16 where it has 32.
static const struct quant_format *stored_format(const struct lab *lab) {
    const struct tensor *w = &lab->model->layers[0].q.w;
    return w->dtype == DTYPE_F32 ? quant_format_find("f16") : w->format;
}

const struct quant_format **study_formats(const struct lab *lab, const struct study_options *o,
                                          size_t *n, struct error *err) {
    size_t named, kept = 0;
    const struct quant_format **list = lab_formats(o->formats, &named, err), **all;
    if (!list)
        return NULL;
    const struct quant_format *base = o->base ? quant_format_find(o->base) : NULL;
    all = memory_alloc(named + 2, sizeof *all, "formats", err);
    for (size_t i = 0; all && i < named; i++) {
        base = list[i] == base ? NULL : base;
        if ((!o->gguf_only || list[i]->gguf_type) && list[i] != stored_format(lab))
            all[kept++] = list[i];
    }
    free((void *)list);
    if (!all)
        return NULL;
    if (base)
        all[kept++] = base;
    all[kept++] = stored_format(lab);
    *n = kept;
    return all;
}

// ---- sensitivities ------------------------------------------------------------------------------

static bool blocks_only(const struct study *st) {
    return !st->options->embeddings && !st->lab->options.only;
}

static bool measure(struct study *st, const struct quant_format *const *formats, size_t n,
                    const char *path, struct error *err) {
    struct sensitivity_options o = {.tokens = st->n_fit,
                                    .window = st->lab->options.ctx,
                                    .blocks_only = blocks_only(st),
                                    .search = !st->options->plain,
                                    .path = path};
    const struct token_list fit = {.ids = st->calib.ids, .n = st->fit};
    double cells = 2.5 * 7 * (double)st->lab->model->config.n_layers; // half a pass each, 5 anchors
    o.anchors = study_affords(st, cells, st->n_fit) ? 5 : 0;
    return lab_sensitivity_measure(st->lab, &fit, formats, n, &o, &st->s, err);
}

static bool same_formats(const struct sensitivity *s, const struct quant_format *const *formats,
                         size_t n) {
    bool same = s->n_formats == n;
    for (size_t i = 0; same && i < n; i++)
        same = s->formats[i] == formats[i];
    return same;
}

// An analysis of the same model in the same formats on the same tokens need not be done twice.
static bool read_again(struct study *st, const struct quant_format *const *formats, size_t n,
                       const char *path) {
    struct error ignored;
    if (!file_exists(path) || !sensitivity_read_for(&st->s, path, st->lab->model, &ignored))
        return false;
    if (st->s.text == sensitivity_text(st->calib.ids, st->fit) && st->s.tokens <= st->n_fit &&
        2 * st->s.tokens > st->n_fit && sensitivity_blocks_only(&st->s) == blocks_only(st) &&
        same_formats(&st->s, formats, n))
        return true;
    sensitivity_free(&st->s);
    return false;
}

static bool analyse(struct study *st, struct error *err) {
    size_t n;
    const struct quant_format **formats = study_formats(st->lab, st->options, &n, err);
    char *path =
        path_join(st->folder, st->options->plain ? "mixed-plain.csv" : "mixed-search.csv", err);
    bool ok =
        formats && path && (read_again(st, formats, n, path) || measure(st, formats, n, path, err));
    free((void *)formats);
    free(path);
    return ok;
}

// By the model's size. A trial on a few tokens of the text is one on a few calibration tokens too:
// they are most of the work.
static size_t tokens_to_fit(const struct lab *lab) {
    double parameters = (double)model_parameters(lab->model);
    size_t limit = lab->options.limit / 2, n = 2048;
    if (parameters >= 3e7)
        n = parameters < 3e8 ? 1024 : 256;
    return !limit || limit > n ? n : limit < LEAST_FIT ? LEAST_FIT : limit;
}

// Half of the calibration text is measured on, the other half checks.
static bool read_calibration(struct study *st, struct error *err) {
    struct lab *lab = st->lab;
    if (!lab->tokenizer && !(lab->tokenizer = tokenizer_load(lab->folder, err)))
        return false; // --tokens needs none for itself
    if (!lab_calibration(lab, &st->calib, err))
        return false;
    st->fit = st->calib.n / 2;
    st->n_fit = st->options->probe ? st->options->probe : tokens_to_fit(lab);
    st->n_fit = st->n_fit < st->fit ? st->n_fit : st->fit;
    st->n_check = 2 * st->n_fit;
    return true;
}

// ---- opening ------------------------------------------------------------------------------------

// "4-8" or "6".
static bool parse_range(const char *text, struct mix_rules *rules, struct error *err) {
    char *end;
    rules->min_bits = rules->max_bits = strtod(text, &end);
    if (end > text && *end == '-') {
        const char *high = end + 1;
        rules->max_bits = strtod(high, &end);
        end = end > high ? end : (char *)(uintptr_t)text;
    }
    if (end > text && !*end && rules->min_bits > 0 && rules->max_bits >= rules->min_bits) {
        rules->max_bits += 0.999; // scales come on top: 8 bits are 8.125 in groups of 128
        return true;
    }
    return error_set(err, "--embeddings is '%s', expected bits a weight such as 8 or 4-8", text);
}

// The base is a candidate too.
static bool check_base(const struct study_options *o, struct error *err) {
    const struct quant_format *f = o->base ? quant_format_find(o->base) : NULL;
    if (o->base && (!f || f->dtype != DTYPE_BLOCK))
        return error_set(err, "--base is '%s', which is no format of fewer than 16 bits", o->base);
    return !f || !o->gguf_only || f->gguf_type ||
           error_set(err, "--base is '%s', which has no type in GGUF files", o->base);
}

bool study_check(const struct lab *lab, const struct study_options *o, struct error *err) {
    struct mix_rules ignored;
    size_t n;
    size_t layers = lab->model->config.n_layers;
    if (!check_base(o, err))
        return false;
    if (o->keep > layers)
        return error_set(err, "--keep is '%zu', expected 0 to %zu, the layers of the model",
                         o->keep, layers);
    if (o->sweep > 0 && o->sweep < 0.01f)
        return error_set(err, "--sweep is %g, expected 0 or at least 0.01 bits", (double)o->sweep);
    const struct quant_format **formats = study_formats(lab, o, &n, err);
    free((void *)formats);
    return formats && budget_check(&o->budget, err) &&
           (!o->embeddings || parse_range(o->embeddings, &ignored, err));
}

static bool open_mix(struct study *st, struct error *err) {
    const struct cli_options *o = &st->lab->options;
    struct mix_rules rules = {.only = o->only,
                              .skip = o->skip,
                              .embeddings = st->options->embeddings != NULL,
                              .share_kernels = st->options->share_kernels,
                              .search = !st->options->plain};
    if (rules.embeddings && !parse_range(st->options->embeddings, &rules, err))
        return false;
    return mix_init(&st->mix, &st->s, &rules, err);
}

bool study_uniform_recipe(const struct study *st, const struct quant_format *f, bool search,
                          struct recipe *r, struct error *err) {
    *r = (struct recipe){0};
    for (size_t i = 0; i < st->mix.n; i++) {
        if (!recipe_add(r, st->s.tensors[st->mix.tensors[i]].name, f, err)) {
            recipe_free(r);
            return false;
        }
        r->rules[i].search = search;
    }
    return true;
}

bool study_uniform_bytes(const struct study *st, const struct quant_format *f, size_t *bytes) {
    *bytes = 0;
    for (size_t i = 0; i < st->mix.n; i++) {
        const struct sensitivity_tensor *t = &st->s.tensors[st->mix.tensors[i]];
        size_t own;
        if (!f->bytes(f, t->n, t->k, &own))
            return false;
        *bytes += own;
    }
    return true;
}

// Of the tensors and formats of st->s.
static bool open_budget(struct study *st, struct error *err) {
    const struct lab *lab = st->lab;
    size_t standard;
    return open_mix(st, err) &&
           (study_uniform_bytes(st, quant_format_find("int4-g128"), &standard) ||
            error_set(err, "int4-g128 cannot hold every tensor")) &&
           budget_resolve(&st->options->budget, lab->model, &st->mix, lab->options.ctx, standard,
                          &st->budget, err);
}

bool study_holds_all(const struct study *st) {
    return st->budget.bytes >= mix_largest(&st->mix);
}

// What no mix of these shapes can do is said before minutes are spent on measuring.
static bool check_shapes(const struct study *opening, struct error *err) {
    struct study st = *opening;
    size_t n;
    const struct quant_format **formats = study_formats(st.lab, st.options, &n, err);
    bool ok = formats &&
              sensitivity_shapes(st.lab->model, formats, n, blocks_only(&st), &st.s, err) &&
              open_budget(&st, err);
    if (ok && study_holds_all(&st))
        cli_warn(st.lab->program,
                 "the budget (%s) holds every tensor in its best format: nothing is left to choose",
                 st.budget.words);
    mix_free(&st.mix);
    sensitivity_free(&st.s);
    free((void *)formats);
    return ok;
}

bool study_open(struct study *st, struct lab *lab, const struct study_options *options,
                struct error *err) {
    size_t most = lab->model->config.max_context;
    *st = (struct study){.lab = lab, .options = options};
    if (!lab->options.ctx) // --tokens leaves it open
        lab->options.ctx = most < 512 ? most : 512;
    return check_shapes(st, err) && (st->folder = lab_analysis_folder(lab, options->folder, err));
}

bool study_measure(struct study *st, struct error *err) {
    const struct lab *lab = st->lab;
    if (!read_calibration(st, err) || !analyse(st, err))
        return false;
    st->base = st->options->base ? quant_format_find(st->options->base)
                                 : st->s.formats[sensitivity_main_format(&st->s)];
    return open_budget(st, err) &&
           probe_open(&st->check, lab->model, lab->model, st->calib.ids + st->fit,
                      st->calib.n - st->fit, st->n_check, lab->options.ctx, err);
}

void study_close(struct study *st) {
    shortlist_free(&st->found);
    probe_close(&st->check);
    mix_free(&st->mix);
    sensitivity_free(&st->s);
    token_list_free(&st->calib);
    free(st->folder);
}
