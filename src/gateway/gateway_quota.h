/* Limits of tenants and keys, and what of them is used; part of gateway_internal.h. docs/quotas.md says what is
 * limited. */
#ifndef BULKHEAD_GATEWAY_QUOTA_H
#define BULKHEAD_GATEWAY_QUOTA_H

#include "base/hash.h"
#include "base/list.h"
#include "base/map.h"
#include "bus/bus_loop.h"
#include "bus/quota.h"
#include "catalog/catalog.h"
#include "schedule/quota.h"
#include "schedule/schedule.h"
#include "wire/wire.h"

#include <uv.h>

struct gateway;
struct gateway_request;
struct gateway_tenant;
struct gateway_version;

/* Requests that wait for others' reservations of one kind to end, first come, first served. */
struct gateway_quota_queue {
    struct gateway_quota *quota;
    struct list requests;
    struct list in_waited; /* gateway_quotas.waited */
};

/* What a tenant, or one of its keys, has used of its limits. Exists only while something of it is used. */
struct gateway_quota {
    struct schedule_quota schedule;
    struct gateway_tenant *tenant;
    struct list in_all;     /* gateway_quotas.all */
    struct list in_changed; /* gateway_quotas.changed */
    struct gateway_quota_queue queues[SCHEDULE_QUOTA_KINDS];
    uint32_t n_requests; /* that point here, also refused ones until their answer is out: it stays as long */
    uint64_t id;         /* of a key: in gateway_quotas.keys; 0: the tenant's own */
    char key[CATALOG_KEY_ID_BYTES];
};

struct gateway_quotas {
    struct map keys;     /* of keys */
    struct list all;     /* struct gateway_quota; housekeeping goes round */
    struct list waited;  /* struct gateway_quota_queue: those that hold requests */
    struct list paused;  /* requests whose body is not read yet, by arrival */
    uv_timer_t timer;    /* runs while there are some */
    struct list changed; /* those whose use control was not told yet, first changed first */
    struct hash_seed seed;
    uint64_t tell_ns;    /* when to tell next */
    uint32_t now_cursor; /* tenants whose use of now is looked at next */
    uint32_t n;          /* in `all` */
    bool restored;       /* what an earlier gateway counted is here */
};

enum { GATEWAY_QUOTA_TENANT, GATEWAY_QUOTA_KEY, GATEWAY_QUOTA_LEVELS };

/* gateway_quota.c. Requests of the operator (over the bus) count in no quota. */
void gateway_quotas_init(struct gateway *g);
/* A new catalog was taken: its limits. */
void gateway_quotas_set(struct gateway *g);
/* Now and then: frees what is unused again, refuses who waited until its deadline. */
void gateway_quotas_check(struct gateway *g, uint64_t now_ns);
/* The tenant goes, and with it what it used. It has no requests. */
void gateway_quotas_forget(struct gateway *g, struct gateway_tenant *t);
/* At a request's head. 0, or a refusal that took nothing. */
must_check int gateway_quota_enter(struct gateway_request *r, const char *key_id, struct error *err);
int gateway_quota_refuse(struct gateway_request *r, int level, int code, const struct schedule_quota_refusal *refusal,
                         struct error *err);
/* What the catalog says; NULL: no limits. */
const struct catalog_quota *gateway_quota_row(const struct gateway *g, const struct gateway_tenant *t, int level);

/* gateway_flow.c: parts of gateway_quota_enter and gateway_quota_leave. */
must_check int gateway_flow_enter(struct gateway_request *r, uint64_t now_ns, struct error *err);
void gateway_flow_leave(struct gateway_request *r);
/* Right after: the largest body that it may have, no more than `max`. */
size_t gateway_quota_body_max(const struct gateway_request *r, size_t max);
/* Later: its body is refused with `code`, `max` as above; which limit that was. */
void gateway_body_explain(const struct gateway_request *r, int code, size_t max, struct error *err);
/* After wire_accept: where its tenant's bytes per second are used up, its body is read later. */
void gateway_quota_pace(struct gateway_request *r);
/* Its body is here; a chunked one is counted now. */
void gateway_quota_body(struct gateway_request *r);
/* The answer is of that size: counts it. -ERROR_RESPONSE_TOO_LARGE. */
must_check int gateway_quota_answer(struct gateway_request *r, size_t bytes, struct error *err);
/* So many times the most expensive lease of lately is kept for a request: it may run alone, and be an expensive one. */
#define GATEWAY_RESERVE_FACTOR 8u
/* Of generations it is so many times what their tokens cost at most lately: sums of many vary less. */
#define GATEWAY_RESERVE_TOKENS_FACTOR 2u
/* Before it is queued; `amount` as schedule_quota_reserve. 0; 1: it waits, `next` is called later (or its version or
 * deadline ends it); or a refusal. */
