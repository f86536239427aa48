/* System call filters: the tables that say which calls a process may make, and the programs made of them.
 *
 * A table is data: one row per system call, with a condition on one argument where that matters, and the reason. When
 * the tree is built, src/filter_main.c makes a kernel program (BPF, by libseccomp) of each list of tables; a process
 * installs its program as a visible step of its start-up. So starting costs one system call, the programs need no
 * library, and what was installed can be read in the build folder. Why and what: docs/internals/filters.md.
 *
 * What no row allows fails with EPERM and has no effect; of workers' programs it is counted (base/blocked.h). A call of
 * another architecture (32-bit, x32) kills the process. A filter can never be taken off, it is inherited by every
 * child, and a second one only narrows. */
#ifndef BULKHEAD_BASE_FILTER_H
#define BULKHEAD_BASE_FILTER_H

#include "base/cleanup.h"
#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define FILTER_VALUES_MAX  8
#define FILTER_REFUSED_MAX 8 /* rows of a table that are refusals; they are not counted as calls */

/* The condition of a row. n_values 0: none. Else argument `arg` (0 to 5), of which the lower 32 bits under `mask` are
 * looked at, must be one of `values`. Pointers cannot be looked behind: what lies there may change meanwhile. */
struct filter_condition {
    uint8_t arg;
    uint8_t n_values;
    uint8_t refused; /* an errno: this call is refused so, and never counted; whoever asks can do without it */
    uint32_t mask;
    uint32_t values[FILTER_VALUES_MAX];
};

struct filter_row {
    const char *call; /* as libseccomp knows it; a call that this architecture does not have is left out */
    struct filter_condition when;
    const char *why;
};

/* Conditions. Values are at most 32 bits wide. */
#define FILTER_ALWAYS \
    {                 \
        .n_values = 0 \
    }
#define FILTER_ONE_OF(argument, ...)                                                                             \
    {                                                                                                            \
        .arg = (argument), .n_values = sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), .mask = UINT32_MAX, \
        .values = {                                                                                              \
            __VA_ARGS__                                                                                          \
        }                                                                                                        \
    }
#define FILTER_WITHOUT(argument, bits)                                    \
    {                                                                     \
        .arg = (argument), .n_values = 1, .mask = (bits), .values = { 0 } \
    }
#define FILTER_REFUSED(error) \
    {                         \
        .refused = (error)    \
    }
/* Only with these values: with others it is as if this row were not there. */
#define FILTER_REFUSED_ONE_OF(error, argument, ...)                                                              \
    {                                                                                                            \
        .arg = (argument), .n_values = sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), .mask = UINT32_MAX, \
        .refused = (error), .values = {                                                                          \
            __VA_ARGS__                                                                                          \
        }                                                                                                        \
    }

struct filter_table {
    const char *name;
    const struct filter_row *rows; /* [n_rows] sorted by call, no call twice */
    size_t n_rows;
};

/* Calls that a table allows, with or without condition. */
size_t filter_table_count(const struct filter_table *t);
/* By name, or NULL. */
const struct filter_row *filter_table_find(const struct filter_table *t, const char *call);

struct sock_filter;

struct filter {
    const char *name;
    const struct sock_filter *code; /* [n_code] */
    uint16_t n_code;
    bool counted; /* what it refuses raises SIGSYS: the handler of base/blocked.h makes it an EPERM */
};

/* Installs it for all threads of this process, for good, and gives up new privileges. The first counted one takes
 * SIGSYS before; from then on a refused call made while SIGSYS is blocked ends the process. Blocks not, allocates not.
 * On failure (a kernel without seccomp) nothing has changed but that; the process must then exit. */
must_check int filter_install(const struct filter *f, struct error *err);

/* What this architecture calls the system call of that number, as of the build; NULL: not known. */
const char *filter_call_name(uint32_t number);

/* The programs of this build, and the tables they are made of: see src/filter_main.c. */
extern const struct filter filter_supervisor, filter_control, filter_gateway;
extern const struct filter filter_worker_load, filter_worker_run, filter_worker_shared, filter_ingest_run;

#endif
