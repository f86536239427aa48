/* Collects rows in growing arrays, then lays them out, indexes them, writes and seals. */
#include "catalog/catalog_internal.h"

#include "base/memory.h"
#include "base/random.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

/* Tenants of one kind come in a row as a rule: so many quotas are looked at for one that is the same. */
#define QUOTAS_LATELY 16u

struct rows { /* a growing array of rows of one size */
    char *data;
    uint32_t n, n_max;
    size_t row_bytes, capacity; /* capacity in rows */
};

struct catalog_builder {
    uint64_t generation;
    struct rows quotas, tenants, keys, models, versions, adapters;
};

static void rows_init(struct rows *r, size_t row_bytes, uint32_t n_max)
{
    *r = (struct rows){.row_bytes = row_bytes, .n_max = n_max};
}

static void *rows_at(const struct rows *r, uint32_t index)
{
    return r->data + index * r->row_bytes;
}

static int rows_add(struct rows *r, const void *row)
{
    if (r->n >= r->n_max)
        return -ERROR_LIMIT;
    char *data = memory_array_room(r->data, r->n, &r->capacity, r->row_bytes);
    if (!data)
        return -ERROR_NO_MEMORY;
    r->data = data;
    memcpy(rows_at(r, r->n), row, r->row_bytes);
    return (int)r->n++;
}

int catalog_builder_new(uint64_t generation, struct catalog_builder **ret_builder)
{
    struct catalog_builder *b = calloc(1, sizeof *b);
    if (!b)
        return -ERROR_NO_MEMORY;
    b->generation = generation;
    rows_init(&b->quotas, sizeof(struct catalog_quota), CATALOG_QUOTAS_MAX);
    rows_init(&b->tenants, sizeof(struct catalog_tenant), LIMIT_TENANTS);
    rows_init(&b->keys, sizeof(struct catalog_key), LIMIT_KEYS);
    rows_init(&b->models, sizeof(struct catalog_model), LIMIT_MODELS);
    rows_init(&b->versions, sizeof(struct catalog_version), LIMIT_MODELS * LIMIT_VERSIONS_SERVED);
    rows_init(&b->adapters, sizeof(struct catalog_adapter), LIMIT_ADAPTERS);
    *ret_builder = b;
    return 0;
}

void catalog_builder_free(struct catalog_builder *b)
{
    if (!b)
        return;
    free(b->quotas.data);
    free(b->tenants.data);
    free(b->keys.data);
    free(b->models.data);
    free(b->versions.data);
    free(b->adapters.data);
    free(b);
}

static struct catalog_model *model_last(struct catalog_builder *b)
{
    return b->models.n > 0 ? rows_at(&b->models, b->models.n - 1) : NULL;
}

int catalog_add_quota(struct catalog_builder *b, const struct catalog_quota *q)
{
    if (catalog_quota_fault(q))
        return -ERROR_INVALID_ARGUMENT;
    uint32_t oldest = b->quotas.n > QUOTAS_LATELY ? b->quotas.n - QUOTAS_LATELY : 0;
    for (uint32_t i = b->quotas.n; i > oldest; i--)
        if (memcmp(rows_at(&b->quotas, i - 1), q, sizeof *q) == 0)
            return (int)(i - 1);
    return rows_add(&b->quotas, q);
}

int catalog_add_tenant(struct catalog_builder *b, const struct catalog_tenant *t)
{
    if (t->quota > b->quotas.n || t->key_quota > b->quotas.n || catalog_tenant_fault(t))
        return -ERROR_INVALID_ARGUMENT;
    return rows_add(&b->tenants, t);
}

int catalog_add_key(struct catalog_builder *b, const struct catalog_key *k)
{
    if (k->tenant >= b->tenants.n || catalog_key_fault(k))
        return -ERROR_INVALID_ARGUMENT;
    return rows_add(&b->keys, k);
}

int catalog_add_model(struct catalog_builder *b, const struct catalog_model *m)
{
    const struct catalog_model *last = model_last(b);
    if (m->tenant >= b->tenants.n || (last && (last->tenant > m->tenant || last->n_versions == 0)) ||
        catalog_model_fault(m))
        return -ERROR_INVALID_ARGUMENT;
    struct catalog_model copy = *m;
    copy.version_first = b->versions.n;
    copy.n_versions = 0;
    copy.lender = 0; /* catalog_set_lender */
    return rows_add(&b->models, &copy);
}

