// Any bytes as a training text: words, special tokens, normalization, merges.
#include "text/bpe_train.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    static const char *const specials[] = {"<|a|>", "<|", ">>"};
    struct bpe_trained b;
    struct error err;
    if (bpe_train(&b, (const char *)data, size, 256 + 3 + size % 16, specials, 3, "fuzz", &err))
        bpe_train_free(&b);
    return 0;
}
