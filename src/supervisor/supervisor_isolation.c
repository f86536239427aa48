/* Which levels of isolation this host provides: one row per level, filled by probes, told to control, kept true. */
#include "supervisor/supervisor_internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PROBE_PAUSE_NS (10 * NS_PER_S) /* no second look at a level within this time */

_Static_assert(BUS_LEVEL_COUNT == ISOLATE_LEVEL_COUNT, "the bus counts the same levels");
_Static_assert(BUS_RUNTIME_COUNT == ISOLATE_RUNTIME_COUNT, "the bus counts the same runtimes");
_Static_assert(sizeof(struct isolate_report) <= 4096, "a report is one write into a pipe");

/* `process` first: other back-ends may stand on what it has set up. Closed the other way round. */
static const enum isolate_level order[] = {ISOLATE_PROCESS, ISOLATE_POOL, ISOLATE_SHARED, ISOLATE_CONTAINER,
                                           ISOLATE_MICROVM};
#define N_LEVELS (sizeof order / sizeof order[0])

static void level_body(const struct supervisor_level *l, struct bus_isolation *ret_body)
{
    const struct isolate_report *report = &l->report;
    *ret_body = (struct bus_isolation){
        .level = l->level, .state = l->state, .limits = report->limits, .degraded = report->degraded};
    bool refused = l->state == BUS_ISOLATION_UNAVAILABLE && report->available;
    char workers[64] = "";
    if (l->level == ISOLATE_POOL && l->state == BUS_ISOLATION_AVAILABLE)
        supervisor_pools_text(l->supervisor, workers, sizeof workers);
    if (l->level == ISOLATE_SHARED && l->state == BUS_ISOLATION_AVAILABLE)
        supervisor_shared_text(l->supervisor, workers, sizeof workers);
    (void)snprintf(ret_body->text, sizeof ret_body->text, "%.380s%s%s%s", report->text, workers[0] ? "; " : "", workers,
                   refused ? " (serve --allow-unlimited runs models without limits)" : "");
}

/* While the level itself is being tested, so are its runtimes; a host without the level has none of them. */
static void runtime_body(const struct supervisor_level *l, enum isolate_runtime runtime, struct bus_runtime *ret_body)
{
    static const uint32_t states[] = {
        [ISOLATE_RUNTIME_UNTESTED] = BUS_ISOLATION_TESTING,
        [ISOLATE_RUNTIME_BROKEN] = BUS_ISOLATION_UNAVAILABLE,
        [ISOLATE_RUNTIME_WORKS] = BUS_ISOLATION_AVAILABLE,
    };
    const struct isolate_runtime_report *one = &l->report.runtimes[runtime];
    bool own = one->text[0] != '\0';
    *ret_body = (struct bus_runtime){.runtime = runtime, .state = own ? states[one->state] : l->state};
    (void)snprintf(ret_body->text, sizeof ret_body->text, "%.380s", own ? one->text : l->report.text);
    const struct isolate_ops *machines = isolate_find(ISOLATE_MICROVM);
    struct error why = {0};
    int r = machines && machines->runtime_look ? machines->runtime_look(runtime, &why)
                                               : error_set_default(&why, ERROR_ISOLATION_UNAVAILABLE);
    ret_body->guest = r == 0;
    (void)snprintf(ret_body->guest_text, sizeof ret_body->guest_text, "%s", why.text); /* same size */
}

static void runtimes_tell(struct supervisor *s)
{
    for (int runtime = ISOLATE_RUNTIME_ANY + 1; runtime < ISOLATE_RUNTIME_COUNT; runtime++) {
        struct bus_runtime body;
        runtime_body(&s->levels[ISOLATE_CONTAINER], (enum isolate_runtime)runtime, &body);
        supervisor_tell(s, CHILD_CONTROL, BUS_RUNTIME, &body, NULL, 0);
    }
}

void supervisor_isolation_tell_level(struct supervisor *s, enum isolate_level level)
{
    struct bus_isolation body;
    level_body(&s->levels[level], &body);
    supervisor_tell(s, CHILD_CONTROL, BUS_ISOLATION, &body, NULL, 0);
}

