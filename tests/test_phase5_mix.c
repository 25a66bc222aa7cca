// eval/mix, quant/heuristics, lab/budget: what may be chosen, and within which bytes.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/mix.h"
#include "eval/mix_measure.h"
#include "lab/budget.h"
#include "quant/heuristics.h"
#include "shared.h"

// ---- an analysis made up by hand ---------------------------------------------------------------

enum { LAYERS = 2, KINDS = 7, TENSORS = LAYERS * KINDS + 1 };
static const char *const kinds[KINDS] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                         "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                         "mlp.down_proj"};
static const char *const format_names[] = {"int2-g64", "int4-g128", "int8", "bf16"};
enum { FORMATS = sizeof format_names / sizeof *format_names };

// [64, 256] matrices; damage 4^-bits, times 1 to 15 by tensor.
static struct sensitivity made_up(void) {
    struct sensitivity s = {.n_tensors = TENSORS, .n_formats = FORMATS};
    s.tensors = calloc(TENSORS, sizeof *s.tensors);
    s.formats = calloc(FORMATS, sizeof *s.formats);
    s.cells = calloc((size_t)TENSORS * FORMATS, sizeof *s.cells);
    for (size_t f = 0; f < FORMATS; f++)
        s.formats[f] = quant_format_find(format_names[f]);
    for (size_t t = 0; t < TENSORS; t++) {
        char name[96];
        bool head = t == TENSORS - 1;
        snprintf(name, sizeof name, "model.layers.%zu.%s.weight", t / KINDS, kinds[t % KINDS]);
        s.tensors[t] =
            (struct sensitivity_tensor){.name = strdup(head ? "model.embed_tokens.weight" : name),
                                        .kind = strdup(head ? "embed_tokens" : kinds[t % KINDS]),
                                        .layer = head ? SENSITIVITY_NO_LAYER : t / KINDS,
                                        .n = 64,
                                        .k = 256,
                                        .bytes = 64 * 256 * 2};
        for (size_t f = 0; f < FORMATS; f++) {
            struct sensitivity_cell *c = sensitivity_at(&s, t, f);
            cr_assert(s.formats[f]->bytes(s.formats[f], 64, 256, &c->bytes));
            double bits = (double)s.formats[f]->bits;
            c->kld_measured = bits == 16 ? 0 : (double)(t + 1) * pow(4, -bits);
            c->kld_estimated = NAN;
        }
    }
    return s;
}

static struct mix mix_of(const struct sensitivity *s, struct mix_rules rules) {
    struct mix x;
    struct error err = {0};
    cr_assert(mix_init(&x, s, &rules, &err), "%s", err.message);
    return x;
}

static size_t bytes_in(const struct sensitivity *s, size_t format) {
    return sensitivity_at(s, 0, format)->bytes;
}

Test(phase5_mix, the_blocks_are_chosen_for_unless_told_otherwise) {
    struct sensitivity s = made_up();
    struct mix x = mix_of(&s, (struct mix_rules){0});
    cr_expect_eq(x.n, LAYERS * KINDS);
    cr_expect_eq(mix_weights(&x), x.n * 64 * 256);
    cr_expect_eq(mix_stored_bytes(&x), x.n * 64 * 256 * 2);
    cr_expect_eq(mix_smallest(&x), x.n * bytes_in(&s, 0));
    cr_expect_eq(mix_largest(&x), x.n * bytes_in(&s, 3));
    mix_free(&x);
    x = mix_of(&s, (struct mix_rules){.only = "*.down_proj,*embed*", .skip = "*.0.*"});
    cr_assert_eq(x.n, 2);
    cr_expect_eq(x.tensors[0], 13);
    cr_expect_eq(x.tensors[1], 14);
    mix_free(&x);
    struct error err = {0};
    cr_expect_not(mix_init(&x, &s, &(struct mix_rules){.skip = "*"}, &err));
    cr_expect_str_eq(err.message, "no tensor is left to choose a format for");
    sensitivity_free(&s);
}

