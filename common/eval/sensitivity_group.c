#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/sensitivity_report.h"
#include "quant/format.h"

size_t sensitivity_main_format(const struct sensitivity *s) {
    for (size_t f = 0; f < s->n_formats; f++)
        if (strcmp(s->formats[f]->name, "int4-g128") == 0)
            return f;
    for (size_t f = 0; f < s->n_formats; f++) {
        size_t below = 0;
        for (size_t g = 0; g < s->n_formats; g++)
            below += sensitivity_sum(s, g) < sensitivity_sum(s, f);
        if (below == s->n_formats / 2)
            return f;
    }
    return 0; // sums that are equal, or no numbers
}

static bool comes_before(double a, double b) { // NaN last
    return a > b || (isnan(b) && !isnan(a));
}

// By insertion: a few hundred tensors.
void sensitivity_rank(const struct sensitivity *s, size_t format, size_t *order) {
    for (size_t t = 0; t < s->n_tensors; t++) {
        double kld = sensitivity_kld(sensitivity_at(s, t, format));
        size_t at = t;
        for (; at && comes_before(kld, sensitivity_kld(sensitivity_at(s, order[at - 1], format)));
             at--)
            order[at] = order[at - 1];
        order[at] = t;
    }
}

static void add(const struct sensitivity_report *r, size_t tensor, struct sensitivity_group *g) {
    const struct sensitivity_tensor *t = &r->s->tensors[tensor];
    g->tensors++;
    g->weights += t->n * t->k;
    g->kld += sensitivity_kld(sensitivity_at(r->s, tensor, r->format));
}

size_t sensitivity_by_kind(const struct sensitivity_report *r, struct sensitivity_group *groups) {
    size_t n = 0;
    for (size_t i = 0; i < r->s->n_tensors; i++) {
        const struct sensitivity_tensor *t = &r->s->tensors[i];
        size_t g = 0;
        if (t->layer == SENSITIVITY_NO_LAYER)
            continue;
        while (g < n && strcmp(groups[g].kind, t->kind) != 0)
            g++;
        if (g == n)
            groups[n++] =
                (struct sensitivity_group){.kind = t->kind, .layer = SENSITIVITY_NO_LAYER};
        add(r, i, &groups[g]);
    }
    return n;
}

size_t sensitivity_by_layer(const struct sensitivity_report *r, struct sensitivity_group *groups) {
    size_t n = 0;
    for (size_t i = 0; i < r->s->n_tensors; i++) {
        size_t g = 0, layer = r->s->tensors[i].layer;
        if (layer == SENSITIVITY_NO_LAYER)
            continue;
        while (g < n && groups[g].layer != layer)
            g++;
        if (g == n)
            groups[n++] = (struct sensitivity_group){.layer = layer};
        add(r, i, &groups[g]);
    }
    return n;
}
