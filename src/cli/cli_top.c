/* `bulkhead top`: two looks at the server's figures, and what happened in between, per tenant. */
#include "base/clock.h"
#include "cli_internal.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define TENANTS_MAX LIMIT_METRICS_ROWS
#define BUCKETS_MAX 64u
#define REFUSALS    3u /* rate, queue, quota */

struct figures { /* counted since the server began */
    uint64_t requests, unavailable, left, served_ns;
    uint64_t refusals[REFUSALS];
    uint64_t duration[BUCKETS_MAX];
};

struct tenant {
    const char *name; /* in the answer that it came from */
    uint64_t weight;
    uint64_t queued, running;
    struct figures figures;
};

struct look {
    struct cli_answer answer;
    uint64_t at_ns;
    uint32_t n_tenants, shift, n_buckets;
    struct tenant tenants[TENANTS_MAX];
};

static uint64_t number(yyjson_val *object, const char *name)
{
    return yyjson_get_uint(yyjson_obj_get(object, name));
}

static struct tenant *tenant_of(struct look *look, const char *name)
{
    for (uint32_t i = 0; i < look->n_tenants; i++)
        if (strcmp(look->tenants[i].name, name) == 0)
            return &look->tenants[i];
    if (look->n_tenants == TENANTS_MAX)
        return NULL;
    look->tenants[look->n_tenants] = (struct tenant){.name = name};
    return &look->tenants[look->n_tenants++];
}

static uint32_t add_list(uint64_t *sums, uint32_t n_max, yyjson_val *list)
{
    uint32_t n = 0;
    yyjson_arr_iter each = yyjson_arr_iter_with(list);
    for (yyjson_val *value = yyjson_arr_iter_next(&each); value && n < n_max; value = yyjson_arr_iter_next(&each))
        sums[n++] += yyjson_get_uint(value);
    return n;
}

static void row_add(struct look *look, yyjson_val *row)
{
    const char *name = yyjson_get_str(yyjson_obj_get(row, "tenant"));
    bool used = number(row, "requests") > 0 || number(row, "queued") > 0 || number(row, "running") > 0;
    struct tenant *t = name && used ? tenant_of(look, name[0] ? name : "(none)") : NULL;
    look->n_buckets = add_list((uint64_t[BUCKETS_MAX]){0}, BUCKETS_MAX, yyjson_obj_get(row, "duration"));
    if (!t)
        return;
    t->queued += number(row, "queued");
    t->running += number(row, "running");
    t->figures.requests += number(row, "requests");
    t->figures.unavailable += number(row, "unavailable");
    t->figures.left += number(row, "left");
    t->figures.served_ns += number(row, "servedNs");
    (void)add_list(t->figures.refusals, REFUSALS, yyjson_obj_get(row, "refusals"));
    (void)add_list(t->figures.duration, BUCKETS_MAX, yyjson_obj_get(row, "duration"));
}

static enum cli_exit look_take(const struct cli_call *call, struct look *look)
{
    cli_answer_done(&look->answer);
    *look = (struct look){0};
    enum cli_exit status = cli_admin(call, "GET", "/v1alpha1/top", STR(""), &look->answer);
    if (status != CLI_DONE)
        return status;
    look->at_ns = clock_monotonic_ns();
    yyjson_val *root = look->answer.json ? yyjson_doc_get_root(look->answer.json) : NULL;
    if (!yyjson_is_obj(root))
        return cli_complain("the server's answer is not JSON");
    look->shift = (uint32_t)number(root, "durationShift");
    yyjson_arr_iter each = yyjson_arr_iter_with(yyjson_obj_get(root, "rows"));
    for (yyjson_val *row = yyjson_arr_iter_next(&each); row; row = yyjson_arr_iter_next(&each))
        row_add(look, row);
    each = yyjson_arr_iter_with(yyjson_obj_get(root, "tenants"));
    for (yyjson_val *item = yyjson_arr_iter_next(&each); item; item = yyjson_arr_iter_next(&each)) {
        const char *name = yyjson_get_str(yyjson_obj_get(yyjson_obj_get(item, "metadata"), "name"));
        struct tenant *t = name ? tenant_of(look, name) : NULL;
        if (t)
            t->weight = number(yyjson_obj_get(item, "spec"), "weight");
    }
    return CLI_DONE;
}

