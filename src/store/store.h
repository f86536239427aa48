/* The store: tenants, keys, models, versions, artifacts' names. Durable before it returns.
 *
 * Control only: one process, one connection, single-threaded, blocking. Back-ends: `store_sqlite` (SQLite, WAL,
 * synchronous=FULL, no mmap) and `store_memory` (the same schema in an in-memory SQLite database, for tests). A write
 * happens in a transaction (begin … commit); commit returns after fsync. After an I/O error the store refuses all
 * further writes (`failed`) until reopened: what may or may not be on disk must not be built upon. A full disk is no
 * such error: the change is refused and a later one may succeed. Rows are handed out through callbacks; views are valid
 * during the call; a callback may read from the store, and must not write.
 *
 * Failures, where an operation does not say more: -ERROR_IO (the text tells a full disk from a broken one),
 * -ERROR_NO_MEMORY, -ERROR_INTERNAL (a write outside a transaction, a broken reference: bugs). After a failed write
 * only rollback is possible, except after -ERROR_CONFLICT, which leaves the transaction as it was.
 *
 * Needs nothing but the folder of its file: no temporary files, no /dev, so it runs in a chroot. */
#ifndef BULKHEAD_STORE_STORE_H
#define BULKHEAD_STORE_STORE_H

#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

#define STORE_DIGEST_BYTES 32u
#define STORE_KEY_ID_BYTES 16u /* characters of the id part of an API key */

struct store;

struct store_resource { /* a declared resource: a Tenant, a Model … */
    uint32_t kind;      /* enum resource_kind; the store does not interpret it */
    uint64_t uid;       /* unique for ever, never reused */
    struct str tenant;  /* name; empty for tenants themselves */
    struct str name;
    uint64_t generation;       /* counts changes of spec */
    uint64_t resource_version; /* = the store's revision at its last change */
    struct str document;       /* JSON */
    uint64_t created_ms, changed_ms;
};

struct store_version { /* an immutable version of a model */
    uint64_t uid;
    uint64_t model_uid;
    uint32_t number;                    /* 1, 2, … per model */
    uint8_t digest[STORE_DIGEST_BYTES]; /* SHA-256 of the artifact */
    uint64_t artifact_bytes;
    /* The root file system of its containers, another artifact; bytes 0: it has none of its own. */
    uint8_t image[STORE_DIGEST_BYTES], image_manifest[STORE_DIGEST_BYTES];
    uint64_t image_bytes;
    struct str document; /* JSON of the parts of the spec that make a version: engine, isolation, resources, source */
    uint64_t created_ms;
};

struct store_description { /* what an engine said of an artifact when it opened it */
    struct str engine;
    uint8_t digest[STORE_DIGEST_BYTES];
    uint64_t engine_id;   /* of the code that opened it; ≤ INT64_MAX */
    struct str signature; /* bytes that the store does not interpret */
};

struct store_key {
    struct str id;                    /* STORE_KEY_ID_BYTES characters, base62 */
    uint8_t hash[STORE_DIGEST_BYTES]; /* SHA-256 of the whole key text */
    uint64_t tenant_uid;
    struct str name; /* for people; may be empty */
    uint64_t created_ms;
};

struct store_quota { /* what a tenant, or one of its keys, has used */
    uint64_t tenant_uid;
    struct str key;    /* its id; empty: of the tenant itself */
    struct str use;    /* bytes that the store does not interpret */
    uint64_t until_ms; /* ≤ INT64_MAX; afterwards it means nothing */
};

struct store_ops {
    const char *name;
    /* `path`: of the database file, in a folder that exists and is writable; store_memory ignores it. Creates (mode
     * 0600), checks and migrates. -ERROR_REFUSED: in use by another process, not a store of ours, or written by a newer
     * release; the file is unchanged then. -ERROR_IO: also when damaged. */
    int (*open)(const char *path, struct store **ret_store, struct error *err);
    void (*close)(struct store *s); /* accepts NULL; checkpoints */

