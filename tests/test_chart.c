// report/chart: axes, pixels, text that fits, and every way a chart can be asked for in vain.
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "report/chart_plot.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void assert_labels(double low, double high, struct axis_wish wish, const char *expected) {
    struct axis a = axis_make(low, high, wish);
    char labels[1024] = "";
    for (size_t i = 0; i < a.n_ticks; i++)
        sprintf(labels + strlen(labels), "%s%s", i ? " " : "", a.labels[i]);
    cr_assert_str_eq(labels, expected);
}

Test(chart, ticks_are_round_numbers) {
    struct axis_wish linear = {.n_ticks = 6}, round = {.n_ticks = 6, .round = true};
    assert_labels(0, 1, linear, "0.0 0.2 0.4 0.6 0.8 1.0");
    assert_labels(-0.1, 5.1, linear, "0 1 2 3 4 5");
    assert_labels(-0.1, 2.1, linear, "0.0 0.5 1.0 1.5 2.0");
    linear.whole = true;
    assert_labels(-0.1, 2.1, linear, "0 1 2");
    linear.whole = false;
    assert_labels(-0.11, 0.11, linear, "−0.10 −0.05 0.00 0.05 0.10");
    assert_labels(0.3, 9.7, round, "0 2 4 6 8 10");
    assert_labels(0, 14432, linear, "0 2k 4k 6k 8k 10k 12k 14k");
    assert_labels(0, 2.5e9, linear, "0 0.5G 1.0G 1.5G 2.0G 2.5G");
    assert_labels(0, 3e-5, linear, "0 0.5×10⁻⁵ 1.0×10⁻⁵ 1.5×10⁻⁵ 2.0×10⁻⁵ 2.5×10⁻⁵ 3.0×10⁻⁵");
    assert_labels(7, 7, linear, "6.4 6.6 6.8 7.0 7.2 7.4 7.6");
    assert_labels(0, 0, linear, "−1.0 −0.8 −0.6 −0.4 −0.2 0.0 0.2 0.4 0.6 0.8 1.0");
}

Test(chart, log_ticks_are_decades) {
    struct axis_wish wish = {.log = true, .n_ticks = 8};
    assert_labels(0.5, 2000, wish, "1 10 100 1000");
    assert_labels(1e-6, 20, wish, "10⁻⁶ 10⁻⁵ 10⁻⁴ 10⁻³ 10⁻² 10⁻¹ 10⁰ 10¹");
    assert_labels(1, 30, wish, "1 2 5 10 20");
    assert_labels(3.1, 3.3, wish, "3.10 3.12 3.14 3.16 3.18 3.20 3.22 3.24 3.26 3.28 3.30");
    wish.powers_of_two = true;
    assert_labels(32, 512, wish, "32 64 128 256 512");
    struct axis a = axis_make(1, 100, wish);
    cr_assert_float_eq(axis_place(&a, 10), 0.5, 1e-12);
}

Test(chart, axes_survive_the_ends_of_double) {
    const double values[] = {-1e300, -1, -1e-310, 0, 5e-324, 1e-300, 1e-5, 1, 1e300};
    for (size_t i = 0; i < COUNT(values); i++)
        for (size_t j = i; j < COUNT(values); j++)
            for (int log = 0; log <= (values[i] >= 1e-300); log++)
                for (int round = 0; round < 2; round++) {
                    struct axis a = axis_make(values[i], values[j],
                                              (struct axis_wish){log, round, false, false, 7});
                    cr_assert(a.min < a.max, "%g … %g", values[i], values[j]);
                    cr_assert_leq(a.n_ticks, AXIS_MAX_TICKS);
                }
}

