#include "report/chart.h"

#include <stdlib.h>

#include "report/chart_plot.h"

bool chart_draw(const struct chart *c, struct canvas *canvas, struct plot *p, struct error *err) {
    *p = (struct plot){0};
    if (!chart_scale(c, canvas, p, err) || !chart_draw_frame(c, canvas, p, err))
        return false;
    chart_draw_series(c, canvas, p);
    // The base line goes over the feet of the bars.
    canvas_line(canvas, p->area.x0, p->area.y1 + 0.5, p->area.x1, p->area.y1 + 0.5, 1, chart_frame,
                1);
    return true;
}

bool chart_write_png(const struct chart *c, const char *path, struct error *err) {
    int width = c->width ? c->width : 1200, height = c->height ? c->height : 700;
    if (width < 100 || height < 100 || width > 8000 || height > 8000)
        return error_set(err, "chart '%s': %d x %d pixels, expected 100 to 8000", c->title, width,
                         height);
    struct canvas canvas;
    struct plot plot = {0};
    if (!canvas_init(&canvas, width, height, false, err))
        return false;
    bool ok = chart_draw(c, &canvas, &plot, err) && canvas_write_png(&canvas, path, err);
    free(plot.categories);
    canvas_free(&canvas);
    return ok;
}