must_check int gateway_quota_reserve(struct gateway_request *r, enum schedule_quota_kind kind, uint64_t amount,
                                     struct error *err);
/* Before it is spent: whether so much may be used without taking what others reserved. */
bool gateway_quota_fits(const struct gateway_request *r, enum schedule_quota_kind kind, uint64_t amount);
/* It will use no more. */
void gateway_quota_settle(struct gateway_request *r, enum schedule_quota_kind kind);
/* Lets those go on that waited for a reservation to end. */
void gateway_quotas_continue(struct gateway *g);
/* Refuses those of a version that wait. */
void gateway_quotas_fail(struct gateway_version *v, int code, const struct error *err);
/* A lease of these requests ended, or was lost: each is charged its share of the time by rows. */
void gateway_quota_charge(const struct schedule_lease *lease, uint64_t took_ns);
/* Likewise of a lease that was pre-empted, whose requests run again: they keep their reservations. */
void gateway_quota_charge_part(const struct schedule_lease *lease, uint64_t took_ns);
/* A generation has used so much. */
void gateway_quota_spend(struct gateway_request *r, enum schedule_quota_kind kind, uint64_t amount);
/* A generation has ended, or was given up, after so many tokens that took so much of the device. */
void gateway_quota_learn(struct gateway_version *v, uint64_t ran_ns, uint64_t n_tokens);
/* What so much time of that lease costs: times its slots, and no more than all its requests may add up to. */
uint64_t gateway_quota_cost(const struct schedule_lease *lease, uint64_t took_ns);
/* A version's worker has used so much compute for nobody who is still there. */
void gateway_quota_spend_rest(struct gateway_version *v, uint64_t amount);
/* It is refused with this: does not count where that is not the client's fault. */
void gateway_quota_refund(struct gateway_request *r, int code);
/* Its end: gives back all that it still holds. */
void gateway_quota_leave(struct gateway_request *r);
/* The headers of its answer that tell what is left. */
#define GATEWAY_QUOTA_HEADERS_MAX 17u
struct gateway_quota_headers {
    struct wire_header headers[GATEWAY_QUOTA_HEADERS_MAX + 2]; /* room for the answer's own */
    uint32_t n;
    char values[GATEWAY_QUOTA_HEADERS_MAX][24];
};
void gateway_quota_headers(const struct gateway_request *r, struct gateway_quota_headers *ret_headers);

/* The state of the tenant, or with its id of that key of it; made when there is none. NULL: no memory. */
struct gateway_quota *gateway_quota_get(struct gateway *g, struct gateway_tenant *t, const char *key_id);
struct schedule_quota_time gateway_quota_time(void);

/* gateway_quota_use.c */
void gateway_quota_changed(struct gateway *g, struct gateway_quota *q);
/* Tells control what changed, at most once a second, or `now`. */
void gateway_quotas_tell(struct gateway *g, bool now);
/* A new control: it is told all again. */
void gateway_quotas_tell_all(struct gateway *g);
/* Tells control which tenants use another amount now of what is not stored; a part of them with each call. */
void gateway_now_tell(struct gateway *g);
/* The tenant is about to be freed. */
void gateway_now_forget(struct gateway *g, const struct gateway_tenant *t);
/* What the store held when this gateway began. */
void gateway_quotas_stored(struct gateway *g, const struct bus_quotas *body, int fd);
#endif
