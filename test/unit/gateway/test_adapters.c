/* Adapters in a worker: asked for, waited for, dropped for others; and a worker that lies about them. */
#include "test/unit/gateway/adapters_fixture.h"

static void it_is_loaded_when_it_is_needed(void **state)
{
    (void)state;
    uint32_t i = ask_for("a0", 500), k = ask_for("", 0);
    assert_true(turn()); /* who needs none is not held up */
    assert_int_equal(n_demanded, 1);
    assert_int_equal(demanded.replica_uid, w.f.replica->uid);
    assert_int_equal(lease.index, 0);
    end(items[0], 0);
    assert_null(seen[k].r);
    assert_non_null(seen[i].r);
    assert_false(turn());
    assert_true(list_linked(&w.f.replica->in_busy)); /* its word will be heard */
    loaded(demanded.number, 0);
    assert_true(turn());
    assert_int_equal(lease.index, demanded.number);
    assert_int_equal(item_adapters[0], demanded.number);
    end(items[0], 0);
    assert_null(seen[i].r);
    assert_false(turn());
    assert_false(list_linked(&w.f.replica->in_busy));
    run("a0", 500); /* it is there */
    assert_int_equal(n_demanded, 0);
}

static void the_least_recently_used_one_goes(void **state)
{
    (void)state;
    run("a0", 500);
    uint32_t first = lease.index;
    run("a1", 501);
    uint32_t second = lease.index;
    run("a0", 500);
    assert_int_equal(lease.index, first);
    ask_for("a2", 502); /* the budget holds two */
    assert_false(turn());
    assert_int_equal(n_dropped, 1);
    assert_int_equal(dropped, second);
    loaded(demanded.number, 0);
    assert_true(turn());
    assert_true(lease.index > second); /* no number is used twice */
    end(items[0], 0);
}

static void what_is_loaded_is_counted(void **state)
{
    (void)state;
    static struct bus_metrics page;
    memset(&page, 0, sizeof page);
    page.n_rows = 1; /* `other` */
    w.f.g.metrics = &page;
    run("a0", 500);
    const struct bus_metrics_row *row = w.f.version->metrics;
    assert_int_equal(row->adapter_loads, 1);
    assert_int_equal(row->adapters_loaded, 1);
    uint64_t each = row->adapters_loaded_bytes;
    assert_true(each > 0);
    run("a1", 501);
    run("a0", 500);
    assert_int_equal(row->adapter_loads, 2);
    assert_int_equal(row->adapters_loaded, 2);
    assert_int_equal(row->adapter_evictions, 0);
    ask_for("a2", 502); /* the budget holds two */
    assert_false(turn());
    assert_int_equal(row->adapter_evictions, 1);
    assert_int_equal(row->adapters_loaded, 1);
    loaded(demanded.number, 0);
    assert_int_equal(row->adapter_loads, 3);
    assert_int_equal(row->adapters_loaded, 2);
    assert_int_equal(row->adapters_loaded_bytes, 2 * each);
    gateway_replica_kill(w.f.replica, BUS_STOP_PROTOCOL);
    assert_int_equal(row->adapters_loaded, 0);
    assert_int_equal(row->adapters_loaded_bytes, 0);
    assert_int_equal(row->adapter_evictions, 1); /* the worker's end is none */
    w.f.g.metrics = NULL;
    w.f.version->metrics = NULL;
}

/* What control was told since it was asked last; `sequences` UINT32_MAX: that it is gone. */
static void assert_told(uint64_t uid, uint32_t sequences)
{
    struct bus_message m;
    gateway_adapters_tell(w.f.replica->batch);
    assert_int_equal(bus_recv(w.control, BUS_CONTROL, BUS_GATEWAY, &m), 1);
    assert_int_equal(m.type, BUS_REPLICA_ADAPTER);
    const struct bus_replica_adapter *told = &m.body.REPLICA_ADAPTER;
    assert_true(told->replica_uid == w.f.replica->uid && told->tenant_uid == TENANT && told->bytes == BYTES);
    assert_true(told->adapter_uid == uid && told->loaded == (sequences != UINT32_MAX));
    assert_string_equal(told->name, uid == 500 ? "a0" : "a1");
    if (told->loaded)
        assert_int_equal(told->sequences, sequences);
}

static void assert_nothing_told(void)
{
    struct bus_message m;
    gateway_adapters_tell(w.f.replica->batch);
    assert_int_equal(bus_recv(w.control, BUS_CONTROL, BUS_GATEWAY, &m), 0);
}

