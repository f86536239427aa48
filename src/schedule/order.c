#include "schedule/order.h"

/* The root of two trees put together; neither is NULL and both are roots without siblings. */
static struct schedule_order_node *meld(struct schedule_order_node *a, struct schedule_order_node *b)
{
    if ((int64_t)(b->key - a->key) < 0) {
        struct schedule_order_node *swap = a;
        a = b;
        b = swap;
    }
    b->prev = a;
    b->next = a->child;
    if (a->child)
        a->child->prev = b;
    a->child = b;
    return a;
}

/* Makes one tree of a chain of siblings: melds pairs from the front, then the results from the back. */
static struct schedule_order_node *meld_siblings(struct schedule_order_node *first)
{
    struct schedule_order_node *pairs = NULL; /* stack, linked by next */
    while (first) {
        struct schedule_order_node *a = first, *b = a->next;
        first = b ? b->next : NULL;
        a->prev = a->next = NULL;
        if (b) {
            b->prev = b->next = NULL;
            a = meld(a, b);
        }
        a->next = pairs;
        pairs = a;
    }
    struct schedule_order_node *root = NULL;
    while (pairs) {
        struct schedule_order_node *tree = pairs;
        pairs = tree->next;
        tree->next = NULL;
        root = root ? meld(root, tree) : tree;
    }
    return root;
}

void schedule_order_insert(struct schedule_order_node **root, struct schedule_order_node *node, uint64_t key)
{
    *node = (struct schedule_order_node){.key = key};
    *root = *root ? meld(*root, node) : node;
}

void schedule_order_remove(struct schedule_order_node **root, struct schedule_order_node *node)
{
    struct schedule_order_node *rest = meld_siblings(node->child);
    if (node == *root) {
        *root = rest;
    } else {
        if (node->prev->child == node)
            node->prev->child = node->next;
        else
            node->prev->next = node->next;
        if (node->next)
            node->next->prev = node->prev;
        if (rest)
            *root = meld(*root, rest);
    }
    *node = (struct schedule_order_node){0};
}
