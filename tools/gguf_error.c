// What GGUF files lost: the error of their matrices against those of a file that has them
// unrounded, whoever wrote either of them.
//
//     build/tools/gguf_error REFERENCE FILE…      a line each: FILE, matrices, NMSE
//
// NMSE is Σ (w - ŵ)² / Σ w² over all weights of all matrices that are not in REFERENCE's type.
#include <stdio.h>
#include <stdlib.h>

#include "io/gguf.h"
#include "quant/matrix.h"

static const struct gguf_tensor *partner(const struct gguf *reference, const struct gguf *g,
                                         const struct gguf_tensor *t, struct error *err) {
    const struct tensor *a = &t->view;
    const struct gguf_tensor *found = gguf_find_tensor(reference, a->name);
    if (!found) {
        error_set(err, "%s: tensor '%s' is not in %s", g->path, a->name, reference->path);
        return NULL;
    }
    const struct tensor *b = &found->view;
    bool same = b->n_dims == 2 && a->shape[0] == b->shape[0] && a->shape[1] == b->shape[1];
    if (same && a->format && b->format)
        return found;
    error_set(err, "%s: tensor '%s': %s", g->path, a->name,
              same ? "its type, or the reference's, is not supported" : "another shape");
    return NULL;
}

static bool add_tensor(const struct gguf *reference, const struct gguf *g,
                       const struct gguf_tensor *t, struct matrix_error *sum, struct error *err) {
    const struct gguf_tensor *from = partner(reference, g, t, err);
    struct matrix_error cost = {0};
    if (!from)
        return false;
    const struct matrix_source source = matrix_of_tensor(&from->view);
    if (!matrix_measure(&source, t->view.format, t->view.data, &cost, err))
        return false;
    sum->error_squared += cost.error_squared;
    sum->weight_squared += cost.weight_squared;
    gguf_drop(reference, from->view.data, from->view.bytes);
    gguf_drop(g, t->view.data, t->view.bytes);
    return true;
}

static bool is_rounded(const struct gguf *reference, const struct gguf_tensor *t) {
    const struct gguf_tensor *from = gguf_find_tensor(reference, t->view.name);
    return t->view.n_dims == 2 && (!from || from->type != t->type);
}

static bool report(const struct gguf *reference, const char *path, struct error *err) {
    struct gguf g;
    struct matrix_error sum = {0};
    size_t n = 0;
    if (!gguf_open(&g, path, err))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < g.n_tensors; i++)
        if (is_rounded(reference, &g.tensors[i])) {
            n++;
            ok = add_tensor(reference, &g, &g.tensors[i], &sum, err);
        }
    if (ok)
        printf("%s,%zu,%.6g\n", path, n, n ? sum.error_squared / sum.weight_squared : 0);
    gguf_close(&g);
    return ok;
}

int main(int argc, char **argv) {
    struct gguf reference;
    struct error err = {0};
    if (argc < 3) {
        fprintf(stderr, "usage: gguf_error REFERENCE.gguf FILE.gguf…\n");
        return 2;
    }
    bool ok = gguf_open(&reference, argv[1], &err);
    if (ok) {
        for (int i = 2; ok && i < argc; i++)
            ok = report(&reference, argv[i], &err);
        gguf_close(&reference);
    }
    if (!ok)
        fprintf(stderr, "gguf_error: %s\n", err.message);
    return ok ? 0 : 1;
}
