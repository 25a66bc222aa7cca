// model/config: both spellings of config.json, every architecture, and what is refused.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/arch.h"
#include "model/config.h"
#include "model/rope_scaling.h"

#define SIZES                                                                                      \
    "\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"                         \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":100,"                      \
    "\"max_position_embeddings\":512"

static bool parse(struct model_config *c, const char *json, struct error *err) {
    *err = (struct error){0};
    return model_config_parse(c, json, strlen(json), "config.json", err);
}

static void expect_refused(const char *json, const char *part) {
    struct model_config c;
    struct error err;
    cr_assert_not(parse(&c, json, &err), "%s", json);
    cr_assert(strstr(err.message, part), "'%s' lacks '%s'", err.message, part);
}

Test(config, the_published_and_the_newer_spelling_agree) {
    struct model_config a, b;
    struct error err;
    cr_assert(parse(&a,
                    "{\"architectures\":[\"LlamaForCausalLM\"]," SIZES
                    ",\"rope_theta\":500000.0,\"torch_dtype\":\"bfloat16\",\"rope_scaling\":"
                    "{\"type\":\"linear\",\"factor\":4}}",
                    &err),
              "%s", err.message);
    cr_assert(parse(&b,
                    "{\"architectures\":[\"LlamaForCausalLM\"]," SIZES
                    ",\"dtype\":\"bfloat16\",\"rope_parameters\":{\"rope_theta\":500000.0,"
                    "\"rope_type\":\"linear\",\"factor\":4}}",
                    &err),
              "%s", err.message);
    cr_assert_eq(a.rope.theta, 500000);
    cr_assert_eq(b.rope.theta, 500000);
    cr_assert(a.rope.kind == ROPE_LINEAR && b.rope.kind == ROPE_LINEAR);
    cr_assert(a.rope.factor == 4 && b.rope.factor == 4);
    cr_assert(a.dtype == DTYPE_BF16 && b.dtype == DTYPE_BF16);
    cr_assert_eq(a.head_dim, 16);
}

Test(config, each_architecture_has_its_own_defaults) {
    struct model_config c;
    struct error err;
    cr_assert(parse(&c, "{\"architectures\":[\"Qwen2ForCausalLM\"]," SIZES "}", &err));
    cr_assert(c.attention_bias && !c.output_bias && !c.qk_norm && !c.tied);
    cr_assert(parse(&c, "{\"architectures\":[\"Qwen3ForCausalLM\"]," SIZES "}", &err));
    cr_assert(c.qk_norm && !c.attention_bias && c.head_dim == 128);
    cr_assert(parse(&c,
                    "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":true,"
                    "\"mlp_bias\":true,\"head_dim\":32," SIZES "}",
                    &err));
    cr_assert(c.attention_bias && c.output_bias && c.mlp_bias && c.head_dim == 32);
    cr_assert(parse(&c, "{\"model_type\":\"mistral\",\"sliding_window\":128," SIZES "}", &err));
    cr_assert(c.sliding_window == 128 && model_config_layer_windowed(&c, 0));
    cr_assert(parse(&c,
                    "{\"architectures\":[\"GPT2LMHeadModel\"],\"n_embd\":64,\"n_layer\":2,"
                    "\"n_head\":4,\"n_positions\":77,\"vocab_size\":9,\"n_inner\":null}",
                    &err),
              "%s", err.message);
    cr_assert(c.tied && c.intermediate == 256 && c.max_context == 77 && c.rope.kind == ROPE_NONE);
}