Test(phase5_mix, embeddings_keep_to_their_bits) {
    struct sensitivity s = made_up();
    struct mix x =
        mix_of(&s, (struct mix_rules){.embeddings = true, .min_bits = 4, .max_bits = 8.999});
    cr_assert_eq(x.n, TENSORS);
    const double *cost = x.cost + mix_cell(&x, TENSORS - 1, 0);
    cr_expect(isnan(cost[0]) && isfinite(cost[1]) && isfinite(cost[2]) && isnan(cost[3]));
    mix_free(&x);
    struct error err = {0};
    struct mix_rules none = {.embeddings = true, .min_bits = 5, .max_bits = 6};
    cr_expect_not(mix_init(&x, &s, &none, &err));
    cr_expect(strstr(err.message, "model.embed_tokens.weight: none of the 4 formats can hold"),
              "%s", err.message);
    sensitivity_free(&s);
}

static void solve(const struct mix *x, size_t budget, size_t *picks, double *cost) {
    struct solver_solution solution;
    struct error err = {0};
    cr_assert(mix_solve(x, budget, picks, &solution, &err), "%s", err.message);
    cr_assert_eq(solution.cost, solution.bound);
    cr_assert_eq(mix_bytes(x, picks), solution.bytes);
    cr_assert(fabs(mix_cost(x, picks) - solution.cost) < 1e-12);
    cr_assert_leq(solution.bytes, budget);
    *cost = solution.cost;
}

Test(phase5_mix, tensors_that_share_a_kernel_share_a_format) {
    struct sensitivity s = made_up();
    struct mix free_mix = mix_of(&s, (struct mix_rules){0});
    struct mix shared = mix_of(&s, (struct mix_rules){.share_kernels = true});
    size_t budget = free_mix.n * bytes_in(&s, 1) + 3 * bytes_in(&s, 2), a[TENSORS], b[TENSORS];
    double cost, shared_cost;
    solve(&free_mix, budget, a, &cost);
    solve(&shared, budget, b, &shared_cost);
    for (size_t l = 0; l < LAYERS; l++) {
        const size_t *p = b + l * KINDS;
        cr_expect(p[0] == p[1] && p[1] == p[2] && p[4] == p[5], "layer %zu", l);
    }
    cr_expect(shared_cost >= cost &&
              cost <
                  mix_cost(&free_mix, (size_t[TENSORS]){1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}));
    // The most damaging tensors have at least the bits of the least damaging of their kind.
    cr_expect_geq(a[13], a[6]);
    mix_free(&free_mix);
    mix_free(&shared);
    sensitivity_free(&s);
}

Test(phase5_mix, a_recipe_has_a_rule_for_each_tensor) {
    struct sensitivity s = made_up();
    struct mix x = mix_of(&s, (struct mix_rules){.search = true});
    size_t picks[TENSORS] = {0, 1, 2, 3};
    struct recipe r;
    cr_assert(mix_recipe(&x, picks, &r, NULL));
    cr_assert_eq(r.n_rules, x.n);
    for (size_t i = 0; i < x.n; i++) {
        const struct recipe_rule *rule = recipe_find(&r, s.tensors[i].name);
        cr_expect_str_eq(rule->format->name, format_names[picks[i]]);
        cr_expect_eq(rule->search, picks[i] != 3); // 16 bits have no scales
    }
    cr_expect_null(recipe_find(&r, "model.embed_tokens.weight"));
    recipe_free(&r);
    mix_free(&x);
    sensitivity_free(&s);
}

// ---- heuristics --------------------------------------------------------------------------------

Test(phase5_mix, heuristics_raise_what_they_say) {
    cr_expect(heuristic_first_last(0, 8) && heuristic_first_last(7, 8));
    cr_expect_not(heuristic_first_last(3, 8));
    size_t downs = 0;
    for (size_t l = 0; l < 32; l++) {
        cr_expect(heuristic_k_m("self_attn.v_proj", l, 32));
        cr_expect_not(heuristic_k_m("self_attn.q_proj", l, 32));
        cr_expect_not(heuristic_k_m("mlp.up_proj", l, 32));
        downs += heuristic_k_m("mlp.down_proj", l, 32);
        cr_expect_eq(heuristic_k_m("mlp.down_proj", l, 32), heuristic_k_m("ffn_down", l, 32));
    }
    cr_expect_eq(downs, 4 + 4 + 8); // two eighths, and every third of the 24 between
    cr_expect(heuristic_k_m("mlp.down_proj", 3, 32) && heuristic_k_m("mlp.down_proj", 28, 32));
    cr_expect(!heuristic_k_m("mlp.down_proj", 4, 32) && heuristic_k_m("mlp.down_proj", 6, 32));
    cr_expect(heuristic_k_m("attn.c_attn", 1, 12) && heuristic_k_m("attn_v", 1, 12));
}

