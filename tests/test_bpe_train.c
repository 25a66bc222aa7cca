// text/bpe_train: merges computed by hand, ties, words, and the file that is written.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/random.h"
#include "io/json.h"
#include "text/bpe_split.h"
#include "text/bpe_train.h"

static const char *const specials[] = {"<|end|>", "<|x|>"};
static struct error err;

static struct bpe_trained train(const char *text, size_t merges) {
    struct bpe_trained b;
    cr_assert(bpe_train(&b, text, strlen(text), BPE_BYTES + 2 + merges, specials, 2, "text", &err),
              "%s", err.message);
    cr_assert_eq(b.n_tokens, BPE_BYTES + merges);
    return b;
}

static void assert_token(const struct bpe_trained *b, size_t id, const char *bytes) {
    cr_assert_eq(b->tokens[id].size, strlen(bytes), "token %zu", id);
    cr_assert_arr_eq(b->tokens[id].bytes, bytes, strlen(bytes), "token %zu: %.*s", id,
                     (int)b->tokens[id].size, (const char *)b->tokens[id].bytes);
}

// Words "low", " low", " lower". l+o and o+w occur 3 times, ' '+l twice, w+e and e+r once.
// l has the lower id: "lo". Then lo+w 3: "low". ' '+low 2: " low". " low"+e and e+r both once:
// e (68) has a lower id than " low": "er". Then " lower".
Test(bpe_train, learns_the_merges_computed_by_hand) {
    struct bpe_trained b = train("low low lower", 5);
    const char *const expected[] = {"lo", "low", " low", "er", " lower"};
    for (size_t i = 0; i < 5; i++)
        assert_token(&b, BPE_BYTES + i, expected[i]);
    cr_assert_eq(b.n_merges, 5);
    cr_assert_eq(b.merges[1].left, BPE_BYTES);
    cr_assert_eq(b.tokens[b.merges[1].right].bytes[0], 'w');
    bpe_train_free(&b);
}

Test(bpe_train, overlapping_pairs_merge_from_the_left) {
    struct bpe_trained b =
        train("aaaaa", 3); // aa aa a -> aaaa a (aa+aa and aa+a tie: 'a' is lower)
    assert_token(&b, 256, "aa");
    assert_token(&b, 257, "aaa");
    assert_token(&b, 258, "aaaaa");
    bpe_train_free(&b);
}

Test(bpe_train, no_merge_crosses_words_or_special_tokens) {
    struct bpe_trained b;
    // "ab" three times; nothing else has two bytes.
    const char *text = "ab<|x|>ab<|end|>ab";
    cr_assert_not(bpe_train(&b, text, strlen(text), 256 + 2 + 2, specials, 2, "t.txt", &err));
    cr_assert_str_eq(err.message, "t.txt: enough text for 257 tokens, expected 258");
    b = train(text, 1);
    assert_token(&b, 256, "ab");
    bpe_train_free(&b);
}

static char words[2048];
static bool note_word(void *user, const char *text, size_t size) {
    (void)user;
    size_t used = strlen(words);
    snprintf(words + used, sizeof words - used, "%.*s/", (int)size, text);
    return true;
}

Test(bpe_train, words_are_cut_as_qwen2_cuts_them) {
    const char *text = "I'll pay 42 coins,\n\nshe  said: \"No!\"  ";
    words[0] = '\0';
    cr_assert(bpe_split(text, strlen(text), specials, 2, note_word, NULL, &err), "%s", err.message);
    cr_assert_str_eq(words, "I/'ll/ pay/ /4/2/ coins/,\n\n/she/ / said/:/ \"/No/!\"/  /");
    text = "<|x|>a<|x|><|end|>b<|en";
    words[0] = '\0';
    cr_assert(bpe_split(text, strlen(text), specials, 2, note_word, NULL, &err));
    cr_assert_str_eq(words, "a/b/<|/en/");
    // U+180E is no space, though PCRE2's \s has it: punctuation goes on over it.
    text = "!\u180e! b";
    words[0] = '\0';
    cr_assert(bpe_split(text, strlen(text), specials, 2, note_word, NULL, &err));
    cr_assert_str_eq(words, "!\u180e!/ b/");
}

