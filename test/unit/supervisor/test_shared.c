/* Who shares a worker with whom, what its limits are, how a member leaves, and what it costs the others when one does
 * not.
 */
#include "supervisor_fixture.h"

#include <signal.h>
#include <string.h>

#define MEMORY (64 * MIB) /* of each, as start_of has it */

static void join(struct supervisor *s, uint64_t uid, uint64_t tenant)
{
    struct bus_replica_start body = start_of(uid, tenant, ISOLATE_SHARED);
    start(s, &body);
    assert_non_null(replica(s, uid));
}

static bool together(struct supervisor *s, uint64_t a, uint64_t b)
{
    return replica(s, a)->shared == replica(s, b)->shared;
}

static pid_t worker_pid(struct supervisor *s, uint64_t uid)
{
    return replica(s, uid)->worker->pid;
}

static bool over(struct supervisor *s, uint64_t uid)
{
    return ended(s, uid).phase == BUS_REPLICA_ENDED;
}

static void test_members_of_several_tenants(void **state)
{
    struct supervisor *s = *state;
    uint32_t replicas, tenants;
    char text[64];
    join(s, 1, 10);
    join(s, 2, 10);
    join(s, 3, 20);
    join(s, 4, 30);
    assert_int_equal(stage.spawns, 1);
    assert_true(together(s, 1, 2) && together(s, 1, 3) && together(s, 1, 4));
    assert_int_equal(worker_pid(s, 1), worker_pid(s, 4));
    supervisor_shared_beside(replica(s, 1), &replicas, &tenants);
    assert_int_equal(replicas, 3);
    assert_int_equal(tenants, 2);
    supervisor_shared_text(s, text, sizeof text);
    assert_string_equal(text, "4 replicas in 1 shared workers");
    assert_int_equal(supervisor_shared_count(s), 1);
    until(s, script->hosted == 4);
    assert_true(script->hosts); /* it takes the narrower filter */
    assert_true(strncmp(replica(s, 1)->wall, "shared, ", 8) == 0);
}

static void test_limits_are_the_sum(void **state)
{
    struct supervisor *s = *state;
    join(s, 1, 10);
    assert_int_equal(stage.first.memory_bytes, MEMORY);
    assert_int_equal(stage.first.cpu_milli, 1000);
    const struct isolate_limits one = stage.first;
    /* What is set once must do for the most members that there may be, beside what any worker has. */
    assert_true(stage.first.fds >= supervisor_worker_limits(1, 1).fds + 16 * LIMIT_SHARED_MEMBERS);
    assert_int_equal(stage.limits, 0);
    for (uint64_t uid = 2; uid <= 5; uid++) {
        join(s, uid, 10 * uid);
        assert_int_equal(stage.last.memory_bytes, uid * MEMORY);
        assert_int_equal(stage.last.cpu_milli, uid * 1000);
        assert_int_equal(stage.last.pids, uid * one.pids);
    }
    stage.usage_bytes = MEMORY; /* a quarter more is less than what the four may have */
    supervisor_replica_stop(s, 5, BUS_STOP_WANTED);
    until(s, over(s, 5));
    assert_int_equal(stage.last.memory_bytes, 4 * MEMORY);
    assert_int_equal(stage.last.pids, 4 * one.pids);
    stage.usage_bytes = 8 * MEMORY; /* what left is still in the allocator */
    supervisor_replica_stop(s, 4, BUS_STOP_WANTED);
    until(s, over(s, 4));
    assert_int_equal(stage.last.memory_bytes, 10 * MEMORY);
    assert_int_equal(stage.last.cpu_milli, 3000);
}

