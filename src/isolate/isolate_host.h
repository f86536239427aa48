/* The facts of this host that decide which levels of isolation it can provide. For `bulkhead doctor`: read-only, any
 * user, blocks for some ms. What a level really does is for its probe to say; these facts say why. */
#ifndef BULKHEAD_ISOLATE_HOST_H
#define BULKHEAD_ISOLATE_HOST_H

#include <stdbool.h>
#include <stddef.h>

struct isolate_fact {
    const char *name; /* stable: "userNamespaces" */
    bool good;        /* false: a level lacks it, or is weaker without */
    char text[320];   /* what was found, and what to do where it is not good */
};

#define ISOLATE_FACTS_MAX 16

/* Writes at most ISOLATE_FACTS_MAX facts, always the same ones in the same order; returns how many. Starts short-lived
 * children to try namespaces. */
size_t isolate_host_facts(struct isolate_fact *ret_facts);

/* Path of a program in the system's usual folders (never $PATH: this may run as root); false when it is not there. */
bool isolate_program_find(const char *name, char *path, size_t capacity);

#endif
