/* Ingests: a one-shot process per model that control wants described, behind the wall that a worker has. What it
 * answers is handed on unread; when it does not answer, control is told why in words. Control hears of an ingest once
 * its process is gone. */
#include "supervisor/supervisor_internal.h"

#include "base/hash.h"
#include "base/log.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

/*   RUNNING ──answered, told to stop, out of time──► DYING ──pidfd──► (freed)   */
enum ingest_state { INGEST_RUNNING = 1, INGEST_DYING };

struct supervisor_ingest {
    struct supervisor *supervisor;
    struct bus_ingest_start start;
    enum ingest_state state;
    struct supervisor_worker *worker; /* NULL before it is started and when it could not be */
    uv_timer_t timer;                 /* its close callback frees the whole */
    bool late, told;
    uint64_t signature_bytes; /* as it says */
    int signature_fd;         /* -1: none came */
    struct error error;       /* code 0: it said no reason */
};

uint64_t supervisor_engine_id(const struct supervisor *s, uint32_t index)
{
    const int fds[2] = {s->config->worker_fd, s->config->engines[index].library_fd};
    uint64_t parts[2][5] = {0};
    for (int i = 0; i < 2; i++) {
        struct stat info;
        if (fds[i] < 0 || fstat(fds[i], &info) < 0)
            continue; /* built in; an open descriptor can always be looked at */
        parts[i][0] = (uint64_t)info.st_dev;
        parts[i][1] = (uint64_t)info.st_ino;
        parts[i][2] = (uint64_t)info.st_size;
        parts[i][3] = (uint64_t)info.st_mtim.tv_sec;
        parts[i][4] = (uint64_t)info.st_mtim.tv_nsec;
    }
    return hash_bytes((struct hash_seed){0, 0}, parts, sizeof parts) & INT64_MAX; /* a column of the store */
}

static void tell_failed(struct supervisor *s, uint64_t id, const struct error *err)
{
    struct bus_ingest_failed body = {.id = id, .error = *err};
    supervisor_tell(s, CHILD_CONTROL, BUS_INGEST_FAILED, &body, NULL, 0);
}

static void ingest_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void ingest_free(struct supervisor_ingest *g)
{
    struct supervisor *s = g->supervisor;
    supervisor_worker_free(g->worker);
    fd_close(&g->signature_fd);
    (void)map_remove(&s->ingests, g->start.id);
    uv_close((uv_handle_t *)&g->timer, ingest_closed);
}

static void ingest_kill(struct supervisor_ingest *g)
{
    if (g->state == INGEST_DYING)
        return;
    g->state = INGEST_DYING;
    (void)uv_timer_stop(&g->timer); /* always succeeds */
    supervisor_worker_kill(g->worker);
}

