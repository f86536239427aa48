#include "guest/guest.h"

#include "base/log.h"
#include "bus/bus.h"
#include "bus/port.h"
#include "guest/guest_internal.h"
#include "isolate/isolate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#ifdef BULKHEAD_WORKER_SANITIZED
static const bool worker_sanitized = true; /* it cannot run without /proc */
#else
static const bool worker_sanitized = false;
#endif
#define WORKER_NAME "worker"
#define WORKER_UID  1000u /* the only user of the machine beside root */

struct guest {
    const struct isolate_ops *wall;
    int control, channel; /* the ports */
    int bus;              /* to the worker */
    struct isolate_instance *worker;
    int worker_pidfd;
};

static _Noreturn void fail(enum isolate_guest_end how, const struct error *err, int code)
{
    log_error("guest", "%s", error_text(err, code)); /* seen only where the machine has a console */
    guest_end(how);
}

static void limit_read(const char *folder, const char *file, char text[static 48])
{
    char path[256];
    (void)snprintf(path, sizeof path, "/sys/fs/cgroup/%s/%s", folder, file); /* fits */
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, 47);
    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

/* For whoever debugs: only where the machine has a console is this seen. The limits are read back from the kernel. */
static void wall_tell(const struct guest *g)
{
    struct isolate_report report;
    static const char *const files[] = {"memory.max", "memory.swap.max", "cpu.max",
                                        "cpu.weight", "pids.max",        "io.weight"};
    char limits[6 * 72], value[48];
    size_t used = 0;
    const char *folder =
        g->wall->level == ISOLATE_CONTAINER ? "bulkhead.guest-oci/" WORKER_NAME : "bulkhead.guest/" WORKER_NAME;
    g->wall->explain(g->worker, &report);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        limit_read(folder, files[i], value); /* "": this kernel has no such limit */
        used += (size_t)snprintf(limits + used, sizeof limits - used, " %s=%s", files[i], value); /* fits */
    }
    log_info("guest_wall", "%s;%s", report.text, limits);
}

/* The worker and its wall, as the supervisor would start it. */
static int worker_start(struct guest *g, const struct bus_guest_config *config, int library_fd, int bus_fd,
                        struct error *err)
{
    static const char *const argv[] = {"bulkhead-worker", NULL};
    _close_ int program = open(ISOLATE_GUEST_WORKER, O_RDONLY | O_CLOEXEC);
    if (program < 0)
        return error_set(err, ERROR_IO, "there is no worker: %m");
    const struct isolate_spawn spawn = {
        .name = WORKER_NAME,
        .program_fd = program,
        .argv = argv,
        .fds = &bus_fd,
        .n_fds = 1,
        .library_fd = library_fd,
        .proc = worker_sanitized,
        .stderr_fd = STDERR_FILENO,
        .filter = true,
        .uid = WORKER_UID,
        .gid = WORKER_UID,
        .limits = {.memory_bytes = config->memory_bytes,
                   .cpu_milli = config->cpu_milli,
                   .pids = config->pids,
                   .file_bytes = LIMIT_REPLICA_TMP_BYTES, /* crun keeps a filter in a file under this limit */
                   .fds = config->fds},
        .limits_required = true,
    };
    int r = g->wall->setup("guest", err);
    if (r == 0)
        r = g->wall->spawn(&spawn, &g->worker, &g->worker_pidfd, err);
    if (r == 0)
        wall_tell(g);
    return r;
}

static int worker_configure(struct guest *g, const struct bus_guest_config *config, int model_fd)
{
    int fds[2] = {model_fd, model_fd}; /* the library is in the worker's root */
    return bus_send(g->bus, BUS_SUPERVISOR, BUS_WORKER, BUS_WORKER_CONFIG, &config->worker, fds, 2);
}

static void on_config(struct guest *g, const struct bus_guest_config *config)
{
    struct error err = {0};
    int pair[2];
    _close_ int model = -1;
    int r = guest_model_load(config->worker.model_bytes, config->model_sha256, &model, &err);
    if (r < 0)
        fail(ISOLATE_GUEST_BAD_MODEL, &err, r);
    _close_ int library =
        config->worker.library == BUS_LIBRARY_NONE ? -1 : open(ISOLATE_GUEST_LIBRARY, O_RDONLY | O_CLOEXEC);
    r = bus_pair(pair, &err);
    if (r < 0)
        fail(ISOLATE_GUEST_BROKEN, &err, r);
    _close_ int theirs = pair[1];
    g->bus = pair[0];
    r = worker_start(g, config, library, theirs, &err);
    if (r == 0)
        r = worker_configure(g, config, model);
    if (r < 0)
        fail(ISOLATE_GUEST_NO_WALL, &err, r);
}

static void on_control(struct guest *g)
{
    struct bus_message m;
    int r = bus_port_recv(g->control, &m);
    if (r > 0 && m.type == BUS_GUEST_CONFIG && !g->worker)
        on_config(g, &m.body.GUEST_CONFIG);
    else if (r > 0 && m.type == BUS_GUEST_CHANNEL && g->worker)
        r = bus_send(g->bus, BUS_SUPERVISOR, BUS_WORKER, BUS_CHANNEL_STREAM_GUEST, &m.body, &g->channel, 1);
    else
        r = -ERROR_PEER;
    if (r < 0 && r != -ERROR_GONE) /* a worker that is gone is seen by its pidfd */
        guest_end(ISOLATE_GUEST_BROKEN);
}

static _Noreturn void on_worker_end(struct guest *g)
{
    struct isolate_usage usage = {0};
    int status = 0;
    (void)g->wall->usage(g->worker, &usage, NULL); /* without it, it was no lack of memory */
    /* Nothing is tidied up: all that there is ends with the machine, and a runtime would take its time. */
    while (g->wall->reap(g->worker, &status) == -ERROR_AGAIN)
        (void)poll(NULL, 0, 1);
    if (usage.oom_kills > 0)
        guest_end(ISOLATE_GUEST_OUT_OF_MEMORY);
    guest_end(WIFSIGNALED(status) ? ISOLATE_GUEST_KILLED : ISOLATE_GUEST_ENDED);
}

_Noreturn void guest_run(const struct isolate_ops *wall)
{
    struct guest g = {.wall = wall, .control = -1, .channel = -1, .bus = -1, .worker_pidfd = -1};
    struct error err = {0};
    int r = guest_boot(&err);
    if (r == 0)
        r = guest_port_open(ISOLATE_GUEST_PORT_CONTROL, O_RDONLY, &g.control, &err);
    if (r == 0)
        r = guest_port_open(ISOLATE_GUEST_PORT_CHANNEL, O_RDWR | O_NONBLOCK, &g.channel, &err);
    if (r < 0)
        fail(ISOLATE_GUEST_BROKEN, &err, r);
    if (guest_option(ISOLATE_GUEST_PROBE_OPTION))
        guest_end(ISOLATE_GUEST_PROBED);
    for (;;) {
        struct pollfd waits[2] = {{.fd = g.control, .events = POLLIN}, {.fd = g.worker_pidfd, .events = POLLIN}};
        if (poll(waits, 2, -1) < 0 && errno != EINTR)
            guest_end(ISOLATE_GUEST_BROKEN);
        if (waits[1].revents)
            on_worker_end(&g);
        if (waits[0].revents & POLLIN)
            on_control(&g);
        else if (waits[0].revents)
            guest_end(ISOLATE_GUEST_ENDED);                 /* nobody is at the other end any more */
        while (!g.worker && waitpid(-1, NULL, WNOHANG) > 0) /* the worker's end is for its wall to take */
            ;
    }
}
