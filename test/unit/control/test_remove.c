/* Removed files: small ones go at once, larger ones in slices, one turn of the loop for each; never what somebody still
 * reads or what has another name. Nothing here depends on how long anything takes. */
#include "control/control_internal.h"
#include "control/registry_internal.h"
#include "registry_fixture.h"

#include <string.h>

#define SLICES 4u
#define BYTES  ((SLICES - 1) * LIMIT_REMOVE_SLICE_BYTES + 1234)

static struct registry_upload *upload(struct fixture *f, size_t bytes, char content)
{
    struct registry_upload *u = NULL;
    char *data = malloc(bytes);
    assert_non_null(data);
    memset(data, content, bytes);
    assert_int_equal(registry_upload_begin(f->registry, &u, &f->err), 0);
    assert_int_equal(registry_upload_write(u, (struct str){data, bytes}, &f->err), 0);
    free(data);
    return u;
}

static struct registry_version artifact(struct fixture *f, size_t bytes, char content)
{
    struct registry_version v = {.number = 1, .artifact_bytes = bytes, .tenant = "acme", .model = "m"};
    char hex[65];
    uint64_t stored;
    assert_int_equal(registry_upload_finish(upload(f, bytes, content), hex, &stored, &f->err), 0);
    assert_int_equal(registry_hex_decode(str_from(hex), v.digest), 0);
    return v;
}

static void path_of(const struct fixture *f, const struct registry_version *v, char path[static 256])
{
    char hex[65];
    registry_hex(v->digest, hex);
    (void)snprintf(path, 256, "%s/%s", f->artifacts, hex);
}

static uint32_t steps(struct fixture *f)
{
    uint32_t n = 0;
    for (; registry_removing(f->registry); n++)
        registry_remove_step(f->registry);
    return n;
}

static void test_a_small_one_goes_at_once(void **state)
{
    struct fixture *f = *state;
    struct registry_version v = artifact(f, LIMIT_REMOVE_SLICE_BYTES, 'a');
    registry_artifact_release(f->registry, v.digest);
    assert_int_equal(fixture_files(f), 0);
    assert_false(registry_removing(f->registry));
}

static void test_a_large_one_goes_in_slices(void **state)
{
    struct fixture *f = *state;
    struct registry_version v = artifact(f, BYTES, 'b');
    char path[256];
    path_of(f, &v, path);
    registry_artifact_release(f->registry, v.digest);
    assert_int_equal(access(path, F_OK), -1); /* the name is free at once */
    assert_true(registry_removing(f->registry));
    v = artifact(f, BYTES, 'b'); /* the same again, which stays */
    registry_remove_step(f->registry);
    assert_int_equal(fixture_files(f), 1); /* who is killed from here on leaves nothing */
    assert_int_equal(steps(f), SLICES - 1);
    int fd = -1;
    assert_int_equal(fixture_memfd(f, &v, &fd), 0);
    close(fd);
}

static void test_what_is_replaced_or_given_up_goes_in_slices(void **state)
{
    struct fixture *f = *state;
    struct registry_version v = artifact(f, BYTES, 'c');
    (void)artifact(f, BYTES, 'c');
    assert_int_equal(fixture_files(f), 1);
    assert_int_equal(steps(f), SLICES);
    int fd = -1;
    assert_int_equal(fixture_memfd(f, &v, &fd), 0);
    close(fd);
    registry_upload_abort(upload(f, BYTES, 'd'));
    assert_int_equal(steps(f), SLICES);
    assert_int_equal(fixture_files(f), 1);
}

static void test_memory_of_a_copy_that_is_given_up_goes_in_slices(void **state)
{
    struct fixture *f = *state;
    struct registry_version v = artifact(f, BYTES, 'e');
    struct registry_copy *copy = NULL;
    int fd = -1;
    assert_int_equal(registry_copy_begin(f->registry, &v, &copy, &f->err), 0);
    for (uint64_t n = 0; n <= LIMIT_REMOVE_SLICE_BYTES; n += LIMIT_COPY_SLICE_BYTES)
        assert_int_equal(registry_copy_step(copy, &fd, &f->err), 1);
    registry_copy_free(copy);
    assert_int_equal(steps(f), 2);
}

