// text/tokenizer: hand-made tokenizers of a few tokens, one per part of a tokenizer.json.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "temp.h"
#include "text/tokenizer.h"

// The commas and quotes of JSON would drown the test: ' stands for ", as no token here needs it.
static struct tokenizer *parse_with(const char *json, const char *config, struct error *err) {
    char *text = strdup(json), *settings = config ? strdup(config) : NULL;
    for (char *c = text; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    for (char *c = settings; c && *c; c++)
        *c = *c == '\'' ? '"' : *c;
    struct tokenizer *t = tokenizer_parse(text, strlen(text), settings,
                                          settings ? strlen(settings) : 0, "test.json", err);
    free(text);
    free(settings);
    return t;
}

static struct tokenizer *parse(const char *json) {
    struct error err = {0};
    struct tokenizer *t = parse_with(json, NULL, &err);
    cr_assert(t, "%s", err.message);
    return t;
}

// ids as "1 2 3".
static void expect_ids(const struct tokenizer *t, const char *text, const char *expected) {
    struct token_list ids = {0};
    struct error err = {0};
    char found[512] = "";
    size_t n = 0;
    cr_assert(tokenizer_encode(t, text, strlen(text), &ids, &err), "%s", err.message);
    for (size_t i = 0; i < ids.n && i < 40; i++)
        n += (size_t)snprintf(found + n, sizeof found - n, "%s%d", i ? " " : "", ids.ids[i]);
    cr_expect_str_eq(found, expected, "'%s' is %s, expected %s", text, found, expected);
    token_list_free(&ids);
}

static void expect_text(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip,
                        const char *expected) {
    struct error err = {0};
    char *text = tokenizer_decode(t, ids, n, skip, NULL, &err);
    cr_assert(text, "%s", err.message);
    cr_expect_str_eq(text, expected);
    free(text);
}
#define IDS(...) (const int32_t[]){__VA_ARGS__}, sizeof(int32_t[]){__VA_ARGS__} / sizeof(int32_t)

static void expect_error(const char *json, const char *config, const char *part) {
    struct error err = {0};
    struct tokenizer *t = parse_with(json, config, &err);
    cr_expect_null(t, "%s was taken", json);
    cr_expect(strstr(err.message, part), "'%s' does not say '%s'", err.message, part);
    tokenizer_free(t);
}

// \u2581 is SentencePiece's visible space.
#define SPM_VOCAB                                                                                  \
    "{'<unk>':0,'\u2581':1,'a':2,'b':3,'\u2581a':4,'ab':5,'<0xE2>':6,'<0x98>':7,'<0x83>':8,"       \
    "'<0x0A>':9,'\u2581\u2581':10}"
#define SPM_MERGES "['\u2581 a','a b','\u2581 \u2581']"
#define SPM                                                                                        \
    "'model':{'type':'BPE','unk_token':'<unk>','fuse_unk':true,'byte_fallback':true,'vocab'"       \
    ":" SPM_VOCAB ",'merges':" SPM_MERGES "}"
#define PREPEND                                                                                    \
    "'normalizer':{'type':'Sequence','normalizers':[{'type':'Prepend','prepend':'\u2581'},"        \
    "{'type':'Replace','pattern':{'String':' '},'content':'\u2581'}]}"
#define SPM_DECODER                                                                                \
    "'decoder':{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':'\u2581'},"    \
    "'content':' '},{'type':'ByteFallback'},{'type':'Fuse'},{'type':'Strip','content':' ',"        \
    "'start':1,'stop':0}]}"

Test(tokenizer_parts, sentencepiece_style) {
    struct tokenizer *t = parse("{" PREPEND "," SPM_DECODER "," SPM "}");
    expect_ids(t, "", "");
    expect_ids(t, "ab", "4 3"); // the merge with the space was learnt first
    expect_ids(t, "b ab", "1 3 4 3");
    expect_ids(t, "  ", "10 1");
    expect_ids(t, "\u2603", "1 6 7 8"); // a snowman in bytes
    expect_ids(t, "xyz", "1 0");        // unknown letters fuse
    expect_ids(t, "x\nb", "1 9 0 3");   // a byte token overtakes the unknown one, as it always did
    expect_text(t, IDS(4, 3, 1, 3), false, "ab b");
    expect_text(t, IDS(10, 3), false, " b");
    expect_text(t, IDS(6, 7, 8, 3), false, "\u2603b");
    expect_text(t, IDS(3, 6, 7), false, "b\ufffd\ufffd"); // each byte of a run that is no text
    cr_expect_eq(tokenizer_vocab_size(t), 11);
    cr_expect_eq(tokenizer_id(t, "\u2581a"), 4);
    cr_expect_eq(tokenizer_id(t, "nothing"), -1);
    tokenizer_free(t);
}

Test(tokenizer_parts, metaspace_first_always_never) {
#define METASPACE(scheme)                                                                          \
    "{'pre_tokenizer':{'type':'Metaspace','replacement':'\u2581','prepend_scheme':'" scheme        \
    "'},'decoder':{'type':'Metaspace','replacement':'\u2581','prepend_scheme':'" scheme            \
    "'},'added_tokens':[{'id':11,'content':'<x>','normalized':false}]," SPM "}"
    struct tokenizer *t = parse(METASPACE("first"));
    expect_ids(t, "a<x>a a", "4 11 2 4");
    expect_text(t, IDS(4, 4), false, "a a");
    tokenizer_free(t);
    t = parse(METASPACE("always"));
    expect_ids(t, "a<x>a a", "4 11 4 4");
    tokenizer_free(t);
    t = parse(METASPACE("never"));
    expect_ids(t, "a<x>a a", "2 11 2 4");
    expect_text(t, IDS(4, 4), false, " a a");
    tokenizer_free(t);
    t = parse("{'pre_tokenizer':{'type':'Metaspace','replacement':'\u2581','add_prefix_space':"
              "false,'split':false}," SPM "}");
    expect_ids(t, "a a", "2 4");
    tokenizer_free(t);
    expect_error(METASPACE("sometimes"), NULL, "prepend_scheme 'sometimes'");
}

// \u0120 is the byte-level alphabet's space.
#define LETTERS "'vocab':{'a':0,'b':1,'\u0120':2,'1':3,'ab':4,'\u0120a':5,'11':6,'aab':7,'-':8}"
#define BYTES                                                                                      \
    "'decoder':{'type':'ByteLevel'},'model':{" LETTERS ",'merges':[['a','b'],['\u0120','a'],"      \
    "['1','1']]}"
#define BYTE_LEVEL "{'type':'ByteLevel','add_prefix_space':false,'use_regex':false}"

Test(tokenizer_parts, byte_level_with_gpt2_pattern) {
    struct tokenizer *t =
        parse("{'pre_tokenizer':{'type':'ByteLevel','add_prefix_space':false}," BYTES "}");
    expect_ids(t, "ab a", "4 5");    // the pattern keeps the space with the word
    expect_ids(t, "ab ab", "4 2 4"); // where a+b was learnt before space+a
    expect_ids(t, "ab11", "4 6");
    expect_ids(t, "a?b", "0 1"); // a byte without a token is left out
    expect_text(t, IDS(4, 5, 1), false, "ab ab");
    tokenizer_free(t);
    t = parse("{'pre_tokenizer':{'type':'ByteLevel'}," BYTES
              "}"); // adds a space unless told not to
    expect_ids(t, "a", "5");
    expect_ids(t, " a", "5");
    tokenizer_free(t);
}

Test(tokenizer_parts, ignore_merges_takes_a_whole_word) {
    static const char json[] =
        "{'pre_tokenizer':" BYTE_LEVEL ",'model':{%s" LETTERS ",'merges':['a b']}}";
    char text[1024];
    snprintf(text, sizeof text, json, "");
    struct tokenizer *t = parse(text);
    expect_ids(t, "aab", "0 4");
    tokenizer_free(t);
    snprintf(text, sizeof text, json, "'ignore_merges':true,");
    t = parse(text);
    expect_ids(t, "aab", "7");
    expect_ids(t, "aaba", "0 4 0");
    tokenizer_free(t);
}

Test(tokenizer_parts, split_behaviors) {
    static const struct {
        const char *behavior, *invert, *expected;
    } cases[] = {
        // 1-1 split at the hyphens of "11-1--11"
        {"Removed", "false", "6 3 6"},
        {"Removed", "true", "8 8 8"},
        {"Isolated", "false", "6 8 3 8 8 6"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[1024];
        snprintf(json, sizeof json,
                 "{'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'Split','pattern':"
                 "{'String':'-'},'behavior':'%s','invert':%s}," BYTE_LEVEL "]}," BYTES "}",
                 cases[i].behavior, cases[i].invert);
        struct tokenizer *t = parse(json);
        expect_ids(t, "11-1--11", cases[i].expected);
        tokenizer_free(t);
    }
}

// Tokens that merge across a cut show where it was: with 1-=9, -1=10, --=11.
Test(tokenizer_parts, split_behaviors_that_merge) {
    static const struct {
        const char *behavior, *expected;
    } cases[] = {
        {"MergedWithPrevious", "9 8 3"}, // 1- - 1
        {"MergedWithNext", "3 8 10"},    // 1 - -1
        {"Contiguous", "3 11 3"},        // 1 -- 1
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[1024];
        snprintf(json, sizeof json,
                 "{'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'Split','pattern':"
                 "{'Regex':'-'},'behavior':'%s'}," BYTE_LEVEL "]},'model':{'vocab':{'1':3,'-':8,"
                 "'1-':9,'-1':10,'--':11},'merges':['- -','1 -','- 1']}}",
                 cases[i].behavior);
        struct tokenizer *t = parse(json);
        expect_ids(t, "1--1", cases[i].expected);
        tokenizer_free(t);
    }
}

// PCRE2 takes U+180E for a space, Unicode no longer does.
Test(tokenizer_parts, spaces_are_those_of_unicode) {
    static const char *const patterns[] = {"\\\\s", "[\\\\s]", "[^\\\\S]"};
    for (size_t i = 0; i < 3; i++) {
        char json[1024];
        snprintf(json, sizeof json,
                 "{'pre_tokenizer':{'type':'Split','pattern':{'Regex':'%s'},'behavior':'Removed'},"
                 "'model':{'vocab':{'a':0,'\u180e':1,'\u3000':2,' ':3},'merges':[]}}",
                 patterns[i]);
        struct tokenizer *t = parse(json);
        expect_ids(t, "a\u180ea\u3000a a", "0 1 0 0 0");
        tokenizer_free(t);
    }
}

Test(tokenizer_parts, digits_one_by_one_or_together) {
    static const char json[] = "{'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':"
                               "'Digits','individual_digits':%s}," BYTE_LEVEL "]}," BYTES "}";
    char text[1024];
    snprintf(text, sizeof text, json, "true");
    struct tokenizer *t = parse(text);
    expect_ids(t, "ab11", "4 3 3");
    tokenizer_free(t);
    snprintf(text, sizeof text, json, "false");
    t = parse(text);
    expect_ids(t, "ab11", "4 6");
    tokenizer_free(t);
}

#define ADDED(flags) "{'added_tokens':[{'id':20,'content':'<x>'," flags "}]," SPM "}"

Test(tokenizer_parts, added_tokens_and_their_flags) {
    struct tokenizer *t = parse(ADDED("'normalized':false,'special':true"));
    expect_ids(t, "a<x>b", "2 20 3");
    expect_ids(t, "<x><x", "20 0");
    expect_text(t, IDS(2, 20, 3), true, "a b"); // no decoder: joined by spaces
    cr_expect(tokenizer_is_special(t, 20) && !tokenizer_is_special(t, 2));
    cr_expect_eq(tokenizer_vocab_size(t), 21);
    tokenizer_free(t);
    t = parse(ADDED("'normalized':false,'lstrip':true"));
    expect_ids(t, "a \n <x> b", "2 20 0 3");
    tokenizer_free(t);
    t = parse(ADDED("'normalized':false,'rstrip':true"));
    expect_ids(t, "a <x>\u3000 b", "2 0 20 3");
    tokenizer_free(t);
    t = parse(ADDED("'normalized':false,'single_word':true"));
    expect_ids(t, "<x>", "20");
    expect_ids(t, "b <x>-b", "3 0 20 0 3");
    expect_ids(t, "a<x>", "2 0");
    expect_ids(t, "<x>\u00e9", "0");
    tokenizer_free(t);
}

Test(tokenizer_parts, the_longest_added_token_wins) {
    struct tokenizer *t =
        parse("{'added_tokens':[{'id':20,'content':'<','normalized':false},{'id':21,'content':"
              "'<<<','normalized':false},{'id':22,'content':'a','normalized':false}]," SPM "}");
    expect_ids(t, "<<<<<", "21 20 20");
    expect_ids(t, "a<", "2 20"); // one that the model knows keeps the model's id
    tokenizer_free(t);
}

// A text long enough for the cache of words, in pieces that are freed one after the other.
Test(tokenizer_parts, words_seen_before_have_the_same_ids) {
    struct tokenizer *t = parse(
        "{'added_tokens':[{'id':20,'content':'<x>','normalized':false}]," PREPEND "," SPM "}");
    struct token_list ids = {0};
    struct error err = {0};
    static const int32_t expected[] = {4, 3, 4, 3, 0, 20, 1, 0, 4, 3, 20};
    struct bytes text = {0};
    static const char sentence[] = "ab\u2581abx<x>y ab<x>";
    for (int i = 0; i < 200; i++)
        bytes_append(&text, sentence, sizeof sentence - 1, &err);
    cr_assert(tokenizer_encode(t, text.data, text.size, &ids, &err), "%s", err.message);
    cr_assert_eq(ids.n, 200 * sizeof expected / sizeof *expected);
    for (size_t i = 0; i < ids.n; i += sizeof expected / sizeof *expected)
        cr_assert(memcmp(ids.ids + i, expected, sizeof expected) == 0, "token %zu", i);
    token_list_free(&ids);
    bytes_free(&text);
    tokenizer_free(t);
}

Test(tokenizer_parts, normalized_added_tokens_match_the_normalized_text) {
    struct tokenizer *t =
        parse("{'added_tokens':[{'id':20,'content':'x y','normalized':true}]," PREPEND
              "," SPM_DECODER "," SPM "}");
    expect_ids(t, "x y", "20"); // looked for as \u2581x\u2581y
    expect_ids(t, "a x y", "4 20");
    expect_text(t, IDS(4, 20), false, "a x y");
    tokenizer_free(t);
}

Test(tokenizer_parts, invalid_utf8_is_replaced) {
    struct tokenizer *t = parse("{'model':{'vocab':{'a':0,'\ufffd':1},'merges':[]}}");
    expect_ids(t,
               "a\xff\xe2\x82"
               "a",
               "0 1 1 0");
    tokenizer_free(t);
}

Test(tokenizer_parts, bos_eos_and_template_come_from_the_configuration) {
#define PROCESSOR                                                                                  \
    "'post_processor':{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'a','type_id'"  \
    ":0}},{'Sequence':{'id':'A','type_id':0}}],'special_tokens':{'a':{'id':'a','ids':[2],'tokens'" \
    ":['a']}}}"
    struct error err = {0};
    struct tokenizer *t = parse("{" PROCESSOR "," SPM "}");
    cr_expect_eq(tokenizer_bos(t), 2);
    cr_expect_eq(tokenizer_eos(t), -1);
    cr_expect_null(tokenizer_chat_template(t));
    tokenizer_free(t);
    t = parse_with("{" PROCESSOR "," SPM "}",
                   "{'add_bos_token':true,'bos_token':{'content':'b'},'eos_token':'ab',"
                   "'chat_template':[{'name':'tool','template':'T'},{'name':'default','template':"
                   "'D'}]}",
                   &err);
    cr_assert(t, "%s", err.message);
    cr_expect_eq(tokenizer_bos(t), 3);
    cr_expect_eq(tokenizer_eos(t), 5);
    cr_expect_str_eq(tokenizer_chat_template(t), "D");
    tokenizer_free(t);
    t = parse_with("{" PROCESSOR "," SPM "}", "{'add_bos_token':false,'bos_token':'b'}", &err);
    cr_expect_eq(tokenizer_bos(t), -1);
    tokenizer_free(t);
}

Test(tokenizer_parts, streams_hold_back_half_characters) {
    struct tokenizer *t = parse("{'pre_tokenizer':" BYTE_LEVEL ",'decoder':{'type':'ByteLevel'},"
                                "'model':{'vocab':{'\u00e2':0,'\u013a':1,'\u0125':2,'a':3},"
                                "'merges':[]}}"); // bytes E2 98 83: a snowman
    struct token_stream s;
    struct error err = {0};
    token_stream_init(&s, t);
    cr_expect_str_eq(token_stream_push(&s, 3, &err), "a");
    cr_expect_str_eq(token_stream_push(&s, 0, &err), "");
    cr_expect_str_eq(token_stream_push(&s, 1, &err), "");
    cr_expect_str_eq(token_stream_push(&s, 2, &err), "\u2603");
    cr_expect_str_eq(token_stream_push(&s, 0, &err), "");
    cr_expect_str_eq(token_stream_push(&s, 3, &err), "\ufffd"
                                                     "a");
    cr_expect_str_eq(token_stream_push(&s, 0, &err), "");
    cr_expect_str_eq(token_stream_flush(&s, &err), "\ufffd");
    cr_expect_null(token_stream_push(&s, 99, &err));
    cr_expect(strstr(err.message, "99"));
    token_stream_free(&s);
    tokenizer_free(t);
}

Test(tokenizer_parts, an_id_outside_the_vocabulary_is_an_error) {
    struct tokenizer *t = parse("{" SPM "}");
    struct error err = {0};
    cr_expect_null(tokenizer_decode(t, IDS(0, 11), false, NULL, &err));
    cr_expect_str_eq(err.message, "token id 11 is outside the vocabulary of 11");
    cr_expect_null(tokenizer_decode(t, IDS(-1), false, NULL, &err));
    tokenizer_free(t);
}

Test(tokenizer_parts, errors_name_what_is_wrong) {
    expect_error("{", NULL, "not JSON");
    expect_error("[]", NULL, "no 'model'");
    expect_error("{'model':{'type':'Unigram'}}", NULL, "'Unigram', expected BPE");
    expect_error("{'model':{'vocab':[],'merges':[]}}", NULL, "model.vocab");
    expect_error("{'model':{'vocab':{'a':-1},'merges':[]}}", NULL, "the id of 'a'");
    expect_error("{'model':{'vocab':{'a':1e9},'merges':[]}}", NULL, "the id of 'a'");
    expect_error("{'model':{'vocab':{'a':0.5},'merges':[]}}", NULL, "the id of 'a'");
    expect_error("{'model':{'vocab':{'a':0}}}", NULL, "model.merges");
    expect_error("{'model':{'vocab':{'a':0},'merges':['a']}}", NULL, "merge 0");
    expect_error("{'model':{'vocab':{'a':0},'merges':['a a a']}}", NULL, "merge 0");
    expect_error("{'model':{'vocab':{'a':0},'merges':[['a',1]]}}", NULL, "merge 0");
    expect_error("{'model':{'vocab':{'a':0},'merges':['a a']}}", NULL, "not in the vocabulary");
    expect_error("{'model':{'dropout':0.1,'vocab':{},'merges':[]}}", NULL, "dropout");
    expect_error("{'model':{'end_of_word_suffix':'</w>','vocab':{},'merges':[]}}", NULL,
                 "end_of_word_suffix");
    expect_error("{'normalizer':{'type':'Lowercase'}," SPM "}", NULL, "'Lowercase'");
    expect_error("{'normalizer':{'type':'Sequence'}," SPM "}", NULL, "'normalizers'");
    expect_error("{'normalizer':{'type':'Prepend'}," SPM "}", NULL, "'prepend'");
    expect_error("{'pre_tokenizer':{'type':'BertPreTokenizer'}," SPM "}", NULL, "BertPre");
    expect_error("{'pre_tokenizer':{'type':'Split','pattern':{'Regex':'(a'}}," SPM "}", NULL, "(a");
    expect_error("{'pre_tokenizer':{'type':'Split','pattern':{'Regex':'a'},'behavior':'Odd'}," SPM
                 "}",
                 NULL, "'Odd'");
    expect_error("{'pre_tokenizer':{'type':'Sequence','pretokenizers':[" BYTE_LEVEL "," BYTE_LEVEL
                 ",{'type':'Digits'}]}," BYTES "}",
                 NULL, "after ByteLevel");
    expect_error("{'decoder':{'type':'CTC'}," SPM "}", NULL, "'CTC'");
    expect_error("{'post_processor':{'type':'BertProcessing'}," SPM "}", NULL, "BertProcessing");
    expect_error("{'added_tokens':{}," SPM "}", NULL, "added_tokens");
    expect_error("{'added_tokens':[{'content':'x'}]," SPM "}", NULL, "no 'id'");
    expect_error("{'added_tokens':[{'id':1e12,'content':'x'}]," SPM "}", NULL, "'id'");
    expect_error("{'decoder':{'type':'Strip','content':'ab\u20ac\u20ac'}," SPM "}", NULL,
                 "no 'content' of one character");
    expect_error("{" SPM "}", "[", "not JSON");
    // Strings reach PCRE2, which trusts them to be UTF-8.
    expect_error("{'normalizer':{'type':'Prepend','prepend':'\xf0'}," SPM "}", NULL, "not UTF-8");
    expect_error("{" SPM "}", "{'add_bos_token':'yes'}", "add_bos_token");
    struct error err = {0};
    cr_expect_null(tokenizer_load("/nonexistent-folder", &err));
    cr_expect(strstr(err.message, "no tokenizer.json"));
}

// Each step is a call within the one before, and may double the text.
Test(tokenizer_parts, too_many_steps_are_refused) {
    static const char *const step = "{'type':'WhitespaceSplit'},";
    static const char *const form = "{'type':'NFC'},";
    char json[8192] = "{'pre_tokenizer':{'type':'Sequence','pretokenizers':[";
    for (int i = 0; i < 64; i++)
        strcat(json, step);
    strcat(json, "{'type':'WhitespaceSplit'}]}," SPM "}");
    expect_error(json, NULL, "more than 64 steps");
    strcpy(json, "{'normalizer':{'type':'Sequence','normalizers':[");
    for (int i = 0; i < 64; i++)
        strcat(json, form);
    strcat(json, "{'type':'NFC'}]}," SPM "}");
    expect_error(json, NULL, "more than 64 normalizers");
}

Test(tokenizer_parts, a_list_of_added_tokens_has_no_ids) {
    static const char vocab[] = "{\"a\":0,\"<|endoftext|>\":1}";
    static const char config[] = "{\"added_tokens_decoder\":[{\"content\":\"x\"}]}";
    struct error err = {0};
    temp_file("vocab.json", vocab, strlen(vocab));
    temp_file("merges.txt", "#version: 0.2\n", 14);
    temp_file("tokenizer_config.json", config, strlen(config));
    struct tokenizer *t = tokenizer_load(temp_folder(), &err);
    cr_assert(t, "%s", err.message);
    cr_expect_eq(tokenizer_id(t, "x"), -1);
    cr_expect(tokenizer_is_special(t, 1));
    tokenizer_free(t);
}
