/* Prepared statements, values in and out, and what SQLite's errors mean to us. */
#include "store/store_internal.h"

#include "base/log.h"

#define RESOURCE_COLUMNS "kind, uid, tenant, name, generation, resource_version, document, created_ms, changed_ms"
#define VERSION_COLUMNS  "uid, model_uid, number, digest, artifact_bytes, document, created_ms"
#define QUOTA_COLUMNS    "tenant_uid, key, use, until_ms"
#define VERSION_AND_IMAGE                                                                                         \
    "uid, model_uid, number, version.digest, artifact_bytes, document, created_ms, image.digest, image.manifest," \
    " coalesce(image.bytes, 0) FROM version LEFT JOIN image ON version_uid = uid"
#define KEY_COLUMNS "id, hash, tenant_uid, name, created_ms"

static const char *const texts[STORE_STATEMENT_COUNT] = {
    [STORE_BEGIN] = "BEGIN IMMEDIATE",
    [STORE_COMMIT] = "COMMIT",
    [STORE_REVISION] = "SELECT revision FROM meta",
    [STORE_REVISION_NEXT] = "UPDATE meta SET revision = revision + 1 RETURNING revision",
    [STORE_UID_NEXT] = "UPDATE meta SET uid = uid + 1 RETURNING uid",
    [STORE_RESOURCE_PUT] = "INSERT INTO resource (" RESOURCE_COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                           " ON CONFLICT (uid) DO UPDATE SET kind = excluded.kind, tenant = excluded.tenant,"
                           " name = excluded.name, generation = excluded.generation,"
                           " resource_version = excluded.resource_version, document = excluded.document,"
                           " created_ms = excluded.created_ms, changed_ms = excluded.changed_ms",
    [STORE_RESOURCE_DELETE] = "DELETE FROM resource WHERE uid = ?",
    [STORE_RESOURCES] = "SELECT " RESOURCE_COLUMNS " FROM resource WHERE kind = ? ORDER BY tenant, name",
    [STORE_RESOURCES_OF_TENANT] =
        "SELECT " RESOURCE_COLUMNS " FROM resource WHERE kind = ? AND tenant = ? ORDER BY name",
    [STORE_RESOURCES_OF_NAME] = "SELECT " RESOURCE_COLUMNS " FROM resource WHERE kind = ? AND name = ? ORDER BY tenant",
    [STORE_RESOURCE_OF_BOTH] = "SELECT " RESOURCE_COLUMNS " FROM resource WHERE kind = ? AND tenant = ? AND name = ?",
    [STORE_VERSION_PUT] = "INSERT INTO version (" VERSION_COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?)",
    [STORE_IMAGE_PUT] = "INSERT INTO image (version_uid, digest, manifest, bytes) VALUES (?, ?, ?, ?)",
    [STORE_VERSIONS] = "SELECT " VERSION_AND_IMAGE " ORDER BY model_uid, number DESC",
    [STORE_VERSIONS_OF_MODEL] = "SELECT " VERSION_AND_IMAGE " WHERE model_uid = ? ORDER BY number DESC",
    [STORE_VERSION_DELETE_MODEL] = "DELETE FROM version WHERE model_uid = ?",
    [STORE_ARTIFACT_USED] = "SELECT EXISTS (SELECT 1 FROM version WHERE digest = ?1 UNION ALL"
                            " SELECT 1 FROM image WHERE digest = ?1)",
    [STORE_DESCRIPTION_PUT] = "INSERT INTO description (engine, digest, engine_id, signature) VALUES (?, ?, ?, ?)"
                              " ON CONFLICT (digest, engine) DO UPDATE SET engine_id = excluded.engine_id,"
                              " signature = excluded.signature",
    [STORE_DESCRIPTION] = "SELECT signature FROM description WHERE engine = ? AND digest = ? AND engine_id = ?",
    [STORE_DESCRIPTION_RELEASE] = "DELETE FROM description WHERE digest = ?1"
                                  " AND NOT EXISTS (SELECT 1 FROM version WHERE digest = ?1)",
    [STORE_KEY_PUT] = "INSERT INTO key (" KEY_COLUMNS ") VALUES (?, ?, ?, ?, ?)",
    [STORE_KEY_DELETE] = "DELETE FROM key WHERE id = ?",
    [STORE_KEY_DELETE_TENANT] = "DELETE FROM key WHERE tenant_uid = ?",
    [STORE_KEYS] = "SELECT " KEY_COLUMNS " FROM key ORDER BY tenant_uid, id",
    [STORE_QUOTA_PUT] = "INSERT INTO quota (" QUOTA_COLUMNS ") VALUES (?, ?, ?, ?)"
                        " ON CONFLICT (tenant_uid, key) DO UPDATE SET use = excluded.use, until_ms = excluded.until_ms",
    [STORE_QUOTA_PURGE] = "DELETE FROM quota WHERE until_ms < ?",
    [STORE_QUOTAS] = "SELECT " QUOTA_COLUMNS " FROM quota ORDER BY tenant_uid, key",
    [STORE_QUOTAS_OF_TENANT] = "SELECT " QUOTA_COLUMNS " FROM quota WHERE tenant_uid = ? ORDER BY key",
    [STORE_KEYS_OF_TENANT] = "SELECT " KEY_COLUMNS " FROM key WHERE tenant_uid = ? ORDER BY id",
};

