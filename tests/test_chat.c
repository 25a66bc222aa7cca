// text/chat: what is put around a conversation. The templates here are stubs that carry the marks
// of their families; the expected texts are what the families' real templates give.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "shared.h"
#include "text/chat.h"

static const char tokenizer_json[] =
    "{\"added_tokens\": [{\"id\": 1, \"content\": \"<s>\"}, {\"id\": 2, \"content\": \"</s>\"},"
    "{\"id\": 3, \"content\": \"<|im_end|>\"}, {\"id\": 4, \"content\": \"<|eot_id|>\"}],"
    "\"model\": {\"vocab\": {\"a\": 0}, \"merges\": []}}";

// `template` is written into JSON as it stands: its backslashes are the template's own.
static struct tokenizer *with_template(const char *template, const char *bos, const char *eos) {
    cJSON *config = cJSON_CreateObject();
    if (template)
        cJSON_AddStringToObject(config, "chat_template", template);
    if (bos)
        cJSON_AddStringToObject(config, "bos_token", bos);
    if (eos)
        cJSON_AddStringToObject(config, "eos_token", eos);
    char *text = cJSON_Print(config);
    struct error err = {0};
    struct tokenizer *t = tokenizer_parse(tokenizer_json, sizeof tokenizer_json - 1, text,
                                          strlen(text), "test", &err);
    cr_assert(t, "%s", err.message);
    free(text);
    cJSON_Delete(config);
    return t;
}

static const struct chat_message talk[] = {
    {"system", " Be kind. "}, {"user", " Hi "}, {"assistant", " Hello "}, {"user", "Why?"}};

static void expect_chat(const struct tokenizer *t, const char *format,
                        const struct chat_message *messages, size_t n, const char *expected) {
    struct error err = {0};
    char *text = chat_format(t, format, messages, n, &err);
    cr_assert(text, "%s", err.message);
    cr_expect_str_eq(text, expected);
    free(text);
}

Test(chat, chatml_says_every_role_and_the_default_system_message) {
    struct tokenizer *t = with_template(
        "{{ '<|im_start|>system\\n' + x + '<|im_end|>\\n' }}"
        "{{ '<|im_start|>system\\nYou are a test.<|im_end|>\\n' }}{{ '<|im_start|>' + role }}",
        NULL, "<|im_end|>");
    expect_chat(t, NULL, talk + 1, 1,
                "<|im_start|>system\nYou are a test.<|im_end|>\n<|im_start|>user\n Hi "
                "<|im_end|>\n<|im_start|>assistant\n");
    expect_chat(t, NULL, talk, 4,
                "<|im_start|>system\n Be kind. <|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n"
                "<|im_start|>assistant\n Hello <|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
                "<|im_start|>assistant\n");
    cr_expect_eq(chat_end_token(t, NULL), 3);
    tokenizer_free(t);
}

Test(chat, chatml_without_a_default_and_with_thoughts_left_out) {
    struct tokenizer *t =
        with_template("{{ '<|im_start|>' + role }}{{ content.split('</think>')[-1] }}", NULL, NULL);
    const struct chat_message thought[] = {
        {"user", "2+2?"}, {"assistant", "<think>\nhm\n</think>\n\n4"}, {"user", "sure?"}};
    expect_chat(t, NULL, thought, 3,
                "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
                "<|im_start|>user\nsure?<|im_end|>\n<|im_start|>assistant\n");
    tokenizer_free(t);
}

Test(chat, llama3_trims_and_since_31_has_dates) {
#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define SAID(role, text) HEADER(role) text "<|eot_id|>"
#define DATES "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    struct tokenizer *t = with_template("<|start_header_id|>", "<|begin_of_text|>", NULL);
    expect_chat(t, NULL, talk, 4,
                "<|begin_of_text|>" SAID("system", "Be kind.") SAID("user", "Hi")
                    SAID("assistant", "Hello") SAID("user", "Why?") HEADER("assistant"));
    cr_expect_eq(chat_end_token(t, NULL), 4);
    tokenizer_free(t);
    t = with_template("<|start_header_id|> Cutting Knowledge Date: December 2023", NULL, NULL);
    expect_chat(t, NULL, talk + 3, 1,
                "<|begin_of_text|>" SAID("system", DATES) SAID("user", "Why?") HEADER("assistant"));
    expect_chat(t, NULL, talk, 2,
                "<|begin_of_text|>" SAID("system", DATES "Be kind.") SAID("user", "Hi")
                    HEADER("assistant"));
    tokenizer_free(t);
}

