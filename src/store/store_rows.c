/* Rows in and out: one function per operation of store.h. */
#include "store/store_internal.h"

int store_resource_put(struct store *store, const struct store_resource *r, struct error *err)
{
    struct store_sql *s = store_sql(store);
    sqlite3_stmt *st = NULL;
    int result = store_check_write(s, err);
    if (result == 0)
        result = store_take(s, STORE_RESOURCE_PUT, &st, err);
    if (result < 0)
        return result;
    store_bind_u64(st, 1, r->kind);
    store_bind_u64(st, 2, r->uid);
    store_bind_str(st, 3, r->tenant);
    store_bind_str(st, 4, r->name);
    store_bind_u64(st, 5, r->generation);
    store_bind_u64(st, 6, r->resource_version);
    store_bind_str(st, 7, r->document);
    store_bind_u64(st, 8, r->created_ms);
    store_bind_u64(st, 9, r->changed_ms);
    return store_run(s, STORE_RESOURCE_PUT, st, err);
}

/* The deletes by one number. */
static int delete_by_uid(struct store *store, enum store_statement id, uint64_t uid, struct error *err)
{
    struct store_sql *s = store_sql(store);
    sqlite3_stmt *st = NULL;
    int result = store_check_write(s, err);
    if (result == 0)
        result = store_take(s, id, &st, err);
    if (result < 0)
        return result;
    store_bind_u64(st, 1, uid);
    return store_run(s, id, st, err);
}

/* The selects of all, and of one owner: `id` is the one for what `owner_uid` is, 0 for all. */
static int take_of(struct store_sql *s, enum store_statement id, uint64_t owner_uid, sqlite3_stmt **ret_st,
                   struct error *err)
{
    int result = store_take(s, id, ret_st, err);
    if (result == 0 && owner_uid)
        store_bind_u64(*ret_st, 1, owner_uid);
    return result;
}

int store_resource_delete(struct store *store, uint64_t uid, struct error *err)
{
    return delete_by_uid(store, STORE_RESOURCE_DELETE, uid, err);
}

int store_version_delete_model(struct store *store, uint64_t model_uid, struct error *err)
{
    return delete_by_uid(store, STORE_VERSION_DELETE_MODEL, model_uid, err);
}

int store_key_delete_tenant(struct store *store, uint64_t tenant_uid, struct error *err)
{
    return delete_by_uid(store, STORE_KEY_DELETE_TENANT, tenant_uid, err);
}

/* What the last step of a reading loop means. */
static int finish_rows(struct store_sql *s, enum store_statement id, sqlite3_stmt *st, int code, struct error *err)
{
    int result = code == SQLITE_DONE || code == SQLITE_ROW ? 0 : store_failure(s, code, err);
    store_give(s, id, st);
    return result;
}

int store_resource_each(struct store *store, uint32_t kind, struct str tenant, struct str name,
                        int (*each)(void *ctx, const struct store_resource *r), void *ctx, struct error *err)
{
    struct store_sql *s = store_sql(store);
    enum store_statement id = tenant.data ? (name.data ? STORE_RESOURCE_OF_BOTH : STORE_RESOURCES_OF_TENANT)
                                          : (name.data ? STORE_RESOURCES_OF_NAME : STORE_RESOURCES);
    sqlite3_stmt *st = NULL;
    int result = store_take(s, id, &st, err), position = 1;
    if (result < 0)
        return result;
    store_bind_u64(st, position++, kind);
    if (tenant.data)
        store_bind_str(st, position++, tenant);
    if (name.data)
        store_bind_str(st, position++, name);
    int code;
    while ((code = sqlite3_step(st)) == SQLITE_ROW) {
        struct store_resource r = {
            .kind = (uint32_t)store_column_u64(st, 0),
            .uid = store_column_u64(st, 1),
            .tenant = store_column_str(st, 2),
            .name = store_column_str(st, 3),
            .generation = store_column_u64(st, 4),
            .resource_version = store_column_u64(st, 5),
            .document = store_column_str(st, 6),
            .created_ms = store_column_u64(st, 7),
            .changed_ms = store_column_u64(st, 8),
        };
        if (each(ctx, &r) != 0)
            break;
    }
    return finish_rows(s, id, st, code, err);
}