static uint64_t since(uint64_t now, uint64_t before)
{
    return now > before ? now - before : 0; /* a gateway that was started again counts from 0 */
}

/* What happened between two looks. */
static struct figures difference(const struct figures *now, const struct figures *before)
{
    static const struct figures none;
    before = before ? before : &none;
    struct figures d = {.requests = since(now->requests, before->requests),
                        .unavailable = since(now->unavailable, before->unavailable),
                        .left = since(now->left, before->left),
                        .served_ns = since(now->served_ns, before->served_ns)};
    for (uint32_t i = 0; i < REFUSALS; i++)
        d.refusals[i] = since(now->refusals[i], before->refusals[i]);
    for (uint32_t i = 0; i < BUCKETS_MAX; i++)
        d.duration[i] = since(now->duration[i], before->duration[i]);
    return d;
}

/* The end of the bucket that holds this part of the requests: at most twice too much. */
static void print_quantile(const struct figures *f, const struct look *look, uint64_t permille)
{
    uint64_t all = 0, seen = 0;
    for (uint32_t i = 0; i < look->n_buckets; i++)
        all += f->duration[i];
    uint32_t bucket = 0;
    while (bucket + 1 < look->n_buckets && (seen += f->duration[bucket]) * 1000 < all * permille)
        bucket++;
    uint32_t power = look->shift + bucket < 63 ? look->shift + bucket : 63;
    double ms = (double)(UINT64_C(1) << power) / 1e6;
    if (all == 0)
        printf(" %8s", "-");
    else
        printf(ms < 10 ? " %6.2fms" : " %6.0fms", ms);
}

struct line {
    const struct tenant *tenant;
    struct figures figures;
    double asked, got; /* of the devices' time, percent; asked < 0: it wanted none */
};

static int line_compare(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    if (x->got < y->got || x->got > y->got)
        return x->got < y->got ? 1 : -1;
    return strcmp(x->tenant->name, y->tenant->name);
}

static uint32_t lines_make(const struct look *now, struct look *before, struct line *lines)
{
    uint64_t weights = 0, served_ns = 0;
    for (uint32_t i = 0; i < now->n_tenants; i++) {
        const struct tenant *t = &now->tenants[i];
        const struct tenant *was = tenant_of(before, t->name);
        lines[i] = (struct line){.tenant = t, .figures = difference(&t->figures, was ? &was->figures : NULL)};
        bool wants = t->weight > 0 && (t->queued > 0 || t->running > 0 || lines[i].figures.served_ns > 0);
        lines[i].asked = wants ? (double)t->weight : -1;
        weights += wants ? t->weight : 0;
        served_ns += lines[i].figures.served_ns;
    }
    for (uint32_t i = 0; i < now->n_tenants; i++) {
        lines[i].asked = lines[i].asked > 0 ? 100 * lines[i].asked / (double)weights : -1;
        lines[i].got = served_ns > 0 ? 100 * (double)lines[i].figures.served_ns / (double)served_ns : 0;
    }
    qsort(lines, now->n_tenants, sizeof *lines, line_compare);
    return now->n_tenants;
}

static void print_share(double percent)
{
    if (percent < 0)
        printf(" %7s", "-");
    else
        printf(" %6.1f%%", percent);
}

/* Which limits refused requests, and how often. */
static void print_limits(const struct figures *f)
{
    static const char *const names[REFUSALS] = {"rate", "queue", "quota"};
    const char *space = "  ";
    for (uint32_t i = 0; i < REFUSALS; i++)
        if (f->refusals[i] > 0) {
            printf("%s%s %llu", space, names[i], (unsigned long long)f->refusals[i]);
            space = ", ";
        }
    if (f->unavailable > 0) {
        printf("%sunavailable %llu", space, (unsigned long long)f->unavailable);
        space = ", ";
    }
    if (f->left > 0)
        printf("%sleft %llu", space, (unsigned long long)f->left);
    putchar('\n');
}

