/* What every back-end must do: one suite, run against each. */
#include "store_fixture.h"

static int setup_with(void **state, const struct store_ops *ops)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->ops = ops;
    fixture_folder(f);
    fixture_open(f);
    *state = f;
    return 0;
}

static int setup_sqlite(void **state)
{
    return setup_with(state, &store_sqlite);
}

static int setup_memory(void **state)
{
    return setup_with(state, &store_memory);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    fixture_close(f);
    fixture_remove(f);
    free(f);
    return 0;
}

static void expect_dump(struct fixture *f, const char *expected)
{
    _buf_ struct buf text;
    dump(f, &text);
    assert_string_equal(text.data, expected);
}

static void test_new_is_empty(void **state)
{
    struct fixture *f = *state;
    assert_ptr_equal(f->store->ops, f->ops);
    expect_dump(f, "revision 0\n");
}

struct described {
    uint32_t n;
    char signature[32];
    size_t size;
};

static void note_description(void *ctx, const struct store_description *d)
{
    struct described *described = ctx;
    described->n++;
    described->size = d->signature.size;
    memcpy(described->signature, d->signature.data, d->signature.size);
}

/* The signature of that engine, digest and id, in *ret; how many there are. */
static uint32_t description(struct fixture *f, const char *engine, uint8_t digest, uint64_t id, struct described *ret)
{
    uint8_t whole[STORE_DIGEST_BYTES];
    memset(whole, digest, sizeof whole);
    *ret = (struct described){0};
    assert_int_equal(f->ops->description_find(f->store, str_from(engine), whole, id, note_description, ret, NULL), 0);
    return ret->n;
}

static int describe(struct fixture *f, const char *engine, uint8_t digest, uint64_t id, struct str signature)
{
    struct store_description d = {.engine = str_from(engine), .engine_id = id, .signature = signature};
    memset(d.digest, digest, sizeof d.digest);
    return f->ops->description_put(f->store, &d, NULL);
}

static void test_descriptions(void **state)
{
    struct fixture *f = *state;
    struct described got;
    uint8_t used[STORE_DIGEST_BYTES], unused[STORE_DIGEST_BYTES];
    memset(used, 0xAB, sizeof used);
    memset(unused, 0xCD, sizeof unused);
    assert_int_equal(describe(f, "onnx", 0xAB, 1, STR("x")), -ERROR_INTERNAL); /* outside a transaction */
    must_begin(f);
    uint64_t model = must_uid(f);
    assert_int_equal(put_resource(f, KIND_MODEL, model, "acme", "digits", "{}"), 0);
    assert_int_equal(put_version(f, must_uid(f), model, 1, 0xAB), 0);
    assert_int_equal(describe(f, "onnx", 0xAB, 7, ((struct str){"a\0b\xff", 4})), 0);
    assert_int_equal(describe(f, "onnx", 0xCD, INT64_MAX, STR("c")), 0);
    assert_int_equal(describe(f, "identity", 0xAB, 0, STR("d")), 0);
    (void)must_commit(f);
    assert_int_equal(description(f, "onnx", 0xAB, 7, &got), 1);
    assert_int_equal(got.size, 4);
    assert_memory_equal(got.signature, "a\0b\xff", 4);
    assert_int_equal(description(f, "onnx", 0xAB, 8, &got), 0); /* of other code */
    assert_int_equal(description(f, "onnx", 0xCD, INT64_MAX, &got), 1);
    assert_int_equal(description(f, "identity", 0xAB, 0, &got), 1);
    must_begin(f);
    assert_int_equal(describe(f, "onnx", 0xAB, 8, STR("new")), 0); /* replaces */
    assert_int_equal(f->ops->description_release(f->store, used, NULL), 0);
    assert_int_equal(f->ops->description_release(f->store, unused, NULL), 0);
    (void)must_commit(f);
    assert_int_equal(description(f, "onnx", 0xAB, 7, &got), 0);
    assert_int_equal(description(f, "onnx", 0xAB, 8, &got), 1); /* a version names it */
    assert_memory_equal(got.signature, "new", 3);
    assert_int_equal(description(f, "onnx", 0xCD, INT64_MAX, &got), 0);
}