static void control_knows_what_is_loaded(void **state)
{
    (void)state;
    catalog_give(2, 500, 4, BYTES);
    (void)ask_for("a0", 500);
    assert_false(turn());
    assert_nothing_told(); /* not there yet */
    loaded(demanded.number, 0);
    assert_true(turn());
    assert_told(500, 1);
    assert_nothing_told();
    end(items[0], 0);
    assert_told(500, 0);
    gateway_adapters_again(w.f.replica->batch); /* a new control */
    assert_told(500, 0);
    assert_nothing_told();
    (void)ask_for("a1", 501);
    gateway_dispatch(&w.f.g);
    assert_told(500, UINT32_MAX);
    assert_int_equal(turn(), false);
    assert_int_equal(n_demanded, 1);
    loaded(demanded.number, 0);
    assert_told(501, 0);
    assert_true(turn());
    end(items[0], 0);
    gateway_replica_kill(w.f.replica, BUS_STOP_PROTOCOL);
}

static void none_goes_under_a_sequence(void **state)
{
    (void)state;
    uint32_t n[2];
    uint64_t ids[2];
    for (uint32_t i = 0; i < 2; i++) {
        (void)ask_for(i ? "a1" : "a0", 500 + i);
        bool leased = turn();
        n[i] = demanded.number;
        if (leased) /* the first one's, which goes on */
            push(&(struct channel_frame){.type = CHANNEL_DONE, .lease_id = lease.lease_id, .a = 1, .b = 1});
        loaded(n[i], 0);
        assert_true(turn());
        ids[i] = items[0];
        if (lease.index != n[i] || i == 0)
            push(&(struct channel_frame){.type = CHANNEL_DONE, .lease_id = lease.lease_id, .a = 1, .b = 1});
    }
    ask_for("a2", 502);
    (void)turn();
    assert_int_equal(n_demanded, 0);
    assert_int_equal(n_dropped, 0);
    if (!w.f.replica->lease)
        assert_true(turn());
    end(ids[lease.index == n[1]], 1);
    (void)turn();
    assert_int_equal(n_dropped, 1);
    assert_int_equal(n_demanded, 1);
    assert_int_equal(demanded.adapter_uid, 502);
    assert_true(alive());
}

static void what_cannot_be_loaded_is_said(void **state)
{
    (void)state;
    uint32_t i = ask_for("a0", 500), k = ask_for("a0", 500);
    assert_false(turn());
    loaded(demanded.number, -ERROR_REFUSED);
    assert_true(alive());
    assert_int_equal(seen[i].code, -ERROR_MODEL_UNAVAILABLE);
    assert_int_equal(seen[k].code, -ERROR_MODEL_UNAVAILABLE);
    assert_non_null(strstr(seen[i].text, "The adapter cannot be loaded"));
    uint32_t again = ask_for("a0", 500); /* not asked for again at once */
    assert_false(turn());
    assert_int_equal(n_demanded, 0);
    assert_int_equal(seen[again].code, -ERROR_MODEL_UNAVAILABLE);
    i = ask_for("a1", 501);
    assert_false(turn());
    gateway_adapter_refused(&w.f.g, &(struct bus_adapter_refused){.replica_uid = w.f.replica->uid,
                                                                  .number = demanded.number,
                                                                  .epoch = demanded.epoch + 1,
                                                                  .status = -ERROR_NOT_FOUND});
    assert_non_null(seen[i].r); /* of another channel */
    gateway_adapter_refused(&w.f.g, &(struct bus_adapter_refused){.replica_uid = w.f.replica->uid,
                                                                  .number = demanded.number,
                                                                  .epoch = demanded.epoch,
                                                                  .status = -ERROR_NOT_FOUND});
    assert_null(seen[i].r);
}

static void what_is_larger_than_the_budget_is_refused(void **state)
{
    (void)state;
    catalog_give(2, 500, 4, BYTES - 1);
    uint32_t i = ask_for("a0", 500);
    assert_false(turn());
    assert_int_equal(n_demanded, 0);
    assert_non_null(strstr(seen[i].text, "than this tenant may have there"));
}

/* A number that was not asked for, or twice the same. */
static void a_worker_that_lies_dies(void **state)
{
    (void)state;
    uint32_t i = ask_for("a0", 500);
    assert_false(turn());
    loaded(demanded.number + 1, 0);
    assert_false(alive());
    assert_non_null(seen[i].r); /* it had not begun: another worker may serve it */
}

static void a_worker_that_says_it_twice_dies(void **state)
{
    (void)state;
    run("a0", 500);
    loaded(lease.index, 0);
    assert_false(alive());
}

