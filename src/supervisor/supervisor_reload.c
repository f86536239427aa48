/* SIGHUP: the configuration is read again. One table says which of its fields may change while the server runs. */
#include "supervisor/supervisor_internal.h"

#include "base/log.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>

struct field {
    const char *name; /* of the Server resource, for people */
    size_t offset, size;
    bool text; /* a const char *, may be NULL */
    bool live; /* takes effect at once; else after a restart */
};

#define PLACE(member) offsetof(struct supervisor_config, member), sizeof(((struct supervisor_config *)NULL)->member)

/* Addresses are bound, uids given away and slots handed out; channels have the size of the largest body. */
static const struct field fields[] = {
    {"spec.listen", PLACE(listen), true, false},
    {"spec.metrics.listen", PLACE(metrics_listen), true, false},
    {"spec.limits.bodyBytes", PLACE(body_bytes_max), false, false},
    {"spec.cpu.reserved or spec.devices", PLACE(devices), false, false},
    {"spec.limits.queueBytes", PLACE(queue_bytes_max), false, false},
    {"spec.profile", PLACE(edge), false, false},
    {"spec.classes.interactive", PLACE(share_interactive), false, false},
    {"spec.classes.batch", PLACE(share_batch), false, false},
    {"spec.uids.base", PLACE(uid_base), false, false},
    {"spec.uids.count", PLACE(uid_count), false, false},
    {"spec.admin.group", PLACE(admin_group), true, false},
    {"spec.limits.connections", PLACE(connections_max), false, true},
    {"spec.timeouts.head", PLACE(head_timeout_ms), false, true},
    {"spec.timeouts.idle", PLACE(idle_timeout_ms), false, true},
    {"spec.timeouts.write", PLACE(write_timeout_ms), false, true},
    {"spec.timeouts.request", PLACE(request_timeout_ms), false, true},
    {"spec.log.level", PLACE(log_level), false, true},
    {"spec.drainTimeout", PLACE(drain_timeout_ms), false, true},
    {"spec.pool.size", PLACE(pool_size), false, true},
};

static bool differs(const struct field *f, const char *now, const char *next)
{
    if (!f->text)
        return memcmp(now + f->offset, next + f->offset, f->size) != 0;
    const char *a, *b;
    memcpy(&a, now + f->offset, sizeof a);
    memcpy(&b, next + f->offset, sizeof b);
    return !a || !b ? a != b : strcmp(a, b) != 0;
}

static void roles_tell(struct supervisor *s)
{
    for (int i = 0; i < CHILD_COUNT; i++) {
        struct bus_role_config body;
        supervisor_child_config(&s->children[i], &body);
        supervisor_tell(s, i, BUS_ROLE_RELOAD, &body, NULL, 0);
    }
}

static void use(void *ctx, const struct supervisor_config *config)
{
    struct supervisor *s = ctx;
    char *now = (char *)&s->config_now;
    const char *next = (const char *)config;
    uint32_t n_changed = 0;
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const struct field *f = &fields[i];
        if (!differs(f, now, next))
            continue;
        if (!f->live) {
            log_warn("reload_later", "%s has changed, which takes effect only when the server is started again",
                     f->name);
            continue;
        }
        memcpy(now + f->offset, next + f->offset, f->size);
        n_changed++;
    }
    log_setup("supervisor", (enum log_level)s->config->log_level);
    roles_tell(s);
    supervisor_pools_step(s);
    log_info("reloaded", "the configuration was read again; changed: %u", n_changed);
}

void supervisor_reload(struct supervisor *s)
{
    struct error err = {0};
    if (!s->config->reload) {
        log_warn("reload_nothing", "signal %d: the server was started without --config, so there is nothing to reload",
                 SIGHUP);
        return;
    }
    int r = s->config->reload(s->config->reload_ctx, use, s, &err);
    if (r < 0)
        log_error("reload_refused", "%s; everything stays as it is", error_text(&err, r));
}