static void test_rows_come_back(void **state)
{
    struct fixture *f = *state;
    must_begin(f);
    uint64_t tenant = must_uid(f), model = must_uid(f), version = must_uid(f);
    assert_true(tenant > 0 && model > tenant && version > model);
    assert_int_equal(put_resource(f, KIND_TENANT, tenant, "", "acme", "{\"a\":1}"), 0);
    assert_int_equal(put_resource(f, KIND_MODEL, model, "acme", "digits", "{}"), 0);
    assert_int_equal(put_version(f, version, model, 1, 0xAB), 0);
    assert_int_equal(put_key(f, 7, tenant), 0);
    assert_int_equal(must_commit(f), 1);
    expect_dump(f, "revision 1\n"
                   "R 2 1 /acme 1 2 {\"a\":1} 3 4\n"
                   "R 3 2 acme/digits 1 2 {} 3 4\n"
                   "V 3 2 1 abab 1099511627776 {\"engine\":\"onnx\"} 5\n"
                   "K Key0000000000007 0707 1  6\n");
}

static void test_commit_counts_and_rollback_forgets(void **state)
{
    struct fixture *f = *state;
    for (uint64_t i = 1; i <= 3; i++) {
        must_begin(f);
        assert_int_equal(must_commit(f), i); /* an empty one counts too */
    }
    must_begin(f);
    assert_int_equal(put_resource(f, KIND_TENANT, must_uid(f), "", "acme", "{}"), 0);
    f->ops->rollback(f->store);
    f->ops->rollback(f->store); /* no-op outside a transaction */
    expect_dump(f, "revision 3\n");
    must_begin(f);
    assert_int_equal(must_commit(f), 4);
}

static void test_writes_demand_a_transaction(void **state)
{
    struct fixture *f = *state;
    uint64_t number = 0;
    bool existed = false;
    assert_int_equal(put_resource(f, KIND_TENANT, 1, "", "acme", "{}"), -ERROR_INTERNAL);
    assert_int_equal(put_version(f, 1, 1, 1, 1), -ERROR_INTERNAL);
    assert_int_equal(put_key(f, 1, 1), -ERROR_INTERNAL);
    assert_int_equal(f->ops->uid_next(f->store, &number, NULL), -ERROR_INTERNAL);
    assert_int_equal(f->ops->commit(f->store, &number, NULL), -ERROR_INTERNAL);
    assert_int_equal(f->ops->resource_delete(f->store, 1, NULL), -ERROR_INTERNAL);
    assert_int_equal(f->ops->version_delete_model(f->store, 1, NULL), -ERROR_INTERNAL);
    assert_int_equal(f->ops->key_delete(f->store, STR("x"), &existed, NULL), -ERROR_INTERNAL);
    assert_int_equal(f->ops->key_delete_tenant(f->store, 1, NULL), -ERROR_INTERNAL);
    must_begin(f);
    assert_int_equal(f->ops->begin(f->store, NULL), -ERROR_INTERNAL);
    assert_int_equal(must_commit(f), 1); /* the first one is still whole */
}

static void test_conflict_leaves_the_transaction(void **state)
{
    struct fixture *f = *state;
    must_begin(f);
    assert_int_equal(put_resource(f, KIND_TENANT, 1, "", "acme", "{}"), 0);
    assert_int_equal(put_resource(f, KIND_TENANT, 2, "", "acme", "{}"), -ERROR_CONFLICT);
    assert_int_equal(put_resource(f, KIND_MODEL, 3, "acme", "m", "{}"), 0);
    assert_int_equal(put_resource(f, KIND_MODEL, 4, "acme", "m", "{}"), -ERROR_CONFLICT);
    assert_int_equal(put_resource(f, KIND_MODEL, 4, "other", "m", "{}"), 0); /* the pair is the name */
    assert_int_equal(put_version(f, 5, 3, 1, 1), 0);
    assert_int_equal(put_version(f, 6, 3, 1, 1), -ERROR_CONFLICT);
    assert_int_equal(put_version(f, 5, 3, 2, 1), -ERROR_CONFLICT);
    assert_int_equal(put_key(f, 1, 1), 0);
    assert_int_equal(put_key(f, 1, 1), -ERROR_CONFLICT);
    /* the other way to collide: an existing uid takes a name that is taken */
    assert_int_equal(put_resource(f, KIND_MODEL, 4, "acme", "m", "{}"), -ERROR_CONFLICT);
    (void)must_commit(f);
    expect_dump(f, "revision 1\n"
                   "R 2 1 /acme 1 2 {} 3 4\n"
                   "R 3 3 acme/m 1 2 {} 3 4\n"
                   "R 3 4 other/m 1 2 {} 3 4\n"
                   "V 5 3 1 0101 1099511627776 {\"engine\":\"onnx\"} 5\n"
                   "K Key0000000000001 0101 1  6\n");
}