Test(bpe_train, text_is_normalized_first) {
    struct bpe_trained b = train("e\xcc\x81", 1); // e + combining acute -> U+00E9, bytes c3 a9
    assert_token(&b, 256, "\xc3\xa9");
    bpe_train_free(&b);
    cr_assert_not(bpe_train(&b, "a\xff", 2, 300, NULL, 0, "t.txt", &err));
    cr_assert_str_eq(err.message, "t.txt: byte 1 is no character, expected UTF-8 text");
}

Test(bpe_train, impossible_sizes_are_refused) {
    struct bpe_trained b;
    cr_assert_not(bpe_train(&b, "abc", 3, 257, specials, 2, "t", &err));
    cr_assert_not(bpe_train(&b, "abc", 3, (size_t)BPE_MAX_VOCAB + 1, specials, 2, "t", &err));
    cr_assert_not(bpe_train(&b, "", 0, 300, specials, 2, "t", &err));
    cr_assert(bpe_train(&b, "", 0, 258, specials, 2, "t", &err), "bytes need no text");
    bpe_train_free(&b);
}

Test(bpe_train, ids_of_bytes_follow_their_stand_ins) {
    cr_assert_eq(bpe_byte_of_id(0), '!');
    cr_assert_eq(bpe_byte_of_id(93), '~');
    cr_assert_eq(bpe_byte_of_id(94), 0xa1);
    cr_assert_eq(bpe_byte_of_id(187), 0xff);
    cr_assert_eq(bpe_byte_of_id(188), 0x00);
    cr_assert_eq(bpe_byte_of_id(220), ' ');
    cr_assert_eq(bpe_byte_of_id(255), 0xad);
    bool seen[BPE_BYTES] = {false};
    for (int id = 0; id < BPE_BYTES; id++) {
        cr_assert_not(seen[bpe_byte_of_id(id)]);
        seen[bpe_byte_of_id(id)] = true;
    }
}

// The plain way: count all pairs of all words again for each merge.
enum { REF_WORDS = 64, REF_SIZE = 12 };
static int32_t ref_words[REF_WORDS][REF_SIZE];
static size_t ref_sizes[REF_WORDS];

static int64_t ref_count(int32_t left, int32_t right) {
    int64_t count = 0;
    for (int w = 0; w < REF_WORDS; w++)
        for (size_t i = 0; i + 1 < ref_sizes[w]; i++)
            count += ref_words[w][i] == left && ref_words[w][i + 1] == right;
    return count;
}

static struct bpe_merge ref_best(int32_t n_tokens) {
    struct bpe_merge best = {-1, -1};
    int64_t best_count = 0;
    for (int32_t l = 0; l < n_tokens; l++)
        for (int32_t r = 0; r < n_tokens; r++) {
            int64_t count = ref_count(l, r);
            if (count > best_count) {
                best = (struct bpe_merge){l, r};
                best_count = count;
            }
        }
    return best;
}

static void ref_merge(struct bpe_merge m, int32_t merged) {
    for (int w = 0; w < REF_WORDS; w++) {
        size_t n = 0;
        for (size_t i = 0; i < ref_sizes[w]; i++) {
            bool here =
                i + 1 < ref_sizes[w] && ref_words[w][i] == m.left && ref_words[w][i + 1] == m.right;
            ref_words[w][n++] = here ? merged : ref_words[w][i];
            i += here;
        }
        ref_sizes[w] = n;
    }
}

