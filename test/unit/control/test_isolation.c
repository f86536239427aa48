/* What control makes of the supervisor's reports: who may run, and what an operator reads. */
#include "control/control_internal.h"
#include "isolate/isolate.h"
#include "registry_fixture.h"

#include <yyjson.h>

static void report(struct control *c, uint32_t level, uint32_t state, const char *text)
{
    struct bus_isolation body = {.level = level, .state = state, .limits = 1};
    (void)snprintf(body.text, sizeof body.text, "%s", text);
    control_isolation(c, &body);
}

static void refused(struct control *c, uint32_t level, int code, const char *text)
{
    struct error err = {0};
    assert_int_equal(control_level_refusal(c, level, &err), -code);
    assert_string_equal(err.text, text);
}

static void test_the_last_report_counts(void **state)
{
    (void)state;
    static struct control control;
    struct control *c = &control;
    const char *const testing = "is still being tested; try again in a few seconds";
    refused(c, 5, ERROR_AGAIN, testing); /* nothing was told yet */
    report(c, 5, BUS_ISOLATION_TESTING, "still being tested");
    refused(c, 5, ERROR_AGAIN, testing);
    assert_true(error_info(-ERROR_AGAIN)->retryable);
    report(c, 5, BUS_ISOLATION_UNAVAILABLE, "QEMU is not installed: apt install qemu-system-x86");
    refused(c, 5, ERROR_ISOLATION_UNAVAILABLE, "QEMU is not installed: apt install qemu-system-x86");
    report(c, 5, BUS_ISOLATION_AVAILABLE, "microvm");
    assert_int_equal(control_level_refusal(c, 5, NULL), 0);
    report(c, 5, BUS_ISOLATION_UNAVAILABLE, "lost");
    refused(c, 5, ERROR_ISOLATION_UNAVAILABLE, "lost");
}

static void test_what_is_no_level_is_not_taken(void **state)
{
    (void)state;
    static struct control control;
    struct control *c = &control;
    report(c, 0, BUS_ISOLATION_AVAILABLE, "none");
    report(c, BUS_LEVEL_COUNT, BUS_ISOLATION_AVAILABLE, "more");
    report(c, UINT32_MAX, BUS_ISOLATION_AVAILABLE, "most");
    report(c, 3, 0, "no state");
    report(c, 3, BUS_ISOLATION_AVAILABLE + 1, "no state");
    for (uint32_t level = 1; level < BUS_LEVEL_COUNT; level++)
        assert_int_equal(control_level_refusal(c, level, NULL), -ERROR_AGAIN);
    refused(c, BUS_LEVEL_COUNT, ERROR_ISOLATION_UNAVAILABLE, "there is no such level");
    refused(c, UINT32_MAX, ERROR_ISOLATION_UNAVAILABLE, "there is no such level");
    assert_string_equal(control_level_name(UINT32_MAX), "none");
}

