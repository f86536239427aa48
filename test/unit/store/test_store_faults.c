/* Every write, sync, truncation, opening and deletion fails in turn. What was acknowledged must be there afterwards,
 * what was refused may be there whole or not at all, and nothing may be there in part. */
#include "store_fixture.h"

#include "fault_vfs.h"

#define STEPS 9
static struct buf expected[STEPS + 1]; /* the store after each acknowledged step */

/* --- a life of a store, one transaction a step --- */

static int step_tenants(struct fixture *f)
{
    int result = put_resource(f, KIND_TENANT, 1, "", "acme", "{\"spec\":{\"weight\":3}}");
    return result < 0 ? result : put_resource(f, KIND_TENANT, 2, "", "clinic", "{}");
}

static int step_model(struct fixture *f)
{
    uint64_t uid = 0;
    int result = f->ops->uid_next(f->store, &uid, NULL);
    if (result == 0)
        result = put_resource(f, KIND_MODEL, 100 + uid, "acme", "digits", "{}");
    return result < 0 ? result : put_version(f, 200, 100 + uid, 1, 0x11);
}

static int put_keys(struct fixture *f, uint32_t first, uint32_t n)
{
    int result = 0;
    for (uint32_t i = first; result == 0 && i < first + n; i++)
        result = put_key(f, i, 1 + i % 2);
    return result;
}

static int step_keys(struct fixture *f)
{
    return put_keys(f, 0, 30);
}

static int step_document(struct fixture *f)
{
    char document[20000]; /* several pages */
    memset(document, 'x', sizeof document - 1);
    document[sizeof document - 1] = '\0';
    return put_resource(f, KIND_TENANT, 2, "", "clinic", document);
}

static int step_revoke(struct fixture *f)
{
    bool existed = false;
    int result = f->ops->key_delete(f->store, STR("Key0000000000003"), &existed, NULL);
    return result < 0 ? result : f->ops->key_delete_tenant(f->store, 2, NULL);
}

static int step_version(struct fixture *f)
{
    return put_version(f, 201, 101, 2, 0x22);
}

static int step_more_keys(struct fixture *f)
{
    return put_keys(f, 100, 60);
}

static int step_shrink(struct fixture *f)
{
    int result = put_resource(f, KIND_TENANT, 2, "", "clinic", "{}");
    return result < 0 ? result : f->ops->version_delete_model(f->store, 101, NULL);
}

static int step_delete(struct fixture *f)
{
    return f->ops->resource_delete(f->store, 101, NULL);
}

static int (*const steps[STEPS])(struct fixture *f) = {
    step_tenants, step_model,     step_keys,   step_document, step_revoke,
    step_version, step_more_keys, step_shrink, step_delete,
};

/* One transaction; 0 when it was acknowledged. */
static int take_step(struct fixture *f, uint32_t step)
{
    uint64_t revision = 0;
    int result = f->ops->begin(f->store, NULL);
    if (result < 0)
        return result;
    result = steps[step](f);
    if (result == 0)
        result = f->ops->commit(f->store, &revision, NULL);
    f->ops->rollback(f->store);
    if (result == 0)
        assert_int_equal(revision, step + 1);
    return result;
}

/* Takes steps from *step on, until one is refused; true when all were taken. A full disk is tried again once. */
static bool take_steps(struct fixture *f, uint32_t *step, enum fault_mode mode)
{
    for (; *step < STEPS; ++*step) {
        int result = take_step(f, *step);
        if (result < 0 && mode == FAULT_FULL)
            result = take_step(f, *step);
        if (result < 0) {
            assert_true(result == -ERROR_IO || result == -ERROR_NO_MEMORY);
            return false;
        }
    }
    return true;
}

