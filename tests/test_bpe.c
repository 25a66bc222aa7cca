// text/bpe, utf8, vocab, normalize: the parts a tokenizer is built of.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"
#include "text/bpe.h"
#include "text/normalize.h"
#include "text/utf8.h"
#include "text/vocab.h"

static struct bpe merges_new(size_t n) {
    struct bpe b;
    struct error err = {0};
    cr_assert(bpe_init(&b, n, &err), "%s", err.message);
    return b;
}

// The picture in bpe.h: h=0 e=1 l=2 o=3; he=4 ll=5 hell=6.
Test(bpe, hello_merges_in_the_order_of_ranks) {
    struct bpe b = merges_new(3);
    bpe_put(&b, 0, 1, 0, 4);
    bpe_put(&b, 2, 2, 1, 5);
    bpe_put(&b, 4, 5, 2, 6);
    uint32_t word[] = {0, 1, 2, 2, 3};
    size_t n = 5;
    struct bpe_work work = {0};
    cr_assert(bpe_merge(&b, &work, word, &n, NULL));
    cr_assert_eq(n, 2);
    cr_assert(word[0] == 6 && word[1] == 3);
    cr_assert_eq(bpe_rank(&b, 1, 0), BPE_NONE);
    bpe_work_free(&work);
    bpe_free(&b);
}

Test(bpe, the_leftmost_of_equal_ranks_goes_first) {
    struct bpe b = merges_new(1);
    bpe_put(&b, 0, 0, 0, 1); // a+a
    uint32_t word[] = {0, 0, 0};
    size_t n = 3;
    bpe_merge(&b, &(struct bpe_work){0}, word, &n, NULL);
    cr_assert(n == 2 && word[0] == 1 && word[1] == 0);
    bpe_free(&b);
}

Test(bpe, a_pair_put_twice_has_its_last_rank) {
    struct bpe b = merges_new(3);
    bpe_put(&b, 0, 1, 0, 3);
    bpe_put(&b, 1, 2, 1, 4);
    bpe_put(&b, 0, 1, 2, 3); // now after 1+2
    uint32_t word[] = {0, 1, 2};
    size_t n = 3;
    bpe_merge(&b, &(struct bpe_work){0}, word, &n, NULL);
    cr_assert(n == 2 && word[0] == 0 && word[1] == 4);
    bpe_free(&b);
}

// Random merges over four letters; each makes a new symbol of two that exist.
Test(bpe, long_and_short_words_equal_the_definition) {
    struct random r = {7};
    struct bpe_work work = {0};
    struct error err = {0};
    for (int round = 0; round < 300; round++) {
        enum { MERGES = 60 };
        struct bpe b = merges_new(MERGES);
        for (uint32_t i = 0; i < MERGES; i++)
            bpe_put(&b, random_below(&r, 4 + i), random_below(&r, 4 + i), i, 4 + i);
        uint32_t fast[400], slow[400];
        size_t n = random_below(&r, round % 2 ? 400 : 60), n_slow = n;
        for (size_t i = 0; i < n; i++)
            fast[i] = slow[i] = random_below(&r, 4);
        bpe_merge_ref(&b, slow, &n_slow);
        cr_assert(bpe_merge(&b, &work, fast, &n, &err), "%s", err.message);
        cr_assert_eq(n, n_slow, "round %d: %zu symbols, expected %zu", round, n, n_slow);
        cr_assert(memcmp(fast, slow, n * sizeof *fast) == 0, "round %d", round);
        bpe_free(&b);
    }
    bpe_work_free(&work);
}

static void expect_repaired(const char *text, size_t size, const char *expected) {
    struct bytes out = {0};
    cr_assert(utf8_repair(&out, text, size, NULL));
    cr_expect(out.size == strlen(expected) && memcmp(out.data, expected, out.size) == 0,
              "%.*s, expected %s", (int)out.size, out.data, expected);
    bytes_free(&out);
}

#define FFFD UTF8_REPLACEMENT

// What Python's bytes.decode("utf-8", errors="replace") gives.
Test(utf8, invalid_bytes_become_one_replacement_per_cut_character) {
    expect_repaired("a\x80z", 3, "a" FFFD "z");
    expect_repaired("\xe2\x82", 2, FFFD); // the euro sign cut short
    expect_repaired("\xe2\x82z", 3, FFFD "z");
    expect_repaired("\xe0\x80\x80", 3, FFFD FFFD FFFD); // an overlong spelling
    expect_repaired("\xc0\xaf", 2, FFFD FFFD);
    expect_repaired("\xed\xa0\x80", 3, FFFD FFFD FFFD); // a surrogate
    expect_repaired("\xf0\x9f\x98", 3, FFFD);
    expect_repaired("\xf4\x90\x80\x80", 4, FFFD FFFD FFFD FFFD); // above U+10FFFF
}

