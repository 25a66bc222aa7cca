// libFuzzer: any bytes as a tokenizer.json and a text, or as a text for small tokenizers.
//
// Input: one byte chooses; 0: "<json>\0<text>", else the text for one of the tokenizers below.
#include <stdlib.h>
#include <string.h>

#include "text/chat.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MODEL                                                                                      \
    "\"model\":{\"unk_token\":\"?\",\"fuse_unk\":true,\"byte_fallback\":true,\"vocab\":{\"?\":0,"  \
    "\"a\":1,\"b\":2,\"ab\":3,\"\xe2\x96\x81\":4,\"\xe2\x96\x81\x61\":5,\"<0x0A>\":6,"             \
    "\"aa\":7,\"aaaa\":8,\"\xc4\xa0\":9},\"merges\":[\"a b\",\"\xe2\x96\x81 a\",\"a a\","          \
    "\"aa aa\"]}"
#define ADDED                                                                                      \
    "\"added_tokens\":[{\"id\":20,\"content\":\"<x>\",\"lstrip\":true,\"normalized\":false},"      \
    "{\"id\":21,\"content\":\"<y>\",\"rstrip\":true,\"special\":true,\"normalized\":false},"       \
    "{\"id\":22,\"content\":\"b b\",\"single_word\":true}]"

static const char *const tokenizers[] = {
    "{" MODEL "," ADDED ",\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":"
    "\"NFKC\"},{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"},{\"type\":\"Replace\","
    "\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]},\"decoder\":{\"type\":"
    "\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},"
    "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\","
    "\"content\":\" \",\"start\":1}]}}",
    "{" MODEL "," ADDED ",\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":"
    "\"ByteLevel\"},\"decoder\":{\"type\":\"ByteLevel\"}}",
    "{" MODEL "," ADDED ",\"normalizer\":{\"type\":\"NFD\"},\"pre_tokenizer\":{\"type\":"
    "\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"},{\"type\":\"Split\",\"pattern\":{"
    "\"Regex\":\"\\\\s*\\\\w|x*\"},\"behavior\":\"MergedWithNext\"},{\"type\":\"Metaspace\","
    "\"prepend_scheme\":\"first\"}]},\"decoder\":{\"type\":\"Metaspace\"}}",
};

// A stream and a whole decoding are the same text.
static void check_decoding(const struct tokenizer *t, const struct token_list *ids) {
    struct error err = {0};
    struct token_stream s;
    size_t size = 0, at = 0;
    char *whole = tokenizer_decode(t, ids->ids, ids->n, true, &size, &err);
    if (!whole)
        abort();
    token_stream_init(&s, t);
    for (size_t i = 0; i <= ids->n; i++) {
        const char *text =
            i < ids->n ? token_stream_push(&s, ids->ids[i], &err) : token_stream_flush(&s, &err);
        if (!text || at + s.text.size > size || memcmp(whole + at, text, s.text.size) != 0)
            abort();
        at += s.text.size;
    }
    if (at != size)
        abort();
    token_stream_free(&s);
    free(whole);
}

static void use(struct tokenizer *t, const char *text, size_t size) {
    struct token_list ids = {0};
    struct error err = {0};
    if (tokenizer_encode(t, text, size, &ids, &err))
        check_decoding(t, &ids);
    token_list_free(&ids);
    const struct chat_message message = {"user", "hi"};
    free(chat_format(t, NULL, &message, 1, &err));
    chat_end_token(t, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct error err = {0};
    if (!size)
        return 0;
    const char *text = (const char *)data + 1;
    size--;
    if (data[0] == 0 || data[0] == '0') {
        const char *end = memchr(text, 0, size);
        size_t json = end ? (size_t)(end - text) : size;
        // As a configuration, too: its readers see every type under every key.
        struct tokenizer *t = tokenizer_parse(text, json, NULL, 0, "fuzz", &err);
        tokenizer_free(
            tokenizer_parse(tokenizers[0], strlen(tokenizers[0]), text, json, "fuzz", &err));
        if (t)
            use(t, end ? end + 1 : text, end ? size - json - 1 : size);
        tokenizer_free(t);
        return 0;
    }
    const char *json = tokenizers[data[0] % 3];
    struct tokenizer *t = tokenizer_parse(json, strlen(json), NULL, 0, "fuzz", &err);
    if (!t)
        abort();
    use(t, text, size);
    tokenizer_free(t);
    return 0;
}