/* An operator's own name for it, such as a backup made of links. */
static void test_another_name_keeps_the_content(void **state)
{
    struct fixture *f = *state;
    struct registry_version v = artifact(f, BYTES, 'f');
    char path[256], kept[256];
    struct stat info;
    path_of(f, &v, path);
    (void)snprintf(kept, sizeof kept, "%s/kept", f->folder);
    assert_int_equal(link(path, kept), 0);
    registry_artifact_release(f->registry, v.digest);
    assert_int_equal(steps(f), 1);
    assert_int_equal(fixture_files(f), 0);
    assert_int_equal(stat(kept, &info), 0);
    assert_int_equal(info.st_size, BYTES);
}

static void test_a_copy_reads_on_to_its_end(void **state)
{
    struct fixture *f = *state;
    struct registry_version v = artifact(f, BYTES, 'g'), other = artifact(f, BYTES, 'h');
    struct registry_copy *copy = NULL;
    int fd = -1, r;
    assert_int_equal(registry_copy_begin(f->registry, &v, &copy, &f->err), 0);
    assert_int_equal(registry_copy_step(copy, &fd, &f->err), 1);
    registry_artifact_release(f->registry, v.digest);
    registry_artifact_release(f->registry, other.digest);
    for (uint32_t i = 0; i < 2 * SLICES + 2; i++) /* what nobody reads is not held up by it */
        registry_remove_step(f->registry);
    assert_int_equal(fixture_files(f), 0);
    while ((r = registry_copy_step(copy, &fd, &f->err)) > 0)
        registry_remove_step(f->registry);
    assert_int_equal(r, 0);
    registry_copy_free(copy);
    close(fd);
    assert_int_equal(steps(f), SLICES);
}

static void test_the_next_start_removes_the_rest(void **state)
{
    struct fixture *f = *state;
    for (char content = 'i'; content < 'l'; content++) {
        struct registry_version v = artifact(f, BYTES, content);
        registry_artifact_release(f->registry, v.digest);
    }
    registry_remove_step(f->registry); /* in the middle of the first */
    fixture_reopen(f);
    assert_int_equal(fixture_files(f), 2);
    assert_true(steps(f) >= 2 * SLICES);
    assert_int_equal(fixture_files(f), 0);
}

static uint32_t turns;

static void on_turn(uv_prepare_t *prepare)
{
    control_removals_look(prepare->data);
    turns++;
}

static void test_the_loop_turns_between_slices(void **state)
{
    struct fixture *f = *state;
    struct control *c = calloc(1, sizeof *c);
    assert_non_null(c);
    assert_int_equal(uv_loop_init(&c->loop), 0);
    c->registry = f->registry;
    control_removals_init(c);
    (void)uv_prepare_init(&c->loop, &c->prepare);
    c->prepare.data = c;
    (void)uv_prepare_start(&c->prepare, on_turn);
    uv_unref((uv_handle_t *)&c->prepare);
    struct registry_version v = artifact(f, BYTES, 'm');
    registry_artifact_release(f->registry, v.digest);
    control_removals_look(c);
    turns = 0;
    (void)uv_run(&c->loop, UV_RUN_DEFAULT); /* ends when nothing is left to do: an idle server sleeps */
    assert_true(turns >= SLICES);
    assert_false(registry_removing(f->registry));
    uv_close((uv_handle_t *)&c->remove_idle, NULL);
    uv_close((uv_handle_t *)&c->prepare, NULL);
    (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&c->loop), 0);
    free(c);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_small_one_goes_at_once),
        TEST(test_a_large_one_goes_in_slices),
        TEST(test_what_is_replaced_or_given_up_goes_in_slices),
        TEST(test_memory_of_a_copy_that_is_given_up_goes_in_slices),
        TEST(test_another_name_keeps_the_content),
        TEST(test_a_copy_reads_on_to_its_end),
        TEST(test_the_next_start_removes_the_rest),
        TEST(test_the_loop_turns_between_slices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
