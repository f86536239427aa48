/* `bulkhead explain model`: what the wall around a model contains here. The supervisor looks at the replicas; what
 * follows from what it sees stands in the ladder's table. */
#include "control/control_internal.h"
#include "ladder/ladder.h"

#include <string.h>

#define EXPLAIN_BYTES_MAX (256 * KIB) /* some 3 KiB per replica */

struct explain {
    control_explain_cb done;
    void *ctx;
    struct registry_version version;
    uint32_t parts; /* of all its newest replicas: what one lacks, the model lacks */
    uint32_t n_seen;
    struct buf replicas; /* members of a JSON array */
};

static void explain_free(struct explain *e)
{
    buf_done(&e->replicas);
    free(e);
}

static void fail(control_explain_cb done, void *ctx, int code, const struct error *err)
{
    _buf_ struct buf body;
    buf_init(&body, 4 * KIB);
    buf_append_text(&body, "{\"error\":");
    buf_append_json(&body, str_from(error_text(err, code)));
    buf_format(&body, ",\"code\":\"%s\"}", error_info(code)->name);
    done(ctx, error_info(code)->http_status, (struct str){body.data, body.size});
}

static void append_text(struct buf *json, const char *name, const char *text)
{
    buf_format(json, ",\"%s\":", name);
    buf_append_json(json, str_from(text));
}

void control_explain(struct control *c, struct str tenant, struct str model, control_explain_cb done, void *ctx)
{
    struct error err = {0};
    struct explain *e = calloc(1, sizeof *e);
    int r = !e             ? -ERROR_NO_MEMORY
            : !c->registry ? -ERROR_DRAINING
                           : registry_model_find(c->registry, tenant, model, &e->version, &err);
    uint64_t id = ++c->explain_last;
    if (r >= 0)
        r = map_put(&c->explains, id, e);
    if (r < 0) {
        free(e);
        fail(done, ctx, r, &err);
        return;
    }
    e->done = done;
    e->ctx = ctx;
    e->parts = UINT32_MAX;
    buf_init(&e->replicas, EXPLAIN_BYTES_MAX);
    struct bus_look look = {.id = id, .model_uid = e->version.model_uid};
    (void)bus_conn_send(c->supervisor, BUS_LOOK, &look, NULL, 0); /* without it we end anyway */
}

static void append_parts(struct buf *json, uint32_t parts)
{
    buf_append_text(json, ",\"parts\":[");
    for (uint32_t i = 0, n = 0; i < LADDER_PARTS; i++)
        if (parts & (1u << i))
            buf_format(json, "%s\"%s\"", n++ > 0 ? "," : "", ladder_part_names[i]);
    buf_append_char(json, ']');
}

void control_explain_facts(struct control *c, const struct bus_replica_facts *f)
{
    static const char *const namespaces[BUS_NAMESPACES] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};
    struct explain *e = map_get(&c->explains, f->look_id);
    const struct control_replica *r = map_get(&c->replicas, f->replica_uid);
    if (!e || !r)
        return;
    if (r->state.version_uid == e->version.uid) {
        e->parts &= f->parts;
        e->n_seen++;
    }
    struct buf *json = &e->replicas;
    buf_format(json, "%s{\"name\":\"%016llx\",\"version\":%u", json->size > 0 ? "," : "",
               (unsigned long long)f->replica_uid, r->state.version_number);
    append_text(json, "level", control_level_name(r->state.level));
    buf_format(json, ",\"pid\":%d,\"uid\":%u", f->pid, f->uid);
    if (r->state.level == LADDER_SHARED) /* how many, never who */
        buf_format(json, ",\"besides\":{\"replicas\":%u,\"tenants\":%u}", f->shared_replicas,
                   e->version.lends ? e->version.n_beside : f->shared_tenants);
    append_text(json, "cpus", f->cpus);
    buf_format(json, ",\"ownCpus\":%s", f->own_cpus ? "true" : "false");
    append_text(json, "cgroup", f->cgroup);
    buf_append_text(json, ",\"namespaces\":{");
    for (uint32_t i = 0; i < BUS_NAMESPACES; i++)
        buf_format(json, "%s\"%s\":{\"inode\":%llu,\"own\":%s}", i > 0 ? "," : "", namespaces[i],
                   (unsigned long long)f->namespaces[i], f->own_namespaces & (1u << i) ? "true" : "false");
    buf_format(json, "},\"seccomp\":%u,\"noNewPrivs\":%s,\"capabilities\":\"%016llx\"", f->seccomp,
               f->no_new_privs ? "true" : "false", (unsigned long long)f->capabilities);
    control_blocked_append(&r->blocked, json);
    append_text(json, "kernel", f->kernel);
    append_text(json, "wall", f->wall);
    append_parts(json, f->parts);
    buf_append_char(json, '}');
}

