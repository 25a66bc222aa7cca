#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "train/adamw.h"
#include "train/pages.h"

static bool check_options(const struct train_options *o, struct error *err) {
    if (o->micro_batch == 0 || o->batch % o->micro_batch || o->batch == 0)
        return error_set(err, "a batch of %zu windows does not divide into parts of %zu", o->batch,
                         o->micro_batch);
    if (!(o->lr > 0) || !(o->beta1 >= 0 && o->beta1 < 1) || !(o->beta2 >= 0 && o->beta2 < 1) ||
        !(o->eps > 0) || !(o->decay >= 0) || !(o->clip >= 0))
        return error_set(err,
                         "learning rate %g, betas %g %g, eps %g, decay %g, clip %g: out of "
                         "range",
                         o->lr, o->beta1, o->beta2, o->eps, o->decay, o->clip);
    return true;
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
        ok = t->moment1 && t->moment2 && t->tokens && t->targets;
    }
    if (!ok) {
        trainer_free(t);
        return false;
    }
    network_randomize(&t->network, options->seed);
    return true;
}

void trainer_free(struct trainer *t) {
    network_free(&t->network);
    token_data_free(&t->data);
    free(t->moment1);
    free(t->moment2);
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

static void update_weights(struct trainer *t, double lr, double scale) {
    const struct train_options *o = &t->options;
    struct network *net = &t->network;
    for (size_t p = 0; p < net->params.n; p++) {
        const struct train_param *param = &net->params.list[p];
        struct adamw a = {.lr = lr, .beta1 = o->beta1, .beta2 = o->beta2, .eps = o->eps};
        a.decay = param->n_dims == 2 ? o->decay : 0.0;
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