Test(chart, value_labels_have_three_digits) {
    static const struct {
        double value;
        const char *label;
    } cases[] = {{0, "0"},         {28.2, "28.2"},   {6.5, "6.50"},         {6645, "6645"},
                 {12345, "12.3k"}, {-0.5, "−0.500"}, {9.99e-5, "1.0×10⁻⁴"}, {-2.1e-6, "−2.1×10⁻⁶"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        char label[32];
        axis_value_label(cases[i].value, label);
        cr_assert_str_eq(label, cases[i].label);
    }
}

static bool same(struct colour a, struct colour b) {
    return a.r == b.r && a.g == b.g && a.b == b.b;
}

static bool plot_shows(const struct canvas *canvas, double x, double y, struct colour colour) {
    return same(canvas_pixel(canvas, (int)x, (int)y), colour);
}

static void draw(const struct chart *c, struct canvas *canvas, struct plot *p, bool dots) {
    struct error err = {0};
    cr_assert(canvas_init(canvas, 800, 500, dots, &err), "%s", err.message);
    cr_assert(chart_draw(c, canvas, p, &err), "%s", err.message);
}

static void release(struct canvas *canvas, struct plot *p) {
    free(p->categories);
    canvas_free(canvas);
}

Test(chart, bars_are_filled_to_their_values) {
    const char *names[] = {"fp16", "int4 per-channel"};
    double size[] = {4, 1}, speed[] = {2, 3};
    struct chart_series s[] = {{CHART_BAR, "GB", NULL, size, NULL, 2},
                               {CHART_BAR, "t/s", NULL, speed, NULL, 2}};
    struct chart c = {
        .title = "t", .categories = names, .n_categories = 2, .series = s, .n_series = 2};
    struct canvas canvas;
    struct plot p;
    draw(&c, &canvas, &p, false);
    double slot = (p.area.x1 - p.area.x0) / 2;
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < 2; i++) {
            double x = plot_x(&p, (double)i) + (k == 0 ? -0.2 : 0.2) * slot;
            cr_assert(plot_shows(&canvas, x, plot_y(&p, s[k].y[i]) + 3, chart_colour(k)));
            cr_assert(plot_shows(&canvas, x, plot_y(&p, 0) - 2, chart_colour(k)));
            cr_assert_not(plot_shows(&canvas, x, plot_y(&p, s[k].y[i]) - 3, chart_colour(k)));
        }
    release(&canvas, &p);
}

Test(chart, points_and_lines_are_where_they_belong) {
    double x[] = {32, 64, 128, 256}, y[] = {0.1, NAN, 0.01, 0.001}, rule[] = {100};
    struct chart_series s[] = {{CHART_LINE, "a", x, y, NULL, 4},
                               {CHART_RULE, "b", rule, NULL, NULL, 1}};
    struct chart c = {.title = "t", .x_log = true, .y_log = true, .series = s, .n_series = 2};
    struct canvas canvas;
    struct plot p;
    draw(&c, &canvas, &p, false);
    cr_assert(plot_shows(&canvas, plot_x(&p, 32), plot_y(&p, 0.1), chart_colour(0)));
    cr_assert(plot_shows(&canvas, plot_x(&p, sqrt(128 * 256.0)), plot_y(&p, sqrt(0.01 * 0.001)),
                         chart_colour(0)));
    cr_assert_not(plot_shows(&canvas, plot_x(&p, 64), plot_y(&p, 0.0316), chart_colour(0)),
                  "no line through NaN");
    struct colour rule_colour = canvas_pixel(&canvas, (int)plot_x(&p, 100), (int)p.area.y0 + 9);
    cr_assert(rule_colour.r > rule_colour.b + 60, "a vermilion line");
    release(&canvas, &p);
}

// What a collapsed model gives is no line to the sky.
Test(chart, lines_end_before_what_is_no_number) {
    double y[] = {1, NAN, 2, INFINITY, 1};
    struct chart_series s = {CHART_LINE, NULL, NULL, y, NULL, 5};
    struct chart c = {.title = "t", .series = &s, .n_series = 1};
    struct canvas canvas;
    struct plot p;
    draw(&c, &canvas, &p, true);
    size_t near_points = 0, elsewhere = 0;
    for (int j = (int)p.area.y0; j < (int)p.area.y1; j++)
        for (int i = (int)p.area.x0; i < (int)p.area.x1; i++) {
            bool near = false;
            for (int k = 0; k < 5; k += 2)
                near |= hypot(i - plot_x(&p, k), j - plot_y(&p, y[k])) < 9;
            size_t *where = near ? &near_points : &elsewhere;
            *where += plot_shows(&canvas, i, j, chart_colour(0));
        }
    cr_assert(near_points > 150 && elsewhere == 0, "%zu, %zu", near_points, elsewhere);
    release(&canvas, &p);
}

