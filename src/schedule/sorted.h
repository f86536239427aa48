/* A queue in order of (key, tie), private to this room: a doubly linked list, and over it a treap (Seidel, Aragon 1996)
 * that finds the place of a new item and counts the rows before a place. Insertion and removal O(log n) expected, at
 * the end of the queue nearly always O(1); no memory of its own. The priorities come from a seed: who cannot know it
 * cannot send requests in an order that makes the tree deep. */
#ifndef BULKHEAD_SCHEDULE_SORTED_H
#define BULKHEAD_SCHEDULE_SORTED_H

#include "schedule/schedule.h"

struct schedule_sorted {
    struct list list; /* of schedule_sorted_node.link, in order */
    struct schedule_sorted_node *root;
};

void schedule_sorted_init(struct schedule_sorted *q);
/* key, tie, rows and priority are set; (key, tie) is unique in the queue. */
void schedule_sorted_insert(struct schedule_sorted *q, struct schedule_sorted_node *node);
/* The node must be in this queue. */
void schedule_sorted_remove(struct schedule_sorted *q, struct schedule_sorted_node *node);
/* Sum of the rows of all items before (key, tie). */
uint64_t schedule_sorted_rows_before(const struct schedule_sorted *q, uint64_t key, uint64_t tie);

static inline uint64_t schedule_sorted_rows(const struct schedule_sorted *q)
{
    return q->root ? q->root->rows_below : 0;
}

#endif
