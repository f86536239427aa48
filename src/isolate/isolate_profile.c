#include "isolate/isolate_profile.h"

#include "base/sanitized.h"
#include "isolate/isolate_filter.h"

#include <fcntl.h>
#include <sys/prctl.h>

#define EPERM_NUMBER 1u

static const struct filter_row start_rows[] = {
    {"arch_prctl", FILTER_ALWAYS, "libc's start"},
    {"epoll_ctl", FILTER_ALWAYS, "runc, until it executes the worker"},
    {"epoll_pwait", FILTER_ALWAYS, "runc, until it executes the worker"},
    {"execve", FILTER_ALWAYS, "the worker itself; the root holds nothing else that runs"},
    {"faccessat", FILTER_ALWAYS, "runtimes: may the program be executed?"},
    {"faccessat2", FILTER_ALWAYS, "runtimes: may the program be executed?"},
    {"fstatfs", FILTER_ALWAYS, "runc: is this really /proc?"},
    {"getppid", FILTER_ALWAYS, "runc: is the runtime still there?"},
    {"nanosleep", FILTER_ALWAYS, "runc, until it executes the worker"},
    {"openat", FILTER_ONE_OF(2, O_WRONLY | O_CLOEXEC),
     "runc's start pipe; nothing is created, and the root is read-only"},
    {"prctl", FILTER_ONE_OF(0, PR_SET_PDEATHSIG, PR_SET_NAME, PR_GET_DUMPABLE), "the worker follows the supervisor"},
    {"prlimit64", FILTER_ALWAYS, "libc: how large is the stack?"},
    {"recvfrom", FILTER_ALWAYS, "the supervisor's word to go on"},
    {"rt_sigaction", FILTER_ALWAYS, "runc gives its handlers back"},
    {"rt_sigreturn", FILTER_ALWAYS, "runc, until it executes the worker"},
    {"set_tid_address", FILTER_ALWAYS, "libc's start"},
    {"sigaltstack", FILTER_ALWAYS, "runc's threads end"},
    {"umask", FILTER_ALWAYS, "the worker's files are its own"},
};
const struct filter_table isolate_filter_start = {"container-start", start_rows,
                                                  sizeof start_rows / sizeof start_rows[0]};

/* A guest's first program is none, but its worker may be. */
#if SANITIZED || defined(BULKHEAD_WORKER_SANITIZED)
/* ONLY IN SANITIZED BUILDS: what the sanitizers' runtimes call on top. */
static const struct filter_row sanitizer_rows[] = {
    {"getrlimit", FILTER_ALWAYS, "AddressSanitizer"},    {"madvise", FILTER_ALWAYS, "AddressSanitizer"},
    {"personality", FILTER_ALWAYS, "AddressSanitizer"},  {"readlinkat", FILTER_ALWAYS, "AddressSanitizer"},
    {"rt_sigaction", FILTER_ALWAYS, "AddressSanitizer"}, {"setrlimit", FILTER_ALWAYS, "AddressSanitizer"},
};
static const struct filter_table sanitizer_table = {"sanitizer", sanitizer_rows,
                                                    sizeof sanitizer_rows / sizeof sanitizer_rows[0]};
#define SANITIZER , &sanitizer_table
#else
#define SANITIZER
#endif

static const struct filter_table *const tables[] = {&isolate_filter_run, &isolate_filter_own, &isolate_filter_load,
                                                    &isolate_filter_start SANITIZER};
#define N_TABLES (sizeof tables / sizeof tables[0])

static bool unconditional(const struct filter_row *row)
{
    return row->when.n_values == 0 && row->when.refused == 0;
}

/* Allowed in every case by one of the tables: then no condition of another counts. */
static bool always(const char *call)
{
    for (size_t t = 0; t < N_TABLES; t++) {
        const struct filter_row *row = filter_table_find(tables[t], call);
        if (row && unconditional(row))
            return true;
    }
    return false;
}

static yyjson_mut_val *rule_in(yyjson_mut_doc *doc, yyjson_mut_val *rules, const char *action)
{
    yyjson_mut_val *rule = yyjson_mut_arr_add_obj(doc, rules);
    return yyjson_mut_obj_add_str(doc, rule, "action", action) ? rule : NULL;
}

static bool name_in(yyjson_mut_doc *doc, yyjson_mut_val *rule, const char *call)
{
    return yyjson_mut_arr_add_str(doc, yyjson_mut_obj_add_arr(doc, rule, "names"), call);
}

/* One rule per value: rules of a call are alternatives. "value" is the mask, "valueTwo" what must be under it. */
static bool condition_add(yyjson_mut_doc *doc, yyjson_mut_val *rules, const struct filter_row *row)
{
    const struct filter_condition *when = &row->when;
    bool good = true;
    if (when->refused) {
        yyjson_mut_val *rule = rule_in(doc, rules, "SCMP_ACT_ERRNO");
        return name_in(doc, rule, row->call) && yyjson_mut_obj_add_uint(doc, rule, "errnoRet", when->refused);
    }
    for (size_t i = 0; good && i < when->n_values; i++) {
        yyjson_mut_val *rule = rule_in(doc, rules, "SCMP_ACT_ALLOW");
        good = name_in(doc, rule, row->call);
        yyjson_mut_val *argument = yyjson_mut_arr_add_obj(doc, yyjson_mut_obj_add_arr(doc, rule, "args"));
        good = good && yyjson_mut_obj_add_uint(doc, argument, "index", when->arg) &&
               yyjson_mut_obj_add_uint(doc, argument, "value", when->mask) &&
               yyjson_mut_obj_add_uint(doc, argument, "valueTwo", when->values[i]) &&
               yyjson_mut_obj_add_str(doc, argument, "op", "SCMP_CMP_MASKED_EQ");
    }
    return good;
}

bool profile_add(yyjson_mut_doc *doc, yyjson_mut_val *linux_part)
{
    yyjson_mut_val *seccomp = yyjson_mut_obj_add_obj(doc, linux_part, "seccomp");
    bool good = yyjson_mut_obj_add_str(doc, seccomp, "defaultAction", "SCMP_ACT_ERRNO") &&
                yyjson_mut_obj_add_uint(doc, seccomp, "defaultErrnoRet", EPERM_NUMBER);
    yyjson_mut_val *rules = yyjson_mut_obj_add_arr(doc, seccomp, "syscalls");
    yyjson_mut_val *allowed = rule_in(doc, rules, "SCMP_ACT_ALLOW");
    yyjson_mut_val *names = yyjson_mut_obj_add_arr(doc, allowed, "names");
    for (size_t t = 0; good && t < N_TABLES; t++) {
        for (size_t i = 0; good && i < tables[t]->n_rows; i++) {
            const struct filter_row *row = &tables[t]->rows[i];
            if (unconditional(row))
                good = yyjson_mut_arr_add_str(doc, names, row->call); /* a call in two tables stands there twice */
            else if (!always(row->call))
                good = condition_add(doc, rules, row);
        }
    }
    return good && names;
}
