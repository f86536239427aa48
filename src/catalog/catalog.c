#include "catalog/catalog_internal.h"

#include "base/memory.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define SEALS_DEMANDED (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

uint64_t catalog_hash_key(struct hash_seed seed, const char *id)
{
    return hash_bytes(seed, id, CATALOG_KEY_ID_BYTES);
}

uint64_t catalog_hash_tenant(struct hash_seed seed, struct str name)
{
    return hash_str(seed, name);
}

uint64_t catalog_hash_model(struct hash_seed seed, uint32_t tenant, struct str name)
{
    char pair[sizeof tenant + LIMIT_NAME_BYTES];
    assert(name.size <= LIMIT_NAME_BYTES);
    memcpy(pair, &tenant, sizeof tenant);
    memcpy(pair + sizeof tenant, name.data, name.size);
    return hash_bytes(seed, pair, sizeof tenant + name.size);
}

/* Nobody can change or cut off the file under a reader. */
static int check_file(int fd, size_t bytes, struct error *err)
{
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS_DEMANDED) != SEALS_DEMANDED)
        return error_set(err, ERROR_PEER, "catalog: the snapshot is not sealed");
    struct stat status;
    if (fstat(fd, &status) != 0 || status.st_size < 0 || (uint64_t)status.st_size != bytes)
        return error_set(err, ERROR_PEER, "catalog: the snapshot is not of the size announced");
    if (bytes > LIMIT_CATALOG_BYTES)
        return error_set(err, ERROR_PEER, "catalog: the snapshot is over the limit");
    if (bytes < sizeof(struct catalog_head))
        return error_set(err, ERROR_PEER, "catalog: the snapshot is shorter than its head");
    return 0;
}

/* By lseek and read: the gateway's filter lets no pread through, and nobody else reads through this open file. */
static int read_all(int fd, char *to, size_t bytes, struct error *err)
{
    if (lseek(fd, 0, SEEK_SET) != 0)
        return error_set(err, ERROR_PEER, "catalog: the snapshot cannot be read");
    for (size_t done = 0; done < bytes;) {
        ssize_t n = read(fd, to + done, bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, ERROR_PEER, "catalog: the snapshot cannot be read");
        done += (size_t)n;
    }
    return 0;
}

int catalog_open(int fd, size_t bytes, struct catalog **ret_catalog, struct error *err)
{
    int result = check_file(fd, bytes, err);
    if (result < 0)
        return result;
    struct catalog *c = calloc(1, sizeof *c);
    if (!c)
        return error_set_default(err, ERROR_NO_MEMORY);
    /* Copied, not mapped: the copy lies in huge pages, which a memfd's do not, and at a million keys that is half of a
     * look-up's time. The memfd goes as soon as both sides have closed it, so that nothing is held twice for long. */
    _free_ char *copy = memory_large_new(bytes);
    result = copy ? read_all(fd, copy, bytes, err) : error_set_default(err, ERROR_NO_MEMORY);
    if (result >= 0)
        result = catalog_view(c, copy, bytes, err);
    if (result < 0) {
        free(c);
        return result;
    }
    c->copy = copy;
    copy = NULL;
    *ret_catalog = c;
    return 0;
}

void catalog_close(struct catalog *c)
{
    if (!c)
        return;
    free(c->copy);
    free(c);
}

uint64_t catalog_generation(const struct catalog *c)
{
    return c->head->generation;
}

uint32_t catalog_n_quotas(const struct catalog *c)
{
    return c->head->n_quotas;
}

uint32_t catalog_n_tenants(const struct catalog *c)
{
    return c->head->n_tenants;
}

uint32_t catalog_n_keys(const struct catalog *c)
{
    return c->head->n_keys;
}

uint32_t catalog_n_models(const struct catalog *c)
{
    return c->head->n_models;
}

uint32_t catalog_n_versions(const struct catalog *c)
{
    return c->head->n_versions;
}

uint32_t catalog_n_adapters(const struct catalog *c)
{
    return c->head->n_adapters;
}

const struct catalog_quota *catalog_quota_at(const struct catalog *c, uint32_t index)
{
    assert(index < c->head->n_quotas);
    return &c->quotas[index];
}

const struct catalog_tenant *catalog_tenant_at(const struct catalog *c, uint32_t index)
{
    assert(index < c->head->n_tenants);
    return &c->tenants[index];
}

