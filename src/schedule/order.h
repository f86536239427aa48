/* A pairing heap of embedded nodes (Fredman, Sedgewick, Sleator, Tarjan 1986), private to this room: the least key at
 * the root, insertion O(1), removal O(log n) amortised, no memory of its own. Keys are compared
 * modulo 2^64, so those in one heap must lie within 2^63 of each other. A flow orders its lanes with one: most have one
 * lane, and none should pay an array for that. */
#ifndef BULKHEAD_SCHEDULE_ORDER_H
#define BULKHEAD_SCHEDULE_ORDER_H

#include "schedule/schedule.h"

/* *root is NULL for an empty heap. The node must not be in a heap. */
void schedule_order_insert(struct schedule_order_node **root, struct schedule_order_node *node, uint64_t key);
/* The node must be in this heap. */
void schedule_order_remove(struct schedule_order_node **root, struct schedule_order_node *node);

#endif