static void test_put_replaces_by_uid(void **state)
{
    struct fixture *f = *state;
    must_begin(f);
    assert_int_equal(put_resource(f, KIND_TENANT, 1, "", "acme", "{}"), 0);
    assert_int_equal(put_key(f, 1, 1), 0);
    (void)must_commit(f);
    must_begin(f);
    assert_int_equal(put_resource(f, KIND_TENANT, 1, "", "acme", "{\"spec\":{}}"), 0);
    (void)must_commit(f);
    expect_dump(f, "revision 2\nR 2 1 /acme 1 2 {\"spec\":{}} 3 4\nK Key0000000000001 0101 1  6\n");
}

static void test_references_are_checked_at_commit(void **state)
{
    struct fixture *f = *state;
    uint64_t revision = 77;
    must_begin(f);
    assert_int_equal(put_key(f, 1, 42), 0);
    assert_int_equal(f->ops->commit(f->store, &revision, NULL), -ERROR_INTERNAL);
    assert_int_equal(revision, 77);
    expect_dump(f, "revision 0\n"); /* and the transaction is over */
    must_begin(f);
    assert_int_equal(put_key(f, 1, 42), 0); /* any order within one transaction */
    assert_int_equal(put_resource(f, KIND_TENANT, 42, "", "acme", "{}"), 0);
    (void)must_commit(f);
    must_begin(f);
    assert_int_equal(f->ops->resource_delete(f->store, 42, NULL), 0);
    assert_int_equal(f->ops->key_delete_tenant(f->store, 42, NULL), 0);
    (void)must_commit(f);
    expect_dump(f, "revision 2\n");
}

static void test_deletes(void **state)
{
    struct fixture *f = *state;
    bool existed = false, used = false;
    uint8_t digest[STORE_DIGEST_BYTES];
    memset(digest, 0xD1, sizeof digest);
    must_begin(f);
    assert_int_equal(put_resource(f, KIND_TENANT, 1, "", "a", "{}"), 0);
    assert_int_equal(put_resource(f, KIND_TENANT, 2, "", "b", "{}"), 0);
    assert_int_equal(put_resource(f, KIND_MODEL, 3, "a", "m", "{}"), 0);
    assert_int_equal(put_version(f, 4, 3, 1, 0xD1), 0);
    assert_int_equal(put_version(f, 5, 3, 2, 0xD2), 0);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(put_key(f, i, 1 + i % 2), 0);
    (void)must_commit(f);
    assert_int_equal(f->ops->artifact_used(f->store, digest, &used, NULL), 0);
    assert_true(used);
    must_begin(f);
    assert_int_equal(f->ops->version_delete_model(f->store, 3, NULL), 0);
    assert_int_equal(f->ops->artifact_used(f->store, digest, &used, NULL), 0);
    assert_false(used);
    assert_int_equal(f->ops->resource_delete(f->store, 3, NULL), 0);
    assert_int_equal(f->ops->resource_delete(f->store, 99, NULL), 0); /* what is not there is deleted */
    assert_int_equal(f->ops->key_delete(f->store, STR("Key0000000000001"), &existed, NULL), 0);
    assert_true(existed);
    assert_int_equal(f->ops->key_delete(f->store, STR("Key0000000000001"), &existed, NULL), 0);
    assert_false(existed);
    assert_int_equal(f->ops->key_delete_tenant(f->store, 1, NULL), 0);
    (void)must_commit(f);
    expect_dump(f, "revision 2\nR 2 1 /a 1 2 {} 3 4\nR 2 2 /b 1 2 {} 3 4\nK Key0000000000003 0303 2  6\n");
}

static int join_names(void *ctx, const struct store_resource *r)
{
    buf_format(ctx, STR_FORMAT "/" STR_FORMAT " ", STR_ARG(r->tenant), STR_ARG(r->name));
    return 0;
}

