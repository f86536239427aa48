/* A store to test with: in a folder of its own or in memory, and short ways to write and to compare. */
#ifndef TEST_UNIT_STORE_FIXTURE_H
#define TEST_UNIT_STORE_FIXTURE_H

#include "base/buf.h"
#include "store/store_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { KIND_TENANT = 2, KIND_MODEL = 3 };

struct fixture {
    const struct store_ops *ops;
    struct store *store;
    char folder[64];
    char path[96];
};

static inline void fixture_folder_in(struct fixture *f, const char *parent)
{
    (void)snprintf(f->folder, sizeof f->folder, "%s/bulkhead-store-XXXXXX", parent);
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(f->path, sizeof f->path, "%s/store.db", f->folder);
}

static inline void fixture_folder(struct fixture *f)
{
    fixture_folder_in(f, "/tmp");
}

/* Removes the folder, which may hold the database's files only. */
static inline void fixture_remove(struct fixture *f)
{
    static const char *const suffixes[] = {"", "-wal", "-journal"};
    for (size_t i = 0; i < 3; i++) {
        char path[128];
        (void)snprintf(path, sizeof path, "%s%s", f->path, suffixes[i]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(f->folder), 0); /* fails on any other file: then something was left behind */
}

static inline void fixture_open(struct fixture *f)
{
    struct error err = {0};
    if (f->ops->open(f->path, &f->store, &err) != 0)
        fail_msg("open: %s", err.text);
}

static inline void fixture_close(struct fixture *f)
{
    f->ops->close(f->store);
    f->store = NULL;
}

/* --- writing; all return the operation's result --- */

static inline int put_resource(struct fixture *f, uint32_t kind, uint64_t uid, const char *tenant, const char *name,
                               const char *document)
{
    struct store_resource r = {
        .kind = kind,
        .uid = uid,
        .tenant = str_from(tenant),
        .name = str_from(name),
        .generation = 1,
        .resource_version = 2,
        .document = str_from(document),
        .created_ms = 3,
        .changed_ms = 4,
    };
    return f->ops->resource_put(f->store, &r, NULL);
}

static inline int put_version(struct fixture *f, uint64_t uid, uint64_t model_uid, uint32_t number, uint8_t digest)
{
    struct store_version v = {.uid = uid,
                              .model_uid = model_uid,
                              .number = number,
                              .artifact_bytes = (uint64_t)1 << 40,
                              .document = STR("{\"engine\":\"onnx\"}"),
                              .created_ms = 5};
    memset(v.digest, digest, sizeof v.digest);
    return f->ops->version_put(f->store, &v, NULL);
}

static inline int put_key(struct fixture *f, uint32_t number, uint64_t tenant_uid)
{
    char id[STORE_KEY_ID_BYTES + 1];
    (void)snprintf(id, sizeof id, "Key%013u", number);
    struct store_key k = {.id = str_from(id), .tenant_uid = tenant_uid, .created_ms = 6};
    memset(k.hash, (int)(number & 0xFF), sizeof k.hash);
    return f->ops->key_put(f->store, &k, NULL);
}

static inline uint64_t must_uid(struct fixture *f)
{
    uint64_t uid = 0;
    assert_int_equal(f->ops->uid_next(f->store, &uid, NULL), 0);
    return uid;
}

static inline void must_begin(struct fixture *f)
{
    assert_int_equal(f->ops->begin(f->store, NULL), 0);
}

static inline uint64_t must_commit(struct fixture *f)
{
    uint64_t revision = 0;
    assert_int_equal(f->ops->commit(f->store, &revision, NULL), 0);
    return revision;
}

/* --- everything a store holds, as text, to compare two states --- */

static inline int dump_resource(void *ctx, const struct store_resource *r)
{
    buf_format(ctx, "R %u %llu " STR_FORMAT "/" STR_FORMAT " %llu %llu " STR_FORMAT " %llu %llu\n", r->kind,
               (unsigned long long)r->uid, STR_ARG(r->tenant), STR_ARG(r->name), (unsigned long long)r->generation,
               (unsigned long long)r->resource_version, STR_ARG(r->document), (unsigned long long)r->created_ms,
               (unsigned long long)r->changed_ms);
    return 0;
}

static inline int dump_version(void *ctx, const struct store_version *v)
{
    buf_format(ctx, "V %llu %llu %u %02x%02x %llu " STR_FORMAT " %llu\n", (unsigned long long)v->uid,
               (unsigned long long)v->model_uid, v->number, v->digest[0], v->digest[31],
               (unsigned long long)v->artifact_bytes, STR_ARG(v->document), (unsigned long long)v->created_ms);
    return 0;
}

static inline int dump_key(void *ctx, const struct store_key *k)
{
    buf_format(ctx, "K " STR_FORMAT " %02x%02x %llu " STR_FORMAT " %llu\n", STR_ARG(k->id), k->hash[0], k->hash[31],
               (unsigned long long)k->tenant_uid, STR_ARG(k->name), (unsigned long long)k->created_ms);
    return 0;
}

/* Initialises *text. */
static inline void dump(struct fixture *f, struct buf *text)
{
    static const struct str any;
    uint64_t revision = 0;
    buf_init(text, 16 * MIB);
    assert_int_equal(f->ops->revision(f->store, &revision, NULL), 0);
    buf_format(text, "revision %llu\n", (unsigned long long)revision);
    for (uint32_t kind = KIND_TENANT; kind <= KIND_MODEL; kind++)
        assert_int_equal(f->ops->resource_each(f->store, kind, any, any, dump_resource, text, NULL), 0);
    assert_int_equal(f->ops->version_each(f->store, 0, dump_version, text, NULL), 0);
    assert_int_equal(f->ops->key_each(f->store, 0, dump_key, text, NULL), 0);
    (void)buf_terminate(text);
    assert_int_equal(text->failed, 0);
}

#endif