int supervisor_isolation_tell(const struct supervisor *s, struct bus_conn *control)
{
    int r = 0;
    for (size_t i = 0; r >= 0 && i < N_LEVELS; i++) {
        struct bus_isolation body;
        level_body(&s->levels[order[i]], &body);
        r = bus_conn_send(control, BUS_ISOLATION, &body, NULL, 0);
    }
    for (int runtime = ISOLATE_RUNTIME_ANY + 1; r >= 0 && runtime < ISOLATE_RUNTIME_COUNT; runtime++) {
        struct bus_runtime body;
        runtime_body(&s->levels[ISOLATE_CONTAINER], (enum isolate_runtime)runtime, &body);
        r = bus_conn_send(control, BUS_RUNTIME, &body, NULL, 0);
    }
    return r;
}

int supervisor_isolation_check(const struct supervisor *s, uint32_t level, struct error *err)
{
    if (level == ISOLATE_NONE || level >= ISOLATE_LEVEL_COUNT)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "this server has no such isolation level");
    const struct supervisor_level *l = &s->levels[level];
    if (l->state == BUS_ISOLATION_AVAILABLE)
        return 0;
    if (l->state == BUS_ISOLATION_TESTING)
        return error_set(err, ERROR_AGAIN, "level %s is still being tested; try again in a few seconds",
                         isolate_level_names[level]);
    return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "level %s is not available: %.400s", isolate_level_names[level],
                     l->report.text);
}

/* A probe has ended: what it says counts from now on. */
static void level_take(struct supervisor_level *l, const struct isolate_report *report)
{
    struct supervisor *s = l->supervisor;
    bool had = l->state == BUS_ISOLATION_AVAILABLE;
    l->report = *report;
    if (l->ops->probed && l->ops->level == l->level)
        l->ops->probed(&l->report);
    bool has = report->available && (report->limits || s->config->allow_unlimited);
    l->state = has ? BUS_ISOLATION_AVAILABLE : BUS_ISOLATION_UNAVAILABLE;
    const char *name = isolate_level_names[l->level];
    if (had && !has)
        log_alert("isolation_lost", "level %s is no longer available: %s; its replicas are stopped", name,
                  report->text);
    else if (has)
        log_info("isolation", "level %s is available%s: %s", name, report->degraded ? ", degraded" : "", report->text);
    else
        log_info("isolation", "level %s is not available: %s", name, report->text);
    supervisor_isolation_tell_level(s, l->level);                     /* before it learns of the replicas' ends */
    if (l->level == ISOLATE_CONTAINER || l->level == ISOLATE_MICROVM) /* which runs them in its guests */
        runtimes_tell(s);
    if (l->level == ISOLATE_PROCESS)
        supervisor_cores_probed(s);
    if (had && !has)
        supervisor_replicas_level_lost(s, l->level);
    if (l->level == ISOLATE_POOL)
        supervisor_pools_step(s);
    for (size_t i = 0; i < N_LEVELS; i++) { /* those that stand on the same walls */
        struct supervisor_level *other = &s->levels[order[i]];
        if (other != l && other->ops == l->ops && l->ops->level == l->level)
            level_take(other, report);
    }
}

/* --- a probe in a process of its own --- */

/* Signals are blocked: a handler of the loop would write into the parent's own pipe. */
static _Noreturn void prober_main(const struct supervisor_level *l, pid_t parent, int fd)
{
    const struct supervisor *s = l->supervisor;
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    const struct sigaction usual = {.sa_handler = SIG_DFL};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        (void)sigaction(numbers[i], &usual, NULL); /* fails only for a signal that there is not */
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setsid(); /* a terminal's signals are the supervisor's alone */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
        _exit(1);
    /* A probe that outlives the server by a moment must not keep its addresses and its lock. */
    const int others[] = {s->listen_fd, s->admin_fd, s->metrics_fd, s->lock};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (others[i] >= 0)
            (void)close(others[i]);
    struct isolate_report report = {0};
    l->ops->probe(&report);
    ssize_t written = write(fd, &report, sizeof report);
    _exit(written == (ssize_t)sizeof report ? 0 : 1);
}

static void prober_forget(struct supervisor_level *l)
{
    supervisor_unwatch(&l->prober_watch);
    (void)uv_timer_stop(&l->overdue);
    fd_close(&l->prober_pidfd);
    fd_close(&l->prober_fd);
    l->prober = 0;
}

