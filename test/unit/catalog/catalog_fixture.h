/* Snapshots to test with: `n_tenants` tenants t0, t1, …; tenant i has i % 3 models m0, m1 with 1 + i % 2 versions each;
 * keys are spread over the tenants in turn. Where it has none (but for t0 and t1) it is lent m0 of tenant i - 2, served
 * by the owner's replicas where i is even. Whoever has an m0 has an adapter a0 of it. */
#ifndef TEST_UNIT_CATALOG_FIXTURE_H
#define TEST_UNIT_CATALOG_FIXTURE_H

#include "catalog/catalog_internal.h"

#include <assert.h>
#include <stdio.h>

static inline void fixture_key_id(uint32_t number, char id[static CATALOG_KEY_ID_BYTES + 1])
{
    (void)snprintf(id, CATALOG_KEY_ID_BYTES + 1, "Key%013u", number);
}

static inline struct catalog_tenant fixture_tenant(uint32_t number)
{
    struct catalog_tenant t = {.uid = 1000 + number, .weight = 1 + number, .queue_max = 256, .classes = 6};
    (void)snprintf(t.name, sizeof t.name, "t%u", number);
    return t;
}

static inline struct catalog_model fixture_model(uint32_t tenant, uint32_t number)
{
    struct catalog_model m = {
        .uid = 5000 + number, .tenant = tenant, .batch_max = 32, .replicas_max = 1, .weight = 1, .class = 1};
    (void)snprintf(m.name, sizeof m.name, "m%u", number);
    return m;
}

static inline struct catalog_version fixture_version(uint32_t number)
{
    return (struct catalog_version){.uid = 9000 + number,
                                    .created_s = 1700000000 + number,
                                    .number = number,
                                    .slots = 1,
                                    .level = 3,
                                    .engine = "identity"};
}

static inline struct catalog_adapter fixture_adapter(uint32_t tenant, uint32_t model)
{
    return (struct catalog_adapter){.uid = 7000 + tenant,
                                    .bytes = 100 + tenant,
                                    .created_s = 1800000000 + tenant,
                                    .tenant = tenant,
                                    .model = model,
                                    .name = "a0"};
}

/* The rows of tenant i's model; shared: at level shared, so that its replicas can serve others. */
static inline uint32_t fixture_add_model(struct catalog_builder *b, const struct catalog_model *model,
                                         uint32_t n_versions, uint32_t level, bool hosted)
{
    int index = catalog_add_model(b, model);
    assert(index >= 0);
    for (uint32_t v = n_versions; v > 0; v--) {
        struct catalog_version version = fixture_version(v);
        version.level = level;
        version.hosted = hosted;
        int result = catalog_add_version(b, &version);
        assert(result >= 0);
    }
    return (uint32_t)index;
}

static inline void fixture_add_models(struct catalog_builder *b, uint32_t n_tenants)
{
    int result = 0;
    uint32_t first[2] = {0}; /* m0 of the two tenants before */
    for (uint32_t i = 0; i < n_tenants; i++) {
        uint32_t m0 = 0;
        bool lent = i % 3 == 0 && i >= 3;
        for (uint32_t m = 0; m < i % 3; m++) {
            struct catalog_model model = fixture_model(i, m);
            uint32_t index = fixture_add_model(b, &model, 1 + i % 2, i % 2 ? 3 : CATALOG_LEVEL_SHARED, false);
            m0 = m == 0 ? index : m0;
        }
        if (lent) {
            struct catalog_model model = fixture_model(i, 0);
            model.shared_batch = 1;
            m0 = fixture_add_model(b, &model, 1 + i % 2, i % 2 ? 4 : CATALOG_LEVEL_SHARED, i % 2 == 0);
            result = catalog_set_lender(b, m0, first[0]);
            assert(result == 0);
        }
        if (i % 3 || lent) {
            struct catalog_adapter a = fixture_adapter(i, m0);
            result = catalog_add_adapter(b, &a);
            assert(result >= 0);
        }
        first[0] = first[1];
        first[1] = m0;
    }
}

static inline struct catalog_builder *fixture_builder(uint32_t n_tenants, uint32_t n_keys)
{
    struct catalog_builder *b = NULL;
    int result = catalog_builder_new(7, &b);
    assert(result == 0);
    for (uint32_t i = 0; i < n_tenants; i++) {
        struct catalog_tenant t = fixture_tenant(i);
        if (i % 2) {
            struct catalog_quota q = {.requests_per_minute = i, .burst = 1};
            result = catalog_add_quota(b, &q);
            assert(result == (int)(i / 2));
            t.quota = (uint32_t)result + 1;
            t.key_quota = 1;
        }
        result = catalog_add_tenant(b, &t);
        assert(result == (int)i);
    }
    fixture_add_models(b, n_tenants);
    for (uint32_t i = 0; i < n_keys; i++) {
        char id[CATALOG_KEY_ID_BYTES + 1];
        fixture_key_id(i, id);
        struct catalog_key k = {.tenant = i % n_tenants};
        memcpy(k.id, id, sizeof k.id);
        memset(k.hash, (int)(i & 0xFF), sizeof k.hash);
        result = catalog_add_key(b, &k);
        assert(result == (int)i);
    }
    return b;
}

/* Calls every reader on every row and name: under ASan this finds any read outside the snapshot. */
static inline uint64_t fixture_read_everything(const struct catalog *c)
{
    uint64_t sum = catalog_generation(c);
    for (uint32_t i = 0; i < catalog_n_keys(c); i++) {
        const struct catalog_key *k = catalog_key_find(c, catalog_key_at(c, i)->id);
        sum += k ? catalog_tenant_at(c, k->tenant)->uid : 1;
    }
    for (uint32_t i = 0; i < catalog_n_tenants(c); i++) {
        const struct catalog_tenant *t = catalog_tenant_find(c, str_from(catalog_tenant_at(c, i)->name));
        sum += t ? t->uid : 1;
        sum += t && t->quota > 0 ? catalog_quota_at(c, t->quota - 1)->burst : 1;
        sum += t && t->key_quota > 0 ? catalog_quota_at(c, t->key_quota - 1)->burst : 1;
        uint32_t first = 0, n = 0;
        catalog_models_of(c, i, &first, &n);
        for (uint32_t m = first; m < first + n; m++) {
            const struct catalog_model *model = catalog_model_find(c, i, str_from(catalog_model_at(c, m)->name));
            sum += model ? model->uid : 1;
            for (uint32_t v = 0; model && v < model->n_versions; v++)
                sum += strlen(catalog_version_at(c, model->version_first + v)->engine);
            sum += model && model->lender ? catalog_model_at(c, model->lender - 1)->uid : 1;
        }
        catalog_adapters_of(c, i, &first, &n);
        for (uint32_t k = first; k < first + n; k++) {
            const struct catalog_adapter *a = catalog_adapter_find(c, i, str_from(catalog_adapter_at(c, k)->name));
            sum += a ? catalog_model_at(c, a->model)->uid : 1;
        }
    }
    sum += catalog_key_find(c, "0123456789abcdef") != NULL;
    sum += catalog_tenant_find(c, STR("nobody")) != NULL;
    sum += catalog_model_find(c, 0, STR("nothing")) != NULL;
    sum += catalog_adapter_find(c, 0, STR("nothing")) != NULL;
    return sum;
}

#endif