Test(phase5_mix, pairs_are_the_best_that_fit) {
    struct sensitivity s = made_up();
    struct mix x = mix_of(&s, (struct mix_rules){0});
    bool raised[TENSORS] = {[6] = true, [13] = true};
    size_t budget = x.n * bytes_in(&s, 1) + 2 * (bytes_in(&s, 2) - bytes_in(&s, 1));
    size_t picks[4 * TENSORS];
    size_t n = mix_pairs(&x, raised, budget, 3, picks);
    cr_assert_eq(n, 3);
    for (size_t i = 0; i < x.n; i++)
        cr_expect_eq(picks[i], raised[i] ? 2 : 1);
    for (size_t k = 0; k < n; k++) {
        cr_expect_leq(mix_bytes(&x, picks + k * x.n), budget);
        cr_expect(k == 0 || mix_cost(&x, picks + k * x.n) >= mix_cost(&x, picks + (k - 1) * x.n));
    }
    cr_expect_eq(mix_pairs(&x, raised, mix_smallest(&x) - 1, 3, picks), 0);
    cr_expect_eq(mix_pairs(&x, raised, mix_smallest(&x), 3, picks), 1);
    mix_free(&x);
    sensitivity_free(&s);
}

Test(phase5_mix, random_mixes_are_the_same_each_time_and_differ_by_seed) {
    struct sensitivity s = made_up();
    struct mix x = mix_of(&s, (struct mix_rules){.share_kernels = true});
    size_t a[TENSORS], b[TENSORS], least = SIZE_MAX, most = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        mix_random(&x, seed, a);
        mix_random(&x, seed, b);
        cr_assert_arr_eq(a, b, x.n * sizeof *a);
        cr_assert(a[0] == a[1] && a[4] == a[5] && !isnan(mix_cost(&x, a)));
        size_t bytes = mix_bytes(&x, a);
        least = bytes < least ? bytes : least;
        most = bytes > most ? bytes : most;
    }
    cr_expect_gt(most, least + least / 4);
    mix_free(&x);
    sensitivity_free(&s);
}

// ---- budgets -----------------------------------------------------------------------------------

Test(phase5_mix, bytes_are_read_with_their_units) {
    static const struct {
        const char *text;
        size_t bytes;
    } good[] = {{"1", 1},
                {"512B", 512},
                {"2.4GB", 2400000000},
                {"300 MB", 300000000},
                {"1.5MiB", 1572864},
                {"4kB", 4000}};
    static const char *const bad[] = {"",    "MB",  "-1MB", "1.5.2", "0",   "1XB",
                                      "1e3", "nan", "1MBs", "inf",   "0.2", "99999999999TB"};
    size_t bytes;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_expect(budget_parse_bytes(good[i].text, &bytes) && bytes == good[i].bytes, "%s",
                  good[i].text);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_not(budget_parse_bytes(bad[i], &bytes), "%s", bad[i]);
}

// A real checkpoint, analysed in the made-up formats.
struct real {
    struct model *m;
    struct sensitivity s;
    struct mix x;
    int32_t tokens[256];
};

// In place: r->x points into it.
static void analyse(struct real *r, const char *model, struct mix_rules rules) {
    struct error err = {0};
    const struct quant_format *formats[FORMATS];
    for (size_t f = 0; f < FORMATS; f++)
        formats[f] = quant_format_find(format_names[f]);
    r->m = model_load(model, &err);
    cr_assert(r->m, "%s", err.message);
    for (size_t i = 0; i < 256; i++)
        r->tokens[i] = (int32_t)(i * 37 % r->m->config.vocab);
    struct sensitivity_options o = {
        .tokens = 64, .window = 32, .anchors = 2, .search = rules.search};
    cr_assert(
        sensitivity_measure(r->m, formats, FORMATS, r->tokens, 256, &o, &r->s, NULL, NULL, &err),
        "%s", err.message);
    cr_assert(mix_init(&r->x, &r->s, &rules, &err), "%s", err.message);
}

