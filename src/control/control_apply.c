/* `apply` as control does it: the registry says what must be opened first, an ingest opens it, the registry is asked
 * again. Nothing is kept of the registry's state in between, and nothing is written before all is described. */
#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "control/control_internal.h"
#include "tensor/tensor.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/*   (asks the registry) ──wanted──► QUEUED ──► COPYING ──► OPENING ──described──────────────► (asks again)
 *          │ else                                │ fails     │  │ └────unpacked──► STORING ──►
 *          │                                     │           │ refused               │ fails
 *          └──────────────► done ◄───────────────┴───────────┴───────────────────────┘              */
struct control_apply {
    struct list node; /* in control.ingest_queue while QUEUED, else alone */
    struct control *control;
    struct str body;
    struct buf *results;
    control_applied_cb done;
    void *ctx;
    struct registry_ingest ingest;
    struct control_copy *copying;   /* NULL: none */
    int files[2];                   /* what the process gets: model (or image), adapter; -1: not copied (yet) */
    struct control_ingest *opening; /* NULL: none */
    struct control_store *storing;  /* the root of its image; NULL: none */
};

/* One process of the supervisor's. It stays in the map until the supervisor says that it is gone. */
struct control_ingest {
    struct control_apply *apply; /* NULL: nobody waits for it any more */
    uint64_t started_ns;
};

/* It is no longer among those whose model is copied; what was copied is let go. */
static void copying_end(struct control_apply *a)
{
    a->control->n_ingest_copies -= a->copying != NULL;
    control_copy_cancel(a->copying);
    a->copying = NULL;
    fd_close(&a->files[0]);
    fd_close(&a->files[1]);
}

static void apply_free(struct control_apply *a)
{
    list_remove(&a->node);
    copying_end(a);
    a->control->n_ingest_stores -= a->storing != NULL;
    control_store_cancel(a->storing);
    if (a->opening)
        a->opening->apply = NULL;
    registry_ingest_done(&a->ingest);
    free(a);
}

static void apply_finish(struct control_apply *a, int rc, const struct registry_change *change, const struct error *err)
{
    control_applied_cb done = a->done;
    void *ctx = a->ctx;
    if (rc < 0 && a->control->registry)
        registry_apply_drop(a->control->registry, a->body, &a->ingest);
    apply_free(a);
    done(ctx, rc, change, err);
}

static int ingest_start(struct control_apply *a, struct error *err)
{
    struct control *c = a->control;
    const struct registry_version *wanted = &a->ingest.wanted, *adapter = &a->ingest.wanted_adapter;
    struct bus_ingest_start body = {
        .id = random_u64() | 1, /* never 0 */
        .memory_bytes = wanted->memory_bytes,
        .model_bytes = wanted->artifact_bytes,
        .adapter_bytes = adapter->artifact_bytes,
        .cpu_milli = (uint32_t)wanted->cpu_milli,
        .image = a->ingest.wanted_image,
        .repack = wanted->repack,
    };
    memcpy(body.engine, wanted->engine, sizeof body.engine);
    memcpy(body.tenant, wanted->tenant, sizeof body.tenant);
    memcpy(body.model, wanted->model, sizeof body.model);
    struct control_ingest *ingest = calloc(1, sizeof *ingest);
    if (!ingest || map_put(&c->ingests, body.id, ingest) < 0) {
        free(ingest);
        return error_set_default(err, ERROR_NO_MEMORY);
    }
    *ingest = (struct control_ingest){a, clock_monotonic_ns()};
    a->opening = ingest;
    const int fds[2] = {a->files[0], a->files[1] >= 0 ? a->files[1] : a->files[0]};
    (void)bus_conn_send(c->supervisor, BUS_INGEST_START, &body, fds, 2); /* without it we end anyway */
    copying_end(a);
    return 0;
}

static void queue_run(struct control *c);
static void on_copied(void *ctx, int rc, int *fd, const struct error *err);