/* Thousands of stores are opened: where there is memory to hold them, they need no disk, whose syncs are modelled. */
static void prepare_folder(struct fixture *f)
{
    fixture_folder_in(f, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
}

static void prepare(struct fixture *f)
{
    f->ops = &store_sqlite;
    prepare_folder(f);
    fixture_open(f); /* registers the room's own VFS; ours goes on top */
    fixture_close(f);
    if (!fault.real)
        fault_register();
    fixture_remove(f);
    prepare_folder(f);
    if (expected[0].data)
        return;
    struct fixture memory = {.ops = &store_memory};
    fixture_open(&memory);
    for (uint32_t i = 0; i <= STEPS; i++) {
        dump(&memory, &expected[i]);
        if (i < STEPS)
            assert_int_equal(take_step(&memory, i), 0);
    }
    fixture_close(&memory);
}

/* The state is that of `step` steps, or of one more where that one was refused. */
static void check_state(struct fixture *f, uint32_t step, bool refused, long at)
{
    _buf_ struct buf found;
    dump(f, &found);
    bool right = strcmp(found.data, expected[step].data) == 0;
    if (!right && refused)
        right = strcmp(found.data, expected[step + 1].data) == 0;
    if (!right)
        fail_msg("operation %ld: after %u acknowledged steps the store holds:\n%.400s", at, step, found.data);
}

/* One life with a failure at operation `at`; false when that never came. */
static bool live(struct fixture *f, enum fault_mode mode, long at)
{
    uint32_t step = 0;
    bool refused = false;
    struct error err = {0};
    fault_arm(mode, at, (uint64_t)at);
    int opened = f->ops->open(f->path, &f->store, &err);
    if (opened == 0) {
        store_sql(f->store)->checkpoint_pages = 4;
        refused = !take_steps(f, &step, mode);
        if (refused) { /* nothing is built on what may be or not be */
            assert_int_equal(f->ops->begin(f->store, NULL), -ERROR_IO);
            check_state(f, step, false, at);
        }
        fixture_close(f);
    } else {
        assert_true(fault.hit && (opened == -ERROR_IO || opened == -ERROR_REFUSED || opened == -ERROR_NO_MEMORY));
        assert_true(err.text[0] != '\0');
    }
    bool hit = fault.hit;
    assert_true(hit || (opened == 0 && !refused));
    if (mode == FAULT_POWER_CUT)
        fault_power_cut();
    fault_disarm();
    fixture_open(f);
    check_state(f, step, refused, at);
    uint64_t revision = 0;
    assert_int_equal(f->ops->revision(f->store, &revision, NULL), 0);
    step = (uint32_t)revision;
    assert_true(take_steps(f, &step, FAULT_ONCE)); /* and it lives on */
    check_state(f, STEPS, false, at);
    if (mode >= FAULT_POWER_CUT) {          /* a cut (another one) in the middle of that second life */
        store_sql(f->store)->failed = true; /* close without tidying up */
        fixture_close(f);
        fault_power_cut();
        fixture_open(f);
        check_state(f, STEPS, false, at);
    }
    fixture_close(f);
    (void)unlink(f->path);
    return hit;
}

static void fail_each(enum fault_mode mode)
{
    struct fixture f = {0};
    prepare(&f);
    fflush(NULL);
    int saved = dup(STDERR_FILENO),
        null = open("/dev/null", O_WRONLY | O_CLOEXEC); /* thousands of alerts, all wanted */
    (void)dup2(null, STDERR_FILENO);
    long at = 1, misses = 0;
    for (; misses < 30; at++) /* FULL skips what is no write: a miss is not yet the end */
        misses = live(&f, mode, at) ? 0 : misses + 1;
    (void)dup2(saved, STDERR_FILENO);
    close(saved);
    close(null);
    fault_forget();
    fixture_remove(&f);
    print_message("# %ld operations\n", at - misses - 1);
    assert_true(at - misses > 60);
}

static void test_one_operation_fails(void **state)
{
    (void)state;
    fail_each(FAULT_ONCE);
}

static void test_disk_breaks_for_good(void **state)
{
    (void)state;
    fail_each(FAULT_FROM);
}

static void test_disk_is_full_for_once(void **state)
{
    (void)state;
    fail_each(FAULT_FULL);
}

static void test_power_is_cut(void **state)
{
    (void)state;
    fail_each(FAULT_POWER_CUT);
}

static int forget_expected(void **state)
{
    (void)state;
    for (uint32_t i = 0; i <= STEPS; i++)
        buf_done(&expected[i]);
    return 0;
}

static void test_sync_is_lost(void **state)
{
    (void)state;
    fail_each(FAULT_SYNC_LOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_operation_fails),   cmocka_unit_test(test_disk_breaks_for_good),
        cmocka_unit_test(test_disk_is_full_for_once), cmocka_unit_test(test_power_is_cut),
        cmocka_unit_test(test_sync_is_lost),
    };
    return cmocka_run_group_tests_name("store_faults", tests, NULL, forget_expected);
}