/* Why there is no answer, for the person who applied the model. */
static void end_error(const struct supervisor_ingest *g, int status, uint64_t oom_kills, struct error *err)
{
    if (g->supervisor->draining)
        (void)error_set_default(err, ERROR_DRAINING);
    else if (g->late)
        (void)error_set(err, ERROR_REFUSED, "opening it took longer than %u s", LIMIT_INGEST_MS / 1000);
    else if (oom_kills > 0 && g->start.image)
        (void)error_set(err, ERROR_REFUSED, "unpacking it needs more memory than the %llu MiB that there are for it",
                        (unsigned long long)(g->start.memory_bytes / MIB));
    else if (oom_kills > 0)
        (void)error_set(err, ERROR_REFUSED,
                        "opening it needs more memory than its spec.resources.memory of %llu MiB; raise that",
                        (unsigned long long)(g->start.memory_bytes / MIB));
    else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
        (void)error_set(err, ERROR_REFUSED, "the %s crashed on it (signal %d, %s)",
                        g->start.image ? "unpacker" : "engine", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        (void)error_set(err, ERROR_REFUSED, "the %s ended without an answer about it",
                        g->start.image ? "unpacker" : "engine");
}

static void on_ingest_ended(void *owner, int status, uint64_t oom_kills)
{
    struct supervisor_ingest *g = owner;
    struct supervisor *s = g->supervisor;
    struct bus_ingest_done body = {.id = g->start.id, .bytes = g->signature_bytes};
    if (g->signature_fd < 0 && g->error.code == 0)
        end_error(g, status, oom_kills, &g->error);
    log_debug("ingest_ended", "tenant=%s model=%s: %s", g->start.tenant, g->start.model,
              g->signature_fd >= 0 ? "described" : "refused");
    if (g->signature_fd >= 0)
        supervisor_tell(s, CHILD_CONTROL, BUS_INGEST_DONE, &body, &g->signature_fd, 1);
    else if (!g->told)
        tell_failed(s, g->start.id, &g->error);
    ingest_free(g);
    supervisor_drain_step(s);
}

/* The matrix lets it say these two things only, and the first one ends it. */
static void on_ingest_message(void *owner, struct bus_message *m)
{
    struct supervisor_ingest *g = owner;
    if (m->type == BUS_DESCRIBED) {
        g->signature_bytes = m->body.DESCRIBED.bytes;
        g->signature_fd = take_fd(&m->fds[0]);
    } else {
        g->error = m->body.DESCRIBE_FAILED.error;
    }
    ingest_kill(g);
}

/* It ends, or it broke the protocol. One that crashes keeps its own signal as its end. */
static void on_ingest_gone(void *owner)
{
    ingest_kill(owner);
}

static void on_ingest_late(uv_timer_t *timer)
{
    struct supervisor_ingest *g = timer->data;
    g->late = true;
    ingest_kill(g);
}

static int ingest_configure(struct supervisor_ingest *g, int model_fd, int adapter_fd, int library_fd)
{
    struct bus_worker_config body = {
        .replica_uid = g->start.id,
        .model_bytes = g->start.model_bytes,
        .adapter_bytes = g->start.adapter_bytes,
        .memory_bytes = g->start.memory_bytes,
        .threads = (g->start.cpu_milli + 999) / 1000,
        .repack = g->start.repack,
        .library = supervisor_library_where(g->worker->ops, library_fd),
    };
    memcpy(body.engine, g->start.engine, sizeof body.engine);
    int fds[3] = {model_fd, body.library == BUS_LIBRARY_FD ? library_fd : model_fd, adapter_fd};
    return bus_conn_send(g->worker->bus, BUS_INGEST_CONFIG, &body, fds, 3);
}

static int ingest_launch(struct supervisor_ingest *g, int model_fd, int adapter_fd, struct error *err)
{
    static const struct supervisor_worker_events events = {
        .message = on_ingest_message, .gone = on_ingest_gone, .ended = on_ingest_ended};
    struct supervisor *s = g->supervisor;
    int library_fd = -1;
    int r = g->start.image ? 0 : supervisor_library_of(s, g->start.engine, &library_fd);
    if (r < 0)
        return error_set(err, r, "this server has no engine \"%s\"", g->start.engine);
    if (g->start.image && s->config->image_fd < 0)
        return error_set(err, ERROR_UNSUPPORTED,
                         "the program bulkhead-image is not beside bulkhead; build it with `make build`");
    char name[64];
    (void)snprintf(name, sizeof name, "ingest-%016llx", (unsigned long long)g->start.id); /* fits */
    struct supervisor_worker_spec spec = {.name = name,
                                          .level = ISOLATE_PROCESS,
                                          .library_fd = library_fd,
                                          .limits = supervisor_worker_limits(g->start.memory_bytes, g->start.cpu_milli),
                                          .ingest = true,
                                          .unpack = g->start.image != 0};
    spec.limits.file_bytes = g->start.image ? LIMIT_IMAGE_RESULT_BYTES
                                            : LIMIT_SIGNATURE_BYTES; /* its answer; there is no file it could reach */
    r = supervisor_worker_start(s, &spec, &events, g, &g->worker, err);
    if (r == -ERROR_LIMIT)
        return error_set(err, ERROR_OVERLOADED, "all uids are in use; raise spec.uids.count of the Server");
    if (r < 0)
        return r;
    r = ingest_configure(g, model_fd, adapter_fd, library_fd);
    return r < 0 ? error_set(err, r, "a process that opens models does not take its configuration") : 0;
}

static int start_valid(const struct supervisor *s, const struct bus_ingest_start *start, struct error *err)
{
    if (s->draining)
        return error_set_default(err, ERROR_DRAINING);
    if (s->ingests.count >= LIMIT_INGESTS || map_get(&s->ingests, start->id))
        return error_set(err, ERROR_OVERLOADED, "%u models are being opened already; try again later", LIMIT_INGESTS);
    if (start->cpu_milli == 0 || start->memory_bytes == 0 || start->cpu_milli / 1000 > s->config->devices[0].slots)
        return error_set(err, ERROR_INVALID_ARGUMENT, "the limits of the model are out of range");
    return 0;
}

void supervisor_ingest_start(struct supervisor *s, const struct bus_ingest_start *start, int model_fd, int adapter_fd)
{
    struct error err = {0};
    struct supervisor_ingest *g = NULL;
    int r = start_valid(s, start, &err);
    if (r >= 0) {
        g = calloc(1, sizeof *g);
        r = g ? map_put(&s->ingests, start->id, g) : -ERROR_NO_MEMORY;
        if (r < 0) {
            free(g);
            (void)error_set_default(&err, ERROR_NO_MEMORY);
        }
    }
    if (r < 0) {
        tell_failed(s, start->id, &err);
        return;
    }
    *g = (struct supervisor_ingest){.supervisor = s, .start = *start, .state = INGEST_RUNNING, .signature_fd = -1};
    (void)uv_timer_init(s->loop, &g->timer); /* always succeeds */
    g->timer.data = g;
    r = ingest_launch(g, model_fd, adapter_fd, &err);
    if (r >= 0) {
        (void)uv_timer_start(&g->timer, on_ingest_late, LIMIT_INGEST_MS, 0); /* fails only on a closing handle */
        return;
    }
    log_error("ingest_refused", "tenant=%s model=%s: %s", start->tenant, start->model, error_text(&err, r));
    tell_failed(s, start->id, &err);
    g->told = true;
    if (g->worker)
        ingest_kill(g); /* ends through its pidfd */
    else
        ingest_free(g);
}

void supervisor_ingest_stop(struct supervisor *s, uint64_t id)
{
    struct supervisor_ingest *g = map_get(&s->ingests, id);
    if (g)
        ingest_kill(g);
}

void supervisor_ingests_kill(struct supervisor *s)
{
    size_t cursor = 0;
    for (struct supervisor_ingest *g; (g = map_next(&s->ingests, &cursor));)
        ingest_kill(g);
}