static void expect_names(struct fixture *f, struct str tenant, struct str name, const char *expected)
{
    _buf_ struct buf text;
    buf_init(&text, 64 * KIB);
    assert_int_equal(f->ops->resource_each(f->store, KIND_MODEL, tenant, name, join_names, &text, NULL), 0);
    assert_string_equal(buf_terminate(&text), expected);
}

static void test_filters_and_order(void **state)
{
    struct fixture *f = *state;
    static const struct str any;
    must_begin(f);
    assert_int_equal(put_resource(f, KIND_MODEL, 1, "b", "y", "{}"), 0);
    assert_int_equal(put_resource(f, KIND_MODEL, 2, "a", "z", "{}"), 0);
    assert_int_equal(put_resource(f, KIND_MODEL, 3, "a", "x", "{}"), 0);
    assert_int_equal(put_resource(f, KIND_MODEL, 4, "a-b", "x", "{}"), 0);
    assert_int_equal(put_resource(f, KIND_TENANT, 5, "", "x", "{}"), 0);
    for (uint32_t i = 1; i <= 10; i++)
        assert_int_equal(put_version(f, 10 + i, 1 + i % 2, i, 1), 0);
    (void)must_commit(f);
    expect_names(f, any, any, "a/x a/z a-b/x b/y ");
    expect_names(f, STR("a"), any, "a/x a/z ");
    expect_names(f, any, STR("x"), "a/x a-b/x ");
    expect_names(f, STR("a"), STR("z"), "a/z ");
    expect_names(f, STR("a"), STR("y"), "");
    expect_names(f, STR(""), any, ""); /* an empty name is a filter, no data is none */
    _buf_ struct buf text;
    buf_init(&text, 64 * KIB);
    assert_int_equal(f->ops->version_each(f->store, 2, dump_version, &text, NULL), 0);
    static const char start[] = "V 19 2 9 ";
    assert_memory_equal(buf_terminate(&text), start, sizeof start - 1); /* newest first, by number */
    assert_non_null(strstr(text.data, "\nV 11 2 1 "));
    assert_null(strstr(text.data, "V 20"));
}

static int stop_at_once(void *ctx, const struct store_resource *r)
{
    (void)r;
    ++*(int *)ctx;
    return 1;
}

struct nested {
    struct fixture *f;
    struct buf text;
    int depth;
};

/* Reads with the statement that is handing out this very row. */
static int read_inside(void *ctx, const struct store_resource *r)
{
    struct nested *n = ctx;
    static const struct str any;
    buf_format(&n->text, STR_FORMAT "(", STR_ARG(r->name));
    if (n->depth < 2) {
        n->depth++;
        assert_int_equal(n->f->ops->resource_each(n->f->store, KIND_MODEL, any, any, read_inside, n, NULL), 0);
        n->depth--;
    }
    buf_append_char(&n->text, ')');
    return 0;
}

static void test_callbacks_stop_and_nest(void **state)
{
    struct fixture *f = *state;
    static const struct str any;
    must_begin(f);
    assert_int_equal(put_resource(f, KIND_MODEL, 1, "t", "a", "{}"), 0);
    assert_int_equal(put_resource(f, KIND_MODEL, 2, "t", "b", "{}"), 0);
    (void)must_commit(f);
    int calls = 0;
    assert_int_equal(f->ops->resource_each(f->store, KIND_MODEL, any, any, stop_at_once, &calls, NULL), 0);
    assert_int_equal(calls, 1);
    struct nested n = {.f = f};
    buf_init(&n.text, 64 * KIB);
    assert_int_equal(f->ops->resource_each(f->store, KIND_MODEL, any, any, read_inside, &n, NULL), 0);
    assert_string_equal(buf_terminate(&n.text), "a(a(a()b())b(a()b()))b(a(a()b())b(a()b()))");
    buf_done(&n.text);
}

static void test_bytes_are_kept(void **state)
{
    struct fixture *f = *state;
    must_begin(f);
    struct store_resource r = {.kind = KIND_TENANT,
                               .uid = INT64_MAX,
                               .tenant = STR(""),
                               .name = STR("a"),
                               .generation = UINT64_MAX,
                               .document = STR("{\"x\":\"' -- ä\"}")};
    assert_int_equal(f->ops->resource_put(f->store, &r, NULL), 0);
    struct store_key k = {.id = STR("abcdefghijklmnop"), .tenant_uid = INT64_MAX, .name = STR("Grüße; DROP TABLE key")};
    assert_int_equal(f->ops->key_put(f->store, &k, NULL), 0);
    (void)must_commit(f);
    expect_dump(f, "revision 1\nR 2 9223372036854775807 /a 18446744073709551615 0 {\"x\":\"' -- ä\"} 0 0\n"
                   "K abcdefghijklmnop 0000 9223372036854775807 Grüße; DROP TABLE key 0\n");
}

