// Learns the bundled model's tokenizer from the training text: tokenizer.json, and beside it the
// tokenizer_config.json that names its end-of-text token.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/timer.h"
#include "text/bpe_train.h"

static const char *const specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
enum { N_SPECIALS = sizeof specials / sizeof specials[0] };

static const char usage[] =
    "usage: train_tokenizer --text FILE [--vocab N] --out FILE\n"
    "Learns a byte-level BPE tokenizer of N tokens (2048), three special ones included.\n"
    "  train_tokenizer --text data/train/stories.txt --out data/model/tokenizer.json\n";

_Noreturn static void fail(int status, const char *message) {
    fprintf(stderr, "train_tokenizer: %s\n", message);
    exit(status);
}

static bool write_config(const char *tokenizer_path, struct error *err) {
    char path[4096];
    const char *slash = strrchr(tokenizer_path, '/');
    int folder = slash ? (int)(slash + 1 - tokenizer_path) : 0;
    snprintf(path, sizeof path, "%.*stokenizer_config.json", folder, tokenizer_path);
    struct file_writer w;
    if (!file_writer_open(&w, path, err))
        return false;
    fprintf(w.stream,
            "{\n  \"add_bos_token\": false,\n  \"add_prefix_space\": false,\n"
            "  \"bos_token\": null,\n  \"clean_up_tokenization_spaces\": false,\n"
            "  \"eos_token\": \"%s\",\n  \"model_max_length\": 512,\n  \"pad_token\": \"%s\",\n"
            "  \"split_special_tokens\": false,\n  \"tokenizer_class\": \"Qwen2Tokenizer\",\n"
            "  \"unk_token\": null\n}\n",
            specials[0], specials[0]);
    return file_writer_commit(&w, err);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"text", required_argument, NULL, 't'},
        {"vocab", required_argument, NULL, 'v'},
        {"out", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *text_path = NULL, *out = NULL;
    size_t vocab = 2048;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 't')
            text_path = optarg;
        else if (c == 'v')
            vocab = strtoul(optarg, NULL, 10);
        else if (c == 'o')
            out = optarg;
        else {
            fputs(usage, c == 'h' ? stdout : stderr);
            return c == 'h' ? 0 : 2;
        }
    }
    if (!text_path || !out || optind < argc)
        fail(2, "expected --text FILE and --out FILE; see --help");
    if (vocab == 0)
        fail(2, "--vocab is not a number; see --help");

    struct error err;
    struct mapping m;
    struct bpe_trained b;
    double start = timer_now();
    if (!mapping_open(&m, text_path, &err) ||
        !bpe_train(&b, (const char *)m.data, m.size, vocab, specials, N_SPECIALS, text_path,
                   &err) ||
        !bpe_write(&b, specials, N_SPECIALS, out, &err) || !write_config(out, &err))
        fail(1, err.message);
    printf("%s: %zu tokens (%zu merges, %d special) from %zu bytes in %.1f s\n", out,
           b.n_tokens + N_SPECIALS, b.n_merges, N_SPECIALS, m.size, timer_now() - start);
    bpe_train_free(&b);
    mapping_close(&m);
    return 0;
}