int store_version_put(struct store *store, const struct store_version *v, struct error *err)
{
    struct store_sql *s = store_sql(store);
    sqlite3_stmt *st = NULL;
    int result = store_check_write(s, err);
    if (result == 0)
        result = store_take(s, STORE_VERSION_PUT, &st, err);
    if (result < 0)
        return result;
    store_bind_u64(st, 1, v->uid);
    store_bind_u64(st, 2, v->model_uid);
    store_bind_u64(st, 3, v->number);
    store_bind_digest(st, 4, v->digest);
    store_bind_u64(st, 5, v->artifact_bytes);
    store_bind_str(st, 6, v->document);
    store_bind_u64(st, 7, v->created_ms);
    result = store_run(s, STORE_VERSION_PUT, st, err);
    if (result == 0 && v->image_bytes > 0)
        result = store_take(s, STORE_IMAGE_PUT, &st, err);
    if (result < 0 || v->image_bytes == 0)
        return result;
    store_bind_u64(st, 1, v->uid);
    store_bind_digest(st, 2, v->image);
    store_bind_digest(st, 3, v->image_manifest);
    store_bind_u64(st, 4, v->image_bytes);
    return store_run(s, STORE_IMAGE_PUT, st, err);
}

int store_version_each(struct store *store, uint64_t model_uid, int (*each)(void *ctx, const struct store_version *v),
                       void *ctx, struct error *err)
{
    struct store_sql *s = store_sql(store);
    enum store_statement id = model_uid ? STORE_VERSIONS_OF_MODEL : STORE_VERSIONS;
    sqlite3_stmt *st = NULL;
    int result = take_of(s, id, model_uid, &st, err), code;
    if (result < 0)
        return result;
    while ((code = sqlite3_step(st)) == SQLITE_ROW) {
        struct store_version v = {
            .uid = store_column_u64(st, 0),
            .model_uid = store_column_u64(st, 1),
            .number = (uint32_t)store_column_u64(st, 2),
            .artifact_bytes = store_column_u64(st, 4),
            .document = store_column_str(st, 5),
            .created_ms = store_column_u64(st, 6),
            .image_bytes = store_column_u64(st, 9),
        };
        store_column_digest(st, 3, v.digest);
        if (v.image_bytes > 0) {
            store_column_digest(st, 7, v.image);
            store_column_digest(st, 8, v.image_manifest);
        }
        if (each(ctx, &v) != 0)
            break;
    }
    return finish_rows(s, id, st, code, err);
}

int store_artifact_used(struct store *store, const uint8_t digest[static STORE_DIGEST_BYTES], bool *ret_used,
                        struct error *err)
{
    struct store_sql *s = store_sql(store);
    sqlite3_stmt *st = NULL;
    int result = store_take(s, STORE_ARTIFACT_USED, &st, err);
    if (result < 0)
        return result;
    store_bind_digest(st, 1, digest);
    int code = sqlite3_step(st);
    if (code == SQLITE_ROW)
        *ret_used = store_column_u64(st, 0) != 0;
    return finish_rows(s, STORE_ARTIFACT_USED, st, code, err);
}

int store_description_put(struct store *store, const struct store_description *d, struct error *err)
{
    struct store_sql *s = store_sql(store);
    sqlite3_stmt *st = NULL;
    int result = store_check_write(s, err);
    if (result == 0)
        result = store_take(s, STORE_DESCRIPTION_PUT, &st, err);
    if (result < 0)
        return result;
    store_bind_str(st, 1, d->engine);
    store_bind_digest(st, 2, d->digest);
    store_bind_u64(st, 3, d->engine_id);
    store_bind_bytes(st, 4, d->signature);
    return store_run(s, STORE_DESCRIPTION_PUT, st, err);
}