Test(chart, histogram_bars_touch_the_base) {
    double edges[] = {-1, 0, 1, 3}, counts[] = {5, 10, 2};
    struct chart_series s = {CHART_HISTOGRAM, NULL, edges, counts, NULL, 3};
    struct chart c = {.title = "t", .series = &s, .n_series = 1};
    struct canvas canvas;
    struct plot p;
    draw(&c, &canvas, &p, true);
    cr_assert_float_eq(plot_x(&p, -1), p.area.x0, 1e-9);
    cr_assert_float_eq(plot_x(&p, 3), p.area.x1, 1e-9);
    cr_assert(plot_shows(&canvas, plot_x(&p, 0.5), plot_y(&p, 9.5), chart_colour(0)));
    cr_assert(plot_shows(&canvas, plot_x(&p, 2.9), plot_y(&p, 0.5), chart_colour(0)));
    cr_assert_not(plot_shows(&canvas, plot_x(&p, 2), plot_y(&p, 3), chart_colour(0)));
    release(&canvas, &p);
}

// One thin bar among thousands must not fade into the background.
Test(chart, a_lone_outlier_stays_visible) {
    static double y[10000];
    y[7777] = 1;
    struct chart_series s = {CHART_BAR, NULL, NULL, y, NULL, 10000};
    struct chart c = {.title = "t", .series = &s, .n_series = 1};
    struct canvas canvas;
    struct plot p;
    draw(&c, &canvas, &p, false);
    int least = 255;
    for (int dx = -1; dx <= 1; dx++) {
        int red = canvas_pixel(&canvas, (int)plot_x(&p, 7777) + dx, (int)plot_y(&p, 0.63)).r;
        least = red < least ? red : least;
    }
    cr_assert(least < 128, "red is %d, expected near 0", least);
    release(&canvas, &p);
}

static void assert_error(const struct chart *c, const char *expected) {
    struct canvas canvas;
    struct plot p;
    struct error err = {0};
    cr_assert(canvas_init(&canvas, 800, 500, true, &err));
    cr_assert_not(chart_draw(c, &canvas, &p, &err));
    cr_assert_str_eq(err.message, expected);
    release(&canvas, &p);
}

Test(chart, impossible_charts_are_errors) {
    double x[] = {1, 2}, y[] = {0, 1}, nan[] = {NAN, INFINITY};
    struct chart_series s = {CHART_LINE, NULL, x, y, NULL, 2};
    struct chart c = {.title = "t", .series = &s, .n_series = 1, .y_log = true};
    assert_error(&c, "chart 't': y is 0 on a logarithmic axis, expected more than 0");
    s.x = y;
    c.x_log = true;
    assert_error(&c, "chart 't': x is 0 on a logarithmic axis, expected more than 0");
    s = (struct chart_series){CHART_LINE, NULL, x, nan, NULL, 2};
    assert_error(&c, "chart 't': no point to draw in 1 series");
    s.n = 0;
    assert_error(&c, "chart 't': no point to draw in 1 series");
    s = (struct chart_series){CHART_HISTOGRAM, NULL, NULL, y, NULL, 2};
    assert_error(&c, "chart 't': a series of 2 points without coordinates");
    c = (struct chart){.title = "t", .series = &s, .n_series = 1, .y_min = 2, .y_max = 1};
    s = (struct chart_series){CHART_SCATTER, NULL, x, y, NULL, 2};
    assert_error(&c, "chart 't': y from 2 to 1 is no range");
    const char *names[] = {"one"};
    c = (struct chart){
        .title = "t", .series = &s, .n_series = 1, .categories = names, .n_categories = 1};
    s.kind = CHART_BAR;
    assert_error(&c, "chart 't': 2 bars for 1 categories");
}

// Every kind, with every kind of data, log and not, named or not: nothing may crash or hang.
Test(chart, odd_data_is_drawn_or_refused) {
    static const double sets[][4] = {{1, 1, 1, 1},          {NAN, 2, NAN, 3}, {-1e299, 1e299, 0, 1},
                                     {1e-299, 1e299, 1, 1}, {0, 0, 0, 0},     {-3, -2, -1, -0.5}};
    const char *names[] = {"a", "", "a very long name of a configuration", "漢字\xff"};
    struct canvas canvas;
    struct plot p;
    struct error err = {0};
    cr_assert(canvas_init(&canvas, 300, 220, true, &err));
    for (size_t i = 0; i < COUNT(sets) * COUNT(sets) * 5 * 4 * 4 * 2; i++) {
        const double *x = sets[i % COUNT(sets)], *y = sets[i / COUNT(sets) % COUNT(sets)];
        size_t rest = i / COUNT(sets) / COUNT(sets), kind = rest % 5, n = rest / 5 % 4;
        size_t flags = rest / 20;
        n = kind == CHART_HISTOGRAM && n > 3 ? 3 : n;
        struct chart_series s = {(enum chart_kind)kind, "name", x, y, names, n};
        struct chart c = {.title = "t", .series = &s, .n_series = 1};
        c.x_log = flags & 1;
        c.y_log = flags & 2;
        c.categories = flags & 4 ? names : NULL;
        c.n_categories = flags & 4 ? 4 : 0;
        if (!chart_draw(&c, &canvas, &p, &err))
            cr_assert(strncmp(err.message, "chart 't': ", 11) == 0, "%s", err.message);
        free(p.categories);
    }
    canvas_free(&canvas);
}

