/* bench isolation: what each level costs on this host, measured in one run. */
#include "cli_bench_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUNS_DEFAULT    20u
#define SECONDS_DEFAULT 5u
#define LEVEL_COLUMN    11
#define FIGURE_COLUMN   14

static void on_signal(int number)
{
    (void)number;
    bench_stop = 1;
}

static void signals_take(void)
{
    /* no SA_RESTART: what waits is to look */
    struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGINT, &action, NULL); /* these three cannot fail */
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGHUP, &action, NULL);
}

/* --- flags --- */

static enum cli_exit number_take(const struct bench *b, const char *name, uint32_t usual, uint32_t max,
                                 uint32_t *ret_value)
{
    const char *text = cli_flag_value(b->call, name);
    uint64_t value = usual;
    if (text && (str_to_u64(str_from(text), &value) < 0 || value == 0 || value > max))
        return cli_usage(b->call, "--%s takes a whole number from 1 to %u, not \"%.40s\"", name, max, text);
    *ret_value = (uint32_t)value;
    return CLI_DONE;
}

/* "process,container" */
static enum cli_exit levels_take(struct bench *b)
{
    const char *text = cli_flag_value(b->call, "level");
    for (int i = 0; i < LADDER_LEVEL_COUNT - 1; i++)
        b->levels[i] = (struct bench_level){.level = (enum ladder_level)(i + 1), .wanted = !text};
    for (const char *at = text; at; at = *at ? at + 1 : NULL) {
        size_t size = strcspn(at, ",");
        enum ladder_level level = ladder_level_from_name((struct str){at, size});
        if (level == LADDER_NONE)
            return cli_usage(b->call, "--level takes shared, pool, process, container or microvm, not \"%.*s\"",
                             size < 40 ? (int)size : 40, at);
        b->levels[level - 1].wanted = true;
        at += size;
    }
    return CLI_DONE;
}

static enum cli_exit flags_take(struct bench *b)
{
    const char *output = cli_flag_value(b->call, "output");
    enum cli_exit status = number_take(b, "runs", RUNS_DEFAULT, BENCH_RUNS_MAX, &b->runs);
    if (status == CLI_DONE)
        status = number_take(b, "seconds", SECONDS_DEFAULT, BENCH_SECONDS_MAX, &b->seconds);
    if (status == CLI_DONE)
        status = levels_take(b);
    b->output = output ? output : ".";
    if (status == CLI_DONE && access(b->output, W_OK | X_OK) < 0)
        return cli_complain("%s: cannot write a report there: %s", b->output, strerrordesc_np(errno));
    if (status == CLI_DONE && geteuid() != 0)
        return cli_complain("bench isolation starts a server of its own, which needs root; try with sudo");
    return status;
}

/* --- the report --- */

