/* Checks a snapshot once, so that reading needs no checks. Everything here is peer input: codes, never asserts. */
#include "catalog/catalog_internal.h"

_Static_assert(sizeof(struct catalog_head) == 72, "no padding: the whole head is written");
_Static_assert(sizeof(struct catalog_quota) == 96, "no padding");
_Static_assert(sizeof(struct catalog_tenant) == 112, "no padding");
_Static_assert(sizeof(struct catalog_key) == 56, "no padding");
_Static_assert(sizeof(struct catalog_model) == 168, "no padding");
_Static_assert(sizeof(struct catalog_version) == 112, "no padding");
_Static_assert(sizeof(struct catalog_adapter) == 128, "no padding");
_Static_assert(sizeof(struct catalog_slot) == 8, "one load");

static size_t slots_for(uint32_t n)
{
    size_t slots = 8;
    while (slots < 2 * (size_t)n)
        slots *= 2;
    return slots;
}

/* Places `bytes` at the cursor and moves it to the next aligned place. Sums stay far from overflow: every count is
 * bounded by its limit (the versions by 8 per model), so the whole is below 1 GiB. */
static size_t place(size_t *cursor, size_t bytes)
{
    size_t offset = *cursor;
    *cursor = (offset + bytes + CATALOG_ALIGN - 1) / CATALOG_ALIGN * CATALOG_ALIGN;
    return offset;
}

struct catalog_layout catalog_layout_of(const struct catalog_head *counts)
{
    struct catalog_layout l = {
        .n_key_slots = slots_for(counts->n_keys),
        .n_tenant_slots = slots_for(counts->n_tenants),
        .n_model_slots = slots_for(counts->n_models),
        .n_adapter_slots = slots_for(counts->n_adapters),
    };
    size_t cursor = 0;
    (void)place(&cursor, sizeof(struct catalog_head));
    l.quotas = place(&cursor, counts->n_quotas * sizeof(struct catalog_quota));
    l.tenants = place(&cursor, counts->n_tenants * sizeof(struct catalog_tenant));
    l.keys = place(&cursor, counts->n_keys * sizeof(struct catalog_key));
    l.models = place(&cursor, counts->n_models * sizeof(struct catalog_model));
    l.versions = place(&cursor, counts->n_versions * sizeof(struct catalog_version));
    l.adapters = place(&cursor, counts->n_adapters * sizeof(struct catalog_adapter));
    l.ranges = place(&cursor, counts->n_tenants * sizeof(struct catalog_range));
    l.adapter_ranges = place(&cursor, counts->n_tenants * sizeof(struct catalog_range));
    l.key_slots = place(&cursor, l.n_key_slots * sizeof(struct catalog_slot));
    l.tenant_slots = place(&cursor, l.n_tenant_slots * sizeof(struct catalog_slot));
    l.model_slots = place(&cursor, l.n_model_slots * sizeof(struct catalog_slot));
    l.adapter_slots = place(&cursor, l.n_adapter_slots * sizeof(struct catalog_slot));
    l.bytes = cursor;
    return l;
}

/* A DNS-1123 token, NUL-terminated within `capacity` bytes. */
static bool text_is_name(const char *text, size_t capacity)
{
    size_t length = strnlen(text, capacity);
    return length < capacity && str_is_name((struct str){text, length});
}

const char *catalog_tenant_fault(const struct catalog_tenant *t)
{
    if (!text_is_name(t->name, sizeof t->name))
        return "name is no token";
    if (t->weight < 1)
        return "weight is zero";
    if (t->queue_max < 1)
        return "queue is zero";
    if (t->classes == 0 || t->classes >> CATALOG_CLASS_COUNT != 0)
        return "classes are unknown";
    return NULL;
}

const char *catalog_quota_fault(const struct catalog_quota *q)
{
    if (q->burst < 1)
        return "burst is zero";
    if (q->compute_s_per_hour > UINT32_MAX || q->compute_s_per_day > UINT32_MAX)
        return "compute is out of range";
    return NULL;
}

