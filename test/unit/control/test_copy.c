/* Artifacts on their way into memory: in slices, in turns, and one turn of the loop for each, in which all others have
 * theirs. Nothing here depends on how long anything takes. */
#include "control/control_internal.h"
#include "control/registry_internal.h"
#include "registry_fixture.h"

#include <string.h>

#define SLICES 5u
#define BYTES  ((SLICES - 1) * LIMIT_COPY_SLICE_BYTES + 1234)

/* Uploads so many bytes; the version has what a copy needs. */
static struct registry_version artifact(struct fixture *f, size_t bytes, char content)
{
    struct registry_version v = {.number = 1, .artifact_bytes = bytes, .tenant = "acme", .model = "m"};
    struct registry_upload *u = NULL;
    char hex[65], *data = malloc(bytes);
    uint64_t stored;
    assert_non_null(data);
    memset(data, content, bytes);
    assert_int_equal(registry_upload_begin(f->registry, &u, &f->err), 0);
    assert_int_equal(registry_upload_write(u, (struct str){data, bytes}, &f->err), 0);
    assert_int_equal(registry_upload_finish(u, hex, &stored, &f->err), 0);
    assert_int_equal(registry_hex_decode(str_from(hex), v.digest), 0);
    free(data);
    return v;
}

static void test_a_step_is_one_slice(void **state)
{
    struct fixture *f = *state;
    struct registry_version v = artifact(f, BYTES, 'x');
    struct registry_copy *copy = NULL;
    int fd = -1;
    assert_int_equal(registry_copy_begin(f->registry, &v, &copy, &f->err), 0);
    for (uint32_t i = 0; i + 1 < SLICES; i++)
        assert_int_equal(registry_copy_step(copy, &fd, &f->err), 1);
    assert_int_equal(fd, -1); /* nothing is given out before its digest was checked */
    assert_int_equal(registry_copy_step(copy, &fd, &f->err), 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), (off_t)BYTES);
    registry_copy_free(copy);
    close(fd);
}

static uint64_t available;

static bool memory_available(void *ctx, uint64_t *ret_bytes)
{
    (void)ctx;
    *ret_bytes = available;
    return true;
}

/* Two that fit alone, and not both: what the first has still to take is not free for the second. */
static void test_copies_do_not_count_on_the_same_memory(void **state)
{
    struct fixture *f = *state;
    registry_close(f->registry);
    f->config.memory_available = memory_available;
    fixture_open(f);
    struct registry_version v = artifact(f, BYTES, 'y');
    struct registry_copy *first = NULL, *second = NULL;
    int fd = -1;
    available = 64 * MIB + BYTES + 1;
    assert_int_equal(registry_copy_begin(f->registry, &v, &first, &f->err), 0);
    assert_int_equal(registry_copy_begin(f->registry, &v, &second, &f->err), -ERROR_NO_MEMORY);
    assert_int_equal(registry_copy_step(first, &fd, &f->err), 1);
    available = 64 * MIB + 2 * BYTES - LIMIT_COPY_SLICE_BYTES - 1;
    assert_int_equal(registry_copy_begin(f->registry, &v, &second, &f->err), -ERROR_NO_MEMORY);
    available++;
    assert_int_equal(registry_copy_begin(f->registry, &v, &second, &f->err), 0);
    registry_copy_free(second);
    registry_copy_free(first); /* half way: gives back what it did not take */
    available = 64 * MIB + BYTES;
    assert_int_equal(fixture_memfd(f, &v, &fd), 0);
    close(fd);
}

/* --- in control's loop --- */

struct seen {
    uint32_t done, *order;
    int rc;
    uint64_t bytes, turn; /* of the loop, when it was done */
};
static uint64_t turns;
static uint32_t n_done;

static void on_done(void *ctx, int rc, int *fd, const struct error *err)
{
    struct seen *s = ctx;
    (void)err;
    s->done++;
    s->rc = rc;
    s->turn = turns;
    n_done++;
    if (rc >= 0)
        s->bytes = (uint64_t)lseek(*fd, 0, SEEK_END);
}

static void on_turn(uv_prepare_t *prepare)
{
    (void)prepare;
    turns++;
}