/* Whole or not at all: what stood there before stays until then. */
static enum cli_exit file_write(const struct bench *b, const char *name, const struct buf *content)
{
    char path[PATH_MAX], temporary[PATH_MAX + 8];
    int length = snprintf(path, sizeof path, "%s/%s", b->output, name);
    if (content->failed || length < 0 || (size_t)length >= sizeof path)
        return cli_complain("%s: the report is too large or its path too long", name);
    (void)snprintf(temporary, sizeof temporary, "%s.XXXXXX", path); /* fits */
    _close_ int fd = mkostemp(temporary, O_CLOEXEC);
    size_t at = 0;
    while (fd >= 0 && at < content->size) {
        ssize_t n = write(fd, content->data + at, content->size - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    if (fd >= 0 && at == content->size && fchmod(fd, 0644) == 0 && rename(temporary, path) == 0)
        return CLI_DONE;
    enum cli_exit status = cli_complain("%s: %s", path, strerrordesc_np(errno));
    if (fd >= 0)
        (void)unlink(temporary); /* a failure was told already */
    return status;
}

static enum cli_exit reports_write(const struct bench *b, yyjson_val *json)
{
    _buf_ struct buf text, html;
    buf_init(&text, 2 * BENCH_JSON_BYTES);
    buf_init(&html, BENCH_JSON_BYTES);
    size_t size;
    _free_ char *pretty = yyjson_val_write(json, YYJSON_WRITE_PRETTY_TWO_SPACES, &size);
    if (!pretty)
        return cli_complain("out of memory");
    buf_append(&text, pretty, size);
    buf_append_char(&text, '\n');
    bench_html(b, &html);
    enum cli_exit status = file_write(b, BENCH_FILE_JSON, &text);
    return status == CLI_DONE ? file_write(b, BENCH_FILE_HTML, &html) : status;
}

/* --- the table --- */

static void print_figure(double first, double second, const char *unit)
{
    char text[64], texts[2][BENCH_FIGURE_BYTES];
    if (first <= 0)
        (void)snprintf(text, sizeof text, "-"); /* fits, as the others */
    else if (second > 0)
        (void)snprintf(text, sizeof text, "%s/%s%s", bench_figure(first, texts[0]), bench_figure(second, texts[1]),
                       unit);
    else
        (void)snprintf(text, sizeof text, "%s%s", bench_figure(first, texts[0]), unit);
    printf("%-*s", FIGURE_COLUMN, text);
}

static void print_table(const struct bench *b)
{
    static const char *const heads[] = {"COLD ms",    "WARM ms",       "ADDED ms", "REQ/s 5 ms",
                                        "PSS +1 MiB", "NEIGHBOUR p99", "OWN CORES"};
    printf("%-*s", LEVEL_COLUMN, "LEVEL");
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        printf("%-*s", i + 1 < sizeof heads / sizeof heads[0] ? FIGURE_COLUMN : 0, heads[i]);
    putchar('\n');
    for (int i = 0; i < LADDER_LEVEL_COUNT - 1; i++) {
        const struct bench_level *l = &b->levels[i];
        if (!l->wanted)
            continue;
        printf("%-*s", LEVEL_COLUMN, ladder_level_names[l->level]);
        if (!l->available) {
            cli_print_wrapped(l->text, LEVEL_COLUMN);
            continue;
        }
        print_figure(l->cold.p50, l->cold.p99, "");
        print_figure(l->warm.p50, l->warm.p99, "");
        print_figure(l->added.p50, l->added.p99, "");
        print_figure(l->throughput, 0, "");
        print_figure((double)l->further_bytes / (double)MIB, 0, "");
        print_figure(bench_ratio(l->flooded.p99, l->alone.p99), 0, " x");
        print_figure(bench_ratio(l->apart_flooded.p99, l->apart_alone.p99), 0, " x");
        putchar('\n');
        if (l->error[0]) {
            printf("%-*s", LEVEL_COLUMN, "");
            cli_print_wrapped(l->error, LEVEL_COLUMN);
        }
    }
    printf(
        "\np50/p99; %u starts, %u s of load each, bare clone and exec %.3g/%.3g ms. Load average %.1f before, %.1f after,\n"
        "%u processors, %.0f %% of their time taken by the host around this machine.%s\n\n",
        b->runs, b->seconds, b->bare.p50, b->bare.p99, b->load_before[0], b->load_after[0], b->n_cpus,
        100 * b->steal_share, bench_busy_host(b) ? " OTHER WORK WENT ON HERE: repeat on a quiet machine." : "");
    for (uint32_t i = 0; i < b->n_targets; i++) {
        const struct bench_target *t = &b->targets[i];
        printf("%-13s", !t->measured ? "not measured" : bench_target_met(t) ? "met" : "missed");
        char text[512];
        if (t->measured)
            (void)snprintf(text, sizeof text, "%s: %.3g %s, wanted %s %g", t->text, t->value, t->unit,
                           t->at_least ? "≥" : "≤", t->limit); /* fits */
        else
            (void)snprintf(text, sizeof text, "%s: %s", t->text, t->missing); /* fits */
        cli_print_wrapped(text, 13);
    }
    printf("\nwritten: %s/" BENCH_FILE_JSON ", %s/" BENCH_FILE_HTML "\n", b->output, b->output);
}

/* --- the command --- */

static int levels_run(struct bench *b, struct error *err)
{
    b->steps = b->runs;
    int r = bench_server_start(b, err);
    for (int i = 0; i < LADDER_LEVEL_COUNT - 1; i++)
        b->steps += b->levels[i].wanted && b->levels[i].available ? bench_level_steps(b) : 0;
    struct error bare = {0};
    if (r >= 0 && bench_bare_run(b, &bare) == -ERROR_CANCELLED) /* else its target is not measured, and says so */
        r = error_set(err, ERROR_CANCELLED, "stopped by a signal");
    for (int i = 0; r >= 0 && i < LADDER_LEVEL_COUNT - 1; i++)
        if (b->levels[i].wanted && b->levels[i].available && bench_level_run(b, &b->levels[i]) < 0)
            r = error_set(err, ERROR_CANCELLED, "stopped by a signal");
    return r;
}

static enum cli_exit report(struct bench *b, int format)
{
    _buf_ struct buf json;
    buf_init(&json, BENCH_JSON_BYTES);
    bench_json(b, &json);
    yyjson_doc *doc = json.failed ? NULL : yyjson_read(json.data, json.size, 0);
    if (!doc)
        return cli_complain("out of memory");
    enum cli_exit status = reports_write(b, yyjson_doc_get_root(doc));
    if (status == CLI_DONE && format != CLI_TABLE)
        status = cli_print_value(yyjson_doc_get_root(doc), (enum cli_format)format);
    else if (status == CLI_DONE)
        print_table(b);
    yyjson_doc_free(doc);
    return status;
}

static enum cli_exit bench_run(struct bench *b, int format)
{
    struct error err = {0};
    signals_take();
    bench_progress(b, "testing the levels", 0);
    bench_host_begin(b);
    int r = levels_run(b, &err);
    bench_progress(b, "ending its server", 0);
    bench_server_stop(b);
    bench_progress(b, NULL, 0);
    if (r < 0)
        return cli_complain("%s; nothing was written", error_text(&err, r));
    bench_host_end(b);
    bench_targets(b);
    enum cli_exit status = report(b, format);
    for (int i = 0; i < LADDER_LEVEL_COUNT - 1; i++)
        if (b->levels[i].error[0])
            status = cli_complain("level %s: %s", ladder_level_names[i + 1], b->levels[i].error);
    return status;
}

enum cli_exit cli_bench_isolation(const struct cli_call *call)
{
    int format = cli_format_of(call, "format");
    if (format < 0)
        return CLI_USAGE;
    _free_ struct bench *b = calloc(1, sizeof *b);
    _free_ uint64_t *samples = calloc(BENCH_SAMPLES_MAX, sizeof *samples);
    if (!b || !samples)
        return cli_complain("out of memory");
    b->call = call;
    b->samples = samples;
    enum cli_exit status = flags_take(b);
    return status == CLI_DONE ? bench_run(b, format) : status;
}