Test(chart, lines_far_outside_cost_nothing_and_are_cut) {
    struct canvas c;
    struct error err = {0};
    cr_assert(canvas_init(&c, 40, 40, true, &err));
    canvas_line(&c, -1e9, 20.5, 1e9, 20.5, 1, chart_colour(0), 1);
    cr_assert(same(canvas_pixel(&c, 20, 20), chart_colour(0)));
    canvas_line(&c, -1e300, 1e300, 1e300, -1e300, 1, chart_colour(1), 1);
    canvas_line(&c, NAN, 0, 1, 1, 1, chart_colour(1), 1);
    canvas_marker(&c, MARKER_DISC, 1e300, NAN, 5, chart_colour(1));
    canvas_text(&c, c.font, 14, INFINITY, 5, ALIGN_LEFT, false, chart_colour(1), "x");
    canvas_text(&c, c.font, 14, -50, 5, ALIGN_LEFT, true, chart_colour(1), "outside");
    cr_assert(same(canvas_pixel(&c, 39, 39), (struct colour){255, 255, 255}));
    canvas_free(&c);
}

// Halfway over a pixel is half the colour; the rest is whole.
Test(chart, edges_are_smooth) {
    struct canvas c;
    struct error err = {0};
    cr_assert(canvas_init(&c, 10, 10, true, &err));
    canvas_fill(&c, (struct rect){2.5, 2, 5, 4.5}, (struct colour){0, 0, 0}, 1);
    cr_assert_eq(canvas_pixel(&c, 2, 2).r, 128);
    cr_assert_eq(canvas_pixel(&c, 3, 2).r, 0);
    cr_assert_eq(canvas_pixel(&c, 5, 2).r, 255);
    cr_assert_eq(canvas_pixel(&c, 3, 4).r, 128);
    cr_assert_eq(canvas_pixel(&c, 2, 4).r, 191, "a quarter");
    canvas_marker(&c, MARKER_DISC, 7, 7, 2, (struct colour){0, 0, 0});
    cr_assert_eq(canvas_pixel(&c, 7, 7).r, 0);
    cr_assert_eq(canvas_pixel(&c, 9, 9).r, 255);
    canvas_free(&c);
}

Test(chart, text_breaks_shrinks_and_is_cut_last) {
    struct error err = {0};
    struct chart_font *f = chart_font_open(NULL, &err);
    // 14 pixels: letters of the built-in font are 12 wide.
    struct text_block b = text_fit(f, "int4 per-channel", 14, 14, 12 * 9, 2);
    cr_assert(b.whole && b.n_lines == 2);
    cr_assert_str_eq(b.lines[0], "int4 per-");
    cr_assert_str_eq(b.lines[1], "channel");
    b = text_fit(f, "channels", 14, 9, 6 * 8, 1);
    cr_assert(b.whole && b.size < 14);
    b = text_fit(f, "chännels", 14, 14, 12 * 6, 1);
    cr_assert_not(b.whole);
    cr_assert_str_eq(b.lines[0], "chän…");
    b = text_fit(f, "wide", 14, 14, 1, 4);
    cr_assert_eq(b.n_lines, 4, "one letter a line");
    b = text_fit(f, "  ", 14, 14, 100, 2);
    cr_assert(b.n_lines == 0 && b.whole);
    chart_font_close(f);
}

Test(chart, every_built_in_letter_is_drawn) {
    for (int code = GLYPH_FIRST; code <= GLYPH_LAST; code++) {
        int dots = 0;
        for (int row = 0; row < 7; row++) {
            cr_assert_lt(chart_glyphs[code - GLYPH_FIRST][row], 32);
            dots += __builtin_popcount(chart_glyphs[code - GLYPH_FIRST][row]);
        }
        cr_assert((dots > 0) == (code != ' '), "'%c'", code);
        for (int other = GLYPH_FIRST; other < code; other++)
            cr_assert(
                memcmp(chart_glyphs[code - GLYPH_FIRST], chart_glyphs[other - GLYPH_FIRST], 7),
                "'%c' looks like '%c'", code, other);
    }
}