Test(chat, llama2_puts_the_system_text_into_the_first_question) {
    struct tokenizer *t = with_template("[INST] <<SYS>>", "<s>", "</s>");
    expect_chat(t, NULL, talk, 4,
                "<s>[INST] <<SYS>>\n Be kind. \n<</SYS>>\n\n Hi [/INST] Hello </s><s>[INST] Why? "
                "[/INST]");
    expect_chat(t, NULL, talk + 3, 1, "<s>[INST] Why? [/INST]");
    cr_expect_eq(chat_end_token(t, NULL), 2);
    tokenizer_free(t);
}

Test(chat, mistral_differs_in_spaces_by_version) {
    static const struct {
        const char *template, *expected;
    } versions[] = {
        // the first: no space before an answer
        {"{{ '[INST] ' + message['content'] + ' [/INST]' }}{{ message['content'] + eos_token }}",
         "<s>[INST]  Be kind. \n\n Hi  [/INST] Hello </s>[INST] Why? [/INST]"},
        // v1 with system messages
        {"{{- ' [INST] ' + system_message + message['content'] + ' [/INST]' }}"
         "{{- ' ' + message['content'] + eos_token }}",
         "<s> [INST]  Be kind. \n\n Hi  [/INST]  Hello </s> [INST] Why? [/INST]"},
        // v3: the system text in the last question
        {"{%- if loop.last and system_message is defined %}{{- '[INST] ' + message['content'] + "
         "'[/INST]' }}{{- ' ' + message['content'] + eos_token }}",
         "<s>[INST]  Hi [/INST]  Hello </s>[INST]  Be kind. \n\nWhy?[/INST]"},
        // v3 of the byte-level tokenizers: no spaces at all
        {"{%- if loop.last and system_message is defined %}{{- \"[INST]\" + message[\"content\"] + "
         "\"[/INST]\" }}{{- message[\"content\"] + eos_token }}",
         "<s>[INST] Hi [/INST] Hello </s>[INST] Be kind. \n\nWhy?[/INST]"},
    };
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        struct tokenizer *t = with_template(versions[i].template, "<s>", "</s>");
        expect_chat(t, NULL, talk, 4, versions[i].expected);
        tokenizer_free(t);
    }
}

Test(chat, a_format_can_be_chosen_without_a_template) {
    struct tokenizer *t = with_template(NULL, NULL, NULL);
    expect_chat(t, "chatml", talk + 3, 1,
                "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n");
    expect_chat(t, "mistral", talk + 3, 1, "<s>[INST] Why? [/INST]");
    struct error err = {0};
    cr_expect_null(chat_format(t, NULL, talk, 4, &err));
    cr_expect(strstr(err.message, "missing") && strstr(err.message, "llama3"));
    cr_expect_null(chat_format(t, "alpaca", talk, 4, &err));
    cr_expect(strstr(err.message, "alpaca"));
    cr_expect_eq(chat_end_token(t, NULL), -1);
    tokenizer_free(t);
}

Test(chat, what_a_template_refuses_is_refused) {
    struct tokenizer *t = with_template("[INST]", "<s>", "</s>");
    struct error err = {0};
    cr_expect_null(chat_format(t, NULL, talk + 2, 2, &err));
    cr_expect(strstr(err.message, "alternate"));
    cr_expect_null(chat_format(t, NULL, talk, 1, &err));
    cr_expect_null(chat_format(t, NULL, talk, 0, &err));
    cr_expect_null(chat_format(t, "chatml", talk, 0, &err));
    const struct chat_message tool = {"tool", "x"};
    cr_expect_null(chat_format(t, "chatml", &tool, 1, &err));
    cr_expect(strstr(err.message, "tool"));
    tokenizer_free(t);
    t = with_template("<|im_start|>user<|im_sep|>", NULL, NULL);
    cr_expect_null(chat_format(t, NULL, talk, 4, &err));
    cr_expect(strstr(err.message, "do not know"));
    tokenizer_free(t);
}

Test(chat, qwen25_as_its_template_renders) {
    struct error err = {0};
    struct tokenizer *t = tokenizer_load(shared_path("data/tokenizers/qwen2.5"), &err);
    cr_assert(t, "%s", err.message);
    expect_chat(t, NULL, talk + 3, 1,
                "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
                "assistant.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n");
    cr_expect_eq(chat_end_token(t, NULL), 151645);
    cr_expect_eq(tokenizer_eos(t), 151645);
    cr_expect_eq(tokenizer_bos(t), -1);
    tokenizer_free(t);
}