static void print_devices(const struct look *look)
{
    yyjson_val *devices = yyjson_obj_get(yyjson_doc_get_root(look->answer.json), "devices");
    yyjson_arr_iter each = yyjson_arr_iter_with(devices);
    for (yyjson_val *d = yyjson_arr_iter_next(&each); d; d = yyjson_arr_iter_next(&each)) {
        yyjson_val *status = yyjson_obj_get(d, "status");
        printf("device ");
        cli_print(stdout, str_from(yyjson_get_str(yyjson_obj_get(yyjson_obj_get(d, "metadata"), "name"))
                                       ? yyjson_get_str(yyjson_obj_get(yyjson_obj_get(d, "metadata"), "name"))
                                       : "?"));
        printf(": %llu of %llu slots used, %llu waiting\n", (unsigned long long)number(status, "used"),
               (unsigned long long)number(status, "slots"), (unsigned long long)number(status, "queued"));
    }
}

static void print_all(const struct look *now, struct look *before, uint32_t rows_max)
{
    static struct line lines[TENANTS_MAX];
    uint32_t n = lines_make(now, before, lines);
    double seconds = (double)since(now->at_ns, before->at_ns) / 1e9;
    print_devices(now);
    printf("\n%-20s %6s %7s %7s %7s %6s %8s %8s %8s  %s\n", "TENANT", "WEIGHT", "ASKED", "GOT", "WAITING", "RUN",
           "REQ/S", "P50", "P99", "LIMITS HIT");
    for (uint32_t i = 0; i < n && i < rows_max; i++) {
        const struct line *l = &lines[i];
        char name[21];
        (void)snprintf(name, sizeof name, "%s", l->tenant->name); /* cut */
        cli_print(stdout, str_from(name));
        printf("%*s %6llu", (int)(20 - strlen(name)), "", (unsigned long long)l->tenant->weight);
        print_share(l->asked);
        print_share(l->got);
        printf(" %7llu %6llu %8.1f", (unsigned long long)l->tenant->queued, (unsigned long long)l->tenant->running,
               seconds > 0 ? (double)l->figures.requests / seconds : 0);
        print_quantile(&l->figures, now, 500);
        print_quantile(&l->figures, now, 990);
        print_limits(&l->figures);
    }
    if (n > rows_max)
        printf("… and %u more\n", n - rows_max);
}

static uint32_t rows_of_terminal(void)
{
    struct winsize size;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 8;
    return known ? size.ws_row - 6u : UINT32_MAX;
}

/* Seconds between two looks: 1 … 3600, 2 by default. */
static int interval_of(const struct cli_call *call, uint64_t *ret_seconds)
{
    const char *text = cli_flag_value(call, "interval");
    *ret_seconds = 2;
    if (text && (str_to_u64(str_from(text), ret_seconds) < 0 || *ret_seconds < 1 || *ret_seconds > 3600))
        return -ERROR_INVALID_ARGUMENT;
    return 0;
}

enum cli_exit cli_top(const struct cli_call *call)
{
    static struct look looks[2]; /* large; the older one is compared with */
    bool once = cli_flag_value(call, "once") != NULL, screen = isatty(STDOUT_FILENO) == 1 && !once;
    uint64_t seconds;
    if (interval_of(call, &seconds) < 0)
        return cli_usage(call, "--interval takes seconds, 1 to 3600");
    enum cli_exit status = look_take(call, &looks[0]);
    for (uint32_t turn = 1; status == CLI_DONE; turn++) {
        const struct timespec pause = {.tv_sec = (time_t)seconds};
        (void)nanosleep(&pause, NULL); /* a signal only brings the next look sooner */
        struct look *now = &looks[turn % 2], *before = &looks[(turn + 1) % 2];
        status = look_take(call, now);
        if (status != CLI_DONE)
            break;
        if (screen)
            printf("\033[H\033[2J");
        print_all(now, before, screen ? rows_of_terminal() : UINT32_MAX);
        if (once)
            break;
        putchar('\n');
        if (fflush(stdout) != 0)
            break;
    }
    cli_answer_done(&looks[0].answer);
    cli_answer_done(&looks[1].answer);
    return status;
}
