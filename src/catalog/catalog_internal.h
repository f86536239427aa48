/* The snapshot's format; for the files of this room and its tests only.
 *
 *   head · quotas[] · tenants[] · keys[] · models[] · versions[] · adapters[] · ranges[] · adapter ranges[] ·
 *   key slots[] · tenant slots[] · model slots[] · adapter slots[]
 *
 * The sections follow each other in this order, each at the next multiple of CATALOG_ALIGN. Their places and sizes
 * follow from the six counts alone (catalog_layout_of), so the head carries no offsets: what is not stored cannot be
 * wrong. Numbers are in the host's byte order; a snapshot never leaves its host.
 *
 * An index table is open-addressed with linear probing; it has a power of two of slots, at least twice as many as rows,
 * so one empty slot is always near. A slot holds the upper half of the row's hash beside the row's index: a look-up
 * touches one line of the table and, all but once in 2^32, only the row it wants. */
#ifndef BULKHEAD_CATALOG_CATALOG_INTERNAL_H
#define BULKHEAD_CATALOG_CATALOG_INTERNAL_H

#include "base/hash.h"
#include "catalog/catalog.h"

#define CATALOG_MAGIC   "bhcatlg\n"
#define CATALOG_VERSION 5u
#define CATALOG_ALIGN   64u
/* Two of a tenant. */
#define CATALOG_QUOTAS_MAX (2 * LIMIT_TENANTS)

struct catalog_head {
    char magic[8];
    uint32_t version;
    uint32_t n_quotas;
    uint64_t bytes; /* of the whole snapshot */
    uint64_t generation;
    struct hash_seed seed;
    uint32_t n_tenants, n_keys, n_models, n_versions, n_adapters;
    uint32_t _reserved;
};

struct catalog_range { /* a tenant's models, or adapters */
    uint32_t first, n;
};

struct catalog_slot {
    uint32_t fingerprint;
    uint32_t index_plus_1; /* 0 = empty */
};

struct catalog_table {
    const struct catalog_slot *slots;
    uint64_t mask; /* number of slots - 1 */
};

struct catalog_layout { /* offsets from the start of the snapshot; n_*: numbers of slots */
    size_t quotas, tenants, keys, models, versions, adapters, ranges, adapter_ranges;
    size_t key_slots, tenant_slots, model_slots, adapter_slots;
    size_t n_key_slots, n_tenant_slots, n_model_slots, n_adapter_slots;
    size_t bytes;
};

struct catalog { /* a checked snapshot */
    const struct catalog_head *head;
    const struct catalog_quota *quotas;
    const struct catalog_tenant *tenants;
    const struct catalog_key *keys;
    const struct catalog_model *models;
    const struct catalog_version *versions;
    const struct catalog_adapter *adapters;
    const struct catalog_range *ranges, *adapter_ranges;
    struct catalog_table key_table, tenant_table, model_table, adapter_table;
    void *copy; /* NULL: the bytes are not ours to free */
    size_t bytes;
};

/* By the counts of a head, which must be within their limits. */
struct catalog_layout catalog_layout_of(const struct catalog_head *counts);

/* Checks all of [data, data + bytes) and fills *c. data is aligned to 8 and outlives *c. -ERROR_PEER. */
must_check int catalog_view(struct catalog *c, const void *data, size_t bytes, struct error *err);

/* What is wrong with a row by itself; NULL when nothing is. The builder refuses what the reader would refuse. */
const char *catalog_quota_fault(const struct catalog_quota *q);
const char *catalog_tenant_fault(const struct catalog_tenant *t);
const char *catalog_key_fault(const struct catalog_key *k);
const char *catalog_model_fault(const struct catalog_model *m);
const char *catalog_version_fault(const struct catalog_version *v);
const char *catalog_adapter_fault(const struct catalog_adapter *a);
/* What is wrong with a model's row against that of its lender, or with one that has none; all rows' own indices are
 * within their arrays. */
const char *catalog_lent_fault(const struct catalog_model *models, uint32_t n_models,
                               const struct catalog_version *versions, const struct catalog_model *m);

uint64_t catalog_hash_key(struct hash_seed seed, const char *id);
uint64_t catalog_hash_tenant(struct hash_seed seed, struct str name);
/* Of a model, or an adapter; name.size ≤ LIMIT_NAME_BYTES */
uint64_t catalog_hash_model(struct hash_seed seed, uint32_t tenant, struct str name);

#endif