Test(config, the_window_of_qwen_has_a_switch) {
    struct model_config c;
    struct error err;
    cr_assert(parse(&c,
                    "{\"architectures\":[\"Qwen2ForCausalLM\"],\"use_sliding_window\":false,"
                    "\"sliding_window\":64,\"max_window_layers\":1," SIZES "}",
                    &err));
    cr_assert_eq(c.sliding_window, 0);
    cr_assert(parse(&c,
                    "{\"architectures\":[\"Qwen2ForCausalLM\"],\"use_sliding_window\":true,"
                    "\"sliding_window\":64,\"max_window_layers\":1," SIZES "}",
                    &err));
    cr_assert(!model_config_layer_windowed(&c, 0) && model_config_layer_windowed(&c, 1));
    cr_assert(parse(&c,
                    "{\"architectures\":[\"Qwen2ForCausalLM\"],\"use_sliding_window\":true,"
                    "\"sliding_window\":64,\"layer_types\":[\"sliding_attention\","
                    "\"full_attention\"]," SIZES "}",
                    &err));
    cr_assert(model_config_layer_windowed(&c, 0) && !model_config_layer_windowed(&c, 1));
    model_config_free(&c);
}

Test(config, end_tokens_are_one_or_many) {
    struct model_config c;
    struct error err;
    cr_assert(parse(&c, "{\"model_type\":\"llama\",\"eos_token_id\":[7,9,7]," SIZES "}", &err));
    cr_assert(c.n_eos == 2 && model_config_is_eos(&c, 9) && !model_config_is_eos(&c, 8));
    cr_assert(parse(&c, "{\"model_type\":\"llama\",\"eos_token_id\":5," SIZES "}", &err));
    cr_assert(c.n_eos == 1 && c.eos[0] == 5 && c.bos == -1);
}

Test(config, nonsense_is_refused) {
    expect_refused("{\"architectures\":[\"BertModel\"]," SIZES "}", "architecture 'BertModel'");
    expect_refused("{" SIZES "}", "architecture '(none)'");
    expect_refused("[]", "not a JSON object");
    expect_refused("{\"model_type\":\"llama\"}", "'hidden_size' is missing");
    expect_refused("{\"model_type\":\"llama\",\"hidden_size\":\"many\"}", "is a string");
    expect_refused("{\"model_type\":\"llama\",\"hidden_size\":1e30}", "'hidden_size' is 1e+30");
    expect_refused("{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"yarn\"}," SIZES "}",
                   "rope scaling 'yarn'");
    expect_refused("{\"model_type\":\"llama\",\"hidden_act\":\"relu\"," SIZES "}", "hidden_act");
    expect_refused("{\"model_type\":\"llama\",\"head_dim\":15," SIZES "}", "even number");
    expect_refused("{\"model_type\":\"llama\",\"rms_norm_eps\":-1," SIZES "}", "rms_norm_eps");
    expect_refused("{\"model_type\":\"llama\",\"rope_theta\":0," SIZES "}", "out of range");
    expect_refused("{\"model_type\":\"llama\",\"hidden_size\":2048,\"num_hidden_layers\":1,"
                   "\"num_attention_heads\":1,\"vocab_size\":9}",
                   "2048 in 1 heads, expected at most 1024");
    expect_refused("{\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":1,"
                   "\"num_attention_heads\":4,\"num_key_value_heads\":3,\"vocab_size\":9}",
                   "no multiple of 3");
}

// The frequencies of Llama 3.1's published scaling, computed with its own formula by hand:
// D = 128, theta = 500000, factor 8, low 1, high 4, 8192 positions.
Test(config, llama3_scaling_slows_only_the_slow_frequencies) {
    struct model_config c = {.head_dim = 128,
                             .rope = {.kind = ROPE_LLAMA3,
                                      .theta = 500000,
                                      .factor = 8,
                                      .low_freq_factor = 1,
                                      .high_freq_factor = 4,
                                      .original_context = 8192}};
    float *f;
    struct error err;
    cr_assert(rope_frequencies(&c, &f, &err));
    cr_assert_eq(f[0], 1.0f);
    cr_assert_float_eq(f[63] * 8, pow(500000, -126.0 / 128), 1e-12); // wavelength 2.5e6 > 8192
    double plain = pow(500000, -60.0 / 128), turns = 8192 * plain / (2 * acos(-1.0));
    double mix = (turns - 1) / 3; // pair 30: 2.8 turns, between the two
    cr_assert(mix > 0 && mix < 1);
    cr_assert_float_eq(f[30], (1 - mix) * plain / 8 + mix * plain, 1e-9);
    free(f);
}