static void a_new_control_is_asked_again(void **state)
{
    (void)state;
    uint32_t i = ask_for("a0", 500);
    assert_false(turn());
    uint32_t old = demanded.number;
    gateway_adapters_again(w.f.replica->batch);
    assert_false(turn());
    assert_int_equal(n_demanded, 1);
    assert_true(demanded.number > old);
    loaded(old, 0); /* the old control had sent it: not wanted twice */
    assert_false(turn());
    assert_int_equal(n_dropped, 1);
    assert_int_equal(dropped, old);
    loaded(demanded.number, 0);
    assert_true(turn());
    end(items[0], 0);
    assert_null(seen[i].r);
}

/* Deleted, or with another content: who waits is told, what runs ends with the old one, which then goes. */
static void a_changed_one_is_another(void **state)
{
    (void)state;
    (void)ask_for("a0", 500);
    assert_false(turn());
    loaded(demanded.number, 0);
    assert_true(turn());
    uint32_t old = lease.index;
    uint32_t i = ask_for("a1", 501);
    catalog_give(2, 600, 1, 2 * BYTES); /* a0 is 600 now, a1 is gone */
    (void)turn();
    assert_int_equal(n_dropped, 0);
    assert_int_equal(seen[i].code, 0);
    end(items[0], 0);
    (void)turn();
    assert_int_equal(seen[i].code, -ERROR_MODEL_NOT_FOUND);
    assert_int_equal(n_dropped, 1);
    assert_int_equal(dropped, old);
    run("a0", 600);
}

/* The worker has so many places, however small the adapters are. */
static void places_are_bounded(void **state)
{
    (void)state;
    catalog_give(2, 1000, LIMIT_ADAPTERS_LOADED + 1, 0);
    w.f.version->signature->token.adapter_bytes = 100 * BYTES;
    for (uint32_t i = 0; i <= LIMIT_ADAPTERS_LOADED; i++) {
        char name[LIMIT_NAME_BYTES];
        (void)snprintf(name, sizeof name, "a%u", i);
        n_seen = 0;
        (void)ask_for(name, 1000 + i);
        assert_false(turn());
        assert_int_equal(n_demanded, 1);
        assert_int_equal(n_dropped, i == LIMIT_ADAPTERS_LOADED);
        loaded(demanded.number, 0);
        assert_true(turn());
        end(items[0], 0);
    }
    assert_int_equal(dropped, 1); /* the first */
}

static struct gateway_tenant borrower_tenant;
static struct gateway_version *borrower;

/* A borrower of the model, with an adapter b0, joins. */
static void borrower_start(void)
{
    borrower_tenant = (struct gateway_tenant){
        .uid = TENANT + 1, .index = 1, .generation = w.f.tenant.generation, .classes = 1u << SCHEDULE_INTERACTIVE};
    schedule_tenant_set(w.f.g.schedule, &borrower_tenant.schedule,
                        &(struct schedule_tenant_config){.weight = 1, .queue_max = 100});
    borrower = calloc(1, sizeof *borrower);
    assert_non_null(borrower);
    borrower->gateway = &w.f.g;
    borrower->tenant = &borrower_tenant;
    borrower->generation = w.f.version->generation;
    borrower->batch_max = borrower->replicas_max = 1;
    borrower->class = SCHEDULE_INTERACTIVE;
    gateway_version_lists_init(borrower);
    borrower->host = w.f.version;
    list_append(&w.f.version->guests, &borrower->in_guests);
    borrower->signature = malloc(sizeof *borrower->signature);
    assert_non_null(borrower->signature);
    *borrower->signature = *w.f.version->signature;
    schedule_target_set(w.f.g.schedule, &borrower->schedule, &borrower_tenant.schedule,
                        &(struct schedule_target_config){.batch_rows_max = 1, .batch_bytes_max = 2 * BODY_BYTES_MAX});
}

static void borrower_end(void)
{
    assert_int_equal(borrower->n_requests + borrower->n_held, 0);
    gateway_places_done(borrower);
    list_remove(&borrower->in_guests);
    schedule_target_remove(w.f.g.schedule, &borrower->schedule);
    schedule_tenant_remove(w.f.g.schedule, &borrower_tenant.schedule);
    gateway_stats_free(borrower);
    free(borrower->signature);
    free(borrower);
}

static void run_borrowed(void)
{
    asking = borrower;
    run("b0", 900);
    asking = NULL;
}