static void test_who_has_a_worker_apart(void **state)
{
    struct supervisor *s = *state;
    join(s, 1, 10);
    struct bus_replica_start other = start_of(2, 20, ISOLATE_SHARED), apart = start_of(3, 30, ISOLATE_SHARED);
    memcpy(other.engine, "two", 4);
    apart.flags = BUS_START_APART;
    start(s, &other); /* another engine */
    start(s, &apart); /* lost too often with others */
    join(s, 4, 40);   /* and nobody joins that one */
    assert_int_equal(stage.spawns, 3);
    assert_true(!together(s, 1, 2) && !together(s, 1, 3) && !together(s, 2, 3) && together(s, 1, 4));
}

static void test_no_more_than_it_takes(void **state)
{
    struct supervisor *s = *state;
    for (uint64_t uid = 1; uid <= LIMIT_SHARED_MEMBERS + 1; uid++)
        join(s, uid, uid);
    assert_int_equal(stage.spawns, 2);
    assert_false(together(s, 1, LIMIT_SHARED_MEMBERS + 1));
    supervisor_replica_stop(s, 3, BUS_STOP_WANTED); /* its place is free again, for whoever comes next */
    until(s, over(s, 3));
    join(s, 100, 100);
    assert_true(together(s, 1, 100));
    assert_int_equal(stage.spawns, 2);
}

static void test_a_sum_that_cannot_be_set(void **state)
{
    struct supervisor *s = *state;
    join(s, 1, 10);
    stage.limit_fails = true;
    join(s, 2, 20); /* never with less than it asked for */
    assert_int_equal(stage.spawns, 2);
    assert_false(together(s, 1, 2));
    assert_int_equal(replica(s, 1)->state, REPLICA_OFFERED); /* who was there noticed nothing */
    struct supervisor_config config = *s->config;
    config.allow_unlimited = true;
    s->config = &config;
    join(s, 3, 30);
    assert_int_equal(stage.spawns, 2);
    stage.limit_fails = false;
    supervisor_replicas_kill(s);
    until(s, s->replicas.count == 0 && supervisor_shared_count(s) == 0);
}

static void test_one_leaves_alone(void **state)
{
    struct supervisor *s = *state;
    join(s, 1, 10);
    join(s, 2, 20);
    until(s, script->hosted == 2);
    supervisor_replica_stop(s, 1, BUS_STOP_WANTED);
    until(s, over(s, 1));
    assert_int_equal(ended(s, 1).wanted, 1);
    assert_int_equal(ended(s, 1).shared_lost, 0);
    assert_int_equal(script->left, 1);
    assert_int_equal(replica(s, 2)->state, REPLICA_OFFERED);
    assert_int_equal(stage.discards, 0);
    supervisor_replica_stop(s, 2, BUS_STOP_WANTED); /* the last one puts out the light */
    until(s, over(s, 2) && supervisor_shared_count(s) == 0);
    assert_int_equal(ended(s, 2).wanted, 1);
    assert_int_equal(stage.discards, 1);
    join(s, 3, 10);
    assert_int_equal(stage.spawns, 2);
}

static void test_a_crash_takes_all(void **state)
{
    struct supervisor *s = *state;
    for (uint64_t uid = 1; uid <= 3; uid++)
        join(s, uid, uid);
    stage.oom_kills = 1; /* of several nobody knows who took the memory */
    assert_int_equal(kill(worker_pid(s, 1), SIGKILL), 0);
    until(s, over(s, 1) && over(s, 2) && over(s, 3));
    for (uint64_t uid = 1; uid <= 3; uid++) {
        assert_int_equal(ended(s, uid).shared_lost, 3);
        assert_int_equal(ended(s, uid).out_of_memory, 0);
        assert_int_equal(ended(s, uid).wanted, 0);
        assert_int_equal(ended_for_gateway(s, uid).shared_lost, 3);
    }
    until(s, supervisor_shared_count(s) == 0);
    assert_int_equal(stage.discards, 1);
    join(s, 4, 4); /* alone in one, it is known */
    assert_int_equal(kill(worker_pid(s, 4), SIGKILL), 0);
    until(s, over(s, 4));
    assert_int_equal(ended(s, 4).shared_lost, 1);
    assert_int_equal(ended(s, 4).out_of_memory, 1);
}

