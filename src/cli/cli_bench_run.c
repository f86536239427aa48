/* What is measured of one level. */
#include "cli_bench_internal.h"

#include <time.h>
#include <unistd.h>

#define COLD_IDLE_MS 50u /* a replica of the cold start goes so long after its answer */
#define WARM_SHARE   5u  /* a steady run warms up for this part of its time */
#define STEPS_LOAD   20u /* of the progress bar, for a run of steady load */
#define N_LOADS      8u
/* Where a start takes seconds, fewer of them: no new one after this time. */
#define COLD_NS_MAX   (60 * NS_PER_S)
#define COLD_RUNS_MIN 5u
#define BAR_COLUMNS   24u

volatile sig_atomic_t bench_stop;

void bench_progress(struct bench *b, const char *doing, uint32_t steps)
{
    char bar[BAR_COLUMNS + 1];
    b->steps_done += steps;
    b->doing = doing;
    if (!isatty(STDERR_FILENO))
        return;
    if (!doing) {
        fprintf(stderr, "\r\033[K");
        return;
    }
    uint32_t done = b->steps_done < b->steps ? b->steps_done : b->steps;
    uint32_t filled = b->steps > 0 ? done * BAR_COLUMNS / b->steps : 0;
    memset(bar, '.', BAR_COLUMNS);
    memset(bar, '#', filled);
    bar[BAR_COLUMNS] = '\0';
    fprintf(stderr, "\r\033[K[%s] %3u %% %s: %s", bar, b->steps > 0 ? done * 100 / b->steps : 0,
            b->doing_level ? b->doing_level : "bench", doing);
}

