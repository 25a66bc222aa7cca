// report/gguf_inspect: what a file holds, as text.
#include <criterion/criterion.h>

#include "core/file.h"
#include "gguf_bytes.h"
#include "report/gguf_inspect.h"
#include "shared.h"
#include "temp.h"

// The printed text; the caller frees it.
static char *inspected(const char *path) {
    char *text = NULL;
    size_t size = 0;
    struct error err = {0};
    FILE *out = open_memstream(&text, &size);
    cr_assert(gguf_inspect(path, out, &err), "%s", err.message);
    fclose(out);
    return text;
}

static void expect_part(const char *text, const char *part) {
    cr_assert(strstr(text, part), "no '%s' in\n%s", part, text);
}

static const char *small_file(void) {
    struct gguf_bytes b = {0};
    put_header(&b, 3, 4, 6);
    put_key_text(&b, "general.architecture", "phi3");
    put_key_u32(&b, "phi3.block_count", 32);
    put_key_text(&b, "tokenizer.chat_template",
                 "{% for m in messages %}\n{{ m }}\n{% endfor %} and so on, and so on, and so on");
    put_key_array(&b, "tokens", GGUF_STRING, 5);
    for (int i = 0; i < 5; i++)
        put_text(&b, i == 1 ? "a|b" : "t");
    put_key_array(&b, "flags", GGUF_BOOL, 2), put_number(&b, 1, 1), put_number(&b, 0, 1);
    put_key_array(&b, "nested", GGUF_ARRAY, 1);
    put_u32(&b, GGUF_U8), put_u64(&b, 1), put_number(&b, 7, 1);
    put_tensor(&b, "blk.0.ffn_up.weight", 4, 256, 16, 0);     // IQ2_XXS, 264 bytes
    put_tensor(&b, "blk.0.ffn_down.weight", 4, 256, 12, 288); // Q4_K, 576 bytes
    put_tensor(&b, "blk.0.ffn_gate.weight", 4, 256, 12, 864); // Q4_K, 576 bytes
    put_tensor(&b, "blk.0.ffn_norm.weight", 0, 256, 0, 1440); // F32, 1024 bytes
    put_padding(&b, 32);
    put_zeros(&b, 1440 + 1024);
    const char *path = temp_file("small.gguf", b.data, b.size);
    free(b.data);
    return path;
}

Test(gguf_inspect, keys_tensors_and_totals_are_shown) {
    char *text = inspected(small_file());
    expect_part(text, "small.gguf: GGUF version 3, architecture \"phi3\"\n");
    expect_part(text,
                "3328 weights in 4 tensors, 2.4 kB\n3.688 bits per weight, of the matrices of "
                "the blocks, and the embedding and the head where they are quantized; 5.865 "
                "of all tensors\n");
    expect_part(text, "| phi3.block_count        | u32       | 32 ");
    expect_part(
        text, "| string    | \"{% for m in messages %}\\n{{ m }}\\n{% endfor %} and so on, and \" "
              "… (76 bytes)");
    expect_part(text, "| string[5] | \"t\", \"a\\|b\", \"t\", \"t\", … ");
    expect_part(text, "| bool[2]   | true, false ");
    expect_part(text, "| array[1]  | … ");
    expect_part(text, "| blk.0.ffn_up.weight   | [4, 256] | IQ2_XXS |   264 |           2.062 |\n");
    expect_part(text, "| blk.0.ffn_norm.weight | [256]    | F32     |  1024 |          32.000 |\n");
    expect_part(text,
                "| Q4_K    | yes           |       2 |    2048 | 1.2 kB |           4.500 |\n"
                "| F32     | yes           |       1 |     256 | 1.0 kB |          32.000 |\n"
                "| IQ2_XXS | no            |       1 |    1024 |  264 B |           2.062 |\n"
                "| all     | no            |       4 |    3328 | 2.4 kB |           5.865 |\n");
    free(text);
}

Test(gguf_inspect, vocabularies_and_checkpoints_are_shown_too) {
    char *text = inspected(shared_path("data/tokenizers/ggml-vocab-gpt-2.gguf"));
    expect_part(text, "0 weights in 0 tensors");
    expect_part(text, "string[50257]");
    free(text);
    text = inspected(shared_path("fixtures/llama-untied-f16-sharded"));
    expect_part(text, ": safetensors, in 7 files\n");
    expect_part(text, "| model.embed_tokens.weight ");
    free(text);
}

Test(gguf_inspect, a_folder_stands_for_what_is_in_it) {
    char command[4096], folder[256];
    struct error err = {0};
    small_file();
    char *text = inspected(temp_folder());
    expect_part(text, ": this is its only GGUF file\n");
    expect_part(text, "/small.gguf: GGUF version 3, ");
    free(text);
    snprintf(command, sizeof command,
             "cp %s/small.gguf %s/other.gguf && cp -rL %s %s/both && "
             "chmod -R u+w %s/both && cp %s/small.gguf %s/both",
             temp_folder(), temp_folder(), shared_path("fixtures/llama-untied-f16-sharded"),
             temp_folder(), temp_folder(), temp_folder(), temp_folder());
    cr_assert_eq(system(command), 0);
    cr_assert_not(gguf_inspect(temp_folder(), stdout, &err));
    cr_assert(strstr(err.message, ": has 2 GGUF files, choose one of them: other.gguf, small.gguf"),
              "%s", err.message);
    snprintf(folder, sizeof folder, "%s/both", temp_folder());
    text = inspected(folder);
    expect_part(text, "both: this is the checkpoint; name the GGUF file beside it to see that\n");
    expect_part(text, "both: safetensors, in 7 files\n");
    free(text);
}

Test(gguf_inspect, what_cannot_be_read_is_an_error) {
    struct error err = {0};
    cr_assert_not(gguf_inspect(temp_file("x", "x", 1), stdout, &err));
    cr_assert(strstr(err.message, "the header needs 4 bytes"), "%s", err.message);
    cr_assert_not(gguf_inspect("/nonexistent.gguf", stdout, &err));
    cr_assert(strstr(err.message, "No such file"), "%s", err.message);
}
