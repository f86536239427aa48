/* A registry on a store in memory (or a file), with a folder of its own for artifacts. */
#ifndef BULKHEAD_TEST_REGISTRY_FIXTURE_H
#define BULKHEAD_TEST_REGISTRY_FIXTURE_H

#include "control/registry.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const struct bus_device fixture_devices[] = {{.name = "cpu", .slots = 4}, {.name = "npu", .slots = 1}};

struct fixture {
    char folder[64], artifacts[80], database[80];
    int artifacts_dir;
    struct registry_config config;
    struct registry *registry;
    struct registry_change change;
    struct buf results;
    struct error err;
    uint32_t n_described; /* artifacts that applies wanted opened */
    uint64_t engine_id;
};

/* The whole artifact of a version in one go, as control does it in many. */
static inline int fixture_memfd(struct fixture *f, const struct registry_version *v, int *ret_fd)
{
    struct registry_copy *copy = NULL;
    int r = registry_copy_begin(f->registry, v, &copy, &f->err);
    while (copy && (r = registry_copy_step(copy, ret_fd, &f->err)) > 0)
        continue;
    registry_copy_free(copy);
    return r;
}

static inline int fixture_level(void *ctx, uint32_t level, struct error *err)
{
    (void)ctx;
    if (level == 5)
        return error_set(err, ERROR_AGAIN, "is still being tested; try again in a few seconds");
    return level <= 3 ? 0 : error_set(err, ERROR_ISOLATION_UNAVAILABLE, "no container runtime was found");
}

static inline int fixture_runtime(void *ctx, uint32_t level, uint32_t runtime, struct error *err)
{
    (void)ctx;
    (void)level;
    return runtime == 2   ? error_set(err, ERROR_ISOLATION_UNAVAILABLE, "it refuses hybrid control groups")
           : runtime == 4 ? error_set(err, ERROR_AGAIN, "is still being tested; try again in a few seconds")
                          : 0;
}

static inline bool fixture_engine(void *ctx, struct str name)
{
    (void)ctx;
    return str_equal(name, STR("identity")) || str_equal(name, STR("onnx")) || str_equal(name, STR("llama"));
}

static inline bool fixture_engine_shared(void *ctx, struct str name)
{
    (void)ctx;
    return str_equal(name, STR("identity")) || str_equal(name, STR("llama"));
}

static inline bool fixture_engine_lends(void *ctx, struct str name)
{
    (void)ctx;
    return str_equal(name, STR("llama"));
}

static inline uint64_t fixture_engine_id(void *ctx, struct str name)
{
    (void)name;
    return ((struct fixture *)ctx)->engine_id;
}

static inline void fixture_open(struct fixture *f)
{
    f->err = (struct error){0};
    if (registry_open(&f->config, &f->registry, &f->err) < 0)
        fail_msg("open: %s", f->err.text);
}

static inline void fixture_reopen(struct fixture *f)
{
    registry_close(f->registry);
    fixture_open(f);
}