const char *catalog_key_fault(const struct catalog_key *k)
{
    for (size_t i = 0; i < sizeof k->id; i++) {
        char c = k->id[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')))
            return "id is not base62";
    }
    return NULL;
}

const char *catalog_model_fault(const struct catalog_model *m)
{
    if (!text_is_name(m->name, sizeof m->name))
        return "name is no token";
    if (m->batch_max < 1)
        return "batch is zero";
    if (m->replicas_max < 1 || m->replicas_max > LIMIT_REPLICAS_PER_MODEL || m->replicas_min > m->replicas_max)
        return "replicas are out of range";
    if (m->weight < 1)
        return "weight is zero";
    if (m->class >= CATALOG_CLASS_COUNT)
        return "class is unknown";
    if (m->shared_batch > 1)
        return "shared batch is unknown";
    if (m->n_preferred > LIMIT_BATCH_PREFERRED)
        return "too many preferred sizes";
    for (uint32_t i = 0; i < m->n_preferred; i++)
        if (m->preferred[i] < 1 || m->preferred[i] > m->batch_max || (i > 0 && m->preferred[i] <= m->preferred[i - 1]))
            return "preferred sizes are out of range or order";
    return NULL;
}

const char *catalog_version_fault(const struct catalog_version *v)
{
    if (v->number < 1)
        return "number is zero";
    if (v->slots < 1)
        return "slots is zero";
    if (v->dedicated > 1)
        return "dedicated is out of range";
    if (v->device >= LIMIT_DEVICES && v->device != CATALOG_DEVICE_NONE)
        return "device is out of range";
    if (v->level >= CATALOG_LEVEL_COUNT)
        return "level is unknown";
    if (v->hosted > 1 || (v->hosted && v->level != CATALOG_LEVEL_SHARED))
        return "is hosted, but not at level shared";
    if (!text_is_name(v->engine, sizeof v->engine))
        return "engine is no token";
    return NULL;
}

const char *catalog_adapter_fault(const struct catalog_adapter *a)
{
    if (!text_is_name(a->name, sizeof a->name))
        return "name is no token";
    if (a->bytes < 1 || a->bytes > LIMIT_ARTIFACT_BYTES)
        return "bytes are out of range";
    return NULL;
}

static bool version_lent(const struct catalog_version *lent, const struct catalog_version *own)
{
    return lent->uid == own->uid && lent->number == own->number && lent->created_s == own->created_s &&
           lent->slots == own->slots && lent->device == own->device && (!lent->hosted || lent->level == own->level) &&
           memcmp(lent->engine, own->engine, sizeof own->engine) == 0 &&
           memcmp(lent->digest, own->digest, sizeof own->digest) == 0;
}

const char *catalog_lent_fault(const struct catalog_model *models, uint32_t n_models,
                               const struct catalog_version *versions, const struct catalog_model *m)
{
    const struct catalog_version *v = &versions[m->version_first];
    if (m->lender == 0) {
        for (uint32_t i = 0; i < m->n_versions; i++)
            if (v[i].hosted)
                return "is hosted, but not lent";
        return m->shared_batch ? "shares batches, but is not lent" : NULL;
    }
    if (m->lender > n_models)
        return "lender is out of range";
    const struct catalog_model *owner = &models[m->lender - 1];
    if (owner->lender != 0 || owner->tenant == m->tenant || owner->n_versions != m->n_versions ||
        strcmp(owner->name, m->name) != 0)
        return "is not its lender's";
    for (uint32_t i = 0; i < m->n_versions; i++)
        if (!version_lent(&v[i], &versions[owner->version_first + i]))
            return "has a version that is not its lender's";
    return NULL;
}

static int refuse(struct error *err, const char *what, uint32_t index, const char *fault)
{
    return error_set(err, ERROR_PEER, "catalog: %s %u: %s", what, index, fault);
}

static int check_head(const struct catalog_head *h, size_t bytes, struct error *err)
{
    if (memcmp(h->magic, CATALOG_MAGIC, sizeof h->magic) != 0)
        return error_set(err, ERROR_PEER, "catalog: no snapshot");
    if (h->version != CATALOG_VERSION)
        return error_set(err, ERROR_PEER, "catalog: format %u, but %u is expected", h->version, CATALOG_VERSION);
    if (h->n_quotas > CATALOG_QUOTAS_MAX || h->n_tenants > LIMIT_TENANTS || h->n_keys > LIMIT_KEYS ||
        h->n_models > LIMIT_MODELS || h->n_versions > LIMIT_MODELS * LIMIT_VERSIONS_SERVED ||
        h->n_adapters > LIMIT_ADAPTERS)
        return error_set(err, ERROR_PEER, "catalog: more rows than the limit");
    size_t expected = catalog_layout_of(h).bytes;
    if (h->bytes != bytes || expected != bytes)
        return error_set(err, ERROR_PEER, "catalog: %zu bytes, but %zu are expected", bytes, expected);
    return 0;
}

static int check_plain_rows(const struct catalog *c, struct error *err)
{
    for (uint32_t i = 0; i < c->head->n_quotas; i++) {
        const char *fault = catalog_quota_fault(&c->quotas[i]);
        if (fault)
            return refuse(err, "quota", i, fault);
    }
    for (uint32_t i = 0; i < c->head->n_tenants; i++) {
        const char *fault = catalog_tenant_fault(&c->tenants[i]);
        if (!fault && (c->tenants[i].quota > c->head->n_quotas || c->tenants[i].key_quota > c->head->n_quotas))
            fault = "quota is out of range";
        if (fault)
            return refuse(err, "tenant", i, fault);
    }
    for (uint32_t i = 0; i < c->head->n_keys; i++) {
        const char *fault = catalog_key_fault(&c->keys[i]);
        if (!fault && c->keys[i].tenant >= c->head->n_tenants)
            fault = "tenant is out of range";
        if (fault)
            return refuse(err, "key", i, fault);
    }
    return 0;
}

static int check_model_versions(const struct catalog *c, uint32_t model, struct error *err)
{
    const struct catalog_model *m = &c->models[model];
    for (uint32_t i = 0; i < m->n_versions; i++) {
        const struct catalog_version *v = &c->versions[m->version_first + i];
        const char *fault = catalog_version_fault(v);
        if (!fault && v->model != model)
            fault = "belongs to another model";
        if (!fault && i > 0 && v->number >= v[-1].number)
            fault = "is not in order, newest first";
        if (fault)
            return refuse(err, "version", m->version_first + i, fault);
    }
    return 0;
}

/* Models lie grouped by tenant, and their versions in the same order without a gap: one walk checks both. */
static int check_models(const struct catalog *c, struct error *err)
{
    uint32_t n_versions = 0, tenant = 0;
    for (uint32_t i = 0; i < c->head->n_models; i++) {
        const struct catalog_model *m = &c->models[i];
        const char *fault = catalog_model_fault(m);
        if (!fault && (m->tenant >= c->head->n_tenants || m->tenant < tenant))
            fault = "tenant is out of range or order";
        if (!fault && (m->n_versions < 1 || m->n_versions > LIMIT_VERSIONS_SERVED || m->version_first != n_versions ||
                       m->n_versions > c->head->n_versions - n_versions))
            fault = "versions are out of range";
        if (fault)
            return refuse(err, "model", i, fault);
        int result = check_model_versions(c, i, err);
        if (result < 0)
            return result;
        tenant = m->tenant;
        n_versions += m->n_versions;
    }
    if (n_versions != c->head->n_versions)
        return error_set(err, ERROR_PEER, "catalog: a version without a model");
    for (uint32_t i = 0; i < c->head->n_models; i++) { /* now that every row's own indices are known to be right */
        const char *fault = catalog_lent_fault(c->models, c->head->n_models, c->versions, &c->models[i]);
        if (fault)
            return refuse(err, "model", i, fault);
    }
    return 0;
}

static int check_adapters(const struct catalog *c, struct error *err)
{
    uint32_t tenant = 0;
    for (uint32_t i = 0; i < c->head->n_adapters; i++) {
        const struct catalog_adapter *a = &c->adapters[i];
        const char *fault = catalog_adapter_fault(a);
        if (!fault && (a->tenant >= c->head->n_tenants || a->tenant < tenant))
            fault = "tenant is out of range or order";
        if (!fault && (a->model >= c->head->n_models || c->models[a->model].tenant != a->tenant))
            fault = "base is out of range or of another tenant";
        if (fault)
            return refuse(err, "adapter", i, fault);
        tenant = a->tenant;
    }
    uint32_t next = 0;
    for (uint32_t i = 0; i < c->head->n_tenants; i++) {
        const struct catalog_range *r = &c->adapter_ranges[i];
        uint32_t n = 0;
        while (next + n < c->head->n_adapters && c->adapters[next + n].tenant == i)
            n++;
        if (r->first != next || r->n != n)
            return refuse(err, "tenant", i, "adapters are not where its range says");
        next += n;
    }
    return 0;
}

static int check_ranges(const struct catalog *c, struct error *err)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < c->head->n_tenants; i++) {
        const struct catalog_range *r = &c->ranges[i];
        uint32_t n = 0;
        while (next + n < c->head->n_models && c->models[next + n].tenant == i)
            n++;
        if (r->first != next || r->n != n)
            return refuse(err, "tenant", i, "models are not where its range says");
        next += n;
    }
    return 0;
}