Test(utf8, every_character_survives_writing_and_reading) {
    for (uint32_t c = 0; c < 0x110000; c += c < 0x3000 ? 1 : 97) {
        char text[4];
        unsigned n = utf8_write(c, text);
        struct utf8_char read = utf8_read(text, n);
        bool surrogate = c >= 0xd800 && c < 0xe000;
        cr_assert_eq(read.valid, !surrogate, "U+%04X", c);
        cr_assert(surrogate || (read.code == c && read.size == n && utf8_size(text[0]) == n));
        for (unsigned cut = 1; cut < n && !surrogate; cut++)
            cr_assert(utf8_read(text, cut).cut_short, "U+%04X", c);
    }
}

Test(vocab, finds_what_was_put_last) {
    struct vocab v = {0};
    char text[16];
    cr_assert_eq(vocab_find(&v, "0", 1), -1);
    for (int i = 0; i < 5000; i++)
        cr_assert(vocab_put(&v, text, (size_t)sprintf(text, "%d", i), i * 3, NULL));
    for (int i = 0; i < 5000; i++)
        cr_assert_eq(vocab_find(&v, text, (size_t)sprintf(text, "%d", i)), i * 3);
    size_t size;
    cr_assert(vocab_text(&v, 4999 * 3, &size) && size == 4);
    cr_assert_null(vocab_text(&v, 4, &size)); // a hole
    cr_assert_null(vocab_text(&v, 15000, &size));
    cr_assert_null(vocab_text(&v, -1, &size));
    cr_assert(vocab_put(&v, "7", 1, 1, NULL));
    cr_assert_eq(vocab_find(&v, "7", 1), 1);
    struct error err = {0};
    cr_assert_not(vocab_put(&v, "big", 3, VOCAB_MAX_ID + 1, &err));
    cr_assert_eq(v.size, 4999 * 3 + 1);
    vocab_free(&v);
}

static void expect_form(bool compose, bool compatible, const char *text, const char *expected) {
    struct normalizer n = {
        .kind = NORMALIZER_UNICODE, .compose = compose, .compatible = compatible};
    struct bytes out = {0};
    cr_assert(normalizer_apply(&n, NULL, text, strlen(text), &out, NULL));
    cr_expect(out.size == strlen(expected) && memcmp(out.data, expected, out.size) == 0,
              "%.*s, expected %s", (int)out.size, out.data, expected);
    if (normalizer_is_idle(&n, text, strlen(text)))
        cr_expect_str_eq(text, expected);
    bytes_free(&out);
}

Test(normalize, the_four_forms) {
    expect_form(true, false, "plain", "plain");
    expect_form(true, false, "e\u0301!", "\u00e9!");
    expect_form(true, false, "\u00e9\u0323", "\u1eb9\u0301"); // marks below go first
    expect_form(true, false, "a\u0301\u0323b", "\u1ea1\u0301b");
    expect_form(true, false, "\u1100\u1161\u11a8", "\uac01"); // Hangul, by arithmetic
    expect_form(true, false, "\uac00\u11a8", "\uac01");
    expect_form(true, false, "\u212b \ufb01", "\u00c5 \ufb01"); // Angstrom; fi stays
    expect_form(true, true, "\ufb01\uff11", "fi1");
    expect_form(false, false, "\u00e9\uac01", "e\u0301\u1100\u1161\u11a8");
    expect_form(false, true, "\u01c4", "DZ\u030c");
    expect_form(true, false, "\u0301", "\u0301"); // a mark with nothing before
}

// utf8proc's own ordering of marks would take half a minute for this.
Test(normalize, a_megabyte_of_marks_is_sorted_in_no_time, .timeout = 10) {
    size_t pairs = (1 << 20) / 4;
    char *text = malloc(pairs * 4 + 1);
    for (size_t i = 0; i < pairs; i++)
        memcpy(text + 4 * i, "\u0301\u0323", 4);
    struct normalizer n = {.kind = NORMALIZER_UNICODE, .compose = true};
    struct bytes out = {0};
    cr_assert(normalizer_apply(&n, NULL, text, pairs * 4, &out, NULL));
    cr_assert_eq(out.size, pairs * 4);
    cr_assert(memcmp(out.data, "\u0323\u0323", 4) == 0);
    cr_assert(memcmp(out.data + out.size - 4, "\u0301\u0301", 4) == 0);
    bytes_free(&out);
    free(text);
}