int catalog_add_version(struct catalog_builder *b, const struct catalog_version *v)
{
    struct catalog_model *m = model_last(b);
    if (!m || m->n_versions == LIMIT_VERSIONS_SERVED || catalog_version_fault(v))
        return -ERROR_INVALID_ARGUMENT;
    if (m->n_versions > 0) {
        const struct catalog_version *newer = rows_at(&b->versions, b->versions.n - 1);
        if (v->number >= newer->number)
            return -ERROR_INVALID_ARGUMENT;
    }
    struct catalog_version copy = *v;
    copy.model = b->models.n - 1;
    int index = rows_add(&b->versions, &copy);
    if (index >= 0)
        m->n_versions++;
    return index;
}

int catalog_add_adapter(struct catalog_builder *b, const struct catalog_adapter *a)
{
    const struct catalog_adapter *last = b->adapters.n > 0 ? rows_at(&b->adapters, b->adapters.n - 1) : NULL;
    if (a->model >= b->models.n || (last && last->tenant > a->tenant) || catalog_adapter_fault(a) ||
        ((const struct catalog_model *)rows_at(&b->models, a->model))->tenant != a->tenant)
        return -ERROR_INVALID_ARGUMENT;
    return rows_add(&b->adapters, a);
}

int catalog_set_lender(struct catalog_builder *b, uint32_t model, uint32_t lender)
{
    if (model >= b->models.n || lender >= b->models.n)
        return -ERROR_INVALID_ARGUMENT;
    ((struct catalog_model *)rows_at(&b->models, model))->lender = lender + 1;
    return 0;
}

/* One index table under construction: how its rows are hashed and told apart. */
struct table_kind {
    const char *what;
    uint64_t (*hash)(struct hash_seed seed, const void *row);
    bool (*equal)(const void *a, const void *b);
};

static uint64_t hash_key_row(struct hash_seed seed, const void *row)
{
    const struct catalog_key *k = row;
    return catalog_hash_key(seed, k->id);
}

static bool equal_key_rows(const void *a, const void *b)
{
    const struct catalog_key *x = a, *y = b;
    return memcmp(x->id, y->id, sizeof x->id) == 0;
}

static uint64_t hash_tenant_row(struct hash_seed seed, const void *row)
{
    const struct catalog_tenant *t = row;
    return catalog_hash_tenant(seed, str_from(t->name));
}

static bool equal_tenant_rows(const void *a, const void *b)
{
    const struct catalog_tenant *x = a, *y = b;
    return strcmp(x->name, y->name) == 0;
}

static uint64_t hash_model_row(struct hash_seed seed, const void *row)
{
    const struct catalog_model *m = row;
    return catalog_hash_model(seed, m->tenant, str_from(m->name));
}

static bool equal_model_rows(const void *a, const void *b)
{
    const struct catalog_model *x = a, *y = b;
    return x->tenant == y->tenant && strcmp(x->name, y->name) == 0;
}

static uint64_t hash_adapter_row(struct hash_seed seed, const void *row)
{
    const struct catalog_adapter *a = row;
    return catalog_hash_model(seed, a->tenant, str_from(a->name));
}

static bool equal_adapter_rows(const void *a, const void *b)
{
    const struct catalog_adapter *x = a, *y = b;
    return x->tenant == y->tenant && strcmp(x->name, y->name) == 0;
}

static const struct table_kind key_kind = {"keys", hash_key_row, equal_key_rows};
static const struct table_kind tenant_kind = {"tenants", hash_tenant_row, equal_tenant_rows};
static const struct table_kind model_kind = {"models", hash_model_row, equal_model_rows};
static const struct table_kind adapter_kind = {"adapters", hash_adapter_row, equal_adapter_rows};

static int table_fill(struct catalog_slot *slots, size_t n_slots, const struct rows *rows,
                      const struct table_kind *kind, struct hash_seed seed, struct error *err)
{
    for (uint32_t i = 0; i < rows->n; i++) {
        uint64_t hash = kind->hash(seed, rows_at(rows, i)), position = hash;
        struct catalog_slot *slot;
        while ((slot = &slots[position++ & (n_slots - 1)])->index_plus_1 != 0)
            if (slot->fingerprint == (uint32_t)(hash >> 32) &&
                kind->equal(rows_at(rows, slot->index_plus_1 - 1), rows_at(rows, i)))
                return error_set(err, ERROR_INVALID_ARGUMENT, "catalog: two %s of the same name", kind->what);
        *slot = (struct catalog_slot){(uint32_t)(hash >> 32), i + 1};
    }
    return 0;
}

static void ranges_fill(struct catalog_range *ranges, const struct catalog_builder *b)
{
    uint32_t next = 0;
    for (uint32_t tenant = 0; tenant < b->tenants.n; tenant++) {
        ranges[tenant].first = next;
        while (next < b->models.n && ((const struct catalog_model *)rows_at(&b->models, next))->tenant == tenant)
            next++;
        ranges[tenant].n = next - ranges[tenant].first;
    }
}