/* Without a replica there is nothing to look at: then it is what the level is meant to be, less the limits where this
 * host has none. */
static uint32_t parts_expected(const struct control *c, uint32_t level)
{
    uint32_t parts = ladder_parts_meant((enum ladder_level)level);
    return c->isolation[level].limits ? parts : parts & ~(uint32_t)LADDER_LIMITS;
}

static void append_walls(struct buf *json, uint32_t level, uint32_t parts)
{
    buf_append_text(json, ",\"walls\":[");
    for (int topic = 0; topic < LADDER_TOPIC_COUNT; topic++) {
        const struct ladder_row *row = ladder_judge((enum ladder_level)level, (enum ladder_topic)topic, parts);
        buf_format(json, "%s{\"topic\":\"%s\",\"verdict\":\"%s\"", topic > 0 ? "," : "", ladder_topic_names[topic],
                   row ? ladder_verdict_names[row->verdict] : ladder_verdict_names[LADDER_NOT_CONTAINED]);
        append_text(json, "by", row ? row->by : "nothing is known of this level");
        buf_append_char(json, '}');
    }
    buf_append_char(json, ']');
}

void control_explain_looked(struct control *c, const struct bus_look *body)
{
    struct explain *e = map_remove(&c->explains, body->id);
    if (!e)
        return;
    const struct registry_version *v = &e->version;
    uint32_t level = v->level < BUS_LEVEL_COUNT ? v->level : 0;
    struct error refusal = {0};
    int refused = control_version_refusal(c, v, &refusal);
    _buf_ struct buf json;
    buf_init(&json, 2 * EXPLAIN_BYTES_MAX);
    buf_append_text(&json, "{\"tenant\":");
    buf_append_json(&json, str_from(v->tenant));
    append_text(&json, "model", v->model);
    buf_format(&json, ",\"version\":%u", v->number);
    append_text(&json, "level", control_level_name(level));
    append_text(&json, "minimum", control_level_name(v->floor));
    if (v->lender[0]) {
        append_text(&json, "lender", v->lender);
        append_text(&json, "servedBy", v->hosted ? "the lender's replicas" : "replicas of its own");
    }
    buf_format(&json, ",\"available\":%s,\"degraded\":%s", refused < 0 ? "false" : "true",
               c->isolation[level].degraded ? "true" : "false");
    append_text(&json, "text", refused < 0 ? error_text(&refusal, refused) : c->isolation[level].text);
    buf_format(&json, ",\"measured\":%s", e->n_seen > 0 ? "true" : "false");
    append_walls(&json, level, e->n_seen > 0 ? e->parts : parts_expected(c, level));
    buf_append_text(&json, ",\"replicas\":[");
    buf_append(&json, e->replicas.data, e->replicas.size);
    buf_append_text(&json, "]}\n");
    if (json.failed || e->replicas.failed)
        fail(e->done, e->ctx, -ERROR_NO_MEMORY, NULL);
    else
        e->done(e->ctx, 200, (struct str){json.data, json.size});
    explain_free(e);
}
