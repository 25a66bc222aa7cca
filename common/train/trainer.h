// Training: batches in, better weights out. One step = batch windows through network_loss (in
// micro-batches, whose gradients add up), clipping, AdamW at the schedule's rate.
//
// Everything a step does follows from the options, the text and the step's number, so a run that is
// killed, restored from its last checkpoint and continued ends with the same bits.
#ifndef NIBBLE_TRAIN_TRAINER_H
#define NIBBLE_TRAIN_TRAINER_H

#include "train/data.h"
#include "train/network.h"

struct train_options {
    size_t context;            // tokens of a window
    size_t batch, micro_batch; // windows per step; per forward pass (they must divide)
    uint64_t n_steps, warmup;
    double lr, min_lr; // peak; where the cosine ends
    double muon_lr;    // peak for the layers' matrices, moved by Muon; 0: AdamW moves them too
    double beta1, beta2, eps;
    double momentum; // Muon's
    double decay;    // of matrices; gains and biases do not decay
    double clip;     // largest norm of the gradient; 0: none
    uint64_t seed;
    bool recompute; // gradient checkpointing
    bool bf16;      // products in bfloat16, where the CPU has tiles of it (gemm.h)
};

struct trainer {
    struct train_options options;
    struct network network;
    struct token_data data;
    float *moment1, *moment2; // AdamW's; Muon's momentum in the first
    float *muon_space;
    int32_t *tokens, *targets; // of a micro-batch
    uint64_t step;             // steps done
};

struct train_report {
    double loss; // mean over the batch, before the step
    double lr, gradient_norm;
};

// ids [n] must live as long as the trainer. Weights are random (from the seed).
bool trainer_init(struct trainer *t, const struct train_shape *shape,
                  const struct train_options *options, const int32_t *ids, size_t n,
                  struct error *err);
void trainer_free(struct trainer *t);
// Fails, leaving the weights as they were, when the loss or the gradient is not finite.
bool trainer_step(struct trainer *t, struct train_report *report, struct error *err);
// The rate of step number `step`, counted from 0: linear warm-up, then half a cosine.
double trainer_rate(const struct train_options *o, uint64_t step);
// Mean loss over whole windows of another text.
double trainer_evaluate(struct trainer *t, struct token_data *data);

// One file of weights, moments and step; replaced only when complete.
bool trainer_save(const struct trainer *t, const char *path, struct error *err);
// Into an initialized trainer of the same shape, seed, batch and context; otherwise an error.
bool trainer_restore(struct trainer *t, const char *path, struct error *err);

// A checkpoint folder in the Hugging Face layout: config.json and model.safetensors in bfloat16.
bool network_export(const struct network *net, const char *folder, struct error *err);
// The weights of one into a network of that shape.
bool network_import(struct network *net, const char *folder, struct error *err);

#endif
