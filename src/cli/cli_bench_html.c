/* The report as one HTML file: no script, nothing to fetch, plots as SVG. */
#include "cli_bench_internal.h"

#include <math.h>

#define PLOT_WIDTH 760
#define PLOT_LEFT  110
#define PLOT_RIGHT 200 /* room for the figures behind the last mark */
#define PLOT_ROW   30
#define TICKS_MAX  12

static void append_escaped(struct buf *html, const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '&')
            buf_append_text(html, "&amp;");
        else if (c == '<')
            buf_append_text(html, "&lt;");
        else if (c == '>')
            buf_append_text(html, "&gt;");
        else if (c == '"')
            buf_append_text(html, "&quot;");
        else
            buf_append_char(html, c < 0x20 || c == 0x7f ? ' ' : *text);
    }
}

/* --- plots --- */

struct mark {
    const char *name;
    double from, to; /* to: 0, or a second value such as p99 */
    const char *label;
};

struct plot {
    const char *title, *about, *unit;
    bool logarithmic;
    struct mark marks[2 * LADDER_LEVEL_COUNT];
    uint32_t n;
};

struct axis {
    double low, high; /* as positions: the logarithm, or the value */
    bool logarithmic;
};

static double place(const struct axis *axis, double value)
{
    double at = axis->logarithmic ? log10(value) : value;
    return PLOT_LEFT + (at - axis->low) / (axis->high - axis->low) * (PLOT_WIDTH - PLOT_LEFT - PLOT_RIGHT);
}

static struct axis axis_of(const struct plot *p)
{
    struct axis axis = {.logarithmic = p->logarithmic};
    double low = INFINITY, high = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        const struct mark *m = &p->marks[i];
        low = fmin(low, m->from);
        high = fmax(high, fmax(m->from, m->to));
    }
    axis.low = p->logarithmic ? floor(log10(low)) : 0;
    axis.high = p->logarithmic ? ceil(log10(high)) : high;
    if (axis.high <= axis.low)
        axis.high = axis.low + 1;
    return axis;
}

static void append_tick(struct buf *html, const struct axis *axis, double value, uint32_t bottom)
{
    double x = place(axis, value);
    char text[BENCH_FIGURE_BYTES];
    buf_format(html,
               "<line class=\"grid\" x1=\"%.1f\" y1=\"4\" x2=\"%.1f\" y2=\"%u\"/>"
               "<text class=\"tick\" x=\"%.1f\" y=\"%u\" text-anchor=\"middle\">%s</text>\n",
               x, x, bottom, x, bottom + 15, bench_figure(value, text));
}

static void append_ticks(struct buf *html, const struct axis *axis, uint32_t bottom)
{
    if (axis->logarithmic) {
        for (int i = 0; i < TICKS_MAX && axis->low + i <= axis->high; i++)
            append_tick(html, axis, pow(10, axis->low + i), bottom);
        return;
    }
    double step = pow(10, floor(log10(axis->high)));
    if (axis->high / step < 2)
        step /= 5;
    else if (axis->high / step < 5)
        step /= 2;
    for (int i = 0; i < TICKS_MAX && i * step <= axis->high; i++)
        append_tick(html, axis, i * step, bottom);
}

static void append_mark(struct buf *html, const struct axis *axis, const struct mark *m, uint32_t y)
{
    double a = place(axis, m->from), b = m->to > 0 ? place(axis, m->to) : a;
    buf_format(html, "<text class=\"name\" x=\"%d\" y=\"%u\" text-anchor=\"end\">", PLOT_LEFT - 14, y + 4);
    append_escaped(html, m->name);
    buf_append_text(html, "</text>");
    if (!axis->logarithmic) /* only where an axis begins at nothing a length means something */
        buf_format(html, "<rect class=\"bar\" x=\"%d\" y=\"%u\" width=\"%.1f\" height=\"16\"/>", PLOT_LEFT, y - 8,
                   a - PLOT_LEFT);
    else
        buf_format(html, "<line class=\"span\" x1=\"%.1f\" y1=\"%u\" x2=\"%.1f\" y2=\"%u\"/>", a, y, b, y);
    if (m->to > 0)
        buf_format(html, "<circle class=\"p99\" cx=\"%.1f\" cy=\"%u\" r=\"5\"/>", b, y);
    if (axis->logarithmic)
        buf_format(html, "<circle class=\"p50\" cx=\"%.1f\" cy=\"%u\" r=\"5\"/>", a, y);
    buf_format(html, "<text class=\"value\" x=\"%.1f\" y=\"%u\">%s</text>\n", fmax(a, b) + 12, y + 4, m->label);
}

