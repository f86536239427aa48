/* The catalog's way to the gateway, and who waits for its arrival. */
#include "base/clock.h"
#include "base/log.h"
#include "control/control_internal.h"

/* Between two tries to give the gateway a catalog. */
#define RETRY_NS (2 * NS_PER_S)

struct waiter {
    struct list node;
    uint64_t generation;
    uint64_t until_ns;
    control_taken_cb taken;
    void *ctx;
};

void control_publish(struct control *c, uint64_t generation, control_taken_cb taken, void *ctx)
{
    c->publish_wanted = true;
    control_reconcile(c);
    struct waiter *w = calloc(1, sizeof *w);
    if (!w) {
        /* Stored but unwatched: the same as a gateway that does not answer in time. */
        log_error("publish", "no memory to wait for the gateway");
        taken(ctx, -ERROR_PENDING);
        return;
    }
    *w = (struct waiter){.generation = generation,
                         .until_ns = clock_monotonic_ns() + LIMIT_CATALOG_ACK_MS * NS_PER_MS,
                         .taken = taken,
                         .ctx = ctx};
    list_append(&c->waiters, &w->node);
}

void control_publish_again(struct control *c)
{
    c->generation_sent = c->generation_taken = 0;
    c->quota_told = false;
    c->publish_wanted = true;
}

static void publish_retry(struct control *c)
{
    c->publish_at_ns = clock_monotonic_ns() + RETRY_NS;
}

/* Once per loop turn: all changes of the turn go out together. */
void control_publish_flush(struct control *c)
{
    if (!c->publish_wanted || !c->gateway || !c->registry)
        return;
    c->publish_wanted = false;
    struct bus_catalog body = {0};
    struct error err = {0};
    _close_ int fd = -1;
    size_t bytes;
    c->pool_engines = 0;
    int r = registry_catalog(c->registry, &body.generation, &fd, &bytes, &err);
    if (r < 0) { /* a revoked key must not serve on until something else changes */
        log_alert("catalog_build", "%s", error_text(&err, r));
        publish_retry(c);
        return;
    }
    control_pool_tell(c);
    body.bytes = bytes;
    if (bus_conn_send(c->gateway, BUS_CATALOG, &body, &fd, 1) == 0) /* else: gone, and its successor gets a new one */
        c->generation_sent = body.generation;
    control_quota_tell(c);
    if (!c->quota_told)
        publish_retry(c);
}

static void waiters_release(struct control *c, uint64_t generation, uint64_t now_ns)
{
    list_each_safe(node, &c->waiters)
    {
        struct waiter *w = container_of(node, struct waiter, node);
        bool done = w->generation <= generation;
        if (!done && w->until_ns > now_ns)
            continue;
        list_remove(node);
        w->taken(w->ctx, done ? 0 : -ERROR_PENDING);
        free(w);
    }
}

void control_publish_taken(struct control *c, const struct bus_catalog_taken *body)
{
    if (body->error.code < 0) {
        log_alert("catalog_refused", "generation %llu: %s", (unsigned long long)body->generation, body->error.text);
        if (error_info(body->error.code)->retryable)
            publish_retry(c);
        return;
    }
    if (body->generation > c->generation_taken)
        c->generation_taken = body->generation;
    waiters_release(c, c->generation_taken, clock_monotonic_ns());
}

void control_publish_tick(struct control *c, uint64_t now_ns)
{
    waiters_release(c, c->generation_taken, now_ns);
    if (now_ns < c->publish_at_ns)
        return;
    c->publish_at_ns = UINT64_MAX;
    c->publish_wanted = true;
}

bool control_publish_waits(const struct control *c)
{
    return !list_empty(&c->waiters) || c->publish_at_ns != UINT64_MAX;
}