static void on_prober_exit(uv_poll_t *poll, int poll_status, int events)
{
    (void)poll_status;
    (void)events;
    struct supervisor_level *l = poll->data;
    int status = 0;
    if (waitpid(l->prober, &status, WNOHANG) == 0)
        return;
    struct isolate_report report = {0};
    ssize_t got = read(l->prober_fd, &report, sizeof report);
    if (got != (ssize_t)sizeof report) {
        report = (struct isolate_report){0};
        (void)snprintf(report.text, sizeof report.text, "its test ended without a result (%s %d)", /* fits */
                       WIFSIGNALED(status) ? "signal" : "status",
                       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    report.text[sizeof report.text - 1] = '\0';
    prober_forget(l);
    if (!l->supervisor->draining)
        level_take(l, &report);
}

static void on_prober_overdue(uv_timer_t *timer)
{
    struct supervisor_level *l = timer->data;
    log_error("isolation_probe", "the test of level %s did not end within %d s; it is ended",
              isolate_level_names[l->level], ISOLATE_PROBE_MS / 1000);
    if (l->prober > 0)
        (void)kill(l->prober, SIGKILL); /* our own child, not yet reaped */
}

static int prober_start(struct supervisor_level *l, struct error *err)
{
    int pair[2];
    if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) < 0)
        return error_set(err, ERROR_IO, "no pipe: %s", strerror(errno));
    _close_ int ours = pair[0], theirs = pair[1];
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &before);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        prober_main(l, parent, theirs);
    int fork_errno = errno;
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        return error_set(err, ERROR_IO, "no process: %s", strerror(fork_errno));
    l->prober = pid;
    l->probed_ns = clock_monotonic_ns();
    l->prober_fd = take_fd(&ours);
    l->prober_pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int r = l->prober_pidfd < 0 ? -ERROR_IO
                                : supervisor_watch(l->supervisor, l->prober_pidfd, on_prober_exit, l, &l->prober_watch);
    if (r < 0) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        prober_forget(l);
        return error_set(err, r, "its process cannot be watched");
    }
    (void)uv_timer_start(&l->overdue, on_prober_overdue, ISOLATE_PROBE_MS, 0); /* fails only on a closing handle */
    return 0;
}

void supervisor_isolation_probe(struct supervisor *s, enum isolate_level level)
{
    struct supervisor_level *l = &s->levels[level];
    if (l->ops && l->ops->level != level) /* its walls are another level's */
        l = &s->levels[l->ops->level];
    struct error err = {0};
    if (!l->open || l->prober > 0 || s->draining ||
        (l->probed_ns > 0 && clock_monotonic_ns() - l->probed_ns < PROBE_PAUSE_NS))
        return;
    int r = prober_start(l, &err);
    if (r < 0) /* nothing was learnt, so nothing changes */
        log_error("isolation_probe", "level %s cannot be tested: %s", isolate_level_names[l->level],
                  error_text(&err, r));
}

/* Of a level whose test waits until somebody asks: whether it could be made. */
static void level_look(struct supervisor_level *l)
{
    struct error why = {0};
    int r = l->ops->look(&why);
    l->report = (struct isolate_report){0};
    l->state = r < 0 ? BUS_ISOLATION_UNAVAILABLE : BUS_ISOLATION_TESTING;
    (void)snprintf(l->report.text, sizeof l->report.text, "%s", /* same size */
                   r < 0 ? error_text(&why, r) : "not tested yet: that begins when a model first asks for it");
}

void supervisor_isolation_probe_all(struct supervisor *s)
{
    for (size_t i = 0; i < N_LEVELS; i++) {
        struct supervisor_level *l = &s->levels[order[i]];
        l->probed_ns = 0; /* somebody asks for it */
        if (!l->open || !l->ops->look || l->prober > 0 || l->state == BUS_ISOLATION_AVAILABLE) {
            supervisor_isolation_probe(s, order[i]);
            continue;
        }
        struct bus_isolation body;
        level_look(l);
        level_body(l, &body);
        supervisor_tell(s, CHILD_CONTROL, BUS_ISOLATION, &body, NULL, 0);
    }
    runtimes_tell(s); /* what can run in guests is looked at here; where they run on this host, their probe tells */
}

/* Not tested yet, and never: what was tested is tested again only when there is a reason. */
static void runtime_wanted(struct supervisor_level *l, enum isolate_runtime runtime)
{
    if (!l->open || !l->ops->want || l->report.runtimes[runtime].state != ISOLATE_RUNTIME_UNTESTED ||
        !l->report.runtimes[runtime].text[0])
        return;
    l->ops->want(runtime);
    l->probed_ns = 0; /* somebody asks for it */
    supervisor_isolation_probe(l->supervisor, l->level);
}