static void append_plot(struct buf *html, const struct plot *p)
{
    if (p->n == 0)
        return;
    struct axis axis = axis_of(p);
    uint32_t bottom = p->n * PLOT_ROW + 4;
    buf_format(html, "<section><h2>%s</h2>\n<p>%s</p>\n", p->title, p->about);
    buf_format(html, "<svg viewBox=\"0 0 %d %u\" role=\"img\" aria-label=\"%s\">\n", PLOT_WIDTH, bottom + 24, p->title);
    append_ticks(html, &axis, bottom);
    for (uint32_t i = 0; i < p->n; i++)
        append_mark(html, &axis, &p->marks[i], i * PLOT_ROW + PLOT_ROW / 2 + 4);
    buf_format(html, "<text class=\"tick\" x=\"%d\" y=\"%u\">%s%s</text>\n</svg></section>\n",
               PLOT_WIDTH - PLOT_RIGHT + 24, bottom + 15, p->unit, p->logarithmic ? ", logarithmic" : "");
}

struct label {
    char text[80];
};

static void add_mark(struct plot *p, struct label *label, const char *name, double from, double to, const char *unit)
{
    if (from <= 0)
        return;
    char first[BENCH_FIGURE_BYTES], second[BENCH_FIGURE_BYTES];
    (void)snprintf(label->text, sizeof label->text, "%s%s%s %s", bench_figure(from, first), to > 0 ? " / " : "",
                   to > 0 ? bench_figure(to, second) : "", unit); /* fits */
    p->marks[p->n++] = (struct mark){name, from, to, label->text};
}

static void append_series_plot(struct buf *html, const struct bench *b, struct plot *p, size_t offset,
                               const struct bench_series *more, const char *more_name)
{
    struct label labels[LADDER_LEVEL_COUNT];
    if (more)
        add_mark(p, &labels[0], more_name, more->p50, more->p99, p->unit);
    for (int i = 0; i < LADDER_LEVEL_COUNT - 1; i++) {
        const struct bench_series *s = (const void *)((const char *)&b->levels[i] + offset);
        add_mark(p, &labels[i + 1], ladder_level_names[i + 1], s->p50, s->p99, p->unit);
    }
    append_plot(html, p);
}

static void append_time_plots(struct buf *html, const struct bench *b)
{
    struct plot cold = {.title = "Cold start",
                        .about =
                            "From sending a request to its answer when no replica runs: start of the worker behind "
                            "its wall, load, answer. p50 &#9679; and p99 &#9675;. &ldquo;bare clone&rdquo; is the "
                            "least that namespaces and an exec cost here.",
                        .unit = "ms",
                        .logarithmic = true};
    struct plot warm = {.title = "Warm start",
                        .about = "The first answer over a new connection from a replica that runs but sleeps.",
                        .unit = "ms",
                        .logarithmic = true};
    struct plot added = {.title = "Added latency",
                         .about =
                             "One client, a model that computes nothing: all of it is gateway, scheduler and wall.",
                         .unit = "ms",
                         .logarithmic = true};
    append_series_plot(html, b, &cold, offsetof(struct bench_level, cold), &b->bare, "bare clone");
    const struct bench_level *container = bench_level_of(b, LADDER_CONTAINER);
    char first[BENCH_FIGURE_BYTES], second[BENCH_FIGURE_BYTES];
    if (container->bare.samples > 0)
        buf_format(html, "<p>The OCI runtime alone, run with the bundle of a container's replica: %s / %s ms.</p>\n",
                   bench_figure(container->bare.p50, first), bench_figure(container->bare.p99, second));
    append_series_plot(html, b, &warm, offsetof(struct bench_level, warm), NULL, NULL);
    append_series_plot(html, b, &added, offsetof(struct bench_level, added), NULL, NULL);
}

