"""The table that `make bench` prints. A row gives servers with their runs, comparisons with targets, and notes."""

from measure import spread

QUIET_OTHERS_MAX, GENERATOR_IDLE_MIN = 0.05, 0.15


def cell(values, form):
    return "%s [%s %s]" % (form % values["median"], form % values["q1"], form % values["q3"])


def server_line(server):
    def of(name):
        return spread([run[name] for run in server["runs"]])
    return "  %-32s %26s %20s %8.0f %8.0f %8.0f %%" % (
        server["name"], cell(of("requests_per_s"), "%.0f"), cell(of("cpu_us"), "%.1f"), of("p50_us")["median"],
        of("p99_us")["median"], 100 * of("generator_idle")["median"])


def process_line(server):
    roles = {}
    for run in server["runs"]:
        for role, cpu in run["cpu_us_by_process"].items():
            roles.setdefault(role, []).append(cpu)
    return "  %-32s %s" % (server["name"], ", ".join(
        "%s %.1f" % (role, spread(cpu)["median"]) for role, cpu in roles.items() if spread(cpu)["median"] >= 0.05))


def comparison_line(comparison):
    return "  %-32s %26s %20s" % (comparison["name"], cell(comparison["requests_per_s"], "%.2f"),
                                  cell(comparison["cpu_us"], "%.2f"))


def target_line(comparison, target):
    return "  %s: %s %s wanted, %.2f x measured: %s" % (
        comparison["name"], target["what"], target["wanted"], target["measured"], "met" if target["met"] else "MISSED")


def warnings(row):
    """What makes these figures worth less than they look."""
    runs = [run for server in row.get("servers", ()) for run in server["runs"]]
    if not runs:
        return
    others = spread([run["others"] for run in runs])["median"]
    steal = spread([run["steal"] for run in runs])["median"]
    if others > QUIET_OTHERS_MAX:
        yield "other programs used %.0f %% of the machine: not quiet enough for a verdict" % (100 * others)
    if steal > QUIET_OTHERS_MAX:
        yield "the host took %.0f %% of the machine's time away" % (100 * steal)
    for server in row["servers"]:
        idle = spread([run["generator_idle"] for run in server["runs"]])["median"]
        if idle < GENERATOR_IDLE_MIN:
            yield "the load generator was only %.0f %% idle against %s: that server may be faster than shown" % (
                100 * idle, server["name"])


def figure_lines(row):
    """A row of plain figures: {name, unit, values: spread} and what was wanted of some of them."""
    for figure in row["figures"]:
        yield "  %-64s %26s %s" % (figure["name"], cell(figure["values"], figure.get("form", "%.2f")), figure["unit"])
    yield ""
    for target in row["targets"]:
        yield "  %s: %s wanted, %.2f measured: %s" % (
            target["what"], target["wanted"], target["measured"], "met" if target["met"] else "MISSED")


def lines(number, row, settings):
    """One row as text; median [quartiles] throughout."""
    yield "Row %d: %s" % (number, row["title"])
    if "figures" in row:
        yield from figure_lines(row)
        yield from ("  note: " + note for note in row["notes"])
        yield from ("  warning: " + warning for warning in warnings(row))
        return
    yield "  %-32s %26s %20s %8s %8s %10s" % ("", "requests/s", "CPU us/request", "p50 us", "p99 us", "gen. idle")
    yield from (server_line(server) for server in row["servers"])
    yield ""
    yield "  CPU us/request by process"
    yield from (process_line(server) for server in row["servers"])
    yield ""
    yield "  %-32s %26s %20s" % ("ratio, %d pairs in ABBA order" % settings.pairs, "requests/s", "CPU per request")
    yield from (comparison_line(comparison) for comparison in row["comparisons"])
    yield ""
    for comparison in row["comparisons"]:
        yield from (target_line(comparison, target) for target in comparison["targets"])
    yield from ("  note: " + note for note in row["notes"])
    yield from ("  warning: " + warning for warning in warnings(row))
