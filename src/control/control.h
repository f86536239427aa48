/* The control role: the only writer of the store, the admin socket's owner, and the one who says which replicas should
 * run.
 *
 * One process, one libuv loop, single-threaded; chrooted into the store folder, own uid. This header is what the admin
 * API (api/manage) sees. */
#ifndef BULKHEAD_CONTROL_CONTROL_H
#define BULKHEAD_CONTROL_CONTROL_H

#include "base/buf.h"
#include "base/error.h"
#include "control/registry.h"
#include "wire/wire.h"

struct control;

struct registry *control_registry(struct control *c);

/* registry_apply, with every new model opened and described by a process of its own first, and refused with its words
 * when that fails; everything else goes on meanwhile. `body` and `results` stay the caller's and must live until `done`
 * was called, which may be from inside this call: rc negative with err, or 0 with the change. *ret_apply is set before
 * and is void from `done` on. At most LIMIT_INGESTS models are opened at once, the other applies wait. */
struct control_apply;
typedef void (*control_applied_cb)(void *ctx, int rc, const struct registry_change *change, const struct error *err);
void control_apply(struct control *c, struct str body, struct buf *results, control_applied_cb done, void *ctx,
                   struct control_apply **ret_apply);
/* Nobody waits for it any more: `done` is not called, nothing is stored. */
void control_apply_cancel(struct control_apply *a);

/* Builds the catalog of the registry's present state, sends it to the gateway, and calls `taken` once: status 0 when
 * the gateway took a generation ≥ `generation`; -ERROR_PENDING after LIMIT_CATALOG_ACK_MS without that; never from
 * inside this call. Changes of one loop turn are published together. */
typedef void (*control_taken_cb)(void *ctx, int status);
void control_publish(struct control *c, uint64_t generation, control_taken_cb taken, void *ctx);

/* May this peer use the admin socket? Root, the server's own uid, and, where the admin group exists, whoever the
 * socket's mode let through (0660: its members). */
bool control_peer_allowed(const struct control *c, uid_t uid);

/* JSON object of `bulkhead status`:
 * {"version","ready","generation","gateway":{…},"device":{…},"isolation":{…},"replicas":[…]}. */
void control_status(struct control *c, struct buf *json);

/* The text of GET /metrics: Prometheus text format 0.0.4. */
void control_metrics(struct control *c, struct buf *ret_text);

/* JSON array of Replica documents, filtered by tenant (empty = all). */
void control_replicas(struct control *c, struct str tenant, struct str name, struct buf *ret_items);
/* Likewise of devices: [{"apiVersion",…,"kind":"Device",…}]. */
/* Returns how many. */
uint32_t control_devices(struct control *c, struct str name, struct buf *ret_items);
/* What `bulkhead top` compares with its last look: {"devices":[…],"rows":[…],"tenants":[…]}. */
must_check int control_top(struct control *c, struct buf *json, struct error *err);

/* Runs one OIP inference request as `tenant` through the gateway (for `bulkhead infer`); the answer comes later,
 * exactly once, with an HTTP status and body (valid during the call). */
typedef void (*control_infer_cb)(void *ctx, int http_status, struct str body);
void control_infer(struct control *c, struct str tenant, struct str model, struct str body, control_infer_cb done,
                   void *ctx);

/* What the wall around a model contains on this host, and by what, with what /proc tells of its replicas at this moment
 * (for `bulkhead explain model`); the answer comes later, exactly once, with an HTTP status and a body (valid during
 * the call): {"tenant","model","version","level","minimum","lender","servedBy" (only where it is
 * lent),"available","text","measured","walls":[{"topic","verdict", "by"}],"replicas":[{…}]}. */
typedef void (*control_explain_cb)(void *ctx, int http_status, struct str body);
void control_explain(struct control *c, struct str tenant, struct str model, control_explain_cb done, void *ctx);

/* The admin surface (api/manage/admin.c): a wire handler for the admin socket; ctx is the struct control. Routes:
 *   POST   /v1alpha1/artifacts                 body = bytes of the artifact → {"digest":"<hex>","bytes":n}
 *   POST   /v1alpha1/apply                     body of registry_apply →
 * {"generation":n,"taken":true|false,"resources":[…]} GET    /v1alpha1/{plural}[/{name}]?tenant= → {"items":[…]}; kinds
 * Tenant, Model, Version, Key, Replica DELETE /v1alpha1/{plural}/{name}?tenant=   → {"generation":n,"taken":…} POST
 * /v1alpha1/keys                      {"tenant":…,"name":…} → {"id":…,"key":…,"generation":n,"taken":…} DELETE
 * /v1alpha1/keys/{id} GET    /v1alpha1/status GET    /v1alpha1/explain?tenant=&model= POST
 * /v1alpha1/infer?tenant=&model=      body = OIP request → the
 * gateway's answer as it is Errors: {"error":text,"code":name}. */
extern const struct wire_handler manage_admin_handler;
/* GET /metrics and nothing else, for anyone (api/manage/metrics.c); ctx likewise. */
extern const struct wire_handler manage_metrics_handler;
#define CONTROL_METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
