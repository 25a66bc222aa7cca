// The shapes that synth.c writes, and the small files beside their weights: config.json as
// published, and a tokenizer.json that knows the 256 bytes, no merges, and the special tokens at
// their real ids (a vocabulary larger than the tokenizer's is legal).
#ifndef NIBBLE_TOOLS_SYNTH_SHAPES_H
#define NIBBLE_TOOLS_SYNTH_SHAPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "text/byte_level.h"
#include "text/utf8.h"

enum family { QWEN2, LLAMA };

struct shape {
    const char *name;
    enum family family;
    size_t hidden, intermediate, layers, heads, kv_heads, vocab, context;
    bool tied;
    int first_special; // the id of the first token behind the vocabulary proper
    size_t shard;      // bytes of tensors in one file, at most
};

#define SHARD ((size_t)2000 << 20)
static const struct shape shapes[] = {
    {"qwen2.5-0.5b", QWEN2, 896, 4864, 24, 14, 2, 151936, 32768, true, 151643, SHARD},
    {"qwen2.5-1.5b", QWEN2, 1536, 8960, 28, 12, 2, 151936, 32768, true, 151643, SHARD},
    {"qwen2.5-3b", QWEN2, 2048, 11008, 36, 16, 2, 151936, 32768, true, 151643, SHARD},
    {"llama-8b", LLAMA, 4096, 14336, 32, 32, 8, 128256, 131072, false, 128000, SHARD},
    {"tiny", QWEN2, 128, 384, 2, 4, 2, 384, 512, true, 256, (size_t)256 << 10},
    {"tiny-llama", LLAMA, 256, 512, 2, 8, 2, 320, 16384, false, 256, (size_t)256 << 10},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void print_config(FILE *f, const struct shape *s) {
    bool llama = s->family == LLAMA;
    int id = s->first_special;
    fprintf(f,
            "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n"
            "  \"hidden_size\": %zu,\n  \"intermediate_size\": %zu,\n"
            "  \"num_hidden_layers\": %zu,\n  \"num_attention_heads\": %zu,\n"
            "  \"num_key_value_heads\": %zu,\n  \"vocab_size\": %zu,\n"
            "  \"max_position_embeddings\": %zu,\n  \"tie_word_embeddings\": %s,\n",
            llama ? "LlamaForCausalLM" : "Qwen2ForCausalLM", llama ? "llama" : "qwen2", s->hidden,
            s->intermediate, s->layers, s->heads, s->kv_heads, s->vocab, s->context,
            s->tied ? "true" : "false");
    if (llama)
        fprintf(f,
                "  \"attention_bias\": false,\n  \"mlp_bias\": false,\n"
                "  \"rms_norm_eps\": 1e-05,\n  \"rope_theta\": 500000.0,\n"
                "  \"rope_scaling\": {\"factor\": 8.0, \"low_freq_factor\": 1.0, "
                "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192, "
                "\"rope_type\": \"llama3\"},\n"
                "  \"bos_token_id\": %d,\n  \"eos_token_id\": [%d, %d, %d],\n",
                id, id + 1, id + 8, id + 9);
    else
        fprintf(f,
                "  \"rms_norm_eps\": 1e-06,\n  \"rope_theta\": 1000000.0,\n"
                "  \"use_sliding_window\": false,\n"
                "  \"bos_token_id\": %d,\n  \"eos_token_id\": %d,\n",
                id, id + 2);
    fputs("  \"hidden_act\": \"silu\",\n  \"torch_dtype\": \"bfloat16\"\n}\n", f);
}

// Every byte is a token, spelt as byte-level BPE spells it.
static void print_byte_tokens(FILE *f) {
    for (int byte = 0; byte < 256; byte++) {
        char utf8[4];
        uint32_t c = byte_level_char((unsigned char)byte);
        fprintf(f, "%s\"%s%.*s\": %d", byte ? ", " : "", c == '"' || c == '\\' ? "\\" : "",
                (int)utf8_write(c, utf8), utf8, byte);
    }
}

struct special {
    const char *content;
    int offset; // from the first special id
};

static const struct special qwen2_specials[] = {
    {"<|endoftext|>", 0}, {"<|im_start|>", 1}, {"<|im_end|>", 2}, {NULL, 0}};
static const struct special llama_specials[] = {{"<|begin_of_text|>", 0},
                                                {"<|end_of_text|>", 1},
                                                {"<|start_header_id|>", 6},
                                                {"<|end_header_id|>", 7},
                                                {"<|eom_id|>", 8},
                                                {"<|eot_id|>", 9},
                                                {NULL, 0}};

static void print_post_processor(FILE *f, const struct shape *s) {
    const char *bytes = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                        "\"trim_offsets\": false, \"use_regex\": false}";
    const char *bos = llama_specials[0].content;
    if (s->family == LLAMA)
        fprintf(f,
                "  \"post_processor\": {\"type\": \"TemplateProcessing\",\n"
                "    \"single\": [{\"SpecialToken\": {\"id\": \"%s\", \"type_id\": 0}}, "
                "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}],\n"
                "    \"pair\": [{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, "
                "{\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}],\n"
                "    \"special_tokens\": {\"%s\": {\"id\": \"%s\", \"ids\": [%d], "
                "\"tokens\": [\"%s\"]}}},\n",
                bos, bos, bos, s->first_special, bos);
    else
        fprintf(f, "  \"post_processor\": %s,\n", bytes);
    fprintf(f, "  \"decoder\": %s,\n", bytes);
}

static void print_tokenizer(FILE *f, const struct shape *s) {
    bool llama = s->family == LLAMA;
    fputs("{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"
          "  \"added_tokens\": [",
          f);
    const struct special *specials = llama ? llama_specials : qwen2_specials;
    for (const struct special *t = specials; t->content; t++)
        fprintf(f,
                "%s\n    {\"id\": %d, \"content\": \"%s\", \"single_word\": false, "
                "\"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true}",
                t == specials ? "" : ",", s->first_special + t->offset, t->content);
    fprintf(f, "\n  ],\n  \"normalizer\": %s,\n", llama ? "null" : "{\"type\": \"NFC\"}");
    fprintf(
        f,
        "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n"
        "    {\"type\": \"Split\", \"pattern\": {\"Regex\": "
        "\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}%s| "
        "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\n"
        "     \"behavior\": \"Isolated\", \"invert\": false},\n"
        "    {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false, "
        "\"use_regex\": false}]},\n",
        llama ? "{1,3}" : "");
    print_post_processor(f, s);
    fputs("  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null,\n"
          "    \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null,\n"
          "    \"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": false,\n"
          "    \"vocab\": {",
          f);
    print_byte_tokens(f);
    fputs("},\n    \"merges\": []}\n}\n", f);
}

static void print_tokenizer_config(FILE *f, const struct shape *s) {
    bool llama = s->family == LLAMA;
    fprintf(f,
            "{\n  \"bos_token\": %s,\n  \"eos_token\": \"%s\",\n  \"tokenizer_class\": \"%s\"\n}\n",
            llama ? "\"<|begin_of_text|>\"" : "null", llama ? "<|eot_id|>" : "<|im_end|>",
            llama ? "PreTrainedTokenizerFast" : "Qwen2Tokenizer");
}

#endif
