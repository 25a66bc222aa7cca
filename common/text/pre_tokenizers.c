#include "text/pre_tokenizers.h"

#include <string.h>

// Parts that the patterns share: contractions; words with one character before them; punctuation
// with the line ends behind it; line ends and spaces.
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define MARKS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL
#define MARKS_OR_SLASH "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL
#define WORDS CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
// Words that begin in capitals and go on in small letters, or the other way round.
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(suffix)                                                                              \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER  \
    "*" suffix
// DeepSeek: Chinese, Japanese, Korean; letters that have cases, as that tokenizer lists them.
#define HAN_HANGUL "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
#define HAN_KANA "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define CASED_LETTERS                                                                              \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"                 \
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}"         \
    "\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}"                  \
    "\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}"                       \
    "\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"                 \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}"                 \
    "\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}"        \
    "\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}"         \
    "\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}"                 \
    "\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}"                  \
    "\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}"                   \
    "\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}"        \
    "\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}"         \
    "\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}"                  \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}"                 \
    "\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"               \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}"         \
    "\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"
#define BLOOM " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"
#define ASCII_MARKS "!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~"

static const struct pre_tokenizer known[] = {
    {.names = "gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum "
              "modern-bert jina-es jina-de jina-v2-es jina-v2-de",
     .patterns = {GPT2}},
    {.names = "qwen2 deepseek-r1-qwen megrez",
     .patterns = {WORDS "|\\p{N}" MARKS},
     .normalize = true},
    {.names = "stablelm2 hunyuan grok-2 solar-open kormo f2llmv2",
     .patterns = {WORDS "|\\p{N}" MARKS}},
    {.names = "qwen35",
     .patterns = {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}"
                              "\\p{N}]+[\\r\\n]*" TAIL}},
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     .patterns = {WORDS "|\\p{N}{1,3}" MARKS},
     .ignore_merges = true,
     .add_bos = true},
    {.names = "glm4 glm5", .patterns = {WORDS "|\\p{N}{1,3}" MARKS}, .ignore_merges = true},
    {.names = "smaug-bpe dbrx chatglm-bpe", .patterns = {WORDS "|\\p{N}{1,3}" MARKS}},
    {.names = "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
     .patterns = {"\\p{N}", GPT2}},
    {.names = "tekken",
     .patterns = {CASED("") "|\\p{N}" MARKS_OR_SLASH},
     .ignore_merges = true,
     .add_bos = true},
    {.names = "gpt-4o llama4 kanana2 talkie minimax-m2",
     .patterns = {CASED(CONTRACTION "?") "|\\p{N}{1,3}" MARKS_OR_SLASH}},
    {.names = "deepseek-llm",
     .patterns =
         {"[\\r\\n]", "\\s?[" CASED_LETTERS "]+",
          "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
          "\\s+$", HAN_HANGUL, "\\p{N}+"}},
    {.names = "deepseek-coder",
     .patterns = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", HAN_HANGUL, "\\p{N}"}},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     .patterns = {"\\p{N}{1,3}", HAN_KANA,
                  "[" ASCII_MARKS "][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}"
                  "\\p{S}]+[\\r\\n]*" TAIL}},
    {.names = "falcon", .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {.names = "poro-chat bloom gpt3-finnish", .patterns = {BLOOM}},
    {.names = "viking", .patterns = {BLOOM, "\\p{N}"}},
    {.names = "bailingmoe bailingmoe2 llada-moe",
     .patterns = {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]"
                  "++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {.names = "seed-coder", .patterns = {WORDS "|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+" TAIL}},
    // What older files mean that do not say.
    {.names = "default",
     .patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
};

static bool is_among(const char *names, const char *name, size_t size) {
    for (const char *p = names; *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");
        if (n == size && memcmp(p, name, n) == 0)
            return true;
        p += n;
    }
    return false;
}

const struct pre_tokenizer *pre_tokenizer_find(const char *name, size_t size) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (is_among(known[i].names, name, size))
            return &known[i];
    return NULL;
}

static bool splits_by(const struct pre_tokenizer *p, const char *const *patterns, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!p->patterns[i] || strcmp(p->patterns[i], patterns[i]) != 0)
            return false;
    return n == PRE_TOKENIZER_STEPS || !p->patterns[n];
}

const struct pre_tokenizer *pre_tokenizer_of(const char *const *patterns, size_t n,
                                             bool ignore_merges, bool normalize) {
    const struct pre_tokenizer *found = NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known && n <= PRE_TOKENIZER_STEPS; i++)
        if (known[i].ignore_merges == ignore_merges && splits_by(&known[i], patterns, n) &&
            (!found || (found->normalize != normalize && known[i].normalize == normalize)))
            found = &known[i];
    return found;
}