static void append_rate_plots(struct buf *html, const struct bench *b)
{
    struct label labels[2][LADDER_LEVEL_COUNT];
    struct plot rate = {.title = "Throughput",
                        .about = "Answers a second of a model that computes 5 ms for each, one replica, four clients: "
                                 "200 is what the engine can do at most.",
                        .unit = "requests/s"};
    struct plot empty = {.title = "Throughput, empty model",
                         .about = "The same of a model that computes nothing: what the way through the wall allows.",
                         .unit = "requests/s"};
    for (int i = 0; i < LADDER_LEVEL_COUNT - 1; i++) {
        add_mark(&rate, &labels[0][i], ladder_level_names[i + 1], b->levels[i].throughput, 0, "/s");
        add_mark(&empty, &labels[1][i], ladder_level_names[i + 1], b->levels[i].throughput_empty, 0, "/s");
    }
    append_plot(html, &rate);
    append_plot(html, &empty);
}

static void append_memory_plot(struct buf *html, const struct bench *b)
{
    struct label labels[LADDER_LEVEL_COUNT];
    struct plot memory = {.title = "Idle memory",
                          .about = "PSS of all processes of an idle replica, counted where one more of the same model "
                                   "starts; engine identity.",
                          .unit = "MiB",
                          .logarithmic = true};
    for (int i = 0; i < LADDER_LEVEL_COUNT - 1; i++)
        add_mark(&memory, &labels[i], ladder_level_names[i + 1], (double)b->levels[i].further_bytes / (double)MIB, 0,
                 "MiB");
    append_plot(html, &memory);
}

static void append_neighbour_plot(struct buf *html, const struct bench *b)
{
    struct label labels[LADDER_LEVEL_COUNT][5];
    for (int i = 0; i < LADDER_LEVEL_COUNT - 1; i++) {
        const struct bench_level *l = &b->levels[i];
        if (l->alone.samples == 0)
            continue;
        struct plot p = {.title = ladder_level_names[i + 1], .about = "", .unit = "ms", .logarithmic = true};
        const struct bench_series *series[] = {&l->alone, &l->flooded, &l->crowded, &l->apart_alone, &l->apart_flooded};
        static const char *const which[] = {"alone", "flooded", "all slots", "own, alone", "own, flooded"};
        for (int k = 0; k < 5; k++)
            add_mark(&p, &labels[i][k], which[k], series[k]->p50, series[k]->p99, "ms");
        append_plot(html, &p);
    }
}

/* --- tables --- */

static void append_cell(struct buf *html, double first, double second)
{
    char texts[2][BENCH_FIGURE_BYTES];
    if (first <= 0)
        buf_append_text(html, "<td>&ndash;</td>");
    else if (second > 0)
        buf_format(html, "<td>%s /&nbsp;%s</td>", bench_figure(first, texts[0]), bench_figure(second, texts[1]));
    else
        buf_format(html, "<td>%s</td>", bench_figure(first, texts[0]));
}