/* Another tenant's go as far as it has more than its budget, and no further. */
static void others_give_what_they_have_too_much(void **state)
{
    (void)state;
    catalog_give(2, 500, 4, 0);
    borrower_start();
    w.f.version->signature->token.adapter_bytes = 3 * BYTES;
    run("a0", 500);
    uint32_t first = lease.index;
    for (uint32_t i = 1; i < 3; i++) /* alone there, it may fill the room */
        run(i == 1 ? "a1" : "a2", 500 + i);
    n_dropped_sum = 0;
    run_borrowed();
    assert_int_equal(n_dropped_sum, 1);
    assert_int_equal(dropped, first);
    uint32_t theirs = lease.index;
    for (uint32_t i = 0; i < 3; i++) { /* with its share of half the room it holds one, in turn */
        run(i == 0 ? "a3" : i == 1 ? "a0" : "a1", i == 0 ? 503 : 499 + i);
        assert_int_not_equal(dropped, theirs);
    }
    run_borrowed();
    assert_int_equal(lease.index, theirs); /* it was there all the time */
    gateway_replica_kill(w.f.replica, BUS_STOP_PROTOCOL);
    borrower_end();
}

/* The owner's a0 and the borrower's b0 run, b0 of that kind where a0 is of kind 7; how many of the next turns step
 * both. */
static uint32_t turns_in_common(uint32_t kind)
{
    uint32_t n = 0;
    catalog_give(2, 500, 4, 0);
    borrower_start();
    borrower->shared_batch = true;
    (void)ask_for("a0", 500);
    assert_false(turn());
    loaded_of_kind(demanded.number, 7);
    assert_true(turn());
    assert_true(lease.tenant_id == TENANT && lease.index == 7);
    lease_over(1);
    asking = borrower;
    (void)ask_for("b0", 900);
    asking = NULL;
    while (turn(), n_demanded == 0)
        lease_over(1);
    loaded_of_kind(demanded.number, kind);
    for (uint32_t i = 0; i < 6; i++) {
        lease_over(2);
        assert_true(turn());
        assert_true(lease.index == 7 || lease.index == kind);
        n += lease.tenant_id == 0;
    }
    gateway_replica_kill(w.f.replica, BUS_STOP_PROTOCOL);
    borrower_end();
    return n;
}

static void those_of_one_kind_share_a_turn(void **state)
{
    (void)state;
    assert_in_range(turns_in_common(7), 5, 6); /* the first may be of before */
}

static void those_of_two_kinds_share_none(void **state)
{
    (void)state;
    assert_int_equal(turns_in_common(8), 0);
}

static int setup_kind_0(void **state)
{
    static const uint64_t kind = 0;
    *state = (void *)(uintptr_t)&kind;
    return setup_room(10 * BYTES, 2 * BYTES);
}

static int setup_kind_large(void **state)
{
    static const uint64_t kind = UINT64_C(1) << 32;
    *state = (void *)(uintptr_t)&kind;
    return setup_room(10 * BYTES, 2 * BYTES);
}

static void one_of_no_kind_is_a_lie(void **state)
{
    (void)state;
    (void)ask_for("a0", 500);
    assert_false(turn());
    loaded_of_kind(demanded.number, **(const uint64_t **)state);
    assert_false(alive());
}

/* Two wait, and there is room for one: each is used before it goes for the other. */
static void one_that_came_is_used(void **state)
{
    (void)state;
    catalog_give(2, 500, 4, BYTES);
    uint32_t i[2] = {ask_for("a0", 500), ask_for("a1", 501)};
    assert_false(turn());
    for (uint32_t k = 0; k < 2; k++) {
        assert_int_equal(n_demanded, 1);
        assert_int_equal(demanded.adapter_uid, 500 + k);
        n_dropped_sum = 0;
        loaded(demanded.number, 0);
        assert_true(turn());
        assert_int_equal(n_dropped_sum, 0);
        assert_int_equal(lease.index, demanded.number);
        end(items[0], 0);
        assert_null(seen[i[k]].r);
        assert_false(turn());
    }
}

/* a0 is used; a1, for which there is no room beside it, waits, and then another request for a0. Returns the id of a0's
 * sequence. */
static uint64_t one_in_use(uint32_t *ret_wants, uint32_t *ret_later)
{
    catalog_give(2, 500, 4, BYTES);
    (void)ask_for("a0", 500);
    assert_false(turn());
    loaded(demanded.number, 0);
    assert_true(turn());
    uint64_t first = items[0];
    *ret_wants = ask_for("a1", 501);
    lease_over(1);
    assert_true(turn());
    *ret_later = ask_for("a0", 500);
    lease_over(1);
    assert_true(turn());
    return first;
}