static void real_free(struct real *r) {
    mix_free(&r->x);
    sensitivity_free(&r->s);
    model_free(r->m);
}

static bool resolve(const struct real *r, struct budget_flags flags, struct budget *b,
                    struct error *err) {
    return budget_resolve(&flags, r->m, &r->x, 100, mix_largest(&r->x) / 4, b, err);
}

Test(phase5_mix, a_budget_of_bits_bytes_or_memory) {
    struct real r;
    analyse(&r, shared_path("fixtures/qwen2-tied-bf16"), (struct mix_rules){0});
    struct budget b;
    struct error err = {0};
    size_t cache, work;
    cr_assert(resolve(&r, (struct budget_flags){0}, &b, &err));
    cr_expect_eq(b.bytes, mix_largest(&r.x) / 4);
    cr_expect_eq(b.rest, model_bytes(r.m) - mix_stored_bytes(&r.x));
    cr_assert(resolve(&r, (struct budget_flags){.bits = 4.5f}, &b, &err));
    cr_expect_eq(b.bytes, mix_weights(&r.x) * 9 / 16);
    cr_assert(resolve(&r, (struct budget_flags){.size = "1.2MB"}, &b, &err), "%s", err.message);
    cr_expect_eq(b.bytes + b.rest, 1200000);
    cr_assert(resolve(&r, (struct budget_flags){.fit = "3MB"}, &b, &err), "%s", err.message);
    cr_assert(budget_running(&r.m->config, 100, &cache, &work));
    cr_expect_eq(b.bytes + b.rest + cache + work, 3000000);
    struct kv_cache kv;
    cr_assert(kv_cache_init(&kv, &r.m->config, 1, 100, &err));
    cr_expect_eq(cache,
                 2 * kv.n_layers * kv.n_kv_heads * kv.head_dim * kv.capacity * sizeof(float));
    kv_cache_free(&kv);
    real_free(&r);
}

Test(phase5_mix, a_budget_that_cannot_be_met_says_the_smallest_that_can) {
    struct real r;
    analyse(&r, shared_path("fixtures/qwen2-tied-bf16"), (struct mix_rules){0});
    struct budget b;
    struct error err = {0};
    double least = 8 * (double)mix_smallest(&r.x) / (double)mix_weights(&r.x);
    char words[128];
    cr_expect_not(resolve(&r, (struct budget_flags){.bits = 2}, &b, &err));
    snprintf(words, sizeof words, "--bits 2 cannot be met: the smallest mix takes %.4g bits",
             ceil(least * 1000) / 1000);
    cr_expect(strstr(err.message, words), "'%s' lacks '%s'", err.message, words);
    cr_expect_not(resolve(&r, (struct budget_flags){.size = "1kB"}, &b, &err));
    snprintf(words, sizeof words, "the smallest model takes %zu bytes",
             b.rest + mix_smallest(&r.x));
    cr_expect(strstr(err.message, words), "'%s' lacks '%s'", err.message, words);
    snprintf(words, sizeof words, "%zu", b.rest + mix_smallest(&r.x));
    cr_expect(resolve(&r, (struct budget_flags){.size = words}, &b, &err), "%s", err.message);
    cr_expect_not(resolve(&r, (struct budget_flags){.fit = "1kB"}, &b, &err));
    cr_expect(strstr(err.message, "of cache for 100 positions"), "%s", err.message);
    struct budget_flags two = {.bits = 4, .size = "1MB"};
    cr_expect_not(budget_check(&two, &err));
    cr_expect_str_eq(err.message, "--bits, --size and --fit exclude each other");
    cr_expect_not(budget_check(&(struct budget_flags){.size = "much"}, &err));
    cr_expect(strstr(err.message, "--size is 'much', expected bytes such as 2.4GB"));
    real_free(&r);
}

