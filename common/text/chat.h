// The text an instruct model was trained to see around a conversation.
//
// The format is found from the checkpoint's chat template by its marks (<|im_start|> is ChatML, as
// Qwen uses; <|start_header_id|> is Llama-3's; [INST] is Mistral's and Llama-2's); the templates
// themselves (Jinja programs) are not run.
#ifndef NIBBLE_TEXT_CHAT_H
#define NIBBLE_TEXT_CHAT_H

#include "core/error.h"
#include "text/tokenizer.h"

struct chat_message {
    const char *role; // "system", "user" or "assistant"
    const char *content;
};

// The prompt up to where the assistant's answer begins, as apply_chat_template(…,
// add_generation_prompt=True) gives it; the caller frees it. `format` is NULL to choose by the
// checkpoint, or one of "chatml", "llama3", "mistral", "llama2". Fails with the known names if the
// checkpoint has no template or one of another kind.
// The text includes the BOS token where the template does: encode it without adding another.
char *chat_format(const struct tokenizer *t, const char *format,
                  const struct chat_message *messages, size_t n, struct error *err);
// The token that ends an answer in that format ("<|im_end|>" …), or -1.
int32_t chat_end_token(const struct tokenizer *t, const char *format);

#endif