/* Whatever is not as it should be in there: no other member is left in the same memory. */
static void all_lost_but(struct supervisor *s, uint64_t culprit, pid_t pid)
{
    until(s, over(s, 1) && over(s, 2) && over(s, 3));
    for (uint64_t uid = 1; uid <= 3; uid++)
        if (uid != culprit)
            assert_int_equal(ended(s, uid).shared_lost, 3);
    assert_int_equal(kill(pid, 0), -1); /* reaped */
    assert_int_equal(supervisor_shared_count(s), 0);
}

static void test_one_that_may_not_be_trusted(void **state)
{
    struct supervisor *s = *state;
    static const uint32_t reasons[] = {BUS_STOP_OVERDUE, BUS_STOP_PROTOCOL};
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        for (uint64_t uid = 1; uid <= 3; uid++)
            join(s, uid, uid);
        pid_t pid = worker_pid(s, 2);
        supervisor_replica_stop(s, 2, reasons[i]);
        assert_int_equal(replica(s, 2)->state, REPLICA_DYING);
        all_lost_but(s, 2, pid);
        assert_int_equal(ended(s, 2).shared_lost, 0); /* it is the reason itself */
        if (i == 0) {
            supervisor_teardown(state);
            supervisor_setup(state);
            s = *state;
        }
    }
}

static void test_one_that_talks(void **state)
{
    struct supervisor *s = *state;
    join(s, 1, 1);
    join(s, 2, 2);
    until(s, script->hosted == 2);
    pid_t pid = worker_pid(s, 1);
    script->talks = true;
    join(s, 3, 3);
    all_lost_but(s, 0, pid);
}

static void test_one_that_hangs_up(void **state)
{
    struct supervisor *s = *state;
    join(s, 1, 1);
    join(s, 2, 2);
    until(s, script->hosted == 2);
    pid_t pid = worker_pid(s, 1);
    script->hangs_up = true;
    join(s, 3, 3);
    all_lost_but(s, 0, pid);
}

static void test_one_that_is_stuck(void **state)
{
    struct supervisor *s = *state;
    for (uint64_t uid = 1; uid <= 3; uid++)
        join(s, uid, uid);
    until(s, script->hosted == 3);
    pid_t pid = worker_pid(s, 1);
    script->stuck = true;
    supervisor_replica_stop(s, 2, BUS_STOP_WANTED);
    for (int i = 0; i < 20; i++)
        turn(s);
    assert_false(over(s, 2)); /* it has its time */
    replica(s, 2)->leave_by_ns = 1;
    all_lost_but(s, 2, pid);
    assert_int_equal(ended(s, 2).wanted, 1);
    assert_int_equal(ended(s, 2).shared_lost, 0);
}

/* The level itself is lost: nobody leaves in peace. */
static void test_the_level_is_lost(void **state)
{
    struct supervisor *s = *state;
    for (uint64_t uid = 1; uid <= 3; uid++)
        join(s, uid, uid);
    pid_t pid = worker_pid(s, 1);
    supervisor_replicas_level_lost(s, ISOLATE_SHARED);
    until(s, over(s, 1) && over(s, 2) && over(s, 3));
    assert_int_equal(kill(pid, 0), -1);
    for (uint64_t uid = 1; uid <= 3; uid++)
        assert_non_null(strstr(ended(s, uid).text, "this host lost its isolation level"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, supervisor_setup, supervisor_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_members_of_several_tenants), T(test_limits_are_the_sum),          T(test_who_has_a_worker_apart),
        T(test_no_more_than_it_takes),      T(test_a_sum_that_cannot_be_set),    T(test_one_leaves_alone),
        T(test_a_crash_takes_all),          T(test_one_that_may_not_be_trusted), T(test_one_that_talks),
        T(test_one_that_hangs_up),          T(test_one_that_is_stuck),           T(test_the_level_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
