/* The map against a naive model: any sequence of operations, and clusters that wrap around the table's end. */
#include "base/map.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { IDS = 200 };

struct model {
    uint64_t ids[IDS];
    void *values[IDS]; /* NULL = absent */
    uint32_t count;
};

static uint64_t rng_state;

static uint32_t rng(uint32_t below)
{
    rng_state = rng_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(rng_state >> 33) % below;
}

static void agree(const struct map *m, const struct model *model)
{
    assert_int_equal(m->count, model->count);
    for (uint32_t i = 0; i < IDS; i++)
        if (map_get(m, model->ids[i]) != model->values[i])
            fail_msg("id %llu: %p, not %p", (unsigned long long)model->ids[i], map_get(m, model->ids[i]),
                     model->values[i]);
    size_t cursor = 0, seen = 0;
    for (void *value; (value = map_next(m, &cursor)); seen++) {
        bool known = false;
        for (uint32_t i = 0; i < IDS; i++)
            known = known || model->values[i] == value;
        assert_true(known);
    }
    assert_int_equal(seen, model->count);
}

/* The values are distinct, so that each can be told from the others. */
static void operate(struct map *m, struct model *model, uint32_t steps, uint32_t n_ids, uint32_t put_percent)
{
    static char places[1 << 20];
    static uint32_t place;
    for (uint32_t step = 0; step < steps; step++) {
        uint32_t i = rng(n_ids);
        if (rng(100) < put_percent) {
            void *value = &places[++place % sizeof places];
            assert_int_equal(map_put(m, model->ids[i], value), 0);
            model->count += model->values[i] == NULL;
            model->values[i] = value;
        } else {
            assert_ptr_equal(map_remove(m, model->ids[i]), model->values[i]);
            model->count -= model->values[i] != NULL;
            model->values[i] = NULL;
        }
        if (step % 16 == 0)
            agree(m, model);
    }
    agree(m, model);
}

static void random_operations(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        rng_state = seed;
        struct map m;
        struct model model = {0};
        map_init(&m, 1000);
        for (uint32_t i = 0; i < IDS; i++)
            model.ids[i] = seed % 2 ? i : (uint64_t)rng(UINT32_MAX) << 32 | rng(UINT32_MAX); /* small and scattered */
        model.ids[IDS - 1] = UINT64_MAX;
        operate(&m, &model, 1500, IDS, 70);
        operate(&m, &model, 1500, IDS, 30);
        map_done(&m);
    }
}

/* Ids chosen so that all want the last places of the smallest table: their clusters run over its end. */
static void clusters_wrap_around(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        rng_state = seed;
        struct map m;
        struct model model = {0};
        map_init(&m, 1000);
        uint64_t id = seed * 1000;
        for (uint32_t i = 0; i < IDS; id++)
            if ((mix(id) & (MAP_CAPACITY_FIRST - 1)) >= MAP_CAPACITY_FIRST - 3 || (mix(id) & 15) == 0)
                model.ids[i++] = id;
        operate(&m, &model, 400, 11, 55); /* 11 of 16 places: never grows */
        assert_int_equal(m.capacity, MAP_CAPACITY_FIRST);
        map_done(&m);
    }
}

static void the_maximum_is_kept(void **state)
{
    (void)state;
    for (uint32_t max = 0; max <= 40; max++) {
        struct map m;
        map_init(&m, max);
        char value[64];
        for (uint32_t i = 0; i < max; i++)
            assert_int_equal(map_put(&m, i, &value[i]), 0);
        assert_int_equal(map_put(&m, max, &value[max]), -ERROR_LIMIT);
        assert_null(map_get(&m, max));
        if (max > 0) {
            assert_int_equal(map_put(&m, 0, &value[63]), 0); /* replacing needs no room */
            assert_ptr_equal(map_get(&m, 0), &value[63]);
            assert_ptr_equal(map_remove(&m, 0), &value[63]);
            assert_int_equal(map_put(&m, max, &value[max]), 0);
        }
        assert_int_equal(m.count, max);
        map_done(&m);
    }
}

static void growth_keeps_everything(void **state)
{
    (void)state;
    enum { MANY = 100000 };
    static char values[MANY];
    struct map m;
    map_init(&m, MANY);
    for (uint64_t i = 0; i < MANY; i++)
        assert_int_equal(map_put(&m, i << 20, &values[i]), 0);
    assert_true(m.capacity / 4 * 3 >= m.count && (m.capacity & (m.capacity - 1)) == 0);
    for (uint64_t i = 0; i < MANY; i++)
        assert_ptr_equal(map_get(&m, i << 20), &values[i]);
    for (uint64_t i = 0; i < MANY; i += 2)
        assert_ptr_equal(map_remove(&m, i << 20), &values[i]);
    for (uint64_t i = 0; i < MANY; i++)
        assert_ptr_equal(map_get(&m, i << 20), i % 2 ? &values[i] : NULL);
    map_done(&m);
}

static void empty_and_zeroed(void **state)
{
    (void)state;
    struct map m = {0};
    size_t cursor = 0;
    assert_null(map_get(&m, 1));
    assert_null(map_remove(&m, 1));
    assert_null(map_next(&m, &cursor));
    assert_int_equal(map_put(&m, 1, &m), -ERROR_LIMIT);
    map_done(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations),   cmocka_unit_test(clusters_wrap_around),
        cmocka_unit_test(the_maximum_is_kept), cmocka_unit_test(growth_keeps_everything),
        cmocka_unit_test(empty_and_zeroed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