Test(chart, png_is_whole_and_the_same_each_time) {
    char path[] = "/tmp/nibble-chart-XXXXXX";
    close(mkstemp(path));
    double x[] = {1, 2, 3}, y[] = {3, 1, 2};
    struct chart_series s = {CHART_LINE, "series", x, y, NULL, 3};
    struct chart c = {.title = "t", .series = &s, .n_series = 1, .width = 400, .height = 300};
    struct error err = {0};
    char *png[2];
    size_t size[2];
    for (int i = 0; i < 2; i++) {
        cr_assert(chart_write_png(&c, path, &err), "%s", err.message);
        png[i] = file_read(path, 1 << 20, &size[i], &err);
    }
    static const unsigned char start[] = {137, 'P', 'N', 'G', 13, 10, 26, 10,   0, 0, 0, 13,
                                          'I', 'H', 'D', 'R', 0,  0,  1,  0x90, 0, 0, 1, 0x2c};
    cr_assert(memcmp(png[0], start, sizeof start) == 0, "signature, 400 x 300");
    cr_assert(size[0] == size[1] && memcmp(png[0], png[1], size[0]) == 0);
    free(png[0]);
    free(png[1]);
    unlink(path);
    c.width = 9000;
    cr_assert_not(chart_write_png(&c, path, &err));
    cr_assert_str_eq(err.message, "chart 't': 9000 x 300 pixels, expected 100 to 8000");
    c.width = 100;
    c.height = 100;
    cr_assert_not(chart_write_png(&c, path, &err));
    cr_assert_str_eq(err.message, "chart 't': 100 x 100 pixels leave no room to draw in");
    c.width = c.height = 0;
    cr_assert_not(chart_write_png(&c, "/dev/null/x.png", &err));
    cr_assert(access(path, F_OK) != 0);
}

Test(heatmap, cells_have_the_colour_of_their_value) {
    double values[] = {1, 10, NAN, 100};
    struct heatmap h = {.title = "t", .values = values, .rows = 2, .cols = 2, .log_scale = true};
    struct canvas canvas;
    struct rect a;
    struct error err = {0};
    cr_assert(canvas_init(&canvas, 1, 1, false, &err));
    cr_assert(heatmap_draw(&h, &canvas, &a, &err), "%s", err.message);
    cr_assert(plot_shows(&canvas, a.x0 + 2, a.y0 + 2, heatmap_colour(0)));
    cr_assert(plot_shows(&canvas, a.x1 - 2, a.y0 + 2, heatmap_colour(0.5)));
    cr_assert(plot_shows(&canvas, a.x0 + 2, a.y1 - 2, (struct colour){200, 200, 200}));
    cr_assert(plot_shows(&canvas, a.x1 - 2, a.y1 - 2, heatmap_colour(1)));
    values[0] = 0;
    cr_assert_not(heatmap_draw(&h, &canvas, &a, &err));
    cr_assert_str_eq(err.message,
                     "heat map 't': a value is 0 on a logarithmic scale, expected more than 0");
    h.rows = 0;
    cr_assert_not(heatmap_draw(&h, &canvas, &a, &err));
    cr_assert_str_eq(err.message, "heat map 't': no value among 0 x 2");
    canvas_free(&canvas);
}

// A pixel over many cells shows the largest of them.
Test(heatmap, a_lone_outlier_stays_visible) {
    enum { N = 4000 };
    double *values = calloc(N, sizeof *values);
    values[1234] = 1;
    struct heatmap h = {.title = "t", .values = values, .rows = 1, .cols = N};
    struct canvas canvas;
    struct rect a;
    struct error err = {0};
    cr_assert(canvas_init(&canvas, 1, 1, true, &err));
    cr_assert(heatmap_draw(&h, &canvas, &a, &err), "%s", err.message);
    size_t dark = 0;
    for (double x = a.x0; x < a.x1; x++)
        dark += plot_shows(&canvas, x, a.y0 + 5, heatmap_colour(1));
    cr_assert(dark == 1 || dark == 2, "%zu", dark);
    canvas_free(&canvas);
    free(values);
}

Test(heatmap, darker_is_more) {
    double before = 256;
    for (double share = 0; share <= 1; share += 0.01) {
        struct colour c = heatmap_colour(share);
        double light = 0.2126 * c.r + 0.7152 * c.g + 0.0722 * c.b;
        cr_assert(light < before, "at %.2f", share);
        before = light;
    }
}