void supervisor_isolation_wanted(struct supervisor *s, const struct bus_isolation_wanted *wanted)
{
    uint32_t level = wanted->level;
    if (level > ISOLATE_NONE && level < ISOLATE_LEVEL_COUNT && s->levels[level].state == BUS_ISOLATION_TESTING)
        supervisor_isolation_probe(s, (enum isolate_level)level);
    else if (level == ISOLATE_CONTAINER && wanted->runtime > ISOLATE_RUNTIME_ANY &&
             wanted->runtime < ISOLATE_RUNTIME_COUNT)
        runtime_wanted(&s->levels[level], (enum isolate_runtime)wanted->runtime);
}

/* --- start and end --- */

static int level_open(struct supervisor_level *l, const char *scope, struct error *err)
{
    struct error why = {0};
    if (l->ops && l->ops->level != l->level)
        return 0; /* a policy over another level's walls: known with them */
    l->state = BUS_ISOLATION_UNAVAILABLE;
    if (!l->ops) {
        (void)snprintf(l->report.text, sizeof l->report.text, "not in this build of the server"); /* fits */
        return 0;
    }
    int r = l->ops->setup(scope, &why);
    if (r < 0 && l->level == ISOLATE_PROCESS)
        return error_set(err, r, "%s", why.text);
    l->open = r >= 0;
    if (l->open && l->ops->look) {
        level_look(l);
        return 0;
    }
    if (l->open && l->ops->probe_slow) {
        l->state = BUS_ISOLATION_TESTING;
        (void)snprintf(l->report.text, sizeof l->report.text, "still being tested"); /* fits */
        r = prober_start(l, &why);
        if (r >= 0)
            return 0;
    } else if (l->open) {
        struct isolate_report report = {0};
        l->ops->probe(&report);
        level_take(l, &report);
        return 0;
    }
    l->state = BUS_ISOLATION_UNAVAILABLE;
    (void)snprintf(l->report.text, sizeof l->report.text, "%s", error_text(&why, r));
    return 0;
}

/* What fails here is no reason to stay away: other engines work, and a start of this one will say the same. */
static void engines_prepare(const struct supervisor_level *l)
{
    const struct supervisor_config *config = l->supervisor->config;
    for (uint32_t i = 0; l->open && l->report.available && l->ops->prepare && i < config->n_engines; i++) {
        struct error err = {0};
        int r = l->ops->prepare(config->worker_fd, config->engines[i].library_fd, &err);
        if (r < 0)
            log_warn("engine_unusable", "engine=%s level=%s: %s", config->engines[i].name,
                     isolate_level_names[l->level], error_text(&err, r));
    }
}

int supervisor_isolation_open(struct supervisor *s, const char *scope, struct error *err)
{
    for (size_t i = 0; i < N_LEVELS; i++) {
        struct supervisor_level *l = &s->levels[order[i]];
        *l = (struct supervisor_level){
            .supervisor = s, .level = order[i], .ops = isolate_find(order[i]), .prober_pidfd = -1, .prober_fd = -1};
        (void)uv_timer_init(s->loop, &l->overdue); /* always succeeds */
        l->overdue.data = l;
    }
    for (size_t i = 0; i < N_LEVELS; i++) {
        int r = level_open(&s->levels[order[i]], scope, err);
        if (r < 0)
            return r;
        engines_prepare(&s->levels[order[i]]);
    }
    const struct isolate_report *report = &s->levels[ISOLATE_PROCESS].report;
    if (!report->available)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "workers cannot be isolated on this host: %s", report->text);
    if (!report->limits && !s->config->allow_unlimited)
        log_warn("no_limits", "%s; models will be refused (serve --allow-unlimited runs them without limits)",
                 report->text);
    return 0;
}

void supervisor_isolation_close(struct supervisor *s)
{
    for (size_t i = N_LEVELS; i-- > 0;) {
        struct supervisor_level *l = &s->levels[order[i]];
        if (l->prober > 0) {
            (void)kill(l->prober, SIGKILL); /* our own child, not yet reaped */
            (void)waitpid(l->prober, NULL, 0);
            prober_forget(l);
        }
        if (l->open)
            l->ops->teardown();
        l->open = false;
    }
}