static void test_reads_inside_a_transaction(void **state)
{
    struct fixture *f = *state;
    must_begin(f);
    assert_int_equal(put_resource(f, KIND_TENANT, 1, "", "acme", "{}"), 0);
    expect_dump(f, "revision 0\nR 2 1 /acme 1 2 {} 3 4\n"); /* its own writes are seen */
    f->ops->rollback(f->store);
    expect_dump(f, "revision 0\n");
    f->ops->close(NULL);
}

static void test_failed_write_ends_the_transaction(void **state)
{
    struct fixture *f = *state;
    uint64_t revision = 0;
    char document[4096];
    memset(document, ' ', sizeof document - 1);
    document[sizeof document - 1] = '\0';
    must_begin(f);
    assert_int_equal(put_resource(f, KIND_TENANT, 1, "", "acme", "{}"), 0);
    int before = sqlite3_limit(store_sql(f->store)->db, SQLITE_LIMIT_LENGTH, 2048);
    assert_true(put_resource(f, KIND_TENANT, 2, "", "clinic", document) < 0);
    (void)sqlite3_limit(store_sql(f->store)->db, SQLITE_LIMIT_LENGTH, before);
    assert_int_equal(put_resource(f, KIND_TENANT, 3, "", "other", "{}"), -ERROR_IO);
    assert_int_equal(f->ops->commit(f->store, &revision, NULL), -ERROR_IO);
    expect_dump(f, "revision 0\n");
    must_begin(f); /* no harm was done to the store itself */
    assert_int_equal(put_resource(f, KIND_TENANT, 2, "", "clinic", "{}"), 0);
    assert_int_equal(must_commit(f), 1);
}

static int dump_quota(void *ctx, const struct store_quota *q)
{
    buf_format(ctx, "%llu " STR_FORMAT " " STR_FORMAT " %llu\n", (unsigned long long)q->tenant_uid, STR_ARG(q->key),
               STR_ARG(q->use), (unsigned long long)q->until_ms);
    return 0;
}

static void expect_quotas(struct fixture *f, uint64_t tenant_uid, const char *expected)
{
    _buf_ struct buf text;
    buf_init(&text, 4 * KIB);
    assert_int_equal(f->ops->quota_each(f->store, tenant_uid, dump_quota, &text, NULL), 0);
    assert_string_equal(buf_terminate(&text), expected);
}

static void test_quotas(void **state)
{
    struct fixture *f = *state;
    const struct store_quota rows[] = {
        {.tenant_uid = 9, .use = STR("own"), .until_ms = 100},
        {.tenant_uid = 9, .key = STR("Key0000000000001"), .use = STR("key"), .until_ms = 200},
        {.tenant_uid = 7, .use = STR("other"), .until_ms = INT64_MAX},
    };
    assert_int_equal(f->ops->quota_put(f->store, rows, 3, NULL), 0);
    expect_quotas(f, 0, "7  other 9223372036854775807\n9  own 100\n9 Key0000000000001 key 200\n");
    expect_quotas(f, 9, "9  own 100\n9 Key0000000000001 key 200\n");
    expect_quotas(f, 8, "");
    struct store_quota again = {.tenant_uid = 9, .use = STR("more"), .until_ms = 150};
    assert_int_equal(f->ops->quota_put(f->store, &again, 1, NULL), 0);
    expect_quotas(f, 9, "9  more 150\n9 Key0000000000001 key 200\n");
    assert_int_equal(f->ops->quota_purge(f->store, 200, NULL), 0);
    expect_quotas(f, 0, "7  other 9223372036854775807\n9 Key0000000000001 key 200\n");
    expect_dump(f, "revision 0\n"); /* nothing was applied */
    must_begin(f);
    assert_int_equal(f->ops->quota_put(f->store, &again, 1, NULL), -ERROR_INTERNAL);
    assert_int_equal(put_resource(f, KIND_TENANT, 1, "", "acme", "{}"), 0); /* the transaction is as it was */
    assert_int_equal(must_commit(f), 1);
    expect_quotas(f, 9, "9 Key0000000000001 key 200\n");
}

