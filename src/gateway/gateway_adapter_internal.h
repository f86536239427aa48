/* Adapters in a worker, as gateway_adapter.c and gateway_adapter_room.c see them; nobody else includes this. */
#ifndef BULKHEAD_GATEWAY_ADAPTER_INTERNAL_H
#define BULKHEAD_GATEWAY_ADAPTER_INTERNAL_H

#include "gateway/gateway_internal.h"

enum gateway_adapter_state {
    ADAPTER_WANTED = 1,
    ADAPTER_ASKED,
    ADAPTER_LOADED,
    ADAPTER_STRAY,
    ADAPTER_REFUSED,
};

/* What keeps a wanted one out. */
enum gateway_adapter_lack { LACKS_NOTHING, LACKS_BUDGET, LACKS_ROOM };

struct gateway_adapter {
    struct list in_batch;                    /* the least recently used first */
    struct list aside[SCHEDULE_CLASS_COUNT]; /* requests that wait for it, or for their turn of it */
    enum gateway_adapter_state state;
    struct gateway_tenant *tenant; /* which the version keeps */
    struct gateway_version *version;
    uint64_t uid, bytes;
    char name[LIMIT_NAME_BYTES + 1];
    struct gateway_worn worn; /* its number in the worker; 0: not asked for */
    uint32_t n_sequences;
    bool counted;            /* in the figures, as loaded */
    bool told;               /* control knows of it … */
    uint32_t sequences_told; /* … and of so many that use it */
    enum gateway_adapter_lack lack;
    bool unserved;          /* loaded for requests that are back in their line, and of which none has a place yet */
    bool stale;             /* the catalog has it no more: goes with its last sequence */
    uint64_t wanted_ns;     /* since when it waits, or waited when it was loaded; 0: it was stepped since */
    uint64_t kept_until_ns; /* not lifted before then; 0: it was stepped */
    uint64_t refused_until_ns;
    struct error refusal;
};

static inline struct gateway_adapter *gateway_adapter_at(struct list *node)
{
    return container_of(node, struct gateway_adapter, in_batch);
}

/* gateway_adapter.c */
/* It goes out of the worker, if it is there, and is forgotten; but where somebody waits for it, it is wanted again,
 * behind the others. No sequence uses it. */
void gateway_adapter_drop(struct gateway_batch *b, struct gateway_adapter *a);

/* gateway_adapter_room.c */
/* Nobody waits for it at its door. */
bool gateway_adapter_nobody_aside(const struct gateway_adapter *a);
/* A sequence in the batch had it taken away, and waits parked until it is back. */
bool gateway_adapter_is_missed(const struct gateway_batch *b, const struct gateway_adapter *a);
/* The highest class that waits for it; SCHEDULE_CLASS_COUNT: none does. */
uint32_t gateway_adapter_class(const struct gateway_batch *b, const struct gateway_adapter *a);
/* A wanted one has waited so long that higher classes make way for it too. */
bool gateway_adapter_is_overdue(const struct gateway_adapter *a, uint64_t now_ns);
/* Whether a loaded one is the next to go for another which waits, so that requests of that class wait for it too. */
bool gateway_adapter_makes_way(const struct gateway_batch *b, const struct gateway_adapter *a, uint32_t class);
/* Makes room for a wanted one: 0: there is now; 1: there will be (a->lack); or a refusal. */
must_check int gateway_adapter_room(struct gateway_batch *b, struct gateway_adapter *a, struct error *err);
#endif
