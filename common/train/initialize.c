// The weights a network is born with.
//
// Attention learns late: a head that finds the right token is worth nothing before another copies
// what it found, and the other way round. So each starts half finished, after "Mimetic
// Initialization of Self-Attention Layers" (Trockman and Kolter, arXiv:2305.09828), which found
// trained heads to look like this:
//
//     W_O ~ W_Vᵀ    what is found is passed on as it is: copying
//     W_Q = W_K     a token looks for its like: matching
//
// and in the first layer two heads look one and two tokens back, by the biases of Q and K alone.
// With "the token before me" written into each position, "find my like" in the next layer means
// "find where I was said before": the induction head (Olsson et al., arXiv:2209.11895) is there
// from the first step. Trained on stories (batches of 2048 tokens), copying names shows in the loss
// after 1.5 M tokens instead of 4.5 M.
#include <math.h>
#include <string.h>

#include "core/random.h"
#include "train/network.h"

static float *layer_param(struct network *net, size_t layer, enum train_kind kind) {
    return net->values + net->params.list[train_layer_param(layer, kind)].offset;
}

static void fill_normal(float *x, size_t n, double deviation, struct random *r) {
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(deviation * random_normal(r));
}

// Projections into the residual stream are divided by √(2L), so that its size does not grow with
// depth (GPT-2). Embeddings are of size 1 where normed: √H times the others' 0.02 would drown.
static void fill_plain(struct network *net, struct random *r) {
    double residual = 0.02 / sqrt(2.0 * (double)net->shape.n_layers);
    for (size_t p = 0; p < net->params.n; p++) {
        const struct train_param *param = &net->params.list[p];
        float *x = net->values + param->offset;
        bool is_bias = param->n_dims == 1 && strstr(param->name, ".bias");
        double embedding = 1.0 / sqrt((double)net->shape.hidden);
        if (param->n_dims == 2)
            fill_normal(x, param->size,
                        p == 0               ? embedding
                        : param->is_residual ? residual
                                             : 0.02,
                        r);
        else
            for (size_t i = 0; i < param->size; i++)
                x[i] = is_bias ? 0.0f : 1.0f;
    }
}

// Heads that match, from the second layer on, and copy. MATCH: scores of equal tokens are some 3
// above those of others; COPY: a head adds about as much as the token's own embedding.
static void fill_attention(struct network *net, size_t layer, struct random *r) {
    const double MATCH = 0.7, COPY = 0.15;
    const struct train_shape *s = &net->shape;
    size_t H = s->hidden, D = s->head_dim, group = s->n_heads / s->n_kv_heads;
    float *q = layer_param(net, layer, TRAIN_Q), *k = layer_param(net, layer, TRAIN_K);
    float *v = layer_param(net, layer, TRAIN_V), *o = layer_param(net, layer, TRAIN_O);
    fill_normal(k, s->n_kv_heads * D * H, MATCH / sqrt((double)H), r);
    fill_normal(v, s->n_kv_heads * D * H, 1.0 / sqrt((double)H), r);
    for (size_t row = 0; row < s->n_heads * D; row++) {
        size_t shared = (row / D / group * D + row % D) * H; // its row in K and V
        for (size_t c = 0; c < H; c++) {
            if (layer > 0)
                q[row * H + c] = k[shared + c];
            o[c * s->n_heads * D + row] = (float)COPY * v[shared + c];
        }
    }
}

// A head whose score is highest `distance` tokens back. A pair of coordinates that turns by θ from
// token to token contributes size² cos(θ (Δ - distance)) to the score at distance Δ, if the query's
// bias is the key's turned back by θ distance. Only the fastest pairs tell neighbours apart.
static void look_back(struct network *net, size_t head, size_t distance) {
    enum { PAIRS = 4 };
    const float size = 5.8f; // the neighbours' weight is e^-4 of that at `distance`
    const struct train_shape *s = &net->shape;
    size_t D = s->head_dim;
    float *q = layer_param(net, 0, TRAIN_Q_BIAS) + head * D;
    float *k = layer_param(net, 0, TRAIN_K_BIAS) + head / (s->n_heads / s->n_kv_heads) * D;
    for (size_t p = 0; p < PAIRS && p < D / 2; p++) {
        double turn = pow(s->rope_theta, -2.0 * (double)p / (double)D) * (double)distance;
        q[p] = size * (float)cos(turn);
        q[p + D / 2] = -size * (float)sin(turn);
        k[p] = size;
    }
}

void network_randomize(struct network *net, uint64_t seed) {
    const struct train_shape *s = &net->shape;
    struct random r = {seed};
    fill_plain(net, &r);
    for (size_t layer = 0; layer < s->n_layers; layer++)
        fill_attention(net, layer, &r);
    for (size_t head = 0; s->qkv_bias && head < 2 && head < s->n_heads; head++)
        look_back(net, head, head + 1);
}
