/* Roots of images on their way into the store: in slices, one turn of the loop for each. Nothing here depends on how
 * long anything takes. */
#include "bus/bus.h"
#include "control/control_internal.h"
#include "control/registry_internal.h"
#include "image/image_root.h"
#include "registry_fixture.h"

#include <string.h>

#define SLICES 4u
#define BYTES  ((SLICES - 1) * LIMIT_COPY_SLICE_BYTES + 1234)

struct seen {
    uint32_t done;
    int rc;
};
static uint32_t turns;

static void on_done(void *ctx, int rc, const struct error *err)
{
    struct seen *s = ctx;
    (void)err;
    s->done++;
    s->rc = rc;
}

static void on_turn(uv_prepare_t *prepare)
{
    (void)prepare;
    turns++;
}

static struct control *control_new(struct fixture *f)
{
    struct control *c = calloc(1, sizeof *c);
    assert_non_null(c);
    assert_int_equal(uv_loop_init(&c->loop), 0);
    c->registry = f->registry;
    control_stores_init(c);
    (void)uv_prepare_init(&c->loop, &c->prepare);
    (void)uv_prepare_start(&c->prepare, on_turn);
    uv_unref((uv_handle_t *)&c->prepare);
    turns = 0;
    return c;
}

static void control_free(struct control *c)
{
    assert_int_equal(uv_is_active((uv_handle_t *)&c->store_idle), 0); /* an idle server sleeps */
    uv_close((uv_handle_t *)&c->store_idle, NULL);
    uv_close((uv_handle_t *)&c->prepare, NULL);
    (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&c->loop), 0);
    free(c);
}

/* So many bytes with a head, or without. */
static int root(char content, bool head)
{
    static const struct image_head good = {
        .magic = {'b', 'u', 'l', 'k', 'h', 'e', 'a', 'd', '-', 'r', 'o', 'o', 't', '-', '0', '1'}};
    char *data = malloc(BYTES);
    int fd = -1;
    assert_non_null(data);
    memset(data, content, BYTES);
    if (head)
        memcpy(data, &good, sizeof good);
    assert_int_equal(bus_memfd("root", data, BYTES, &fd), 0);
    free(data);
    return fd;
}

static struct control_store *start(struct control *c, struct registry_ingest *ingest, char content, bool head,
                                   struct seen *seen)
{
    struct control_store *store = NULL;
    struct error err = {0};
    int fd = root(content, head);
    assert_int_equal(control_store_start(c, ingest, fd, BYTES, on_done, seen, &store, &err), 0);
    close(fd);
    assert_int_equal(seen->done, 0); /* never from inside */
    return store;
}

static void test_the_loop_turns_between_slices(void **state)
{
    struct fixture *f = *state;
    struct control *c = control_new(f);
    struct registry_ingest ingest[2];
    struct seen seen[2] = {0};
    for (uint32_t i = 0; i < 2; i++) {
        registry_ingest_init(&ingest[i]);
        (void)start(c, &ingest[i], (char)('a' + i), true, &seen[i]);
    }
    (void)uv_run(&c->loop, UV_RUN_NOWAIT);
    assert_int_equal(fixture_files(f), 1); /* one after the other */
    (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    assert_true(turns >= 2 * SLICES);
    assert_int_equal(fixture_files(f), 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(seen[i].done == 1 && seen[i].rc == 0);
        assert_false(list_empty(&ingest[i].images));
        registry_ingest_done(&ingest[i]);
    }
    control_free(c);
}

static void test_what_is_given_up_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct control *c = control_new(f);
    struct registry_ingest ingest;
    struct seen seen[2] = {0};
    registry_ingest_init(&ingest);
    struct control_store *first = start(c, &ingest, 'c', true, &seen[0]);
    struct control_store *second = start(c, &ingest, 'd', true, &seen[1]);
    (void)uv_run(&c->loop, UV_RUN_NOWAIT);
    assert_int_equal(fixture_files(f), 1);
    control_store_cancel(first);
    control_store_cancel(second);
    control_store_cancel(NULL);
    (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    assert_true(seen[0].done == 0 && seen[1].done == 0);
    assert_int_equal(fixture_files(f), 0);
    assert_true(list_empty(&ingest.images));
    registry_ingest_done(&ingest);
    control_free(c);
}

static void test_what_is_no_root_is_refused(void **state)
{
    struct fixture *f = *state;
    struct control *c = control_new(f);
    struct registry_ingest ingest;
    struct control_store *store = NULL;
    struct seen seen = {0};
    registry_ingest_init(&ingest);
    (void)start(c, &ingest, 'e', false, &seen);
    (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    assert_true(seen.done == 1 && seen.rc == -ERROR_REFUSED);
    int fd = root('f', true); /* not as large as was said */
    assert_int_equal(control_store_start(c, &ingest, fd, BYTES + 1, on_done, &seen, &store, &f->err), -ERROR_REFUSED);
    close(fd);
    seen = (struct seen){0};
    (void)start(c, &ingest, 'g', true, &seen);
    c->registry = NULL; /* the server ends */
    (void)uv_run(&c->loop, UV_RUN_DEFAULT);
    assert_true(seen.done == 1 && seen.rc == -ERROR_DRAINING);
    assert_int_equal(fixture_files(f), 0);
    registry_ingest_done(&ingest);
    control_free(c);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_loop_turns_between_slices),
        TEST(test_what_is_given_up_leaves_nothing),
        TEST(test_what_is_no_root_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
