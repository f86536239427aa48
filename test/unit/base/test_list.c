/* The intrusive list. */
#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

struct item {
    int value;
    struct list node;
};

static int value_of(struct list *node)
{
    return container_of(node, struct item, node)->value;
}

static void expect(struct list *head, const int *values, size_t n)
{
    size_t i = 0;
    list_each(node, head)
    {
        assert_true(i < n);
        assert_int_equal(value_of(node), values[i]);
        assert_ptr_equal(node->next->prev, node);
        assert_ptr_equal(node->prev->next, node);
        i++;
    }
    assert_int_equal(i, n);
}

static void order(void **state)
{
    (void)state;
    struct list head;
    struct item a = {1, {0}}, b = {2, {0}}, c = {3, {0}};
    list_init(&head);
    assert_true(list_empty(&head));
    assert_null(list_first(&head));
    list_append(&head, &b.node);
    list_append(&head, &c.node);
    list_prepend(&head, &a.node);
    expect(&head, (int[]){1, 2, 3}, 3);
    assert_ptr_equal(list_first(&head), &a.node);
    list_remove(&b.node);
    expect(&head, (int[]){1, 3}, 2);
    list_remove(&a.node);
    list_remove(&c.node);
    assert_true(list_empty(&head));
}

static void unlinked_nodes(void **state)
{
    (void)state;
    struct list head;
    struct item zeroed = {0}, own = {0};
    list_init(&head);
    list_init(&own.node);
    assert_false(list_linked(&zeroed.node));
    assert_false(list_linked(&own.node));
    list_remove(&zeroed.node);
    list_remove(&own.node);
    list_append(&head, &own.node);
    assert_true(list_linked(&own.node));
    list_remove(&own.node);
    list_remove(&own.node); /* again: nothing */
    assert_false(list_linked(&own.node));
    assert_true(list_empty(&head));
    list_append(&head, &own.node); /* and back */
    assert_ptr_equal(list_first(&head), &own.node);
}

static void removal_while_walking(void **state)
{
    (void)state;
    struct list head;
    struct item items[10];
    list_init(&head);
    for (int i = 0; i < 10; i++) {
        items[i] = (struct item){.value = i};
        list_append(&head, &items[i].node);
    }
    int seen = 0;
    list_each_safe(node, &head)
    {
        seen++;
        if (value_of(node) % 2)
            list_remove(node);
    }
    assert_int_equal(seen, 10);
    expect(&head, (int[]){0, 2, 4, 6, 8}, 5);
    list_each_safe(outer, &head) /* two walks nest */
    {
        list_each_safe(inner, &head)
        {
            if (value_of(inner) == value_of(outer) && value_of(inner) > 4)
                list_remove(inner);
        }
    }
    expect(&head, (int[]){0, 2, 4}, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order),
        cmocka_unit_test(unlinked_nodes),
        cmocka_unit_test(removal_while_walking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