/* One that is always used makes way for one that waits, and comes back. */
static void one_in_use_makes_way(void **state)
{
    (void)state;
    uint32_t wants, later;
    uint64_t first = one_in_use(&wants, &later);
    assert_int_equal(n_items + n_dropped + n_demanded, 0); /* the later one has to wait for the other's turn */
    end(first, 0);
    assert_false(turn());
    assert_int_equal(n_dropped, 1);
    assert_int_equal(demanded.adapter_uid, 501);
    loaded(demanded.number, 0);
    assert_true(turn());
    end(items[0], 0);
    assert_null(seen[wants].r);
    assert_false(turn());
    assert_int_equal(demanded.adapter_uid, 500);
    loaded(demanded.number, 0);
    assert_true(turn());
    end(items[0], 0);
    assert_null(seen[later].r);
}

/* A request that has some of its answers gets the others before its adapter makes way. */
static void who_has_begun_goes_on(void **state)
{
    (void)state;
    catalog_give(2, 500, 4, BYTES);
    uint32_t many = ask_for_many("a0", 500, SEQUENCES + 1);
    assert_false(turn());
    loaded(demanded.number, 0);
    assert_true(turn());
    assert_int_equal(n_items, SEQUENCES);
    uint64_t ids[SEQUENCES];
    memcpy(ids, items, sizeof ids);
    (void)ask_for("a1", 501);
    lease_over(SEQUENCES);
    assert_true(turn());
    end(ids[0], SEQUENCES - 1);
    assert_true(turn());
    assert_int_equal(n_items, 1);
    assert_int_equal(item_adapters[0], lease.index);
    ids[0] = items[0];
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        assert_non_null(seen[many].r);
        end(ids[i], SEQUENCES - 1 - i);
        assert_int_equal(turn(), i + 1 < SEQUENCES);
    }
    assert_null(seen[many].r);
    assert_int_equal(demanded.adapter_uid, 501);
}

/* Nobody waits for its room any more: who stood aside goes on. */
static void a_way_that_nobody_needs_ends(void **state)
{
    (void)state;
    uint32_t wants, later;
    uint64_t first = one_in_use(&wants, &later);
    assert_int_equal(n_items, 0);
    gateway_request_cancel(seen[wants].r);
    seen[wants].r = NULL;
    lease_over(1);
    assert_true(turn());
    assert_int_equal(n_items, 1);
    uint64_t second = items[0];
    end(first, 1);
    assert_true(turn());
    end(second, 0);
    assert_null(seen[later].r);
}

/* Who fills its own budget and wants more holds up nobody else. */
static void a_budget_is_its_tenants_own_affair(void **state)
{
    (void)state;
    catalog_give(2, 500, 4, BYTES);
    borrower_start();
    (void)ask_for("a0", 500);
    assert_false(turn());
    loaded(demanded.number, 0);
    assert_true(turn());
    (void)ask_for("a1", 501);
    lease_over(1);
    assert_true(turn());
    assert_int_equal(n_demanded, 0);
    asking = borrower;
    (void)ask_for("b0", 900);
    asking = NULL;
    lease_over(1);
    assert_true(turn());
    assert_int_equal(n_demanded, 1);
    assert_int_equal(demanded.adapter_uid, 900);
    gateway_replica_kill(w.f.replica, BUS_STOP_PROTOCOL);
    gateway_version_fail(borrower, ERROR_MODEL_NOT_FOUND, NULL);
    borrower_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_is_loaded_when_it_is_needed, setup, teardown),
        cmocka_unit_test_setup_teardown(the_least_recently_used_one_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_loaded_is_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(control_knows_what_is_loaded, setup, teardown),
        cmocka_unit_test_setup_teardown(none_goes_under_a_sequence, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_loaded_is_said, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_larger_than_the_budget_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_worker_that_lies_dies, setup, teardown),
        cmocka_unit_test_setup_teardown(a_worker_that_says_it_twice_dies, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_control_is_asked_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_changed_one_is_another, setup, teardown),
        cmocka_unit_test_setup_teardown(places_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(others_give_what_they_have_too_much, setup, teardown),
        cmocka_unit_test_setup_teardown(those_of_one_kind_share_a_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(those_of_two_kinds_share_none, setup, teardown),
        {"one_of_no_kind_is_a_lie", one_of_no_kind_is_a_lie, setup_kind_0, teardown, NULL},
        {"one_of_too_large_a_kind_is_a_lie", one_of_no_kind_is_a_lie, setup_kind_large, teardown, NULL},
        cmocka_unit_test_setup_teardown(one_that_came_is_used, setup, teardown),
        cmocka_unit_test_setup_teardown(one_in_use_makes_way, setup, teardown),
        cmocka_unit_test_setup_teardown(who_has_begun_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(a_way_that_nobody_needs_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(a_budget_is_its_tenants_own_affair, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
