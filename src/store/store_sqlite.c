/* Transactions and counters, and the two back-ends' tables of operations. */
#include "store/store_internal.h"

#include "base/log.h"

static int sql_begin(struct store *store, struct error *err)
{
    struct store_sql *s = store_sql(store);
    if (s->failed)
        return error_set(err, ERROR_IO, "the store has stopped writing after an earlier failure; restart the server");
    if (s->transaction)
        return error_set(err, ERROR_INTERNAL, "a transaction inside a transaction");
    sqlite3_stmt *st = NULL;
    int result = store_take(s, STORE_BEGIN, &st, err);
    if (result == 0)
        result = store_run(s, STORE_BEGIN, st, err);
    if (result < 0)
        return result;
    s->transaction = true;
    s->broken = false;
    return 0;
}

static void sql_rollback(struct store *store)
{
    struct store_sql *s = store_sql(store);
    if (!s->transaction)
        return;
    /* Can fail only where SQLite has rolled back by itself, or after an I/O error, which ended all writing. */
    if (!sqlite3_get_autocommit(s->db) && sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL) != SQLITE_OK)
        log_error("store_rollback_failed", "%s", sqlite3_errmsg(s->db));
    s->transaction = s->broken = false;
}

/* Runs a statement that gives one number. */
static int take_number(struct store_sql *s, enum store_statement id, uint64_t *ret_number, struct error *err)
{
    sqlite3_stmt *st = NULL;
    int result = store_take(s, id, &st, err);
    if (result < 0)
        return result;
    uint64_t number = 0;
    int code = sqlite3_step(st);
    if (code == SQLITE_ROW) {
        number = store_column_u64(st, 0);
        code = sqlite3_step(st); /* a statement that writes has written only once it is done */
    } else if (code == SQLITE_DONE) {
        code = SQLITE_CORRUPT; /* the row is always there */
    }
    result = code == SQLITE_DONE ? 0 : store_failure(s, code, err);
    store_give(s, id, st);
    if (result == 0)
        *ret_number = number;
    return result;
}

/* Copies the log into the database. The commit before it is safe in the log already; but a failed fsync here may not
 * show again when it is repeated, so it ends all writing. Reopening starts over from the log. */
static void checkpoint(struct store_sql *s)
{
    int code = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (code == SQLITE_OK)
        s->log_pages = 0;
    else
        (void)store_failure(s, code, NULL); /* noted in `failed`, where it matters; the commit itself stands */
}

static int sql_commit(struct store *store, uint64_t *ret_revision, struct error *err)
{
    struct store_sql *s = store_sql(store);
    uint64_t revision = 0;
    sqlite3_stmt *st = NULL;
    int result = store_check_write(s, err);
    if (result == 0)
        result = take_number(s, STORE_REVISION_NEXT, &revision, err);
    if (result == 0)
        result = store_take(s, STORE_COMMIT, &st, err);
    if (result == 0)
        result = store_run(s, STORE_COMMIT, st, err);
    if (result < 0) {
        sql_rollback(store);
        return result;
    }
    s->transaction = false;
    *ret_revision = revision;
    if (s->log_pages >= s->checkpoint_pages)
        checkpoint(s);
    return 0;
}

static int sql_revision(struct store *store, uint64_t *ret_revision, struct error *err)
{
    return take_number(store_sql(store), STORE_REVISION, ret_revision, err);
}

static int sql_uid_next(struct store *store, uint64_t *ret_uid, struct error *err)
{
    int result = store_check_write(store_sql(store), err);
    return result < 0 ? result : take_number(store_sql(store), STORE_UID_NEXT, ret_uid, err);
}

/* --- what was used: transactions of their own, without a revision --- */

static int aside_commit(struct store_sql *s, int result, struct error *err)
{
    sqlite3_stmt *st = NULL;
    if (result == 0)
        result = store_check_write(s, err);
    if (result == 0)
        result = store_take(s, STORE_COMMIT, &st, err);
    if (result == 0)
        result = store_run(s, STORE_COMMIT, st, err);
    if (result < 0) {
        sql_rollback(&s->store);
        return result;
    }
    s->transaction = false;
    if (s->log_pages >= s->checkpoint_pages)
        checkpoint(s);
    return 0;
}

static int sql_quota_put(struct store *store, const struct store_quota *rows, size_t n, struct error *err)
{
    struct store_sql *s = store_sql(store);
    int result = sql_begin(store, err);
    if (result < 0)
        return result;
    for (size_t i = 0; result == 0 && i < n; i++) {
        sqlite3_stmt *st = NULL;
        result = store_take(s, STORE_QUOTA_PUT, &st, err);
        if (result < 0)
            break;
        store_bind_u64(st, 1, rows[i].tenant_uid);
        store_bind_str(st, 2, rows[i].key);
        store_bind_bytes(st, 3, rows[i].use);
        store_bind_u64(st, 4, rows[i].until_ms);
        result = store_run(s, STORE_QUOTA_PUT, st, err);
    }
    return aside_commit(s, result, err);
}

static int sql_quota_purge(struct store *store, uint64_t now_ms, struct error *err)
{
    struct store_sql *s = store_sql(store);
    sqlite3_stmt *st = NULL;
    int result = sql_begin(store, err);
    if (result < 0)
        return result;
    result = store_take(s, STORE_QUOTA_PURGE, &st, err);
    if (result == 0) {
        store_bind_u64(st, 1, now_ms);
        result = store_run(s, STORE_QUOTA_PURGE, st, err);
    }
    return aside_commit(s, result, err);
}

#define OPERATIONS                                                                                                    \
    .close = store_close, .begin = sql_begin, .commit = sql_commit, .rollback = sql_rollback,                         \
    .revision = sql_revision, .uid_next = sql_uid_next, .resource_put = store_resource_put,                           \
    .resource_delete = store_resource_delete, .resource_each = store_resource_each, .version_put = store_version_put, \
    .version_each = store_version_each, .version_delete_model = store_version_delete_model,                           \
    .description_put = store_description_put, .description_find = store_description_find,                             \
    .description_release = store_description_release, .artifact_used = store_artifact_used, .key_put = store_key_put, \
    .key_delete = store_key_delete, .key_delete_tenant = store_key_delete_tenant, .key_each = store_key_each,         \
    .quota_put = sql_quota_put, .quota_each = store_quota_each, .quota_purge = sql_quota_purge

const struct store_ops store_sqlite = {.name = "sqlite", .open = store_open_file, OPERATIONS};
const struct store_ops store_memory = {.name = "memory", .open = store_open_memory, OPERATIONS};