/* All or nothing, and the next one works. */
static void test_a_failed_quota_put_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    char use[4096];
    memset(use, 'x', sizeof use);
    const struct store_quota rows[] = {{.tenant_uid = 1, .use = STR("small"), .until_ms = 1},
                                       {.tenant_uid = 2, .use = {use, sizeof use}, .until_ms = 1}};
    int before = sqlite3_limit(store_sql(f->store)->db, SQLITE_LIMIT_LENGTH, 2048);
    assert_true(f->ops->quota_put(f->store, rows, 2, NULL) < 0);
    (void)sqlite3_limit(store_sql(f->store)->db, SQLITE_LIMIT_LENGTH, before);
    expect_quotas(f, 0, "");
    assert_int_equal(f->ops->quota_put(f->store, rows, 1, NULL), 0);
    expect_quotas(f, 0, "1  small 1\n");
}

#define CONFORMANCE(test)                                    \
    {"sqlite: " #test, test, setup_sqlite, teardown, NULL},  \
    {                                                        \
        "memory: " #test, test, setup_memory, teardown, NULL \
    }

static int keep_version(void *ctx, const struct store_version *v)
{
    *(struct store_version *)ctx = *v;
    ((struct store_version *)ctx)->document = (struct str){0}; /* lives no longer than this call */
    return 0;
}

/* A version's image is kept with it, counts as used, and goes with it. */
static void test_images(void **state)
{
    struct fixture *f = *state;
    uint8_t image[STORE_DIGEST_BYTES];
    bool used = true;
    uint64_t revision;
    memset(image, 7, sizeof image);
    assert_int_equal(f->ops->begin(f->store, NULL), 0);
    assert_int_equal(put_resource(f, 3, 5, "acme", "digits", "{}"), 0);
    struct store_version v = {
        .uid = 6, .model_uid = 5, .number = 1, .artifact_bytes = 1, .image_bytes = 99, .document = STR("{}")};
    memset(v.image, 7, sizeof v.image);
    memset(v.image_manifest, 8, sizeof v.image_manifest);
    assert_int_equal(f->ops->version_put(f->store, &v, NULL), 0);
    assert_int_equal(f->ops->commit(f->store, &revision, NULL), 0);
    struct store_version found = {0};
    assert_int_equal(f->ops->version_each(f->store, 5, keep_version, &found, NULL), 0);
    assert_int_equal(found.image_bytes, 99);
    assert_memory_equal(found.image, v.image, sizeof v.image);
    assert_memory_equal(found.image_manifest, v.image_manifest, sizeof v.image_manifest);
    assert_int_equal(f->ops->artifact_used(f->store, image, &used, NULL), 0);
    assert_true(used);
    assert_int_equal(f->ops->begin(f->store, NULL), 0);
    assert_int_equal(f->ops->version_delete_model(f->store, 5, NULL), 0);
    assert_int_equal(f->ops->commit(f->store, &revision, NULL), 0);
    assert_int_equal(f->ops->artifact_used(f->store, image, &used, NULL), 0);
    assert_false(used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONFORMANCE(test_new_is_empty),
        CONFORMANCE(test_rows_come_back),
        CONFORMANCE(test_descriptions),
        CONFORMANCE(test_commit_counts_and_rollback_forgets),
        CONFORMANCE(test_writes_demand_a_transaction),
        CONFORMANCE(test_conflict_leaves_the_transaction),
        CONFORMANCE(test_put_replaces_by_uid),
        CONFORMANCE(test_references_are_checked_at_commit),
        CONFORMANCE(test_deletes),
        CONFORMANCE(test_filters_and_order),
        CONFORMANCE(test_callbacks_stop_and_nest),
        CONFORMANCE(test_bytes_are_kept),
        CONFORMANCE(test_failed_write_ends_the_transaction),
        CONFORMANCE(test_reads_inside_a_transaction),
        CONFORMANCE(test_quotas),
        CONFORMANCE(test_a_failed_quota_put_leaves_nothing),
        CONFORMANCE(test_images),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
