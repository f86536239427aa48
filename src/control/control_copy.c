/* Copies of artifacts into memory, in slices: one slice of one copy per turn of the loop, in turns, and between them
 * whoever asks control anything is answered. */
#include "base/clock.h"
#include "base/log.h"
#include "control/control_internal.h"

#define TOLD_BYTES (128 * MIB) /* what takes so long that somebody may want to know */

/*   WAITING (in copies_waiting) ──► UNDER WAY (in copies, at most LIMIT_COPIES) ──► done() */
struct control_copy {
    struct list node;
    struct control *control;
    struct registry_version of;
    struct registry_copy *copy; /* NULL while waiting */
    control_copied_cb done;
    void *ctx;
    uint64_t started_ns;
    uint32_t slices;
};

static void on_idle(uv_idle_t *idle);

static void copy_free(struct control_copy *p)
{
    struct control *c = p->control;
    list_remove(&p->node);
    c->n_copies -= p->copy != NULL;
    registry_copy_free(p->copy);
    free(p);
    if (list_empty(&c->copies) && list_empty(&c->copies_waiting))
        (void)uv_idle_stop(&c->copy_idle);
}

static void copy_finish(struct control_copy *p, int rc, int fd, const struct error *err)
{
    control_copied_cb done = p->done;
    void *ctx = p->ctx;
    copy_free(p);
    done(ctx, rc, &fd, err);
    fd_close(&fd);
}

void control_copies_init(struct control *c)
{
    list_init(&c->copies);
    list_init(&c->copies_waiting);
    (void)uv_idle_init(&c->loop, &c->copy_idle); /* always succeeds */
    c->copy_idle.data = c;
}

struct control_copy *control_copy_start(struct control *c, const struct registry_version *of, control_copied_cb done,
                                        void *ctx)
{
    struct control_copy *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    *p = (struct control_copy){.control = c, .of = *of, .done = done, .ctx = ctx, .started_ns = clock_monotonic_ns()};
    list_append(&c->copies_waiting, &p->node);
    (void)uv_idle_start(&c->copy_idle, on_idle); /* fails only on a closing handle */
    return p;
}

void control_copy_cancel(struct control_copy *p)
{
    if (p)
        copy_free(p);
}

void control_copies_end(struct control *c)
{
    struct list *const lists[] = {&c->copies, &c->copies_waiting};
    struct error err = {0};
    int r = error_set_default(&err, ERROR_DRAINING);
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        while (!list_empty(lists[i]))
            copy_finish(container_of(lists[i]->next, struct control_copy, node), r, -1, &err);
}

/* Those that waited longest get the places that are free. */
static void places_fill(struct control *c)
{
    while (c->n_copies < LIMIT_COPIES && !list_empty(&c->copies_waiting)) {
        struct control_copy *p = container_of(c->copies_waiting.next, struct control_copy, node);
        struct error err = {0};
        int r = c->registry ? registry_copy_begin(c->registry, &p->of, &p->copy, &err)
                            : error_set_default(&err, ERROR_DRAINING);
        if (r < 0) {
            copy_finish(p, r, -1, &err);
            continue;
        }
        c->n_copies++;
        list_remove(&p->node);
        list_append(&c->copies, &p->node);
    }
}

static void on_idle(uv_idle_t *idle)
{
    struct control *c = idle->data;
    places_fill(c);
    if (list_empty(&c->copies))
        return;
    struct control_copy *p = container_of(c->copies.next, struct control_copy, node);
    struct error err = {0};
    int fd = -1;
    p->slices++;
    int r = registry_copy_step(p->copy, &fd, &err);
    if (r > 0) { /* behind the others */
        list_remove(&p->node);
        list_append(&c->copies, &p->node);
        return;
    }
    if (r == 0 && p->of.artifact_bytes >= TOLD_BYTES)
        log_info("artifact_copied", "tenant=%s model=%s version=%u bytes=%llu slices=%u ms=%llu", p->of.tenant,
                 p->of.model, p->of.number, (unsigned long long)p->of.artifact_bytes, p->slices,
                 (unsigned long long)((clock_monotonic_ns() - p->started_ns) / NS_PER_MS));
    copy_finish(p, r, fd, &err);
}