static void append_levels(struct buf *html, const struct bench *b)
{
    buf_append_text(html, "<section><h2>All levels</h2>\n<div class=\"wide\"><table><tr><th>level</th><th>cold start ms"
                          "</th><th>warm start ms</th><th>added ms</th><th>requests/s, 5 ms</th><th>requests/s, empty"
                          "</th><th>PSS, first MiB</th><th>PSS, one more MiB</th><th>neighbour: p99 &times;</th>"
                          "<th>all slots: p99 &times;</th><th>own cores: p99 &times;</th></tr>\n");
    for (int i = 0; i < LADDER_LEVEL_COUNT - 1; i++) {
        const struct bench_level *l = &b->levels[i];
        buf_format(html, "<tr><th>%s</th>", ladder_level_names[i + 1]);
        if (!l->available || !l->wanted) {
            buf_append_text(html, "<td class=\"text\" colspan=\"10\">");
            append_escaped(html, l->wanted ? "not available here: " : "not asked for");
            append_escaped(html, l->wanted ? l->text : "");
            buf_append_text(html, "</td></tr>\n");
            continue;
        }
        append_cell(html, l->cold.p50, l->cold.p99);
        append_cell(html, l->warm.p50, l->warm.p99);
        append_cell(html, l->added.p50, l->added.p99);
        append_cell(html, l->throughput, 0);
        append_cell(html, l->throughput_empty, 0);
        append_cell(html, (double)l->pss_bytes / (double)MIB, 0);
        append_cell(html, (double)l->further_bytes / (double)MIB, 0);
        append_cell(html, bench_ratio(l->flooded.p99, l->alone.p99), 0);
        append_cell(html, bench_ratio(l->crowded.p99, l->alone.p99), 0);
        append_cell(html, bench_ratio(l->apart_flooded.p99, l->apart_alone.p99), 0);
        buf_append_text(html, "</tr>\n");
    }
    buf_append_text(html, "</table></div>\n<p>Pairs are p50 / p99.</p><ul>\n");
    for (int i = 0; i < LADDER_LEVEL_COUNT - 1; i++) {
        const struct bench_level *l = &b->levels[i];
        const char *text = l->error[0] ? l->error : l->wall;
        if (!text[0])
            continue;
        buf_format(html, "<li><b>%s</b>%s: ", ladder_level_names[i + 1], l->error[0] ? ", ended early" : "");
        append_escaped(html, text);
        buf_format(html, " (%llu cold starts, %llu requests alone, %llu flooded; %llu failed)</li>\n",
                   (unsigned long long)l->cold.samples, (unsigned long long)l->alone.samples,
                   (unsigned long long)l->flooded.samples,
                   (unsigned long long)(l->added.failed + l->bound.failed + l->alone.failed + l->flooded.failed +
                                        l->crowded.failed + l->apart_alone.failed + l->apart_flooded.failed));
    }
    buf_append_text(html, "</ul></section>\n");
}

static void append_targets(struct buf *html, const struct bench *b)
{
    buf_append_text(html,
                    "<section><h2>Targets</h2>\n<p>Ratios within this run.</p>\n<div class=\"wide\"><table><tr><th>what"
                    "</th><th>measured</th><th>wanted</th><th></th></tr>\n");
    for (uint32_t i = 0; i < b->n_targets; i++) {
        const struct bench_target *t = &b->targets[i];
        buf_append_text(html, "<tr><td class=\"text\">");
        append_escaped(html, t->text);
        buf_append_text(html, "</td>");
        append_cell(html, t->measured ? t->value : 0, 0);
        buf_format(html, "<td class=\"pair\">%s %g %s</td>", t->at_least ? "&ge;" : "&le;", t->limit, t->unit);
        if (t->measured) {
            const char *state = bench_target_met(t) ? "met" : "missed";
            buf_format(html, "<td class=\"text %s\">%s</td></tr>\n", state, state);
        } else {
            buf_append_text(html, "<td class=\"text\">not measured: ");
            append_escaped(html, t->missing);
            buf_append_text(html, "</td></tr>\n");
        }
    }
    buf_append_text(html, "</table></div></section>\n");
}

