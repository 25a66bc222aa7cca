#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "train/adamw.h"
#include "train/muon.h"
#include "train/pages.h"

static bool check_options(const struct train_options *o, struct error *err) {
    if (o->micro_batch == 0 || o->batch % o->micro_batch || o->batch == 0)
        return error_set(err, "a batch of %zu windows does not divide into parts of %zu", o->batch,
                         o->micro_batch);
    if (!(o->lr > 0) || !(o->beta1 >= 0 && o->beta1 < 1) || !(o->beta2 >= 0 && o->beta2 < 1) ||
        !(o->eps > 0) || !(o->muon_lr >= 0) || !(o->momentum >= 0 && o->momentum < 1) ||
        !(o->decay >= 0) || !(o->clip >= 0))
        return error_set(err,
                         "learning rate %g, betas %g %g, eps %g, decay %g, clip %g: out of "
                         "range",
                         o->lr, o->beta1, o->beta2, o->eps, o->decay, o->clip);
    return true;
}

// The layers' matrices; the embedding is a table of vectors, not a map between hidden states.
static bool is_hidden_matrix(const struct train_params *p, size_t i) {
    return i > 0 && i < train_final_norm(p) && p->list[i].n_dims == 2 && p->list[i].size > 0;
}

// Enough for the largest of them.
static float *alloc_muon_space(const struct train_params *p, struct error *err) {
    size_t most = 0;
    for (size_t i = 0; i < p->n; i++) {
        size_t space = muon_space(p->list[i].shape[0], p->list[i].shape[1]);
        most = is_hidden_matrix(p, i) && space > most ? space : most;
    }
    return pages_alloc(most, "Muon's matrices", err);
}

bool trainer_init(struct trainer *t, const struct train_shape *shape,
                  const struct train_options *options, const int32_t *ids, size_t n,
                  struct error *err) {
    *t = (struct trainer){.options = *options};
    size_t micro = options->micro_batch, context = options->context;
    if (!check_options(options, err) ||
        !token_data_init(&t->data, ids, n, context, shape->vocab, options->seed, err))
        return false;
    bool ok = network_init(&t->network, shape, micro, context, options->recompute, err);
    if (ok) { // network_init has checked that micro * context is a size
        t->moment1 = pages_alloc(t->network.params.total, "moments", err);
        t->moment2 = pages_alloc(t->network.params.total, "moments", err);
        t->tokens = memory_alloc(micro * context, sizeof(int32_t), "batch", err);
        t->targets = memory_alloc(micro * context, sizeof(int32_t), "batch", err);
        t->muon_space = options->muon_lr > 0 ? alloc_muon_space(&t->network.params, err) : NULL;
        ok = t->moment1 && t->moment2 && t->tokens && t->targets &&
             (t->muon_space || !(options->muon_lr > 0));
    }
    if (!ok) {
        trainer_free(t);
        return false;
    }
    if (options->bf16)
        network_allow_bf16(&t->network);
    network_randomize(&t->network, options->seed);
    return true;
}

void trainer_free(struct trainer *t) {
    network_free(&t->network);
    token_data_free(&t->data);
    free(t->moment1);
    free(t->moment2);
    free(t->muon_space);
    free(t->tokens);
    free(t->targets);
    *t = (struct trainer){0};
}

double trainer_rate(const struct train_options *o, uint64_t step) {
    if (step < o->warmup)
        return o->lr * (double)(step + 1) / (double)o->warmup;
    if (step >= o->n_steps)
        return o->min_lr;
    double done = (double)(step - o->warmup) / (double)(o->n_steps - o->warmup);
    return o->min_lr + 0.5 * (o->lr - o->min_lr) * (1.0 + cos(3.141592653589793 * done));
}

// Loads windows [first, first + micro_batch) of `data` and runs them.
static double run_windows(struct trainer *t, struct token_data *data, uint64_t first, size_t n,
                          float weight, bool gradients) {
    size_t context = t->options.context;
    for (size_t i = 0; i < n; i++)
        token_data_window(data, first + i, t->tokens + i * context, t->targets + i * context);
    return network_loss(&t->network, t->tokens, n, context, loss_tokens, t->targets, weight,
                        gradients);
}

static void move_hidden(struct trainer *t, const struct train_param *p, double part, double scale) {
    const struct train_options *o = &t->options;
    const struct muon muon = {.bf16 = o->bf16,
                              .lr = o->muon_lr * part,
                              .momentum = o->momentum,
                              .decay = o->decay,
                              .gradient_scale = scale};
    float *values = t->network.values + p->offset;
    muon_update(values, t->network.grads + p->offset, t->moment1 + p->offset, p->shape[0],
                p->shape[1], &muon, t->muon_space);
}

static void update_weights(struct trainer *t, double lr, double scale) {
    const struct train_options *o = &t->options;
    struct network *net = &t->network;
    for (size_t p = 0; p < net->params.n; p++) {
        const struct train_param *param = &net->params.list[p];
        if (o->muon_lr > 0 && is_hidden_matrix(&net->params, p)) {
            move_hidden(t, param, lr / o->lr, scale);
            continue;
        }
        struct adamw a = {.lr = lr, .beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps};
        a.decay = param->n_dims == 2 && !(o->muon_lr > 0) ? o->decay : 0.0;
        a.gradient_scale = scale;
        a.step = t->step + 1;
        adamw_update(net->values + param->offset, net->grads + param->offset,
                     t->moment1 + param->offset, t->moment2 + param->offset, param->size, &a);
    }
}

bool trainer_step(struct trainer *t, struct train_report *report, struct error *err) {
    const struct train_options *o = &t->options;
    float weight = 1.0f / (float)(o->batch * o->context);
    uint64_t first = t->step * o->batch;
    *report = (struct train_report){.lr = trainer_rate(o, t->step)};
    network_clear_grads(&t->network);
    for (size_t i = 0; i < o->batch; i += o->micro_batch)
        report->loss += run_windows(t, &t->data, first + i, o->micro_batch, weight, true);
    double norm = adamw_norm(t->network.grads, t->network.params.total);
    report->gradient_norm = norm;
    if (!isfinite(report->loss) || !isfinite(norm))
        return error_set(err, "step %llu: the loss is %g and the gradient's norm %g",
                         (unsigned long long)t->step, report->loss, norm);
    double scale = o->clip > 0 && norm > o->clip ? o->clip / (norm + 1e-6) : 1.0;
    update_weights(t, report->lr, scale);
    t->step++;
    return true;
}

double trainer_evaluate(struct trainer *t, struct token_data *data) {
    size_t micro = t->options.micro_batch, n = data->n_windows;
    float weight = 1.0f / (float)(n * t->options.context);
    double sum = 0.0;
    for (size_t i = 0; i < n; i += micro)
        sum += run_windows(t, data, i, n - i < micro ? n - i : micro, weight, false);
    return sum;
}
