/* What this host can isolate, as the supervisor tells it; who may run, and why not. */
#include "base/log.h"
#include "control/control_internal.h"
#include "ladder/ladder.h"

#include <string.h>

_Static_assert(BUS_LEVEL_COUNT == LADDER_LEVEL_COUNT, "the bus counts the same levels");

#define LEVEL_USUAL LADDER_PROCESS /* whose report `status` shows as the server's own */

const char *control_level_name(uint32_t level)
{
    return ladder_level_names[level < BUS_LEVEL_COUNT ? level : 0];
}

static bool state_known(uint32_t state)
{
    return state >= BUS_ISOLATION_TESTING && state <= BUS_ISOLATION_AVAILABLE;
}

/* Something of a level or a runtime came, or went: who waits for it starts, who needs it ends. */
static void changed(struct control *c, bool came, bool went)
{
    if (came)
        control_replicas_allow(c); /* looks at all of them, so also at those which need what went */
    else if (went)
        control_reconcile(c);
}

void control_isolation(struct control *c, const struct bus_isolation *body)
{
    if (body->level == 0 || body->level >= BUS_LEVEL_COUNT || !state_known(body->state)) {
        log_error("isolation_report", "the supervisor told of a level that there is not");
        return;
    }
    bool has = body->state == BUS_ISOLATION_AVAILABLE;
    bool had = c->isolation[body->level].state == BUS_ISOLATION_AVAILABLE;
    c->isolation[body->level] = *body;
    changed(c, has && !had, had && !has);
}

/* Asks for a test that was not made yet. */
static int test_want(struct control *c, uint32_t level, uint32_t runtime, struct error *err)
{
    struct bus_isolation_wanted body = {.level = level, .runtime = runtime};
    (void)bus_conn_send(c->supervisor, BUS_ISOLATION_WANTED, &body, NULL, 0); /* without it we end anyway */
    return error_set(err, ERROR_AGAIN, "is still being tested; try again in a few seconds");
}

int control_level_refusal(void *ctx, uint32_t level, struct error *err)
{
    struct control *c = ctx;
    const struct bus_isolation *known = level < BUS_LEVEL_COUNT ? &c->isolation[level] : NULL;
    if (known && known->state == BUS_ISOLATION_AVAILABLE)
        return 0;
    if (!known || known->state == BUS_ISOLATION_UNAVAILABLE)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "%s", known ? known->text : "there is no such level");
    return test_want(c, level, 0, err);
}

void control_runtime(struct control *c, const struct bus_runtime *body)
{
    if (body->runtime == 0 || body->runtime >= BUS_RUNTIME_COUNT || !state_known(body->state)) {
        log_error("isolation_report", "the supervisor told of an OCI runtime that there is not");
        return;
    }
    struct bus_runtime *known = &c->runtimes[body->runtime];
    bool has = body->state == BUS_ISOLATION_AVAILABLE, had = known->state == BUS_ISOLATION_AVAILABLE;
    bool guest_has = body->guest != 0, guest_had = known->guest != 0;
    *known = *body;
    changed(c, (has && !had) || (guest_has && !guest_had), has != had || guest_has != guest_had);
}

int control_runtime_refusal(void *ctx, uint32_t level, uint32_t runtime, struct error *err)
{
    struct control *c = ctx;
    if (runtime == 0)
        return 0;
    const struct bus_runtime *known = runtime < BUS_RUNTIME_COUNT ? &c->runtimes[runtime] : NULL;
    bool machine = level == LADDER_MICROVM;
    if (known && (machine ? known->guest != 0 : known->state == BUS_ISOLATION_AVAILABLE))
        return 0;
    if (!known || machine || known->state == BUS_ISOLATION_UNAVAILABLE)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "%s",
                         !known    ? "there is no such runtime"
                         : machine ? known->guest_text
                                   : known->text);
    return test_want(c, LADDER_CONTAINER, runtime, err);
}

int control_version_refusal(struct control *c, const struct registry_version *row, struct error *err)
{
    if (row->level < row->floor)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "its isolation level, %s, is below what its tenant demands by now, %s",
                         control_level_name(row->level), control_level_name(row->floor));
    int r = control_level_refusal(c, row->level, err);
    if (r < 0)
        return error_wrap(err, r, "its isolation level, %s", control_level_name(row->level));
    r = control_runtime_refusal(c, row->level, row->runtime, err);
    return r < 0 ? error_wrap(err, r, "its OCI runtime, %s", registry_runtime_name(row->runtime)) : r;
}

void control_pool_served(void *ctx, const char *engine, uint32_t level)
{
    struct control *c = ctx;
    for (uint32_t i = 0; i < BUS_ENGINES_MAX && level == LADDER_POOL; i++)
        if (strcmp(c->config.engines[i].name, engine) == 0)
            c->pool_engines |= 1u << i;
}

void control_pool_tell(struct control *c)
{
    struct bus_pool body = {.engines = c->pool_engines};
    if (c->pool_engines != c->pool_sent && bus_conn_send(c->supervisor, BUS_POOL, &body, NULL, 0) >= 0)
        c->pool_sent = c->pool_engines;
}

static void append_text(struct buf *json, const char *name, const char *text)
{
    buf_format(json, ",\"%s\":", name);
    buf_append_json(json, str_from(text));
}

void control_isolation_append(const struct control *c, struct buf *json)
{
    static const char *const states[] = {
        [0] = "testing", /* not told yet */
        [BUS_ISOLATION_TESTING] = "testing",
        [BUS_ISOLATION_UNAVAILABLE] = "unavailable",
        [BUS_ISOLATION_AVAILABLE] = "available",
    };
    const struct bus_isolation *usual = &c->isolation[LEVEL_USUAL];
    buf_format(json, "\"isolation\":{\"level\":\"%s\"", control_level_name(LEVEL_USUAL));
    append_text(json, "text", usual->text);
    buf_format(json, ",\"limits\":%s,\"allowUnlimited\":%s,\"levels\":[", usual->limits ? "true" : "false",
               c->config.allow_unlimited ? "true" : "false");
    for (uint32_t level = 1; level < BUS_LEVEL_COUNT; level++) {
        const struct bus_isolation *known = &c->isolation[level];
        buf_format(json, "%s{\"name\":\"%s\",\"state\":\"%s\",\"degraded\":%s,\"limits\":%s", level > 1 ? "," : "",
                   control_level_name(level), states[known->state], known->degraded ? "true" : "false",
                   known->limits ? "true" : "false");
        append_text(json, "text", known->text);
        buf_append_char(json, '}');
    }
    buf_append_text(json, "],\"runtimes\":[");
    for (uint32_t runtime = 1; runtime < BUS_RUNTIME_COUNT; runtime++) {
        const struct bus_runtime *known = &c->runtimes[runtime];
        buf_format(json, "%s{\"name\":\"%s\",\"state\":\"%s\"", runtime > 1 ? "," : "", registry_runtime_name(runtime),
                   states[known->state]);
        append_text(json, "text", known->text);
        buf_append_char(json, '}');
    }
    buf_append_text(json, "]}");
}
