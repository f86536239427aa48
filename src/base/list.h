/* Intrusive doubly linked list with a head. For every room; one owner, no locking. An unlinked node is zeroed or
 * self-linked by list_init. */
#ifndef BULKHEAD_BASE_LIST_H
#define BULKHEAD_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next, *prev;
};

#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline void list_init(struct list *head)
{
    head->next = head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

static inline bool list_linked(const struct list *node)
{
    return node->next && node->next != node;
}

static inline void list_append(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void list_prepend(struct list *head, struct list *node)
{
    list_append(head->next, node);
}

/* Safe on an unlinked (zeroed or self-linked) node. */
static inline void list_remove(struct list *node)
{
    if (!node->next)
        return;
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = node;
}

static inline struct list *list_first(const struct list *head)
{
    return head->next == head ? NULL : head->next;
}

#define list_each(node, head) for (struct list *node = (head)->next; node != (head); node = node->next)
#define list_each_safe(node, head)                                                     \
    for (struct list *node = (head)->next, *node##_next_ = node->next; node != (head); \
         node = node##_next_, node##_next_ = node->next)

#endif
