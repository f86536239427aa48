/* The two priority queues against a plain array, over random operations. */
#include "schedule/heap.h"
#include "schedule/order.h"

#include "base/error.h"
#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { ITEMS = 300, STEPS = 20000 };

struct item {
    uint64_t key;
    uint32_t tie;
    uint32_t handle;
    struct schedule_order_node node;
    bool in;
};

static uint64_t random_state;

static uint64_t random_next(void) // splitmix64 (Steele, Lea, Flood 2014)
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static bool item_less(const struct item *a, const struct item *b, uint64_t base)
{
    return a->key - base < b->key - base || (a->key == b->key && a->tie < b->tie);
}

/* On the way up from a leaf stands, n below the top, the least of those whose leaves lie under the same node. */
static void check_next(const struct schedule_heap *h, const struct item *items, uint32_t leaf, uint64_t base)
{
    for (uint32_t n = 0; n <= h->_top; n++) {
        uint32_t shift = SCHEDULE_HEAP_FANOUT_BITS * (h->_top - n);
        const struct item *least = NULL;
        for (int i = 0; i < ITEMS; i++) {
            if (items[i].handle && (items[i].handle - 1) >> shift == (leaf - 1) >> shift &&
                (!least || item_less(&items[i], least, base)))
                least = &items[i];
        }
        uint32_t *found = schedule_heap_next(h, leaf, n);
        assert_ptr_equal(found ? container_of(found, struct item, handle) : NULL, least);
    }
    assert_null(schedule_heap_next(h, leaf, h->_top + 1));
}

static void heap_against_model(uint64_t base)
{
    static struct item items[ITEMS];
    memset(items, 0, sizeof items);
    struct schedule_heap h = {0};
    random_state = base;
    uint32_t n_in = 0;
    uint32_t tie = 0;
    for (int step = 0; step < STEPS; step++) {
        struct item *item = &items[random_next() % ITEMS];
        if (random_next() % 3 || (n_in < ITEMS / 2 && random_next() % 2)) {
            n_in += item->handle == 0;
            assert_int_equal(schedule_heap_reserve(&h, n_in), 0);
            item->key = base + random_next() % 100;
            item->tie = tie++;
            schedule_heap_set(&h, &item->handle, item->key, item->tie);
            assert_int_equal(schedule_heap_key(&h, &item->handle), item->key);
            check_next(&h, items, item->handle, base);
        } else {
            uint32_t leaf = item->handle;
            n_in -= leaf != 0;
            schedule_heap_remove(&h, &item->handle);
            assert_int_equal(item->handle, 0);
            if (leaf)
                check_next(&h, items, leaf, base);
        }
        assert_int_equal(h.size, n_in);
        const struct item *least = NULL;
        for (int i = 0; i < ITEMS; i++) {
            if (items[i].handle && (!least || item_less(&items[i], least, base)))
                least = &items[i];
        }
        uint64_t key = 0;
        uint32_t *top = schedule_heap_peek(&h, &key);
        assert_ptr_equal(top ? container_of(top, struct item, handle) : NULL, least);
        assert_true(!top || key == least->key);
    }
    schedule_heap_done(&h);
    assert_null(schedule_heap_peek(&h, NULL));
}

static void test_heap(void **state)
{
    (void)state;
    heap_against_model(0);
    heap_against_model(UINT64_C(1) << 63);
}

static void test_heap_keys_may_wrap(void **state)
{
    (void)state;
    heap_against_model(UINT64_MAX - 50);
}

static void test_heap_refuses_absurd_sizes(void **state)
{
    (void)state;
    struct schedule_heap h = {0};
    assert_int_equal(schedule_heap_reserve(&h, UINT32_MAX), -ERROR_NO_MEMORY);
    assert_int_equal(h.capacity, 0);
    uint32_t handle = 0;
    schedule_heap_remove(&h, &handle); // not in it: nothing happens
    assert_int_equal(h.size, 0);
}

static void test_order(void **state)
{
    (void)state;
    static struct item items[ITEMS];
    memset(items, 0, sizeof items);
    struct schedule_order_node *root = NULL;
    random_state = 42;
    for (int step = 0; step < STEPS; step++) {
        struct item *item = &items[random_next() % ITEMS];
        if (random_next() % 4 == 0 && root)
            item = container_of(root, struct item, node); // the usual case: the least goes
        if (item->in) {
            schedule_order_remove(&root, &item->node);
        } else {
            item->key = random_next() % 1000 * ITEMS + (uint64_t)(item - items); // unique
            schedule_order_insert(&root, &item->node, item->key);
        }
        item->in = !item->in;
        const struct item *least = NULL;
        for (int i = 0; i < ITEMS; i++) {
            if (items[i].in && (!least || items[i].key < least->key))
                least = &items[i];
        }
        assert_ptr_equal(root ? container_of(root, struct item, node) : NULL, least);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heap),
        cmocka_unit_test(test_heap_keys_may_wrap),
        cmocka_unit_test(test_heap_refuses_absurd_sizes),
        cmocka_unit_test(test_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