static struct control *control_new(struct fixture *f, uv_prepare_t *counter)
{
    struct control *c = calloc(1, sizeof *c);
    assert_non_null(c);
    assert_int_equal(uv_loop_init(&c->loop), 0);
    c->registry = f->registry;
    control_copies_init(c);
    (void)uv_prepare_init(&c->loop, counter);
    (void)uv_prepare_start(counter, on_turn);
    uv_unref((uv_handle_t *)counter);
    turns = n_done = 0;
    return c;
}

static void control_free(struct control *c, uv_prepare_t *counter)
{
    assert_int_equal(uv_is_active((uv_handle_t *)&c->copy_idle), 0); /* an idle server sleeps */
    assert_int_equal(c->n_copies, 0);
    uv_close((uv_handle_t *)&c->copy_idle, NULL);
    uv_close((uv_handle_t *)counter, NULL);
    (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&c->loop), 0);
    free(c);
}

static void test_the_loop_turns_between_slices(void **state)
{
    struct fixture *f = *state;
    uv_prepare_t counter;
    struct control *c = control_new(f, &counter);
    struct registry_version large = artifact(f, BYTES, 'z'), small = artifact(f, 10, 's');
    struct seen of_large = {0}, of_small = {0};
    assert_non_null(control_copy_start(c, &large, on_done, &of_large));
    assert_non_null(control_copy_start(c, &small, on_done, &of_small));
    assert_int_equal(n_done, 0); /* never from inside */
    (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    assert_true(of_large.done == 1 && of_large.rc == 0 && of_large.bytes == BYTES);
    assert_true(of_small.done == 1 && of_small.rc == 0 && of_small.bytes == 10);
    assert_true(of_large.turn >= SLICES); /* one slice a turn */
    assert_true(of_small.turn <= 2);      /* nobody waits for a large one */
    control_free(c, &counter);
}

static void test_more_than_have_a_place_wait(void **state)
{
    struct fixture *f = *state;
    uv_prepare_t counter;
    struct control *c = control_new(f, &counter);
    struct registry_version v = artifact(f, LIMIT_COPY_SLICE_BYTES + 1, 'w');
    struct seen seen[LIMIT_COPIES + 3] = {0};
    struct control_copy *copies[LIMIT_COPIES + 3];
    for (uint32_t i = 0; i < LIMIT_COPIES + 3; i++)
        assert_non_null(copies[i] = control_copy_start(c, &v, on_done, &seen[i]));
    (void)uv_run(&c->loop, UV_RUN_NOWAIT);
    assert_int_equal(c->n_copies, LIMIT_COPIES);
    control_copy_cancel(copies[1]);                /* under way */
    control_copy_cancel(copies[LIMIT_COPIES + 1]); /* waiting */
    control_copy_cancel(NULL);
    (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    for (uint32_t i = 0; i < LIMIT_COPIES + 3; i++)
        assert_int_equal(seen[i].done, i == 1 || i == LIMIT_COPIES + 1 ? 0 : 1);
    control_free(c, &counter);
}

static void test_failures_and_the_end(void **state)
{
    struct fixture *f = *state;
    uv_prepare_t counter;
    struct control *c = control_new(f, &counter);
    struct registry_version good = artifact(f, BYTES, 'g'), missing = good, damaged = good;
    struct seen seen[3] = {0};
    missing.digest[0] ^= 1;
    damaged.artifact_bytes--;
    assert_non_null(control_copy_start(c, &missing, on_done, &seen[0]));
    assert_non_null(control_copy_start(c, &damaged, on_done, &seen[1]));
    (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    assert_true(seen[0].done == 1 && seen[0].rc == -ERROR_IO && seen[1].done == 1 && seen[1].rc == -ERROR_IO);
    assert_non_null(control_copy_start(c, &good, on_done, &seen[2]));
    (void)uv_run(&c->loop, UV_RUN_NOWAIT); /* its first slice */
    assert_int_equal(seen[2].done, 0);
    control_copies_end(c);
    assert_true(seen[2].done == 1 && seen[2].rc == -ERROR_DRAINING);
    control_free(c, &counter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_step_is_one_slice, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_copies_do_not_count_on_the_same_memory, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_the_loop_turns_between_slices, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_more_than_have_a_place_wait, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_failures_and_the_end, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