/* Exactly as many occupied slots as rows: at least half of the table is empty, so every probe ends. */
static int check_table(const struct catalog_table *table, uint32_t n, const char *what, struct error *err)
{
    size_t occupied = 0;
    for (size_t i = 0; i <= table->mask; i++) {
        uint32_t index_plus_1 = table->slots[i].index_plus_1;
        if (index_plus_1 > n)
            return error_set(err, ERROR_PEER, "catalog: the index of %s points outside", what);
        occupied += index_plus_1 != 0;
    }
    if (occupied != n)
        return error_set(err, ERROR_PEER, "catalog: the index of %s is not complete", what);
    return 0;
}

int catalog_view(struct catalog *c, const void *data, size_t bytes, struct error *err)
{
    const struct catalog_head *head = data;
    if (bytes < sizeof *head)
        return error_set(err, ERROR_PEER, "catalog: shorter than its head");
    int result = check_head(head, bytes, err);
    if (result < 0)
        return result;
    struct catalog_layout l = catalog_layout_of(head);
    const char *base = data;
    *c = (struct catalog){
        .head = head,
        .quotas = (const void *)(base + l.quotas),
        .tenants = (const void *)(base + l.tenants),
        .keys = (const void *)(base + l.keys),
        .models = (const void *)(base + l.models),
        .versions = (const void *)(base + l.versions),
        .adapters = (const void *)(base + l.adapters),
        .ranges = (const void *)(base + l.ranges),
        .adapter_ranges = (const void *)(base + l.adapter_ranges),
        .key_table = {(const void *)(base + l.key_slots), l.n_key_slots - 1},
        .tenant_table = {(const void *)(base + l.tenant_slots), l.n_tenant_slots - 1},
        .model_table = {(const void *)(base + l.model_slots), l.n_model_slots - 1},
        .adapter_table = {(const void *)(base + l.adapter_slots), l.n_adapter_slots - 1},
        .bytes = bytes,
    };
    if ((result = check_plain_rows(c, err)) < 0 || (result = check_models(c, err)) < 0 ||
        (result = check_ranges(c, err)) < 0 || (result = check_adapters(c, err)) < 0)
        return result;
    if ((result = check_table(&c->key_table, head->n_keys, "keys", err)) < 0 ||
        (result = check_table(&c->tenant_table, head->n_tenants, "tenants", err)) < 0 ||
        (result = check_table(&c->model_table, head->n_models, "models", err)) < 0)
        return result;
    return check_table(&c->adapter_table, head->n_adapters, "adapters", err);
}