static void append_host(struct buf *html, const struct bench *b)
{
    buf_append_text(html,
                    "<section><h2>Host</h2>\n<div class=\"wide\"><table>\n<tr><th>processor</th><td class=\"text\">");
    append_escaped(html, b->cpu);
    buf_format(
        html,
        ", %u of them; %u device slots</td></tr>\n<tr><th>memory</th><td class=\"text\">%.1f GiB</td></tr>\n"
        "<tr><th>load average</th><td class=\"text\">%.2f %.2f %.2f before, %.2f %.2f %.2f after; %.1f %% of the "
        "processors' time was taken by the host around this machine</td></tr>\n",
        b->n_cpus, b->slots, (double)b->memory_bytes / (double)(KIB * MIB), b->load_before[0], b->load_before[1],
        b->load_before[2], b->load_after[0], b->load_after[1], b->load_after[2], 100 * b->steal_share);
    for (size_t i = 0; i < b->n_facts; i++) {
        if (strcmp(b->facts[i].name, "cpus") == 0 || strcmp(b->facts[i].name, "memory") == 0)
            continue;
        buf_append_text(html, "<tr><th>");
        append_escaped(html, b->facts[i].name);
        buf_append_text(html, "</th><td class=\"text\">");
        append_escaped(html, b->facts[i].text);
        buf_append_text(html, "</td></tr>\n");
    }
    buf_append_text(html, "</table></div></section>\n");
}

static const char style[] =
    "body{font:16px/1.5 system-ui,sans-serif;max-width:1040px;margin:2em auto;padding:0 1em;color:#1c2430;background:#fff}"
    "h1{margin-bottom:0}h2{margin:1.6em 0 .2em;font-size:1.2em}p{margin:.3em 0;color:#4a5568}"
    "svg{width:100%;height:auto;font-size:13px}.grid{stroke:#d9dee6}.tick{fill:#6b7686;font-size:12px}"
    ".name{fill:#1c2430;font-weight:600}.value{fill:#1c2430}.span{stroke:#8fb3d9;stroke-width:4}"
    ".p50,.bar{fill:#1f6fb5}.p99{fill:#fff;stroke:#1f6fb5;stroke-width:2.5}"
    "table{border-collapse:collapse;font-size:14px}.wide{overflow-x:auto}"
    "th,td{border:1px solid #d9dee6;padding:.3em .45em;text-align:right;vertical-align:top}"
    "th{background:#f4f6f9;text-align:left}.text{text-align:left}.pair{white-space:nowrap}.met{color:#17713c}.missed{color:#b3261e}"
    ".note{border-left:4px solid #d97706;background:#fff7e8;padding:.6em 1em;margin:1em 0;color:#1c2430}";

void bench_html(const struct bench *b, struct buf *html)
{
    buf_format(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><meta name=\"viewport\" "
        "content=\"width=device-width\"/><title>What isolation costs here</title><style>%s</style></head><body>\n"
        "<h1>What isolation costs on this host</h1>\n<p>bulkhead %s, %.10s, ",
        style, BULKHEAD_VERSION, b->began);
    append_escaped(html, b->os[0] ? b->os : "unknown system");
    buf_append_text(html, ", ");
    append_escaped(html, b->kernel);
    buf_format(html, ". %u starts of each kind, %u s of each load.</p>\n", b->runs, b->seconds);
    if (bench_busy_host(b))
        buf_format(
            html,
            "<p class=\"note\">Other work went on while this was measured: load average %.1f at the start on %u "
            "processors. Times are longer than on a quiet machine, p99 most of all. The levels were measured one "
            "after another, so a difference between two may be that of the other work.</p>\n",
            b->load_before[0], b->n_cpus);
    append_levels(html, b);
    append_time_plots(html, b);
    append_rate_plots(html, b);
    append_memory_plot(html, b);
    buf_format(
        html,
        "<section><h2>A flooding neighbour</h2>\n<p>A tenant with one client and a model that computes %u ms: alone; "
        "beside another tenant of the same weight that keeps %u requests waiting for one replica (flooded); and for "
        "as many replicas as the machine has slots (all slots), where the victim waits for a turn; then the same victim "
        "on a core of its own (spec.resources.cpuset: dedicated), alone and beside one replica of the neighbour (own). "
        "Gateway and neighbour are then on what is left of %u processors; the clients of both are this bench, which runs "
        "where the kernel puts it, and takes its time from either.</p></section>\n",
        BENCH_BUSY_MS, BENCH_FLOOD, b->n_cpus);
    append_neighbour_plot(html, b);
    append_targets(html, b);
    append_host(html, b);
    buf_append_text(html, "</body></html>\n");
}
