/* The end of a worker that is one replica's own. */
#include "supervisor_fixture.h"

#include <signal.h>
#include <string.h>

static bool told_before; /* what was left of it was touched */

static void on_discard(struct supervisor *s)
{
    told_before = ended_for_gateway(s, 1).phase == BUS_REPLICA_ENDED && ended(s, 1).phase == BUS_REPLICA_ENDED;
}

/* A runtime may take long to forget a container. The gateway, whose lease does not end meanwhile, would give the worker
 * up and answer that it was lost, without ever learning that it had no memory. */
static void test_its_end_is_told_before_it_is_tidied_up(void **state)
{
    struct supervisor *s = *state;
    struct bus_replica_start body = start_of(1, 10, ISOLATE_CONTAINER);
    start(s, &body);
    assert_non_null(replica(s, 1));
    stage.oom_kills = 1; /* the kernel counts first, then it kills */
    stage.on_discard = on_discard;
    told_before = false;
    assert_int_equal(kill(replica(s, 1)->worker->pid, SIGKILL), 0);
    until(s, ended(s, 1).phase == BUS_REPLICA_ENDED);
    assert_int_equal(stage.discards, 1);
    assert_true(told_before);
    assert_int_equal(ended(s, 1).out_of_memory, 1);
    assert_int_equal(ended_for_gateway(s, 1).out_of_memory, 1);
    assert_non_null(strstr(ended(s, 1).text, "more memory than its spec.resources.memory of 64 MiB"));
    assert_null(replica(s, 1));
}

/* Of one that did not die of it, nobody says that it was for memory. */
static void test_another_end(void **state)
{
    struct supervisor *s = *state;
    struct bus_replica_start body = start_of(1, 10, ISOLATE_PROCESS);
    start(s, &body);
    assert_int_equal(kill(replica(s, 1)->worker->pid, SIGKILL), 0);
    until(s, ended(s, 1).phase == BUS_REPLICA_ENDED);
    assert_int_equal(ended(s, 1).out_of_memory, 0);
    assert_int_equal(ended(s, 1).wanted, 0);
    assert_int_equal(ended(s, 1).shared_lost, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_its_end_is_told_before_it_is_tidied_up, supervisor_setup,
                                        supervisor_teardown),
        cmocka_unit_test_setup_teardown(test_another_end, supervisor_setup, supervisor_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
