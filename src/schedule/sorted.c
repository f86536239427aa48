#include "schedule/sorted.h"

#include <assert.h>

static bool before(const struct schedule_sorted_node *a, uint64_t key, uint64_t tie)
{
    return a->key < key || (a->key == key && a->tie < tie);
}

static uint64_t rows_below(const struct schedule_sorted_node *tree)
{
    return tree ? tree->rows_below : 0;
}

/* Cuts a tree into what comes before the node and what comes after it. As deep as the tree: O(log n) expected. */
static void split(struct schedule_sorted_node *tree, const struct schedule_sorted_node *at,
                  struct schedule_sorted_node **ret_before, struct schedule_sorted_node **ret_after)
{
    if (!tree) {
        *ret_before = *ret_after = NULL;
        return;
    }
    if (before(tree, at->key, at->tie)) {
        split(tree->right, at, &tree->right, ret_after);
        *ret_before = tree;
    } else {
        split(tree->left, at, ret_before, &tree->left);
        *ret_after = tree;
    }
    tree->rows_below = tree->rows + rows_below(tree->left) + rows_below(tree->right);
}

/* One tree of two, all of `a` before all of `b`. */
static struct schedule_sorted_node *join(struct schedule_sorted_node *a, struct schedule_sorted_node *b)
{
    struct schedule_sorted_node *root = NULL, **place = &root;
    while (a && b) {
        if (a->priority >= b->priority) {
            a->rows_below += b->rows_below;
            *place = a;
            place = &a->right;
            a = a->right;
        } else {
            b->rows_below += a->rows_below;
            *place = b;
            place = &b->left;
            b = b->left;
        }
    }
    *place = a ? a : b;
    return root;
}

void schedule_sorted_init(struct schedule_sorted *q)
{
    list_init(&q->list);
    q->root = NULL;
}

/* What the node goes before in the list: its successor, or the head. */
static struct list *list_place(struct schedule_sorted *q, const struct schedule_sorted_node *node)
{
    if (list_empty(&q->list))
        return &q->list;
    const struct schedule_sorted_node *last = container_of(q->list.prev, struct schedule_sorted_node, link);
    if (before(last, node->key, node->tie)) /* by far the most common */
        return &q->list;
    struct list *place = &q->list;
    for (struct schedule_sorted_node *tree = q->root; tree;) {
        if (before(tree, node->key, node->tie)) {
            tree = tree->right;
        } else {
            place = &tree->link;
            tree = tree->left;
        }
    }
    return place;
}

void schedule_sorted_insert(struct schedule_sorted *q, struct schedule_sorted_node *node)
{
    list_append(list_place(q, node), &node->link);
    struct schedule_sorted_node **place = &q->root;
    while (*place && (*place)->priority >= node->priority) {
        (*place)->rows_below += node->rows;
        place = before(*place, node->key, node->tie) ? &(*place)->right : &(*place)->left;
    }
    split(*place, node, &node->left, &node->right);
    node->rows_below = node->rows + rows_below(node->left) + rows_below(node->right);
    *place = node;
}

void schedule_sorted_remove(struct schedule_sorted *q, struct schedule_sorted_node *node)
{
    struct schedule_sorted_node **place = &q->root;
    while (*place != node) {
        assert(*place != NULL);
        (*place)->rows_below -= node->rows;
        place = before(*place, node->key, node->tie) ? &(*place)->right : &(*place)->left;
    }
    *place = join(node->left, node->right);
    list_remove(&node->link);
}

uint64_t schedule_sorted_rows_before(const struct schedule_sorted *q, uint64_t key, uint64_t tie)
{
    uint64_t rows = 0;
    for (const struct schedule_sorted_node *tree = q->root; tree;) {
        if (before(tree, key, tie)) {
            rows += tree->rows + rows_below(tree->left);
            tree = tree->right;
        } else {
            tree = tree->left;
        }
    }
    return rows;
}