// What is not chosen for counts as float16, as rows have it.
Test(phase5_mix, the_rest_of_a_float32_checkpoint_counts_half) {
    struct real r;
    analyse(&r, shared_path("fixtures/mistral-gqa-f32"), (struct mix_rules){0});
    const struct model *m = r.m;
    size_t matrices = mix_stored_bytes(&r.x) + m->embedding.w.bytes + m->head.w.bytes;
    size_t norms = model_bytes(m) - matrices;
    cr_expect_eq(budget_rest(m, &r.x), norms + (m->embedding.w.bytes + m->head.w.bytes) / 2);
    real_free(&r);
}

// ---- measuring around a mix --------------------------------------------------------------------

// A change measured on the residual stream of the mix is the whole other mix, measured.
Test(phase5_mix, changes_equal_the_changed_mix) {
    struct mix_rules rules = {.search = true, .embeddings = true};
    struct real r;
    analyse(&r, shared_path("fixtures/qwen2-tied-bf16"), rules);
    struct error err = {0};
    struct probe probe;
    size_t n = r.x.n, picks[64];
    double *kld = calloc(n * FORMATS, sizeof *kld), whole;
    cr_assert_leq(n, 64);
    for (size_t i = 0; i < n; i++)
        picks[i] = i % 3;
    cr_assert(mix_measure_changes(&r.x, r.m, r.tokens, 256, 64, 32, picks, 1e-7, 2, kld, NULL, NULL,
                                  &err),
              "%s", err.message);
    cr_assert(probe_open(&probe, r.m, r.m, r.tokens, 256, 64, 32, &err));
    size_t measured = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t f = 0; f < FORMATS; f++) {
            double k = kld[mix_cell(&r.x, i, f)];
            if (isnan(k))
                continue;
            size_t own = picks[i];
            measured += f != own;
            picks[i] = f;
            cr_assert(mix_measure(&r.x, &probe, picks, &whole, &err));
            picks[i] = own;
            cr_expect(fabs(k - whole) <= 1e-6 * whole, "%s in %s: %g, not %g", r.s.tensors[i].name,
                      format_names[f], k, whole);
        }
    cr_expect_eq(measured, 2 * n);
    probe_close(&probe);
    free(kld);
    real_free(&r);
}

// With all the weight on the changes only what was measured is chosen; with none, the additive
// model's optimum among that.
Test(phase5_mix, solving_with_changes_stays_among_them) {
    struct sensitivity s = made_up();
    struct mix x = mix_of(&s, (struct mix_rules){0});
    double kld[LAYERS * KINDS * FORMATS];
    size_t from[TENSORS], picks[TENSORS];
    struct error err = {0};
    for (size_t i = 0; i < x.n; i++) {
        from[i] = 1;
        kld[mix_cell(&x, i, 0)] = i == 5 ? 0.5 : 2; // all but the sixth suffer from two bits
        kld[mix_cell(&x, i, 1)] = 1;
        kld[mix_cell(&x, i, 2)] = i == 3 ? 0.25 : 0.9; // the fourth gains most from eight
        kld[mix_cell(&x, i, 3)] = NAN;
    }
    kld[mix_cell(&x, 9, 2)] = INFINITY; // the tenth ruins the model in eight
    size_t budget = x.n * bytes_in(&s, 1) + bytes_in(&s, 0) - 2 * bytes_in(&s, 1) + bytes_in(&s, 2);
    cr_assert(mix_solve_changes(&x, from, kld, 1, budget, picks, &err), "%s", err.message);
    for (size_t i = 0; i < x.n; i++)
        cr_expect_eq(picks[i], i == 5 ? 0 : i == 3 ? 2 : 1, "%zu", i);
    cr_assert(mix_solve_changes(&x, from, kld, 0, SIZE_MAX, picks, &err), "%s", err.message);
    for (size_t i = 0; i < x.n; i++)
        cr_expect_eq(picks[i], i == 9 ? 1 : 2);
    mix_free(&x);
    sensitivity_free(&s);
}