const struct catalog_key *catalog_key_at(const struct catalog *c, uint32_t index)
{
    assert(index < c->head->n_keys);
    return &c->keys[index];
}

const struct catalog_model *catalog_model_at(const struct catalog *c, uint32_t index)
{
    assert(index < c->head->n_models);
    return &c->models[index];
}

const struct catalog_version *catalog_version_at(const struct catalog *c, uint32_t index)
{
    assert(index < c->head->n_versions);
    return &c->versions[index];
}

const struct catalog_adapter *catalog_adapter_at(const struct catalog *c, uint32_t index)
{
    assert(index < c->head->n_adapters);
    return &c->adapters[index];
}

/* Walks the occupied slots of one probe sequence whose fingerprint fits: `position` starts as the hash. Each call gives
 * the next candidate row, or -1 at the end of the sequence, which every table has: the check counted its empty slots.
 */
static int64_t table_next(const struct catalog_table *table, uint64_t hash, uint64_t *position)
{
    uint32_t fingerprint = (uint32_t)(hash >> 32);
    for (;;) {
        const struct catalog_slot *slot = &table->slots[*position & table->mask];
        if (slot->index_plus_1 == 0)
            return -1;
        (*position)++;
        if (slot->fingerprint == fingerprint)
            return (int64_t)slot->index_plus_1 - 1;
    }
}

const struct catalog_key *catalog_key_find(const struct catalog *c, const char *id)
{
    uint64_t hash = catalog_hash_key(c->head->seed, id), position = hash;
    int64_t row;
    while ((row = table_next(&c->key_table, hash, &position)) >= 0)
        if (memcmp(c->keys[row].id, id, CATALOG_KEY_ID_BYTES) == 0)
            return &c->keys[row];
    return NULL;
}

/* `stored` is NUL-terminated within its 64 bytes; `name` is at most 63 bytes and may hold any byte. */
static bool name_equal(const char *stored, struct str name)
{
    return strnlen(stored, LIMIT_NAME_BYTES + 1) == name.size && memcmp(stored, name.data, name.size) == 0;
}

const struct catalog_tenant *catalog_tenant_find(const struct catalog *c, struct str name)
{
    if (name.size == 0 || name.size > LIMIT_NAME_BYTES)
        return NULL;
    uint64_t hash = catalog_hash_tenant(c->head->seed, name), position = hash;
    int64_t row;
    while ((row = table_next(&c->tenant_table, hash, &position)) >= 0)
        if (name_equal(c->tenants[row].name, name))
            return &c->tenants[row];
    return NULL;
}

const struct catalog_model *catalog_model_find(const struct catalog *c, uint32_t tenant, struct str name)
{
    if (name.size == 0 || name.size > LIMIT_NAME_BYTES)
        return NULL;
    uint64_t hash = catalog_hash_model(c->head->seed, tenant, name), position = hash;
    int64_t row;
    while ((row = table_next(&c->model_table, hash, &position)) >= 0)
        if (c->models[row].tenant == tenant && name_equal(c->models[row].name, name))
            return &c->models[row];
    return NULL;
}

const struct catalog_adapter *catalog_adapter_find(const struct catalog *c, uint32_t tenant, struct str name)
{
    if (name.size == 0 || name.size > LIMIT_NAME_BYTES)
        return NULL;
    uint64_t hash = catalog_hash_model(c->head->seed, tenant, name), position = hash;
    int64_t row;
    while ((row = table_next(&c->adapter_table, hash, &position)) >= 0)
        if (c->adapters[row].tenant == tenant && name_equal(c->adapters[row].name, name))
            return &c->adapters[row];
    return NULL;
}

void catalog_models_of(const struct catalog *c, uint32_t tenant, uint32_t *ret_first, uint32_t *ret_n)
{
    assert(tenant < c->head->n_tenants);
    *ret_first = c->ranges[tenant].first;
    *ret_n = c->ranges[tenant].n;
}

void catalog_adapters_of(const struct catalog *c, uint32_t tenant, uint32_t *ret_first, uint32_t *ret_n)
{
    assert(tenant < c->head->n_tenants);
    *ret_first = c->adapter_ranges[tenant].first;
    *ret_n = c->adapter_ranges[tenant].n;
}
