/* Adapters and classes: who waits for one has those lifted that only lower classes use, and these come back. */
#include "gateway/gateway_adapter_internal.h"
#include "test/unit/gateway/adapters_fixture.h"

static int setup_one(void **state)
{
    (void)state;
    return setup_room(10 * BYTES, BYTES); /* its budget holds one */
}

static uint32_t ask_as(enum schedule_class class, uint32_t adapter)
{
    char name[8];
    (void)snprintf(name, sizeof name, "a%u", adapter);
    asking_class = class;
    return ask_for(name, 500 + adapter);
}

static struct gateway_adapter *adapter(uint32_t i)
{
    list_each(node, &w.f.replica->batch->adapters)
    {
        if (gateway_adapter_at(node)->uid == 500 + i)
            return gateway_adapter_at(node);
    }
    return NULL;
}

static void age(uint32_t i)
{
    assert_true(adapter(i)->wanted_ns > 0);
    adapter(i)->wanted_ns = 1;
}

static void come(uint32_t i)
{
    assert_int_equal(n_demanded, 1);
    assert_int_equal(demanded.adapter_uid, 500 + i);
    loaded(demanded.number, 0);
}

/* As its turn would do; but its class's may be long in coming. */
static void stand_aside(uint32_t place)
{
    struct gateway_worn worn;
    assert_int_equal(gateway_adapter_get(w.f.replica->batch, seen[place].r, &worn, NULL), 0);
    gateway_adapter_wait(w.f.replica->batch, seen[place].r);
    gateway_adapters_continue(w.f.replica->batch);
}

/* A request that runs with an adapter; its sequence's id. */
static uint64_t begin(enum schedule_class class, uint32_t i, uint32_t *ret_place)
{
    *ret_place = ask_as(class, i);
    assert_false(turn());
    come(i);
    assert_true(turn());
    assert_int_equal(n_items, 1);
    return items[0];
}

/* a0 is used by a batch request, in the middle of a lease; a1 is wanted by an interactive one, and takes its room. */
static uint64_t lift(uint32_t *ret_batch, uint32_t *ret_other)
{
    uint64_t id = begin(SCHEDULE_BATCH, 0, ret_batch);
    uint32_t old = lease.index;
    *ret_other = ask_as(SCHEDULE_INTERACTIVE, 1);
    assert_false(turn());
    assert_int_equal(n_parked, 1); /* the worker ends the lease after its step */
    lease_over(0);
    assert_false(turn());
    assert_int_equal(n_dropped, 1);
    assert_int_equal(dropped, old);
    return id;
}

static void a_higher_class_takes_the_room(void **state)
{
    (void)state;
    uint32_t batch, other;
    uint64_t id = lift(&batch, &other);
    uint32_t old = dropped;
    come(1);
    assert_true(turn()); /* not for the batch request, which has nothing to step */
    assert_int_equal(lease.index, demanded.number);
    uint64_t theirs = items[0];
    lease_over(1);
    assert_true(turn());
    assert_int_equal(n_resumed + n_dropped + n_demanded, 0);
    end(theirs, 0);
    assert_null(seen[other].r);
    assert_int_equal(seen[other].code, 0);
    assert_false(turn());
    assert_int_equal(n_dropped, 1);
    assert_int_equal(dropped, lease.index);
    come(0);
    assert_true(turn());
    assert_int_equal(n_items, 0);
    assert_int_equal(n_resumed, 1);
    assert_true(resumed_under == demanded.number && resumed_under != old);
    assert_int_equal(lease.index, resumed_under);
    end(id, 0);
    assert_null(seen[batch].r);
    assert_int_equal(seen[batch].code, 0);
    assert_true(alive());
}

/* A slow class is lifted also while its lease runs, if the higher one's place and demand come by then. */
static void in_the_middle_of_a_lease(void **state)
{
    (void)state;
    uint32_t batch, other;
    uint64_t id = begin(SCHEDULE_BATCH, 0, &batch);
    other = ask_as(SCHEDULE_INTERACTIVE, 1);
    (void)turn();
    stand_aside(other);
    assert_false(turn());
    assert_int_equal(n_dropped, 1);
    come(1);
    end(id, 0); /* it was on its way: an end is an end */
    assert_null(seen[batch].r);
    assert_true(turn());
    assert_null(adapter(0)); /* nobody needs it any more */
    assert_int_equal(n_dropped + n_demanded, 0);
    end(items[0], 0);
    assert_null(seen[other].r);
    assert_true(alive());
}

static void one_class_lifts_nothing_of_its_own(void **state)
{
    (void)state;
    uint32_t first;
    uint64_t id = begin(SCHEDULE_INTERACTIVE, 0, &first);
    (void)ask_as(SCHEDULE_INTERACTIVE, 1);
    (void)ask_as(SCHEDULE_BATCH, 2);
    lease_over(1);
    assert_true(turn());
    assert_int_equal(n_dropped + n_demanded + n_parked, 0);
    end(id, 0);
    assert_false(turn());
    come(1);
}

static void who_goes_meanwhile_is_not_waited_for(void **state)
{
    (void)state;
    uint32_t batch, other;
    (void)lift(&batch, &other);
    come(1);
    assert_true(turn());
    gateway_request_cancel(seen[batch].r);
    seen[batch].r = NULL;
    end(items[0], 0);
    assert_false(turn());
    assert_int_equal(n_demanded + n_dropped, 0);
    assert_null(adapter(0));
}

