/* Inside of the store room and its tests: both back-ends are SQLite, on a file and in memory. */
#ifndef BULKHEAD_STORE_STORE_INTERNAL_H
#define BULKHEAD_STORE_STORE_INTERNAL_H

#include "store/store.h"

#include <sqlite3.h>

#define STORE_APPLICATION_ID 0x42484431 /* "BHD1", in the file's header: `file` and we know it by this */
/* Pages of log after which it is copied into the database: 4 MB, so that reopening stays fast. */
#define STORE_CHECKPOINT_PAGES 1000
/* Another process may hold the file while it ends. */
#define STORE_BUSY_MS 1000

enum store_statement {
    STORE_BEGIN = 0,
    STORE_COMMIT,
    STORE_REVISION,
    STORE_REVISION_NEXT,
    STORE_UID_NEXT,
    STORE_RESOURCE_PUT,
    STORE_RESOURCE_DELETE,
    STORE_RESOURCES,
    STORE_RESOURCES_OF_TENANT,
    STORE_RESOURCES_OF_NAME,
    STORE_RESOURCE_OF_BOTH,
    STORE_VERSION_PUT,
    STORE_IMAGE_PUT,
    STORE_VERSIONS,
    STORE_VERSIONS_OF_MODEL,
    STORE_VERSION_DELETE_MODEL,
    STORE_ARTIFACT_USED,
    STORE_DESCRIPTION_PUT,
    STORE_DESCRIPTION,
    STORE_DESCRIPTION_RELEASE,
    STORE_KEY_PUT,
    STORE_KEY_DELETE,
    STORE_KEY_DELETE_TENANT,
    STORE_KEYS,
    STORE_KEYS_OF_TENANT,
    STORE_QUOTA_PUT,
    STORE_QUOTA_PURGE,
    STORE_QUOTAS,
    STORE_QUOTAS_OF_TENANT,
    STORE_STATEMENT_COUNT
};

struct store_sql {
    struct store store; /* first: a struct store * is a struct store_sql * */
    sqlite3 *db;
    sqlite3_stmt *statements[STORE_STATEMENT_COUNT]; /* prepared on first use, kept */
    bool transaction;                                /* between begin and commit or rollback */
    bool broken;          /* a statement of this transaction failed: it can only be rolled back */
    bool failed;          /* an I/O error: nothing is written any more until reopened */
    int log_pages;        /* pages in the log after the last commit */
    int checkpoint_pages; /* STORE_CHECKPOINT_PAGES; tests set it lower */
};

static inline struct store_sql *store_sql(struct store *s)
{
    return (struct store_sql *)(void *)s;
}

/* --- store_schema.c --- */

/* Brings the schema of an open database to the newest one, in one transaction. -ERROR_REFUSED for a database that is
 * not ours or newer than us; does not change it then. */
must_check int store_schema_check(sqlite3 *db, struct error *err);
must_check int store_schema_migrate(struct store_sql *s, struct error *err);
/* How many migrations there are: the user_version of an up-to-date database. */
extern const int store_schema_version;

/* --- store_statement.c --- */

/* The kept statement, or a new one where that is in use (a callback reads while rows are being handed out). Give it
 * back with store_give. */
must_check int store_take(struct store_sql *s, enum store_statement id, sqlite3_stmt **ret_statement,
                          struct error *err);
void store_give(struct store_sql *s, enum store_statement id, sqlite3_stmt *statement);
/* As an error code with a text for people; logs the cause, notes what must stop the store or the transaction. */
int store_failure(struct store_sql *s, int sqlite_code, struct error *err);
/* 0 when a write may happen now. */
must_check int store_check_write(struct store_sql *s, struct error *err);
/* Steps a statement that gives no rows, and gives it back. */
must_check int store_run(struct store_sql *s, enum store_statement id, sqlite3_stmt *statement, struct error *err);

/* Values by position, from 1. The bytes must stay until the statement is given back. Failures show in the step: an
 * unbound value is NULL, which every column refuses. */
void store_bind_u64(sqlite3_stmt *statement, int position, uint64_t value);
void store_bind_bytes(sqlite3_stmt *statement, int position, struct str value);
void store_bind_str(sqlite3_stmt *statement, int position, struct str value);
void store_bind_digest(sqlite3_stmt *statement, int position, const uint8_t digest[static STORE_DIGEST_BYTES]);
/* Columns, from 0. */
uint64_t store_column_u64(sqlite3_stmt *statement, int column);
struct str store_column_bytes(sqlite3_stmt *statement, int column);
struct str store_column_str(sqlite3_stmt *statement, int column);
void store_column_digest(sqlite3_stmt *statement, int column, uint8_t ret_digest[static STORE_DIGEST_BYTES]);

/* --- store_open.c --- */

must_check int store_open_file(const char *path, struct store **ret_store, struct error *err);
must_check int store_open_memory(const char *path, struct store **ret_store, struct error *err);
void store_close(struct store *s);

/* --- store_rows.c --- */

must_check int store_resource_put(struct store *s, const struct store_resource *r, struct error *err);
must_check int store_resource_delete(struct store *s, uint64_t uid, struct error *err);
must_check int store_resource_each(struct store *s, uint32_t kind, struct str tenant, struct str name,
                                   int (*each)(void *ctx, const struct store_resource *r), void *ctx,
                                   struct error *err);
must_check int store_version_put(struct store *s, const struct store_version *v, struct error *err);
must_check int store_version_each(struct store *s, uint64_t model_uid,
                                  int (*each)(void *ctx, const struct store_version *v), void *ctx, struct error *err);
must_check int store_version_delete_model(struct store *s, uint64_t model_uid, struct error *err);
must_check int store_artifact_used(struct store *s, const uint8_t digest[static STORE_DIGEST_BYTES], bool *ret_used,
                                   struct error *err);
must_check int store_description_put(struct store *s, const struct store_description *d, struct error *err);
must_check int store_description_find(struct store *s, struct str engine,
                                      const uint8_t digest[static STORE_DIGEST_BYTES], uint64_t engine_id,
                                      void (*each)(void *ctx, const struct store_description *d), void *ctx,
                                      struct error *err);
must_check int store_description_release(struct store *s, const uint8_t digest[static STORE_DIGEST_BYTES],
                                         struct error *err);
must_check int store_key_put(struct store *s, const struct store_key *k, struct error *err);
must_check int store_key_delete(struct store *s, struct str id, bool *ret_existed, struct error *err);
must_check int store_key_delete_tenant(struct store *s, uint64_t tenant_uid, struct error *err);
must_check int store_key_each(struct store *s, uint64_t tenant_uid, int (*each)(void *ctx, const struct store_key *k),
                              void *ctx, struct error *err);

must_check int store_quota_each(struct store *s, uint64_t tenant_uid,
                                int (*each)(void *ctx, const struct store_quota *q), void *ctx, struct error *err);

/* --- store_vfs.c --- */

/* Makes SQLite take its randomness from getrandom: in a chroot there is no /dev/urandom. Once per process. */
must_check int store_vfs_setup(void);

#endif