int store_take(struct store_sql *s, enum store_statement id, sqlite3_stmt **ret_statement, struct error *err)
{
    sqlite3_stmt *kept = s->statements[id];
    if (kept && !sqlite3_stmt_busy(kept)) {
        *ret_statement = kept;
        return 0;
    }
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v3(s->db, texts[id], -1, kept ? 0 : SQLITE_PREPARE_PERSISTENT, &statement, NULL);
    if (code != SQLITE_OK)
        return store_failure(s, code, err);
    if (!kept)
        s->statements[id] = statement;
    *ret_statement = statement;
    return 0;
}

void store_give(struct store_sql *s, enum store_statement id, sqlite3_stmt *statement)
{
    if (statement != s->statements[id]) {
        (void)sqlite3_finalize(statement); /* repeats the last step's code */
        return;
    }
    (void)sqlite3_reset(statement); /* likewise */
    (void)sqlite3_clear_bindings(statement);
}

/* Disk full and out of memory leave the file as it was; what any other of these leaves is not known. */
static bool is_fatal(int code)
{
    switch (code & 0xFF) {
    case SQLITE_FULL:
    case SQLITE_NOMEM:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_CONSTRAINT:
    case SQLITE_TOOBIG:
    case SQLITE_INTERRUPT:
        return false;
    default:
        return code != SQLITE_IOERR_NOMEM;
    }
}

int store_failure(struct store_sql *s, int code, struct error *err)
{
    if (code == SQLITE_CONSTRAINT_UNIQUE || code == SQLITE_CONSTRAINT_PRIMARYKEY)
        return error_set(err, ERROR_CONFLICT, "there is one of this name already");
    s->broken = s->transaction;
    if (is_fatal(code) && !s->failed) {
        s->failed = true;
        log_alert("store_failed", "the store stops writing until the server is restarted: %s (%d)",
                  sqlite3_errmsg(s->db), code);
    } else {
        log_error("store_error", "%s (%d)", sqlite3_errmsg(s->db), code);
    }
    switch (code & 0xFF) {
    case SQLITE_FULL:
        return error_set(err, ERROR_IO, "the disk of the store is full; nothing was changed; free some space there and try again");
    case SQLITE_NOMEM:
        return error_set_default(err, ERROR_NO_MEMORY);
    case SQLITE_CONSTRAINT:
        return error_set(err, ERROR_INTERNAL, "the store refuses this change: it would break a reference or a rule");
    default:
        return error_set(err, ERROR_IO, "the store could not be read or written");
    }
}

int store_check_write(struct store_sql *s, struct error *err)
{
    if (s->failed)
        return error_set(err, ERROR_IO, "the store has stopped writing after an earlier failure; restart the server");
    if (!s->transaction)
        return error_set(err, ERROR_INTERNAL, "a write to the store outside a transaction");
    if (s->broken || sqlite3_get_autocommit(s->db)) /* SQLite may have rolled back by itself */
        return error_set(err, ERROR_IO, "an earlier write of this change failed; nothing was changed");
    return 0;
}

int store_run(struct store_sql *s, enum store_statement id, sqlite3_stmt *statement, struct error *err)
{
    int code = sqlite3_step(statement);
    int result = code == SQLITE_DONE || code == SQLITE_ROW ? 0 : store_failure(s, code, err);
    store_give(s, id, statement);
    return result;
}

void store_bind_u64(sqlite3_stmt *statement, int position, uint64_t value)
{
    (void)sqlite3_bind_int64(statement, position, (sqlite3_int64)value); /* 64 bits go in and out unchanged */
}

void store_bind_str(sqlite3_stmt *statement, int position, struct str value)
{
    (void)sqlite3_bind_text64(statement, position, value.data ? value.data : "", value.size, SQLITE_STATIC,
                              SQLITE_UTF8);
}

void store_bind_digest(sqlite3_stmt *statement, int position, const uint8_t digest[static STORE_DIGEST_BYTES])
{
    (void)sqlite3_bind_blob(statement, position, digest, STORE_DIGEST_BYTES, SQLITE_STATIC);
}

uint64_t store_column_u64(sqlite3_stmt *statement, int column)
{
    return (uint64_t)sqlite3_column_int64(statement, column);
}

void store_bind_bytes(sqlite3_stmt *statement, int position, struct str value)
{
    (void)sqlite3_bind_blob64(statement, position, value.data, value.size, SQLITE_STATIC);
}

struct str store_column_bytes(sqlite3_stmt *statement, int column)
{
    const char *data = sqlite3_column_blob(statement, column);
    return (struct str){data ? data : "", data ? (size_t)sqlite3_column_bytes(statement, column) : 0};
}

struct str store_column_str(sqlite3_stmt *statement, int column)
{
    const char *data = (const char *)sqlite3_column_text(statement, column);
    return (struct str){data ? data : "", data ? (size_t)sqlite3_column_bytes(statement, column) : 0};
}

void store_column_digest(sqlite3_stmt *statement, int column, uint8_t ret_digest[static STORE_DIGEST_BYTES])
{
    const void *data = sqlite3_column_blob(statement, column);
    memset(ret_digest, 0, STORE_DIGEST_BYTES);
    if (data && sqlite3_column_bytes(statement, column) == STORE_DIGEST_BYTES) /* the schema's CHECK says so */
        memcpy(ret_digest, data, STORE_DIGEST_BYTES);
}