static void what_does_not_come_back_ends_who_needs_it(void **state)
{
    (void)state;
    uint32_t batch, other;
    (void)lift(&batch, &other);
    come(1);
    assert_true(turn());
    end(items[0], 0);
    assert_false(turn());
    assert_int_equal(demanded.adapter_uid, 500);
    assert_non_null(seen[batch].r);
    loaded(demanded.number, -ERROR_NO_MEMORY);
    assert_null(seen[batch].r);
    assert_int_equal(seen[batch].code, -ERROR_MODEL_UNAVAILABLE);
    assert_int_equal(w.f.replica->batch->n_sequences, 0);
}

static void what_was_taken_away_ends_who_needs_it(void **state)
{
    (void)state;
    uint32_t batch, other;
    (void)lift(&batch, &other);
    come(1);
    assert_true(turn());
    catalog_give(2, 600, 1, BYTES);
    assert_null(seen[batch].r);
    assert_int_equal(seen[batch].code, -ERROR_MODEL_NOT_FOUND);
    end(items[0], 0); /* who has it goes on to the end */
    assert_int_equal(seen[other].code, 0);
    assert_true(alive());
}

static void one_that_is_gone_from_the_catalog_is_not_lifted(void **state)
{
    (void)state;
    uint32_t batch;
    uint64_t id = begin(SCHEDULE_BATCH, 0, &batch);
    catalog_give(2, 501, 4, BYTES); /* what was a1 is a0 now */
    asking_class = SCHEDULE_INTERACTIVE;
    (void)ask_for("a1", 502);
    lease_over(1);
    if (!turn()) /* of the other's class, which has nothing to step */
        assert_true(turn());
    /* it would not come back, so it goes on to its end */
    assert_int_equal(n_dropped + n_demanded, 0);
    end(id, 0);
    assert_int_equal(seen[batch].code, 0);
    assert_false(turn());
    come(2);
}

static void a_lost_worker_ends_who_was_lifted(void **state)
{
    (void)state;
    uint32_t batch, other;
    (void)lift(&batch, &other);
    gateway_replica_kill(w.f.replica, BUS_STOP_PROTOCOL);
    assert_null(seen[batch].r);
    assert_true(seen[batch].code < 0);
    assert_non_null(seen[other].r); /* it had not begun */
}

static void a_new_control_is_asked_again_for_both(void **state)
{
    (void)state;
    uint32_t batch, other;
    uint64_t id = lift(&batch, &other);
    uint32_t old = demanded.number;
    gateway_adapters_again(w.f.replica->batch);
    loaded(old, 0);
    assert_false(turn());
    come(1);
    assert_true(turn());
    end(items[0], 0);
    assert_false(turn());
    assert_int_equal(demanded.adapter_uid, 500);
    old = demanded.number;
    gateway_adapters_again(w.f.replica->batch);
    loaded(old, 0); /* nobody has it by that number */
    assert_false(turn());
    assert_int_equal(dropped, old);
    come(0);
    assert_true(turn());
    assert_int_equal(resumed_under, demanded.number);
    end(id, 0);
    assert_null(seen[batch].r);
}

/* Requests of a higher class do not make way for one of a lower class, until that is overdue; it then gets its turn. */
static void an_overdue_one_has_its_turn(void **state)
{
    (void)state;
    uint32_t first, batch;
    uint64_t id = begin(SCHEDULE_INTERACTIVE, 1, &first);
    batch = ask_as(SCHEDULE_BATCH, 0);
    stand_aside(batch);
    lease_over(1);
    assert_true(turn());
    uint32_t second = ask_as(SCHEDULE_INTERACTIVE, 1);
    lease_over(1);
    assert_true(turn());
    assert_int_equal(n_items, 1); /* at once: nobody of its class waits for the room */
    uint64_t next = items[0];
    end(id, 1);
    age(0);
    uint32_t third = ask_as(SCHEDULE_INTERACTIVE, 1);
    assert_true(turn());
    lease_over(1);
    assert_true(turn());
    assert_int_equal(n_items + n_dropped, 0); /* makes way */
    end(next, 0);
    assert_null(seen[first].r);
    assert_null(seen[second].r);
    assert_false(turn());
    assert_int_equal(n_dropped, 1);
    come(0);
    assert_true(turn()); /* kept until it was stepped, though the third waits */
    assert_int_equal(n_dropped, 0);
    id = items[0];
    lease_over(1);
    assert_false(turn());
    assert_int_equal(n_dropped, 1);
    assert_non_null(seen[third].r);
    come(1);
    assert_true(turn());
    end(items[0], 0);
    assert_null(seen[third].r);
    assert_false(turn());
    come(0);
    assert_true(turn());
    end(id, 0);
    assert_null(seen[batch].r);
    assert_int_equal(seen[batch].code, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_higher_class_takes_the_room, setup_one, teardown),
        cmocka_unit_test_setup_teardown(in_the_middle_of_a_lease, setup_one, teardown),
        cmocka_unit_test_setup_teardown(one_class_lifts_nothing_of_its_own, setup_one, teardown),
        cmocka_unit_test_setup_teardown(who_goes_meanwhile_is_not_waited_for, setup_one, teardown),
        cmocka_unit_test_setup_teardown(what_does_not_come_back_ends_who_needs_it, setup_one, teardown),
        cmocka_unit_test_setup_teardown(what_was_taken_away_ends_who_needs_it, setup_one, teardown),
        cmocka_unit_test_setup_teardown(one_that_is_gone_from_the_catalog_is_not_lifted, setup_one, teardown),
        cmocka_unit_test_setup_teardown(a_lost_worker_ends_who_was_lifted, setup_one, teardown),
        cmocka_unit_test_setup_teardown(a_new_control_is_asked_again_for_both, setup_one, teardown),
        cmocka_unit_test_setup_teardown(an_overdue_one_has_its_turn, setup_one, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
