"""build/bench.html: what a run measured as one page without scripts, its tables, and a plot where a row gives one.

A row's "plots" are [{"title", "unit", "lines": {what was wanted: value}, "bars": [{"label", "series": {name: spread}}]}]."""

import html

import report

WIDTH, LABEL, LINE, GAP, TOP = 860, 210, 16, 12, 26
COLOURS = ("#2166ac", "#b2182b", "#4d9221", "#762a83", "#b8860b")
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}
pre{overflow-x:auto;background:#f6f6f6;padding:.8em;font-size:12.5px;line-height:1.4}
svg{max-width:100%;height:auto}h2{margin-top:2em;font-size:1.15em}"""


def text(x, y, words, more=""):
    return '<text x="%.1f" y="%.1f" font-size="12" %s>%s</text>' % (x, y, more, html.escape(words))


def ticks(most):
    """Some round steps from 0 to what is plotted."""
    step = 10 ** len(str(int(most))) / 10 if most >= 1 else 0.1
    for part in (0.1, 0.2, 0.25, 0.5, 1, 2, 5):
        if most / (step * part) <= 10:
            return [step * part * i for i in range(int(most / (step * part)) + 1)]
    return [0, most]


def svg(plot):
    """Medians as dots, quartiles as lines; what was wanted as a dashed line in the colour of its series."""
    names = list(dict.fromkeys(name for bar in plot["bars"] for name in bar["series"]))
    colours = dict(zip(names, COLOURS))
    values = [v for bar in plot["bars"] for s in bar["series"].values() for v in s.values()] + list(plot["lines"].values())
    most = 1.05 * max(values)
    height = TOP + sum(LINE * len(bar["series"]) + GAP for bar in plot["bars"]) + 24 + 18 * ((len(names) + 2) // 3)

    def at(value):
        return LABEL + (WIDTH - LABEL - 20) * value / most
    bottom = height - 20 - 18 * ((len(names) + 2) // 3)
    parts = []
    for tick in ticks(most):
        parts.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#ddd"/>' % (at(tick), at(tick), TOP - 8, bottom))
        parts.append(text(at(tick), bottom + 14, "%g %s" % (round(tick, 6), plot["unit"]), 'text-anchor="middle" fill="#666"'))
    for name, value in plot["lines"].items():
        colour = next((colours[n] for n in names if name.startswith(n)), "#222")
        parts.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s" stroke-dasharray="5 4"><title>%s</title></line>' % (
            at(value), at(value), TOP - 8, bottom, colour, html.escape("%s: %g" % (name, value))))
    y = TOP
    for bar in plot["bars"]:
        parts.append(text(LABEL - 10, y + LINE * len(bar["series"]) / 2 + 4, bar["label"], 'text-anchor="end"'))
        for name, s in bar["series"].items():
            parts.append('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s" stroke-width="3"/>' % (
                at(s["q1"]), at(s["q3"]), y + 8, y + 8, colours[name]))
            parts.append('<circle cx="%.1f" cy="%d" r="5" fill="%s"><title>%s: %.3g [%.3g %.3g]</title></circle>' % (
                at(s["median"]), y + 8, colours[name], html.escape(name), s["median"], s["q1"], s["q3"]))
            y += LINE
        y += GAP
    for i, name in enumerate(names):
        x, line = LABEL + 220 * (i % 3), bottom + 34 + 18 * (i // 3)
        parts.append('<circle cx="%d" cy="%d" r="5" fill="%s"/>' % (x, line - 4, colours[name]) + text(x + 10, line, name))
    return '<svg viewBox="0 0 %d %d" width="%d" role="img" aria-label="%s">%s</svg>' % (
        WIDTH, height, WIDTH, html.escape(plot["title"]), "".join(parts))


def page(result, settings):
    machine = result["machine"]
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
             "<title>Bulkhead: figures</title><style>%s</style><h1>Figures</h1>" % STYLE,
             "<p>%s · %s, %d cores, kernel %s · %d pairs of runs · commit %s. Medians, with quartiles in brackets and as lines; "
             "dashed: what was wanted.</p>" % tuple(html.escape(str(word)) if isinstance(word, str) else word for word in (
                 result["date"], machine["cpu"], machine["cores"], machine["kernel"], result["pairs"], result["commit"]))]
    for number, row in result["rows"].items():
        lines = list(report.lines(int(number), row, settings))
        parts.append("<h2>%s</h2>" % html.escape(lines[0]))
        for plot in row.get("plots", ()):
            parts.append("<p>%s</p>%s" % (html.escape(plot["title"]), svg(plot)))
        parts.append("<pre>%s</pre>" % html.escape("\n".join(lines[1:])))
    return "\n".join(parts) + "\n"
