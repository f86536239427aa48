/* Opening and closing. */
#include "store/store_internal.h"

#include "base/buf.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>

/* Before the first look at the file: the lock is taken once and kept, and with it the index of the log can live in this
 * process's memory instead of a shared file beside the database. */
static const char settings_lock[] = "PRAGMA locking_mode = EXCLUSIVE";
static const char settings[] = "PRAGMA mmap_size = 0;" /* an I/O error must be a code, not a SIGBUS */
                               "PRAGMA temp_store = MEMORY;"
                               "PRAGMA foreign_keys = ON;"
                               "PRAGMA secure_delete = ON;" /* a revoked key's hash is overwritten */
                               "PRAGMA cell_size_check = ON;"
                               "PRAGMA synchronous = FULL"; /* fsync of the log at every commit */

static int note_log_pages(void *ctx, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    ((struct store_sql *)ctx)->log_pages = pages;
    return SQLITE_OK; /* SQLite's own checkpoint after commit is off with that: commit does it, see there */
}

static int open_failure(struct store_sql *s, int code, struct error *err)
{
    if ((code & 0xFF) == SQLITE_BUSY)
        return error_set(err, ERROR_REFUSED, "the store is in use by another process");
    log_error("store_open_failed", "%s (%d)", sqlite3_errmsg(s->db), code);
    return error_set(err, ERROR_IO, "the store cannot be opened");
}

static void harden(sqlite3 *db)
{
    static const int off[] = {SQLITE_DBCONFIG_TRUSTED_SCHEMA, SQLITE_DBCONFIG_DQS_DDL, SQLITE_DBCONFIG_DQS_DML,
                              SQLITE_DBCONFIG_ENABLE_TRIGGER, SQLITE_DBCONFIG_ENABLE_VIEW};
    /* Each fails only on a library older than the option: a wall less, nothing wrong. */
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++)
        (void)sqlite3_db_config(db, off[i], 0, NULL);
    (void)sqlite3_busy_timeout(db, STORE_BUSY_MS);
}

static struct store_sql *store_new(const struct store_ops *ops)
{
    struct store_sql *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->store.ops = ops;
    s->checkpoint_pages = STORE_CHECKPOINT_PAGES;
    return s;
}