/* Of model and adapter what is not there yet: 1 when that is being copied, 0 when all is there. */
static int files_copy(struct control_apply *a, struct error *err)
{
    struct control *c = a->control;
    const struct registry_version *next = a->files[0] < 0 ? &a->ingest.wanted : &a->ingest.wanted_adapter;
    if (a->files[0] >= 0 && (next->artifact_bytes == 0 || a->files[1] >= 0))
        return 0;
    a->copying = control_copy_start(c, next, on_copied, a);
    if (!a->copying)
        return error_set_default(err, ERROR_NO_MEMORY);
    c->n_ingest_copies++;
    return 1;
}

static void apply_open(struct control_apply *a)
{
    struct error err = {0};
    int r = a->control->registry ? files_copy(a, &err) : error_set_default(&err, ERROR_DRAINING);
    if (r == 0)
        r = ingest_start(a, &err);
    if (r < 0)
        apply_finish(a, r, NULL, &err);
}

static void on_copied(void *ctx, int rc, int *fd, const struct error *err)
{
    struct control_apply *a = ctx;
    struct control *c = a->control;
    c->n_ingest_copies--;
    a->copying = NULL;
    if (rc >= 0) {
        a->files[a->files[0] >= 0] = take_fd(fd);
        apply_open(a);
    } else {
        apply_finish(a, rc, NULL, err);
    }
    queue_run(c);
}

/* Starts what has a place. */
static void queue_run(struct control *c)
{
    while (c->ingests.count + c->n_ingest_copies + c->n_ingest_stores < LIMIT_INGESTS &&
           !list_empty(&c->ingest_queue)) {
        struct control_apply *a = container_of(c->ingest_queue.next, struct control_apply, node);
        list_remove(&a->node);
        list_init(&a->node);
        apply_open(a);
    }
}

/* Asks the registry. */
static void apply_step(struct control_apply *a)
{
    struct control *c = a->control;
    struct registry_change change;
    struct error err = {0};
    int r = c->registry ? registry_apply(c->registry, a->body, &a->ingest, &change, a->results, &err)
                        : error_set_default(&err, ERROR_DRAINING);
    if (r > 0) {
        list_append(&c->ingest_queue, &a->node);
        queue_run(c);
        return;
    }
    apply_finish(a, r, &change, &err);
}

void control_apply(struct control *c, struct str body, struct buf *results, control_applied_cb done, void *ctx,
                   struct control_apply **ret_apply)
{
    struct control_apply *a = calloc(1, sizeof *a);
    if (!a) {
        struct error err;
        done(ctx, error_set_default(&err, ERROR_NO_MEMORY), NULL, &err);
        return;
    }
    a->control = c;
    a->files[0] = a->files[1] = -1;
    a->body = body;
    a->results = results;
    a->done = done;
    a->ctx = ctx;
    list_init(&a->node);
    registry_ingest_init(&a->ingest);
    *ret_apply = a;
    apply_step(a);
}

void control_apply_cancel(struct control_apply *a)
{
    struct control *c = a->control;
    size_t cursor = 0;
    for (struct control_ingest *i; a->opening && (i = map_next(&c->ingests, &cursor));)
        if (i == a->opening) { /* the cursor is behind its entry */
            struct bus_ingest body = {.id = c->ingests.entries[cursor - 1].id};
            (void)bus_conn_send(c->supervisor, BUS_INGEST_STOP, &body, NULL, 0); /* without it we end anyway */
            break;
        }
    if (c->registry)
        registry_apply_drop(c->registry, a->body, &a->ingest);
    apply_free(a);
    queue_run(c); /* its model may have been the one that was copied */
}

/* The apply that waited for it, or NULL; its place is free. */
static struct control_apply *ingest_take(struct control *c, uint64_t id)
{
    struct control_ingest *ingest = map_remove(&c->ingests, id);
    if (!ingest)
        return NULL; /* of an earlier control process */
    struct control_apply *a = ingest->apply;
    if (a) {
        a->opening = NULL;
        bool adapter = a->ingest.wanted_adapter.artifact_bytes > 0;
        log_info(adapter                  ? "adapter_opened"
                 : a->ingest.wanted_image ? "image_unpacked"
                                          : "model_opened",
                 "tenant=%s model=%s%s%s engine=%s ms=%llu",
                 adapter ? a->ingest.wanted_adapter.tenant : a->ingest.wanted.tenant, a->ingest.wanted.model,
                 adapter ? " adapter=" : "", a->ingest.wanted_adapter.model, a->ingest.wanted.engine,
                 (unsigned long long)((clock_monotonic_ns() - ingest->started_ns) / NS_PER_MS));
    }
    free(ingest);
    return a;
}