static void adapter_ranges_fill(struct catalog_range *ranges, const struct catalog_builder *b)
{
    uint32_t next = 0;
    for (uint32_t tenant = 0; tenant < b->tenants.n; tenant++) {
        ranges[tenant].first = next;
        while (next < b->adapters.n && ((const struct catalog_adapter *)rows_at(&b->adapters, next))->tenant == tenant)
            next++;
        ranges[tenant].n = next - ranges[tenant].first;
    }
}

static void rows_copy(char *to, const struct rows *r)
{
    if (r->n > 0)
        memcpy(to, r->data, r->n * r->row_bytes);
}

static int tables_fill(char *image, const struct catalog_layout *l, const struct catalog_builder *b,
                       struct hash_seed seed, struct error *err)
{
    const struct {
        size_t slots, n_slots;
        const struct rows *rows;
        const struct table_kind *kind;
    } tables[] = {{l->key_slots, l->n_key_slots, &b->keys, &key_kind},
                  {l->tenant_slots, l->n_tenant_slots, &b->tenants, &tenant_kind},
                  {l->model_slots, l->n_model_slots, &b->models, &model_kind},
                  {l->adapter_slots, l->n_adapter_slots, &b->adapters, &adapter_kind}};
    int result = 0;
    for (size_t i = 0; result == 0 && i < sizeof tables / sizeof tables[0]; i++)
        result =
            table_fill((void *)(image + tables[i].slots), tables[i].n_slots, tables[i].rows, tables[i].kind, seed, err);
    return result;
}

/* `image` is zeroed and of l->bytes; `counts` is its head but for magic and seed. */
static int image_fill(char *image, const struct catalog_layout *l, const struct catalog_head *counts,
                      const struct catalog_builder *b, struct error *err)
{
    struct catalog_head *head = (void *)image;
    *head = *counts;
    memcpy(head->magic, CATALOG_MAGIC, sizeof head->magic);
    random_bytes(&head->seed, sizeof head->seed);
    rows_copy(image + l->quotas, &b->quotas);
    rows_copy(image + l->tenants, &b->tenants);
    rows_copy(image + l->keys, &b->keys);
    rows_copy(image + l->models, &b->models);
    rows_copy(image + l->versions, &b->versions);
    rows_copy(image + l->adapters, &b->adapters);
    ranges_fill((void *)(image + l->ranges), b);
    adapter_ranges_fill((void *)(image + l->adapter_ranges), b);
    return tables_fill(image, l, b, head->seed, err);
}

static int write_all(int fd, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t written = write(fd, data, bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -ERROR_NO_MEMORY; /* a memfd fails for want of memory only */
        data += written;
        bytes -= (size_t)written;
    }
    return 0;
}

static int check_lent(const struct catalog_builder *b, struct error *err)
{
    const struct catalog_model *models = (const void *)b->models.data;
    for (uint32_t i = 0; i < b->models.n; i++) {
        const char *fault = catalog_lent_fault(models, b->models.n, (const void *)b->versions.data, &models[i]);
        if (fault)
            return error_set(err, ERROR_INVALID_ARGUMENT, "catalog: model %u: %s", i, fault);
    }
    return 0;
}

int catalog_build(struct catalog_builder *b, int *ret_fd, size_t *ret_bytes, struct error *err)
{
    const struct catalog_model *last = model_last(b);
    if (last && last->n_versions == 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "catalog: a model without a version");
    int result = check_lent(b, err);
    if (result < 0)
        return result;
    struct catalog_head head = {.version = CATALOG_VERSION,
                                .generation = b->generation,
                                .n_quotas = b->quotas.n,
                                .n_tenants = b->tenants.n,
                                .n_keys = b->keys.n,
                                .n_models = b->models.n,
                                .n_versions = b->versions.n,
                                .n_adapters = b->adapters.n};
    struct catalog_layout l = catalog_layout_of(&head);
    head.bytes = l.bytes;
    if (l.bytes > LIMIT_CATALOG_BYTES)
        return error_set(err, ERROR_LIMIT, "catalog: the snapshot would be over the limit");
    _free_ char *image = calloc(1, l.bytes);
    if (!image)
        return error_set_default(err, ERROR_NO_MEMORY);
    result = image_fill(image, &l, &head, b, err);
    if (result < 0)
        return result;
    _close_ int fd = memfd_create("catalog", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || write_all(fd, image, l.bytes) < 0)
        return error_set_default(err, ERROR_NO_MEMORY);
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0)
        return error_set(err, ERROR_INTERNAL, "catalog: the snapshot cannot be sealed");
    *ret_bytes = l.bytes;
    *ret_fd = take_fd(&fd);
    return 0;
}