static inline void fixture_start(struct fixture *f, const struct store_ops *store)
{
    *f = (struct fixture){.folder = "/tmp/bulkhead-registry-XXXXXX"};
    assert_non_null(mkdtemp(f->folder));
    (void)snprintf(f->artifacts, sizeof f->artifacts, "%s/artifacts", f->folder);
    (void)snprintf(f->database, sizeof f->database, "%s/store.db", f->folder);
    assert_int_equal(mkdir(f->artifacts, 0700), 0);
    f->artifacts_dir = open(f->artifacts, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(f->artifacts_dir >= 0);
    buf_init(&f->results, MIB);
    f->config = (struct registry_config){.store = store,
                                         .database = f->database,
                                         .artifacts_dir = f->artifacts_dir,
                                         .devices = fixture_devices,
                                         .n_devices = 2,
                                         .memory_bytes_max = 4 * GIB,
                                         .level_refusal = fixture_level,
                                         .runtime_refusal = fixture_runtime,
                                         .engine_known = fixture_engine,
                                         .engine_shared = fixture_engine_shared,
                                         .engine_lends = fixture_engine_lends,
                                         .engine_id = fixture_engine_id,
                                         .ctx = f};
    fixture_open(f);
}

static inline void fixture_remove(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    while (folder && (entry = readdir(folder)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            (void)unlinkat(dirfd(folder), entry->d_name, 0);
    if (folder)
        closedir(folder);
    (void)rmdir(path);
}

static inline void fixture_stop(struct fixture *f)
{
    registry_close(f->registry);
    close(f->artifacts_dir);
    buf_done(&f->results);
    fixture_remove(f->artifacts);
    fixture_remove(f->folder);
}

static inline uint32_t fixture_files(const struct fixture *f)
{
    DIR *folder = opendir(f->artifacts);
    assert_non_null(folder);
    uint32_t n = 0;
    struct dirent *entry;
    while ((entry = readdir(folder)))
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(folder);
    return n;
}

static inline void fixture_upload(struct fixture *f, const char *content, char hex[static 65])
{
    struct registry_upload *u = NULL;
    uint64_t bytes = 0;
    assert_int_equal(registry_upload_begin(f->registry, &u, &f->err), 0);
    assert_int_equal(registry_upload_write(u, str_from(content), &f->err), 0);
    assert_int_equal(registry_upload_finish(u, hex, &bytes, &f->err), 0);
    assert_int_equal(bytes, strlen(content));
}

static inline int fixture_apply(struct fixture *f, const char *body)
{
    buf_clear(&f->results);
    f->err = (struct error){0};
    struct registry_ingest ingest;
    registry_ingest_init(&ingest);
    int rc;
    while ((rc = registry_apply(f->registry, str_from(body), &ingest, &f->change, &f->results, &f->err)) > 0) {
        f->n_described++;
        assert_int_equal(registry_ingest_add(&ingest, STR("signature")), 0);
    }
    registry_ingest_done(&ingest);
    return rc;
}

static inline void fixture_applied(struct fixture *f, const char *body)
{
    if (fixture_apply(f, body) < 0)
        fail_msg("apply: %s", f->err.text);
}

/* Refused with that code and a text that holds `text`; and nothing changed. */
static inline void fixture_refused(struct fixture *f, const char *body, int code, const char *text)
{
    uint64_t before = 0, after = 0;
    int fd = -1;
    size_t bytes;
    assert_int_equal(registry_catalog(f->registry, &before, &fd, &bytes, &f->err), 0);
    close(fd);
    int rc = fixture_apply(f, body);
    if (rc != -code || !strstr(f->err.text, text))
        fail_msg("expected %s \"%s\", got %s \"%s\"", error_info(code)->name, text, error_info(rc)->name, f->err.text);
    assert_int_equal(f->err.code, -code);
    assert_int_equal(registry_catalog(f->registry, &after, &fd, &bytes, &f->err), 0);
    close(fd);
    assert_int_equal(before, after);
}

static inline const char *fixture_get(struct fixture *f, enum resource_kind kind, const char *tenant, const char *name)
{
    buf_clear(&f->results);
    f->err = (struct error){0};
    if (registry_get(f->registry, kind, str_from(tenant), str_from(name), &f->results, &f->err) < 0)
        fail_msg("get: %s", f->err.text);
    return buf_terminate(&f->results);
}

/* uid of the newest version of a model */
static inline uint64_t fixture_version(struct fixture *f, const char *tenant, const char *model)
{
    const char *text = fixture_get(f, RESOURCE_VERSION, tenant, model);
    yyjson_doc *json = yyjson_read(text, strlen(text), 0);
    uint64_t uid = yyjson_get_uint(yyjson_ptr_get(yyjson_doc_get_root(json), "/0/metadata/uid"));
    yyjson_doc_free(json);
    return uid;
}

#define API                "\"apiVersion\":\"" RESOURCE_API_VERSION "\","
#define TENANT(name, spec) "{" API "\"kind\":\"Tenant\",\"metadata\":{\"name\":\"" name "\"},\"spec\":{" spec "}}"
#define MODEL(tenant, name, source, spec)                                                 \
    "{" API "\"kind\":\"Model\",\"metadata\":{\"name\":\"" name "\",\"tenant\":\"" tenant \
    "\"},\"spec\":{\"engine\":\"identity\",\"source\":\"" source "\"" spec "}}"
#define LLAMA(tenant, name, source, spec)                                                 \
    "{" API "\"kind\":\"Model\",\"metadata\":{\"name\":\"" name "\",\"tenant\":\"" tenant \
    "\"},\"spec\":{\"engine\":\"llama\",\"source\":\"" source "\"" spec "}}"
#define GRANT(tenant, name, model, tenants, spec)                                         \
    "{" API "\"kind\":\"Grant\",\"metadata\":{\"name\":\"" name "\",\"tenant\":\"" tenant \
    "\"},\"spec\":{\"model\":\"" model "\",\"tenants\":[" tenants "]" spec "}}"
#define LEVEL(name) ",\"isolation\":{\"level\":\"" name "\"}"

/* For cmocka: one fixture over the store in memory. */
static inline int fixture_setup(void **state)
{
    static struct fixture f;
    fixture_start(&f, &store_memory);
    *state = &f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    fixture_stop(*state);
    return 0;
}

#endif