/* The words are those of a process that a tenant's file may have taken over. */
static void apply_refuse(struct control_apply *a, int code, const char *words)
{
    static const int kept[] = {ERROR_UNSUPPORTED, ERROR_OVERLOADED, ERROR_DRAINING, ERROR_NO_MEMORY};
    const struct registry_version *wanted = &a->ingest.wanted, *adapter = &a->ingest.wanted_adapter;
    struct error err = {0};
    char text[ERROR_TEXT_BYTES_MAX];
    (void)snprintf(text, sizeof text, "%s", words); /* same size */
    for (char *c = text; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    int use = ERROR_REFUSED;
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        if (code == -kept[i])
            use = kept[i];
    int r;
    if (adapter->artifact_bytes > 0)
        r = error_set(&err, use, "Adapter %s/%s: spec.source: engine %s cannot use it with Model %s/%s, version %u: %s",
                      adapter->tenant, adapter->model, wanted->engine, wanted->tenant, wanted->model, wanted->number,
                      text);
    else if (a->ingest.wanted_image)
        r = error_set(&err, use, "Model %s/%s: spec.isolation.image: it cannot be used: %s", wanted->tenant,
                      wanted->model, text);
    else
        r = error_set(&err, use, "Model %s/%s: spec.source: engine %s cannot open it: %s", wanted->tenant,
                      wanted->model, wanted->engine, text);
    log_info("model_refused", "%s", err.text);
    apply_finish(a, r, NULL, &err);
}

static int signature_take(struct control_apply *a, int fd, uint64_t bytes)
{
    const void *data = NULL;
    if (bytes == 0 || bytes > LIMIT_SIGNATURE_BYTES || bus_memfd_map(fd, bytes, &data) < 0)
        return -ERROR_PEER;
    /* Checked and kept is one copy: the memory is sealed, but so is nothing else about who made it. */
    char *copy = malloc(bytes);
    struct tensor_signature *signature = malloc(sizeof *signature);
    int r = copy && signature ? 0 : -ERROR_NO_MEMORY;
    if (r >= 0) {
        memcpy(copy, data, bytes);
        r = tensor_signature_decode(copy, bytes, signature, NULL);
    }
    if (r >= 0)
        r = registry_ingest_add(&a->ingest, (struct str){copy, bytes});
    (void)munmap((void *)(uintptr_t)data, bytes); /* our own mapping */
    free(signature);
    free(copy);
    return r;
}

static void on_stored(void *ctx, int rc, const struct error *err)
{
    struct control_apply *a = ctx;
    struct control *c = a->control;
    a->storing = NULL;
    c->n_ingest_stores--;
    if (rc >= 0)
        apply_step(a);
    else
        apply_refuse(a, rc, error_text(err, rc));
    queue_run(c);
}

static void image_take(struct control_apply *a, int fd, uint64_t bytes)
{
    struct control *c = a->control;
    struct error err = {0};
    int r = control_store_start(c, &a->ingest, fd, bytes, on_stored, a, &a->storing, &err);
    if (r >= 0)
        c->n_ingest_stores++;
    else
        apply_refuse(a, r, error_text(&err, r));
}

void control_ingest_done(struct control *c, const struct bus_ingest_done *body, int fd)
{
    struct control_apply *a = ingest_take(c, body->id);
    if (a && a->ingest.wanted_image) {
        image_take(a, fd, body->bytes);
    } else if (a) {
        int r = signature_take(a, fd, body->bytes);
        if (r >= 0)
            apply_step(a);
        else
            apply_refuse(a, r,
                         r == -ERROR_NO_MEMORY ? error_info(r)->text : "what it says of the model is not readable");
    }
    queue_run(c);
}

void control_ingest_failed(struct control *c, const struct bus_ingest_failed *body)
{
    struct control_apply *a = ingest_take(c, body->id);
    if (a)
        apply_refuse(a, body->error.code, error_text(&body->error, -ERROR_REFUSED));
    queue_run(c);
}
