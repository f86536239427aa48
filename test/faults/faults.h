/* Failing the n-th allocation or the n-th store call of one role of a running server, at the test's word.
 *
 * Linked into sanitized builds only (meson.build), so never into what is released. A page of shared memory, the file
 * that BULKHEAD_FAULTS names, holds a counter for each role and class of call; every process of the server maps it
 * before main(). test/live/faults.py is the other side: it arms a counter, runs something, and reads what was hit.
 *
 * Memory: malloc, calloc, realloc, reallocarray, aligned_alloc, posix_memalign, strdup, strndup, mmap and memfd_create,
 * called by us or by any library (libuv, OpenSSL, SQLite, yyjson, libc). Not counted: C++'s operator new, which the
 * sanitizers' runtime answers itself, and what the loader does before main. Store: every operation of store_sqlite. */
#ifndef BULKHEAD_TEST_FAULTS_H
#define BULKHEAD_TEST_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

enum faults_role { FAULTS_SUPERVISOR = 0, FAULTS_CONTROL, FAULTS_GATEWAY, FAULTS_WORKER, FAULTS_ROLE_COUNT };
enum faults_class { FAULTS_MEMORY = 0, FAULTS_STORE, FAULTS_CLASS_COUNT };

struct faults_counter { /* all processes of the role together; written by the test while nothing counts */
    uint64_t n;         /* the first call that fails, from 1; 0: not armed, nothing is counted */
    uint64_t k;         /* so many fail from there on */
    uint64_t calls;     /* since it was armed */
    uint64_t hits;      /* that failed */
    int32_t pid;        /* only this process; 0: any */
    uint32_t trace;     /* print the stack of each hit to stderr */
};

struct faults_page {
    struct faults_counter counters[FAULTS_ROLE_COUNT][FAULTS_CLASS_COUNT];
};

/* Counts one call of this process; true: it has to fail. */
bool faults_hit(enum faults_class class);

#endif