static int connect_to(struct store_sql *s, const char *name, struct error *err)
{
    if (store_vfs_setup() < 0)
        return error_set_default(err, ERROR_NO_MEMORY);
    int code = sqlite3_open_v2(name, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    if (code != SQLITE_OK)
        return open_failure(s, code, err);
    harden(s->db);
    return 0;
}

/* One row "ok", or what is wrong. */
static int check_integrity(struct store_sql *s, struct error *err)
{
    sqlite3_stmt *st = NULL;
    int code = sqlite3_prepare_v2(s->db, "PRAGMA quick_check(1)", -1, &st, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(st);
    bool good = code == SQLITE_ROW && str_equal(store_column_str(st, 0), STR("ok"));
    if (code == SQLITE_ROW && !good)
        log_alert("store_damaged", STR_FORMAT, STR_ARG(store_column_str(st, 0)));
    (void)sqlite3_finalize(st);
    if (code != SQLITE_ROW)
        return open_failure(s, code, err);
    return good ? 0 : error_set(err, ERROR_IO, "the store is damaged; go back to a copy of it");
}

/* An earlier life may have failed to fsync: what it left then stands in the page cache as if it were on disk. Copying
 * all of the log into the database and fsyncing that makes it true, or fails here. */
static int settle(struct store_sql *s, struct error *err)
{
    int code = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    return code == SQLITE_OK ? 0 : open_failure(s, code, err);
}

static int use_log(struct store_sql *s, struct error *err)
{
    sqlite3_stmt *st = NULL;
    int code = sqlite3_prepare_v2(s->db, "PRAGMA journal_mode = WAL", -1, &st, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(st);
    bool is_log = code == SQLITE_ROW && str_equal(store_column_str(st, 0), STR("wal"));
    (void)sqlite3_finalize(st);
    if (!is_log)
        return open_failure(s, code == SQLITE_ROW ? SQLITE_IOERR : code, err);
    (void)sqlite3_wal_hook(s->db, note_log_pages, s); /* returns the hook before it */
    return 0;
}

static int set_up_file(struct store_sql *s, struct error *err)
{
    int code = sqlite3_exec(s->db, settings_lock, NULL, NULL, NULL);
    if (code != SQLITE_OK)
        return open_failure(s, code, err);
    int result = store_schema_check(s->db, err); /* nothing may be changed before this */
    if (result < 0)
        return result;
    code = sqlite3_exec(s->db, settings, NULL, NULL, NULL);
    if (code != SQLITE_OK)
        return open_failure(s, code, err);
    if ((result = use_log(s, err)) < 0 || (result = check_integrity(s, err)) < 0 ||
        (result = store_schema_migrate(s, err)) < 0)
        return result;
    return settle(s, err);
}

static int sync_folder_of(const char *path)
{
    char folder[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');
    if (slash && str_copy((struct str){path, (size_t)(slash - path) + 1}, folder, sizeof folder) < 0)
        return -ERROR_IO;
    _close_ int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0 ? 0 : -ERROR_IO;
}

/* SQLite would create it readable for everybody. The files beside it get the same mode. The folder is synced each time:
 * whether an earlier life got that far is not known. */
static int create_file(const char *path, struct error *err)
{
    _close_ int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if ((fd < 0 && errno != EEXIST) || sync_folder_of(path) < 0) {
        log_error("store_open_failed", "create: %s", strerror(errno));
        return error_set(err, ERROR_IO, "the store's file cannot be created");
    }
    return 0;
}

int store_open_file(const char *path, struct store **ret_store, struct error *err)
{
    /* "./" keeps SQLite from reading more than a name into ":memory:" and "file:..." */
    _buf_ struct buf name;
    buf_init(&name, 4 * KIB);
    buf_format(&name, "%s%s", path[0] == '/' ? "" : "./", path);
    (void)buf_terminate(&name);
    if (name.failed)
        return error_set(err, name.failed, "the store's path is too long");
    int result = create_file(name.data, err);
    if (result < 0)
        return result;
    struct store_sql *s = store_new(&store_sqlite);
    if (!s)
        return error_set_default(err, ERROR_NO_MEMORY);
    result = connect_to(s, name.data, err);
    if (result == 0)
        result = set_up_file(s, err);
    if (result < 0) {
        store_close(&s->store);
        return result;
    }
    *ret_store = &s->store;
    return 0;
}

int store_open_memory(const char *path, struct store **ret_store, struct error *err)
{
    (void)path;
    struct store_sql *s = store_new(&store_memory);
    if (!s)
        return error_set_default(err, ERROR_NO_MEMORY);
    int result = connect_to(s, ":memory:", err);
    if (result == 0 && sqlite3_exec(s->db, settings, NULL, NULL, NULL) != SQLITE_OK)
        result = error_set_default(err, ERROR_NO_MEMORY);
    if (result == 0)
        result = store_schema_migrate(s, err);
    if (result < 0) {
        store_close(&s->store);
        return result;
    }
    *ret_store = &s->store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    struct store_sql *s = store_sql(store);
    if (s->transaction)
        store->ops->rollback(store);
    for (size_t i = 0; i < STORE_STATEMENT_COUNT; i++)
        (void)sqlite3_finalize(s->statements[i]);
    /* After a failure nothing more is written; the next open starts from the log. Otherwise closing copies the log into
     * the database and removes it; should that fail, the log stays and is complete. */
    if (s->failed)
        (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (sqlite3_close(s->db) != SQLITE_OK)
        log_error("store_close_failed", "%s", sqlite3_errmsg(s->db));
    free(s);
}