uint32_t bench_level_steps(const struct bench *b)
{
    return 3 * b->runs + N_LOADS * STEPS_LOAD;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The smallest sample that at least this share of all is not above. */
static double percentile_ms(const uint64_t *sorted_ns, size_t n, uint32_t percent)
{
    size_t rank = (n * percent + 99) / 100;
    return (double)sorted_ns[rank > 0 ? rank - 1 : 0] / (double)NS_PER_MS;
}

void bench_series_of(uint64_t *samples_ns, size_t n, uint64_t failed, struct bench_series *ret_series)
{
    *ret_series = (struct bench_series){.samples = n, .failed = failed};
    if (n == 0)
        return;
    qsort(samples_ns, n, sizeof *samples_ns, compare);
    ret_series->min = (double)samples_ns[0] / (double)NS_PER_MS;
    ret_series->p50 = percentile_ms(samples_ns, n, 50);
    ret_series->p99 = percentile_ms(samples_ns, n, 99);
    ret_series->max = (double)samples_ns[n - 1] / (double)NS_PER_MS;
}

static void append_request(const struct bench *b, const struct bench_model *model, struct buf *request)
{
    static const char body[] = "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,16],"
                               "\"data\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}]}";
    buf_format(request,
               "POST /v2/models/%s/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
               "Authorization: Bearer %s\r\nContent-Length: %zu\r\n\r\n%s",
               model->name, b->keys[model->tenant], sizeof body - 1, body);
}

/* --- starts --- */

/* One request on a new connection, which must be answered. */
static int answer_once(struct bench *b, const struct bench_model *model, uint64_t *ret_ns, struct error *err)
{
    _buf_ struct buf request;
    buf_init(&request, 4 * KIB);
    append_request(b, model, &request);
    struct wire_load_group group = {
        .request = {request.data, request.size}, .n_connections = 1, .samples_ns = ret_ns, .samples_max = 1};
    struct wire_load load = {.port = b->port,
                             .run_ns = BENCH_SILENCE_NS,
                             .answers_max = 1,
                             .silence_ns_max = BENCH_SILENCE_NS,
                             .stop = &bench_stop,
                             .groups = &group,
                             .n_groups = 1};
    int r = wire_load_run(&load, err);
    if (r >= 0 && (group.n_failed > 0 || group.n_answers != 1))
        return error_set(err, ERROR_REFUSED, "a request was answered with status %d", group.first_status);
    return r;
}

/* No replica, and at level container none that its runtime still forgets. */
static int none_wait(struct bench *b, const struct bench_model *model, struct error *err)
{
    int r = bench_replicas_wait(b, model, 0, NULL, NULL, err);
    return r >= 0 && model->level == LADDER_CONTAINER ? bench_rest_wait(b, err) : r;
}

/* In turn with runs of the bare runtime, where there is one: what else goes on here meets both. */
static int cold_run(struct bench *b, struct bench_level *l, struct bench_model *model, struct bench_bare *bare,
                    struct error *err)
{
    size_t n = 0, n_bare = 0;
    uint64_t *bare_ns = b->samples + BENCH_SAMPLES_MAX / 2; /* of two halves, each far larger than BENCH_RUNS_MAX */
    int r = 0;
    model->replicas_min = 0;
    model->idle_ms = COLD_IDLE_MS;
    r = bench_model_apply(b, model, err);
    uint64_t begin_ns = clock_monotonic_ns();
    for (; r >= 0 && n < b->runs && (n < COLD_RUNS_MIN || clock_monotonic_ns() - begin_ns < COLD_NS_MAX); n++) {
        bench_progress(b, "cold starts", bare->open ? 2 : 1);
        r = none_wait(b, model, err);
        if (r >= 0 && bench_bare_once(l, bare, &bare_ns[n_bare]))
            n_bare++;
        if (r >= 0)
            r = answer_once(b, model, &b->samples[n], err);
        if (r < 0)
            break;
    }
    bench_series_of(b->samples, n, 0, &l->cold); /* of those that were made before a failure, too */
    bench_series_of(bare_ns, n_bare, 0, &l->bare);
    return r;
}

static int warm_run(struct bench *b, struct bench_level *l, const struct bench_model *model, struct error *err)
{
    size_t n = 0;
    int r = 0;
    for (; r >= 0 && n < b->runs; n++) {
        bench_progress(b, "warm starts", 1);
        struct timespec pause = {.tv_nsec = 20 * (long)NS_PER_MS}; /* the worker sleeps again, its bell is needed */
        (void)nanosleep(&pause, NULL);                             /* a signal is seen by the next request */
        r = answer_once(b, model, &b->samples[n], err);
        if (r < 0)
            break;
    }
    bench_series_of(b->samples, n, 0, &l->warm);
    return r;
}

/* --- steady load --- */

struct steady {
    const struct bench_model *model, *neighbour; /* neighbour: NULL, or who floods meanwhile */
    uint32_t connections;
    const char *doing;
};

static int steady_run(struct bench *b, const struct steady *s, struct bench_series *ret_series, double *ret_rate,
                      double *ret_flood_rate, struct error *err)
{
    _buf_ struct buf request, flood;
    buf_init(&request, 4 * KIB);
    buf_init(&flood, 4 * KIB);
    append_request(b, s->model, &request);
    if (s->neighbour)
        append_request(b, s->neighbour, &flood);
    struct wire_load_group groups[2] = {{.request = {request.data, request.size},
                                         .n_connections = s->connections,
                                         .samples_ns = b->samples,
                                         .samples_max = BENCH_SAMPLES_MAX},
                                        {.request = {flood.data, flood.size}, .n_connections = BENCH_FLOOD}};
    struct wire_load load = {.port = b->port,
                             .warm_ns = b->seconds * NS_PER_S / WARM_SHARE,
                             .run_ns = b->seconds * NS_PER_S,
                             .silence_ns_max = BENCH_SILENCE_NS,
                             .stop = &bench_stop,
                             .groups = groups,
                             .n_groups = s->neighbour ? 2 : 1};
    bench_progress(b, s->doing, 0);
    int r = wire_load_run(&load, err);
    if (r < 0)
        return r;
    if (groups[0].n_answers == 0)
        return error_set(err, ERROR_REFUSED, "no request was answered; the first failure had status %d",
                         groups[0].first_status);
    double seconds = (double)load.ns / (double)NS_PER_S;
    bench_series_of(b->samples, groups[0].n_samples, groups[0].n_failed, ret_series);
    if (ret_rate)
        *ret_rate = (double)groups[0].n_answers / seconds;
    if (ret_flood_rate)
        *ret_flood_rate = (double)groups[1].n_answers / seconds;
    bench_progress(b, s->doing, STEPS_LOAD);
    return 0;
}

/* --- memory --- */

static int memory_run(struct bench *b, struct bench_level *l, struct bench_model *model, struct error *err)
{
    pid_t pids[2] = {0};
    uint64_t one = 0, two[2] = {0}, n = 0;
    bench_progress(b, "idle memory", 0);
    int r = bench_replicas_wait(b, model, 1, pids, NULL, err);
    if (r < 0)
        return r;
    bool good = bench_memory(pids[0], &one, &l->n_processes);
    model->replicas_min = model->replicas_max = 2;
    r = bench_model_apply(b, model, err);
    if (r >= 0)
        r = bench_replicas_wait(b, model, 2, pids, NULL, err);
    if (r < 0)
        return r;
    good = good && bench_memory(pids[0], &two[0], &n) && bench_memory(pids[1], &two[1], &n);
    model->replicas_min = model->replicas_max = 1;
    r = bench_model_apply(b, model, err);
    l->memory = good;
    l->pss_bytes = one;
    /* what the pages that both share cost, the first no longer pays alone */
    l->further_bytes = two[0] + two[1] > one ? two[0] + two[1] - one : 0;
    return r;
}

/* --- a level --- */

/* Starts one, which stays, and takes its wall. */
static int one_start(struct bench *b, struct bench_level *l, struct bench_model *model, struct error *err)
{
    model->replicas_min = 1;
    model->idle_ms = 0;
    int r = bench_model_apply(b, model, err);
    return r < 0 ? r : bench_replicas_wait(b, model, 1, NULL, l->wall, err);
}

static int starts_run(struct bench *b, struct bench_level *l, struct bench_model *model, struct error *err)
{
    struct bench_bare bare = {.mounts = -1};
    int r = 0;
    if (l->level == LADDER_CONTAINER) {
        r = one_start(b, l, model, err);
        if (r >= 0)
            bench_bare_open(b, l, &bare);
    }
    if (r >= 0)
        r = cold_run(b, l, model, &bare, err);
    bench_bare_close(&bare);
    return r < 0 ? r : one_start(b, l, model, err);
}

static int empty_run(struct bench *b, struct bench_level *l, struct error *err)
{
    struct bench_model model = {.tenant = BENCH_VICTIM, .name = "empty", .level = l->level, .replicas_max = 1};
    struct bench_series unused;
    int r = starts_run(b, l, &model, err);
    if (r >= 0)
        r = memory_run(b, l, &model, err);
    if (r >= 0)
        r = bench_replicas_wait(b, &model, 1, NULL, NULL, err);
    if (r >= 0)
        r = warm_run(b, l, &model, err);
    if (r >= 0)
        r = steady_run(b, &(struct steady){&model, NULL, 1, "added latency"}, &l->added, NULL, NULL, err);
    if (r >= 0)
        r = steady_run(b, &(struct steady){&model, NULL, BENCH_CONNECTIONS, "throughput, empty model"}, &unused,
                       &l->throughput_empty, NULL, err);
    return r;
}

/* The victim on cores of its own; everything else of the server on what is left. A host that cannot do that says why.
 */
static int apart_run(struct bench *b, struct bench_level *l, struct bench_model *victim, struct bench_model *neighbour,
                     struct error *err)
{
    struct error why = {0};
    neighbour->replicas_min = neighbour->replicas_max = 1;
    victim->dedicated = true;
    int r = bench_model_apply(b, neighbour, err);
    if (r >= 0)
        r = bench_replicas_wait(b, neighbour, 1, NULL, NULL, err);
    if (r < 0)
        return r;
    r = bench_model_apply(b, victim, &why);
    if (r < 0) {
        (void)snprintf(l->apart_text, sizeof l->apart_text, "%s", error_text(&why, r)); /* same size */
        return 0;
    }
    r = bench_replicas_wait(b, victim, 1, NULL, NULL, err);
    if (r >= 0)
        r = steady_run(b, &(struct steady){victim, NULL, 1, "alone, on a core of its own"}, &l->apart_alone, NULL, NULL,
                       err);
    if (r >= 0)
        r = steady_run(b, &(struct steady){victim, neighbour, 1, "on a core of its own, neighbour flooding"},
                       &l->apart_flooded, NULL, NULL, err);
    return r;
}

static int bound_run(struct bench *b, struct bench_level *l, struct error *err)
{
    struct bench_model victim = {
        .tenant = BENCH_VICTIM, .name = "bound", .busy = true, .level = l->level, .replicas_min = 1, .replicas_max = 1};
    struct bench_model neighbour = victim;
    neighbour.tenant = BENCH_NEIGHBOUR;
    neighbour.name = "flood";
    int r = bench_model_apply(b, &victim, err);
    if (r >= 0)
        r = bench_replicas_wait(b, &victim, 1, NULL, NULL, err);
    if (r >= 0)
        r = steady_run(b, &(struct steady){&victim, NULL, BENCH_CONNECTIONS, "throughput"}, &l->bound, &l->throughput,
                       NULL, err);
    if (r >= 0)
        r = bench_model_apply(b, &neighbour, err);
    if (r >= 0)
        r = bench_replicas_wait(b, &neighbour, 1, NULL, NULL, err);
    if (r >= 0)
        r = steady_run(b, &(struct steady){&victim, NULL, 1, "alone"}, &l->alone, NULL, NULL, err);
    if (r >= 0)
        r = steady_run(b, &(struct steady){&victim, &neighbour, 1, "beside a flooding neighbour"}, &l->flooded, NULL,
                       &l->flood_rate, err);
    neighbour.replicas_min = neighbour.replicas_max = b->slots < 1                          ? 1
                                                      : b->slots > LIMIT_REPLICAS_PER_MODEL ? LIMIT_REPLICAS_PER_MODEL
                                                                                            : b->slots;
    if (r >= 0)
        r = bench_model_apply(b, &neighbour, err);
    if (r >= 0)
        r = bench_replicas_wait(b, &neighbour, neighbour.replicas_max, NULL, NULL, err);
    if (r >= 0)
        r = steady_run(b, &(struct steady){&victim, &neighbour, 1, "beside one that fills every slot"}, &l->crowded,
                       NULL, &l->crowd_rate, err);
    if (r >= 0 && l->level == LADDER_SHARED)
        (void)snprintf(l->apart_text, sizeof l->apart_text, "replicas of level shared have no cores of their own");
    else if (r >= 0)
        r = apart_run(b, l, &victim, &neighbour, err);
    return r;
}

/* What is left of a level must not run beside the next one. */
static int level_end(struct bench *b, enum ladder_level level, struct error *err)
{
    static const struct bench_model models[] = {{.tenant = BENCH_VICTIM, .name = "empty"},
                                                {.tenant = BENCH_VICTIM, .name = "bound"},
                                                {.tenant = BENCH_NEIGHBOUR, .name = "flood"}};
    int r = 0;
    for (size_t i = 0; r >= 0 && i < sizeof models / sizeof models[0]; i++) {
        struct bench_model model = models[i];
        model.level = level;
        r = bench_model_delete(b, model.tenant, model.name, err);
        if (r >= 0)
            r = bench_replicas_wait(b, &model, 0, NULL, NULL, err);
    }
    return r;
}

int bench_level_run(struct bench *b, struct bench_level *level)
{
    struct error err = {0}, end = {0};
    uint32_t before = b->steps_done;
    b->doing_level = ladder_level_names[level->level];
    int r = empty_run(b, level, &err);
    if (r >= 0)
        r = bench_model_delete(b, BENCH_VICTIM, "empty", &err);
    if (r >= 0)
        r = bound_run(b, level, &err);
    if (bench_stop)
        return -ERROR_CANCELLED;
    int ended = level_end(b, level->level, &end);
    if (r < 0 || ended < 0) /* cut is fine: for people */
        (void)snprintf(level->error, sizeof level->error, "%s", r < 0 ? error_text(&err, r) : error_text(&end, ended));
    b->steps_done = before + bench_level_steps(b);
    return bench_stop ? -ERROR_CANCELLED : 0;
}
