/* kill -9 of a writer at random moments: whatever it acknowledged is there, and nothing is there in part. */
#include "store_fixture.h"

#include "base/random.h"

#include <signal.h>
#include <sys/wait.h>

enum { ROUNDS = 20, KEYS_PER_COMMIT = 3, ACKNOWLEDGED_MAX = 60 };

/* Writes commits of KEYS_PER_COMMIT keys and tells each revision through the pipe once it is acknowledged; for ever. */
static void write_until_killed(struct fixture *f, int acknowledge)
{
    fixture_open(f);
    store_sql(f->store)->checkpoint_pages = 20; /* so that checkpoints are killed as well */
    uint64_t revision = 0;
    if (f->ops->revision(f->store, &revision, NULL) != 0)
        _exit(1);
    for (;;) {
        if (f->ops->begin(f->store, NULL) != 0)
            _exit(2);
        if (revision == 0 && put_resource(f, KIND_TENANT, 1, "", "acme", "{}") != 0)
            _exit(3);
        for (uint32_t i = 0; i < KEYS_PER_COMMIT; i++)
            if (put_key(f, (uint32_t)revision * KEYS_PER_COMMIT + i, 1) != 0)
                _exit(4);
        if (f->ops->commit(f->store, &revision, NULL) != 0)
            _exit(5);
        if (write(acknowledge, &revision, sizeof revision) != sizeof revision)
            _exit(6);
    }
}

static int count_key(void *ctx, const struct store_key *k)
{
    char id[STORE_KEY_ID_BYTES + 1];
    uint64_t *n = ctx;
    (void)snprintf(id, sizeof id, "Key%013u", (uint32_t)*n);
    assert_true(str_equal(k->id, str_from(id))); /* in order and without a gap */
    ++*n;
    return 0;
}

/* Kills the writer after a random number of acknowledgements; then a few more may still lie in the pipe. */
static uint64_t run_and_kill(struct fixture *f)
{
    int acknowledged[2];
    assert_int_equal(pipe(acknowledged), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(acknowledged[0]);
        write_until_killed(f, acknowledged[1]);
    }
    close(acknowledged[1]);
    uint64_t last = 0, value, reads = random_u64() % ACKNOWLEDGED_MAX;
    for (uint64_t i = 0; i < reads; i++) {
        assert_int_equal(read(acknowledged[0], &value, sizeof value), sizeof value);
        last = value;
    }
    for (volatile uint64_t spin = random_u64() % 2000000; spin > 0; spin--) /* somewhere within the next commit */
        ;
    assert_int_equal(kill(child, SIGKILL), 0);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    while (read(acknowledged[0], &value, sizeof value) == sizeof value)
        last = value;
    close(acknowledged[0]);
    return last;
}

static void test_acknowledged_writes_survive(void **state)
{
    (void)state;
    struct fixture f = {.ops = &store_sqlite};
    fixture_folder(&f);
    uint64_t before = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t acknowledged = run_and_kill(&f), revision = 0, n_keys = 0;
        if (acknowledged == 0)
            acknowledged = before; /* killed before its first commit */
        fixture_open(&f);
        assert_int_equal(f.ops->revision(f.store, &revision, NULL), 0);
        assert_int_equal(f.ops->key_each(f.store, 0, count_key, &n_keys, NULL), 0);
        assert_true(revision == acknowledged || revision == acknowledged + 1);
        assert_int_equal(n_keys, revision * KEYS_PER_COMMIT);
        fixture_close(&f);
        before = revision;
    }
    fixture_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acknowledged_writes_survive),
    };
    return cmocka_run_group_tests_name("store_kill", tests, NULL, NULL);
}