int store_description_find(struct store *store, struct str engine, const uint8_t digest[static STORE_DIGEST_BYTES],
                           uint64_t engine_id, void (*each)(void *ctx, const struct store_description *d), void *ctx,
                           struct error *err)
{
    struct store_sql *s = store_sql(store);
    sqlite3_stmt *st = NULL;
    int result = store_take(s, STORE_DESCRIPTION, &st, err);
    if (result < 0)
        return result;
    store_bind_str(st, 1, engine);
    store_bind_digest(st, 2, digest);
    store_bind_u64(st, 3, engine_id);
    int code = sqlite3_step(st);
    if (code == SQLITE_ROW) {
        struct store_description d = {.engine = engine, .engine_id = engine_id, .signature = store_column_bytes(st, 0)};
        memcpy(d.digest, digest, sizeof d.digest);
        each(ctx, &d);
    }
    return finish_rows(s, STORE_DESCRIPTION, st, code, err);
}

int store_description_release(struct store *store, const uint8_t digest[static STORE_DIGEST_BYTES], struct error *err)
{
    struct store_sql *s = store_sql(store);
    sqlite3_stmt *st = NULL;
    int result = store_check_write(s, err);
    if (result == 0)
        result = store_take(s, STORE_DESCRIPTION_RELEASE, &st, err);
    if (result < 0)
        return result;
    store_bind_digest(st, 1, digest);
    return store_run(s, STORE_DESCRIPTION_RELEASE, st, err);
}

int store_key_put(struct store *store, const struct store_key *k, struct error *err)
{
    struct store_sql *s = store_sql(store);
    sqlite3_stmt *st = NULL;
    int result = store_check_write(s, err);
    if (result == 0)
        result = store_take(s, STORE_KEY_PUT, &st, err);
    if (result < 0)
        return result;
    store_bind_str(st, 1, k->id);
    store_bind_digest(st, 2, k->hash);
    store_bind_u64(st, 3, k->tenant_uid);
    store_bind_str(st, 4, k->name);
    store_bind_u64(st, 5, k->created_ms);
    return store_run(s, STORE_KEY_PUT, st, err);
}

int store_key_delete(struct store *store, struct str id, bool *ret_existed, struct error *err)
{
    struct store_sql *s = store_sql(store);
    sqlite3_stmt *st = NULL;
    int result = store_check_write(s, err);
    if (result == 0)
        result = store_take(s, STORE_KEY_DELETE, &st, err);
    if (result < 0)
        return result;
    store_bind_str(st, 1, id);
    result = store_run(s, STORE_KEY_DELETE, st, err);
    if (result == 0)
        *ret_existed = sqlite3_changes(s->db) > 0;
    return result;
}

int store_key_each(struct store *store, uint64_t tenant_uid, int (*each)(void *ctx, const struct store_key *k),
                   void *ctx, struct error *err)
{
    struct store_sql *s = store_sql(store);
    enum store_statement id = tenant_uid ? STORE_KEYS_OF_TENANT : STORE_KEYS;
    sqlite3_stmt *st = NULL;
    int result = take_of(s, id, tenant_uid, &st, err), code;
    if (result < 0)
        return result;
    while ((code = sqlite3_step(st)) == SQLITE_ROW) {
        struct store_key k = {
            .id = store_column_str(st, 0),
            .tenant_uid = store_column_u64(st, 2),
            .name = store_column_str(st, 3),
            .created_ms = store_column_u64(st, 4),
        };
        store_column_digest(st, 1, k.hash);
        if (each(ctx, &k) != 0)
            break;
    }
    return finish_rows(s, id, st, code, err);
}

int store_quota_each(struct store *store, uint64_t tenant_uid, int (*each)(void *ctx, const struct store_quota *q),
                     void *ctx, struct error *err)
{
    struct store_sql *s = store_sql(store);
    enum store_statement id = tenant_uid ? STORE_QUOTAS_OF_TENANT : STORE_QUOTAS;
    sqlite3_stmt *st = NULL;
    int result = take_of(s, id, tenant_uid, &st, err), code;
    if (result < 0)
        return result;
    while ((code = sqlite3_step(st)) == SQLITE_ROW) {
        struct store_quota q = {
            .tenant_uid = store_column_u64(st, 0),
            .key = store_column_str(st, 1),
            .use = store_column_bytes(st, 2),
            .until_ms = store_column_u64(st, 3),
        };
        if (each(ctx, &q) != 0)
            break;
    }
    return finish_rows(s, id, st, code, err);
}
