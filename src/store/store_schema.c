/* The tables, as a list of migrations: number n brings a database of user_version n to n + 1. What once was released
 * is never changed; a new state is a new row. */
#include "store/store_internal.h"

#include "base/log.h"

static const char *const migrations[] = {
    /* 0 → 1. References are checked at commit, so a transaction may delete in any order. */
    "CREATE TABLE meta ("
    " id INTEGER PRIMARY KEY CHECK (id = 1),"
    " revision INTEGER NOT NULL,"
    " uid INTEGER NOT NULL" /* the last one given out */
    ") STRICT;"
    "INSERT INTO meta (id, revision, uid) VALUES (1, 0, 0);"
    "CREATE TABLE resource ("
    " uid INTEGER PRIMARY KEY,"
    " kind INTEGER NOT NULL,"
    " tenant TEXT NOT NULL,"
    " name TEXT NOT NULL,"
    " generation INTEGER NOT NULL,"
    " resource_version INTEGER NOT NULL,"
    " document TEXT NOT NULL,"
    " created_ms INTEGER NOT NULL,"
    " changed_ms INTEGER NOT NULL,"
    " UNIQUE (kind, tenant, name)"
    ") STRICT;"
    "CREATE INDEX resource_name ON resource (kind, name, tenant);"
    "CREATE TABLE version ("
    " uid INTEGER PRIMARY KEY,"
    " model_uid INTEGER NOT NULL REFERENCES resource (uid) DEFERRABLE INITIALLY DEFERRED,"
    " number INTEGER NOT NULL,"
    " digest BLOB NOT NULL CHECK (length(digest) = 32),"
    " artifact_bytes INTEGER NOT NULL,"
    " document TEXT NOT NULL,"
    " created_ms INTEGER NOT NULL,"
    " UNIQUE (model_uid, number)"
    ") STRICT;"
    "CREATE INDEX version_digest ON version (digest);"
    "CREATE TABLE key ("
    " id TEXT PRIMARY KEY CHECK (length(id) = 16),"
    " hash BLOB NOT NULL CHECK (length(hash) = 32),"
    " tenant_uid INTEGER NOT NULL REFERENCES resource (uid) DEFERRABLE INITIALLY DEFERRED,"
    " name TEXT NOT NULL,"
    " created_ms INTEGER NOT NULL"
    ") STRICT, WITHOUT ROWID;"
    "CREATE INDEX key_tenant ON key (tenant_uid);",
    /* 1 → 2. What is stored already was never described; it is, when it is applied as a new version. */
    "CREATE TABLE description ("
    " engine TEXT NOT NULL,"
    " digest BLOB NOT NULL CHECK (length(digest) = 32),"
    " engine_id INTEGER NOT NULL,"
    " signature BLOB NOT NULL,"
    " PRIMARY KEY (digest, engine)"
    ") STRICT, WITHOUT ROWID;",
    /* 2 → 3. No reference: what was used may be told of a tenant that is just being deleted; it is forgotten in time.
     */
    "CREATE TABLE quota ("
    " tenant_uid INTEGER NOT NULL,"
    " key TEXT NOT NULL,"
    " use BLOB NOT NULL,"
    " until_ms INTEGER NOT NULL,"
    " PRIMARY KEY (tenant_uid, key)"
    ") STRICT, WITHOUT ROWID;",
    /* 3 → 4. */
    "CREATE TABLE image ("
    " version_uid INTEGER PRIMARY KEY REFERENCES version (uid) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,"
    " digest BLOB NOT NULL CHECK (length(digest) = 32),"
    " manifest BLOB NOT NULL CHECK (length(manifest) = 32),"
    " bytes INTEGER NOT NULL CHECK (bytes > 0)"
    ") STRICT;"
    "CREATE INDEX image_digest ON image (digest);",
};

enum { MIGRATIONS = sizeof migrations / sizeof migrations[0] };

const int store_schema_version = MIGRATIONS;

/* The single integer a query gives. */
static int query_int(sqlite3 *db, const char *sql, int *ret_value)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    if (code == SQLITE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        *ret_value = sqlite3_column_int(statement, 0);
        code = SQLITE_OK;
    }
    (void)sqlite3_finalize(statement); /* repeats the step's code */
    return code == SQLITE_DONE ? SQLITE_CORRUPT : code;
}

int store_schema_check(sqlite3 *db, struct error *err)
{
    int application = 0, version = 0, objects = 0;
    int code = query_int(db, "PRAGMA application_id", &application);
    if (code == SQLITE_OK)
        code = query_int(db, "PRAGMA user_version", &version);
    if (code == SQLITE_OK)
        code = query_int(db, "SELECT count(*) FROM sqlite_schema", &objects);
    if (code == SQLITE_BUSY)
        return error_set(err, ERROR_REFUSED, "the store is in use by another process");
    if (code == SQLITE_NOTADB)
        return error_set(err, ERROR_REFUSED, "the store's file is not a database");
    if (code != SQLITE_OK) {
        log_error("store_open_failed", "%s (%d)", sqlite3_errmsg(db), sqlite3_extended_errcode(db));
        return error_set(err, ERROR_IO, "the store cannot be read");
    }
    if (application == 0 && version == 0 && objects == 0)
        return 0; /* new */
    if (application != STORE_APPLICATION_ID)
        return error_set(err, ERROR_REFUSED, "the store's file is a database of another program");
    if (version > store_schema_version)
        return error_set(
            err, ERROR_REFUSED,
            "the store was written by a newer release (schema %d; this one knows %d): use that release, or "
            "go back to a copy of the store from before",
            version, store_schema_version);
    return 0;
}

int store_schema_migrate(struct store_sql *s, struct error *err)
{
    int version = 0;
    int code = query_int(s->db, "PRAGMA user_version", &version);
    if (code == SQLITE_OK && version == store_schema_version)
        return 0;
    if (code == SQLITE_OK)
        code = sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    for (int i = version; code == SQLITE_OK && i < store_schema_version; i++)
        code = sqlite3_exec(s->db, migrations[i], NULL, NULL, NULL);
    char pragmas[96];
    (void)sqlite3_snprintf(sizeof pragmas, pragmas, "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
                           STORE_APPLICATION_ID, store_schema_version);
    if (code == SQLITE_OK)
        code = sqlite3_exec(s->db, pragmas, NULL, NULL, NULL);
    return code == SQLITE_OK ? 0 : store_failure(s, code, err);
}