    int (*begin)(struct store *s, struct error *err);
    /* A failed commit has rolled back; but after an I/O error the change may still be there when the store is reopened.
     * ret_revision: the store's revision after this commit; grows by one with each. It is the catalog generation. */
    int (*commit)(struct store *s, uint64_t *ret_revision, struct error *err);
    void (*rollback)(struct store *s); /* no-op outside a transaction */
    int (*revision)(struct store *s, uint64_t *ret_revision, struct error *err);
    int (*uid_next)(struct store *s, uint64_t *ret_uid, struct error *err); /* in a transaction */

    /* All writes below: in a transaction. Every uid a row refers to must exist by commit.
     * Inserts or replaces by uid; (kind, tenant, name) is unique: -ERROR_CONFLICT */
    int (*resource_put)(struct store *s, const struct store_resource *r, struct error *err);
    int (*resource_delete)(struct store *s, uint64_t uid, struct error *err);
    /* kind, tenant and name filter; empty tenant view with data NULL = any tenant; name data NULL = any. Ordered by
     * (tenant, name). each() returns non-zero to stop. */
    int (*resource_each)(struct store *s, uint32_t kind, struct str tenant, struct str name,
                         int (*each)(void *ctx, const struct store_resource *r), void *ctx, struct error *err);

    /* -ERROR_CONFLICT when the uid or (model_uid, number) is there already */
    int (*version_put)(struct store *s, const struct store_version *v, struct error *err);
    /* newest first; model_uid 0 = all models, ordered by model */
    int (*version_each)(struct store *s, uint64_t model_uid, int (*each)(void *ctx, const struct store_version *v),
                        void *ctx, struct error *err);
    int (*version_delete_model)(struct store *s, uint64_t model_uid, struct error *err);
    /* Is the artifact named by any version, as its model or its image? */
    int (*artifact_used)(struct store *s, const uint8_t digest[static STORE_DIGEST_BYTES], bool *ret_used,
                         struct error *err);

    /* Inserts or replaces by (engine, digest). */
    int (*description_put)(struct store *s, const struct store_description *d, struct error *err);
    /* Calls each() once when there is one of that engine, digest and id. */
    int (*description_find)(struct store *s, struct str engine, const uint8_t digest[static STORE_DIGEST_BYTES],
                            uint64_t engine_id, void (*each)(void *ctx, const struct store_description *d), void *ctx,
                            struct error *err);
    /* Forgets what was said of an artifact unless a version names it. */
    int (*description_release)(struct store *s, const uint8_t digest[static STORE_DIGEST_BYTES], struct error *err);

    /* -ERROR_CONFLICT when the id is there already */
    int (*key_put)(struct store *s, const struct store_key *k, struct error *err);
    int (*key_delete)(struct store *s, struct str id, bool *ret_existed, struct error *err);
    int (*key_delete_tenant)(struct store *s, uint64_t tenant_uid, struct error *err);
    /* ordered by (tenant_uid, id) */
    int (*key_each)(struct store *s, uint64_t tenant_uid /* 0 = all */,
                    int (*each)(void *ctx, const struct store_key *k), void *ctx, struct error *err);

    /* Inserts or replaces by (tenant_uid, key): a transaction of its own (so outside of any) that leaves the revision
     * as it is, for nothing that was applied changes. All or nothing. */
    int (*quota_put)(struct store *s, const struct store_quota *rows, size_t n, struct error *err);
    /* ordered by (tenant_uid, key) */
    int (*quota_each)(struct store *s, uint64_t tenant_uid /* 0 = all */,
                      int (*each)(void *ctx, const struct store_quota *q), void *ctx, struct error *err);
    /* Forgets rows whose time has passed; as quota_put. */
    int (*quota_purge)(struct store *s, uint64_t now_ms, struct error *err);
};

/* Embedded first in a back-end's struct. */
struct store {
    const struct store_ops *ops;
};

extern const struct store_ops store_sqlite;
extern const struct store_ops store_memory;

#endif
