#include "report/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/timer.h"
#include "text/utf8.h"

enum { LONGEST_BAR = 32, SHORTEST_BAR = 8, PART = 160, LINE = 1024, PLAIN_SECONDS = 30 };

static bool quiet;
static double last_plain; // when a plain line was printed; before the first, when work began

void progress_set_quiet(bool value) {
    quiet = value;
}

static bool terminal(void) {
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
}

static int terminal_columns(void) {
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

void progress_start(struct progress *p, const char *label, const char *unit) {
    *p = (struct progress){.unit = unit ? unit : "", .start = timer_now()};
    snprintf(p->label, sizeof p->label, "%s", label);
    p->active = !quiet;
    p->plain = !terminal();
    if (last_plain == 0)
        last_plain = p->start;
    p->shown = p->plain ? last_plain : 0;
}

static void format_amount(char *out, size_t size, double value, bool bytes) {
    if (value >= 1e9)
        snprintf(out, size, "%.2f%s", value / 1e9, bytes ? " GB" : "G");
    else if (value >= 1e6)
        snprintf(out, size, "%.1f%s", value / 1e6, bytes ? " MB" : "M");
    else if (value >= 1e4)
        snprintf(out, size, "%.1f%s", value / 1e3, bytes ? " kB" : "k");
    else
        snprintf(out, size, "%.*f%s", value > 0 && value < 10 && !bytes ? 1 : 0, value,
                 bytes ? " B" : "");
}

static void format_time(char *out, size_t size, double seconds) {
    long s = seconds < 359999 ? (long)(seconds + 0.5) : 359999;
    if (s >= 3600)
        snprintf(out, size, "%ld:%02ld:%02ld left", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, size, "%ld:%02ld left", s / 60, s % 60);
}

// "12.3k/29.3k tokens  812/s  0:21 left"
static void format_numbers(const struct progress *p, double elapsed, uint64_t done, uint64_t total,
                           char *out) {
    bool bytes = strcmp(p->unit, "B") == 0;
    char amount[32], of[32] = "", rate[32], left[48] = "";
    double per_second = elapsed > 0 ? (double)done / elapsed : 0;
    format_amount(amount, sizeof amount, (double)done, bytes);
    format_amount(rate, sizeof rate, per_second, bytes);
    if (!bytes && done < 10) // counts are whole
        snprintf(amount, sizeof amount, "%d", (int)done);
    if (total)
        format_amount(of, sizeof of, (double)total, bytes);
    if (total && !bytes && total < 10)
        snprintf(of, sizeof of, "%d", (int)total);
    if (total && done)
        format_time(left, sizeof left, p->left > 0 ? p->left : (double)(total - done) / per_second);
    snprintf(out, PART, "%s%s%s%s%.20s  %s/s%s%s", amount, total ? "/" : "", of, bytes ? "" : " ",
             bytes ? "" : p->unit, rate, *left ? "  " : "", left);
}

// "━━━━────": full part bright, rest dim.
static void append_bar(char *out, size_t size, double share, int length, bool colour) {
    int full = (int)(share * length);
    for (int i = 0; i < length; i++) {
        if (colour && (i == 0 || i == full))
            strncat(out, i < full ? "\x1b[32m" : "\x1b[2m", size - strlen(out) - 1);
        strncat(out, i < full ? "━" : "─", size - strlen(out) - 1);
    }
    if (colour)
        strncat(out, "\x1b[0m", size - strlen(out) - 1);
}

// Cuts s to at most `columns` characters, never inside one.
static void cut(char *s, int columns) {
    int n = 0;
    for (; *s; s++)
        if (((unsigned char)*s & 0xc0) != 0x80 && n++ == columns) {
            *s = '\0';
            return;
        }
}

void progress_format(const struct progress *p, double elapsed, uint64_t done, uint64_t total,
                     const char *note, int columns, bool colour, char *out, size_t out_size) {
    char left[PART], right[PART], shown_note[PART] = "";
    done = total && done > total ? total : done;
    double share = total ? (double)done / (double)total : 0;
    if (total)
        snprintf(left, sizeof left, "%s %3d %% ", p->label, (int)(100 * share));
    else
        snprintf(left, sizeof left, "%s  ", p->label);
    format_numbers(p, elapsed, done, total, right);
    if (note && *note)
        snprintf(shown_note, sizeof shown_note, "  %s", note);
    int used = (int)(utf8_width(left) + utf8_width(right) + utf8_width(shown_note));
    int bar = total ? columns - used - 2 : 0;
    bar = bar > LONGEST_BAR ? LONGEST_BAR : bar;
    bar = bar < SHORTEST_BAR ? 0 : bar;
    if (columns && used > columns)
        *shown_note = '\0';
    snprintf(out, out_size, "%s", left);
    if (bar) {
        append_bar(out, out_size, share, bar, colour);
        strncat(out, "  ", out_size - strlen(out) - 1);
    }
    strncat(out, right, out_size - strlen(out) - 1);
    strncat(out, shown_note, out_size - strlen(out) - 1);
    if (!bar && columns)
        cut(out, columns);
}

static void print_plain(struct progress *p, double now, uint64_t done, uint64_t total,
                        const char *note) {
    char line[LINE];
    if (now - p->shown < PLAIN_SECONDS)
        return;
    progress_format(p, now - p->start, done, total, note, 0, false, line, sizeof line);
    fprintf(stderr, "%s\n", line);
    p->shown = last_plain = now;
}

void progress_update(struct progress *p, uint64_t done, uint64_t total, const char *note) {
    if (!p->active)
        return;
    double now = timer_now();
    if (p->plain) {
        print_plain(p, now, done, total, note);
        return;
    }
    if (now - p->start < 0.5 || (p->drawn && now - p->shown < 0.1))
        return;
    const char *no_color = getenv("NO_COLOR");
    char line[LINE];
    // One column stays free: in the last one some terminals wrap.
    progress_format(p, now - p->start, done, total, note, terminal_columns() - 1,
                    !no_color || !*no_color, line, sizeof line);
    fprintf(stderr, "\r%s\x1b[K", line);
    fflush(stderr);
    p->drawn = true;
    p->shown = now;
}

void progress_finish(struct progress *p) {
    if (p->drawn)
        fputs("\r\x1b[K", stderr);
    p->active = p->drawn = false;
}