// Random words over three letters: many ties, overlaps, and tokens made in two ways.
Test(bpe_train, equals_counting_everything_again) {
    struct random r = {11};
    for (int round = 0; round < 3; round++) {
        char text[REF_WORDS * (REF_SIZE + 1)] = "";
        size_t n = 0;
        for (int w = 0; w < REF_WORDS; w++) {
            ref_sizes[w] = 3 + random_below(&r, REF_SIZE - 3);
            for (size_t i = 0; i < ref_sizes[w]; i++)
                text[n++] = "abc"[random_below(&r, 3)];
            text[n++] = '\n'; // a word of its own, of one byte
        }
        struct bpe_trained b;
        cr_assert(bpe_train(&b, text, n, BPE_BYTES + 24, NULL, 0, "text", &err));
        n = 0;
        for (int w = 0; w < REF_WORDS; w++, n++)
            for (size_t i = 0; i < ref_sizes[w]; i++)
                ref_words[w][i] = text[n++] - '!'; // printable bytes: id = byte - '!'
        for (size_t i = 0; i < b.n_merges; i++) {
            struct bpe_merge m = ref_best((int32_t)b.n_tokens);
            cr_assert(m.left == b.merges[i].left && m.right == b.merges[i].right,
                      "merge %zu is %d %d, expected %d %d", i, b.merges[i].left, b.merges[i].right,
                      m.left, m.right);
            int32_t merged = 0;
            for (size_t k = 0; k < b.n_tokens; k++) {
                const struct bpe_token *l = &b.tokens[m.left], *t = &b.tokens[k],
                                       *e = &b.tokens[m.right];
                if (t->size == l->size + e->size && memcmp(t->bytes, l->bytes, l->size) == 0 &&
                    memcmp(t->bytes + l->size, e->bytes, e->size) == 0)
                    merged = (int32_t)k;
            }
            ref_merge(m, merged);
        }
        bpe_train_free(&b);
    }
}

Test(bpe_train, the_file_has_what_readers_expect) {
    char path[] = "/tmp/nibble-bpe-XXXXXX";
    close(mkstemp(path));
    struct bpe_trained b = train("say \"hello\" \\ hello \xc3\xa9\xc3\xa9", 9);
    cr_assert(bpe_write(&b, specials, 2, path, &err), "%s", err.message);
    cJSON *root = json_parse_file(path, &err);
    cr_assert_not_null(root, "%s", err.message);
    const cJSON *model = json_get(root, "model"), *item;
    const cJSON *vocab = json_get(model, "vocab"), *merges = json_get(model, "merges");
    cr_assert_eq(cJSON_GetArraySize(vocab), 265);
    cr_assert_eq(cJSON_GetArraySize(merges), 9);
    int id = 0;
    cJSON_ArrayForEach (item, vocab)
        cr_assert_eq(item->valueint, id++);
    cr_assert_not_null(cJSON_GetObjectItemCaseSensitive(vocab, "\""));
    cr_assert_not_null(cJSON_GetObjectItemCaseSensitive(vocab, "\\"));
    cr_assert_eq(cJSON_GetObjectItemCaseSensitive(vocab, "\u0120")->valueint, 220);
    cr_assert_not_null(cJSON_GetObjectItemCaseSensitive(vocab, "hello"));
    cJSON_ArrayForEach (item, merges) {
        const char *left = cJSON_GetArrayItem(item, 0)->valuestring;
        const char *right = cJSON_GetArrayItem(item, 1)->valuestring;
        char both[64];
        snprintf(both, sizeof both, "%s%s", left, right);
        cr_assert_not_null(cJSON_GetObjectItemCaseSensitive(vocab, both), "%s", both);
    }
    item = cJSON_GetArrayItem(json_get(root, "added_tokens"), 1);
    cr_assert_eq(json_get(item, "id")->valueint, 266);
    cr_assert_str_eq(json_get(item, "content")->valuestring, "<|x|>");
    const cJSON *split =
        cJSON_GetArrayItem(json_get(json_get(root, "pre_tokenizer"), "pretokenizers"), 0);
    const char *pattern = json_get(json_get(split, "pattern"), "Regex")->valuestring;
    cr_assert_str_eq(pattern, "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
                              " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+");
    cJSON_Delete(root);
    bpe_train_free(&b);
    remove(path);
}