/* An older version stays addressable when its model and its tenant's floor are raised. */
static void test_never_below_the_floor(void **state)
{
    (void)state;
    static struct control control;
    struct control *c = &control;
    struct error err = {0};
    report(c, 3, BUS_ISOLATION_AVAILABLE, "process");
    report(c, 4, BUS_ISOLATION_UNAVAILABLE, "no OCI runtime");
    struct registry_version row = {.level = 3, .floor = 3};
    assert_int_equal(control_version_refusal(c, &row, &err), 0);
    row.floor = 1;
    assert_int_equal(control_version_refusal(c, &row, &err), 0);
    row.floor = 4;
    assert_int_equal(control_version_refusal(c, &row, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_string_equal(err.text, "its isolation level, process, is below what its tenant demands by now, container");
    row.level = 4;
    assert_int_equal(control_version_refusal(c, &row, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_string_equal(err.text, "its isolation level, container: no OCI runtime");
}

static void runtime_report(struct control *c, uint32_t runtime, uint32_t state, const char *text)
{
    struct bus_runtime body = {.runtime = runtime, .state = state, .guest = runtime == 2, .guest_text = "crun only"};
    (void)snprintf(body.text, sizeof body.text, "%s", text);
    control_runtime(c, &body);
}

/* Any runtime is the level's own affair; a named one must be there, and a version is stopped when it is not. */
static void test_runtimes(void **state)
{
    (void)state;
    static struct control control;
    struct control *c = &control;
    struct error err = {0};
    for (uint32_t runtime = 1; runtime < BUS_RUNTIME_COUNT; runtime++)
        assert_int_equal(control_runtime_refusal(c, 4, runtime, NULL), -ERROR_AGAIN);
    assert_int_equal(control_runtime_refusal(c, 4, 0, NULL), 0);
    assert_int_equal(control_runtime_refusal(c, 4, BUS_RUNTIME_COUNT, NULL), -ERROR_ISOLATION_UNAVAILABLE);
    runtime_report(c, 0, BUS_ISOLATION_AVAILABLE, "none");
    runtime_report(c, BUS_RUNTIME_COUNT, BUS_ISOLATION_AVAILABLE, "more");
    runtime_report(c, 1, BUS_ISOLATION_AVAILABLE, "works");
    runtime_report(c, 2, BUS_ISOLATION_UNAVAILABLE, "it refuses hybrid control groups");
    report(c, 4, BUS_ISOLATION_AVAILABLE, "container");
    struct registry_version row = {.level = 4, .floor = 1, .runtime = 1};
    assert_int_equal(control_version_refusal(c, &row, NULL), 0);
    row.runtime = 2;
    assert_int_equal(control_version_refusal(c, &row, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_string_equal(err.text, "its OCI runtime, crun: it refuses hybrid control groups");
    report(c, 5, BUS_ISOLATION_AVAILABLE, "microvm"); /* in a guest the host's groups do not matter */
    row.level = 5;
    assert_int_equal(control_version_refusal(c, &row, NULL), 0);
    row.runtime = 1;
    assert_int_equal(control_version_refusal(c, &row, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_string_equal(err.text, "its OCI runtime, runc: crun only");
    row.level = 4;
    runtime_report(c, 1, BUS_ISOLATION_UNAVAILABLE, "gone");
    row.runtime = 1;
    assert_int_equal(control_version_refusal(c, &row, &err), -ERROR_ISOLATION_UNAVAILABLE);
    assert_string_equal(err.text, "its OCI runtime, runc: gone");
}

/* Whether a runtime can run in a guest changes by itself: a host whose own control groups it refuses never has it, and
 * the program may come and go. What was refused for it is tried again, and what runs by it is looked at again. */
static void test_a_guests_runtime_comes_and_goes(void **state)
{
    struct fixture *f = *state;
    static struct control control;
    struct control *c = &control;
    struct control_version version = {.uid = 7, .failures = 3, .start_after_ns = UINT64_MAX, .level_refused = true};
    struct bus_runtime crun = {.runtime = 2, .state = BUS_ISOLATION_UNAVAILABLE, .guest_text = "apt install crun"};
    map_init(&c->versions, 4);
    control_runtime(c, &crun);
    assert_int_equal(map_put(&c->versions, version.uid, &version), 0);
    control_runtime(c, &crun); /* nothing has changed */
    assert_true(version.level_refused);
    assert_int_equal(version.start_after_ns, UINT64_MAX);
    crun.guest = 1;
    control_runtime(c, &crun);
    assert_false(version.level_refused);
    assert_int_equal(version.failures, 0);
    assert_int_equal(version.start_after_ns, 0);
    (void)map_remove(&c->versions, version.uid);
    c->registry = f->registry;
    c->told = true;
    for (int i = 0; i < 2; i++) { /* the first time it goes, the second nothing has changed */
        c->reconcile_at_ns = 1;
        crun.guest = 0;
        control_runtime(c, &crun);
        assert_int_equal(c->reconcile_at_ns, i == 0 ? UINT64_MAX : 1);
    }
    map_done(&c->versions);
}

/* The words of the resource, the numbers of the bus and the supervisor's are the same runtimes in the same order. */
static void test_runtime_names(void **state)
{
    (void)state;
    static const char *const names[BUS_RUNTIME_COUNT] = {"any", "runc", "crun", "runsc", "kata"};
    for (uint32_t i = 0; i < BUS_RUNTIME_COUNT; i++) {
        assert_string_equal(registry_runtime_name(i), names[i]);
        assert_string_equal(isolate_runtime_names[i], names[i]);
    }
    assert_string_equal(registry_runtime_name(BUS_RUNTIME_COUNT), "unknown");
}

static void test_status(void **state)
{
    (void)state;
    static struct control control;
    struct control *c = &control;
    report(c, 3, BUS_ISOLATION_AVAILABLE, "a \"quoted\" wall");
    report(c, 4, BUS_ISOLATION_UNAVAILABLE, "no OCI runtime");
    _buf_ struct buf json;
    buf_init(&json, MIB);
    buf_append_char(&json, '{');
    control_isolation_append(c, &json);
    buf_append_char(&json, '}');
    yyjson_doc *doc = yyjson_read(json.data, json.size, 0);
    assert_non_null(doc);
    yyjson_val *isolation = yyjson_obj_get(yyjson_doc_get_root(doc), "isolation");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(isolation, "text")), "a \"quoted\" wall");
    yyjson_val *levels = yyjson_obj_get(isolation, "levels");
    static const char *const states[] = {"testing", "testing", "available", "unavailable", "testing"};
    static const char *const names[] = {"shared", "pool", "process", "container", "microvm"};
    assert_int_equal(yyjson_arr_size(levels), 5);
    for (size_t i = 0; i < 5; i++) {
        yyjson_val *level = yyjson_arr_get(levels, i);
        assert_string_equal(yyjson_get_str(yyjson_obj_get(level, "name")), names[i]);
        assert_string_equal(yyjson_get_str(yyjson_obj_get(level, "state")), states[i]);
    }
    yyjson_val *runtimes = yyjson_obj_get(isolation, "runtimes");
    assert_int_equal(yyjson_arr_size(runtimes), BUS_RUNTIME_COUNT - 1);
    assert_string_equal(yyjson_get_str(yyjson_obj_get(yyjson_arr_get_first(runtimes), "name")), "runc");
    yyjson_doc_free(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_last_report_counts),
        cmocka_unit_test(test_what_is_no_level_is_not_taken),
        cmocka_unit_test(test_never_below_the_floor),
        cmocka_unit_test(test_runtimes),
        cmocka_unit_test(test_runtime_names),
        cmocka_unit_test(test_status),
        cmocka_unit_test_setup_teardown(test_a_guests_runtime_comes_and_goes, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
