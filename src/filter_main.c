/* bulkhead-filters: makes the system call filters' programs when the tree is built. Not installed, never run later.
 *
 *   bulkhead-filters eperm|kill >filters.c
 *
 * `eperm` is what every release has. `kill` (meson -Dfilter_unknown=kill) ends a process at its first call that no row
 * names: so a run of the tests shows that ordinary operation needs nothing that is refused. The names of all calls are
 * made here too, by number: whoever shows what was refused has no libseccomp. */
#include "base/blocked.h"
#include "base/filter.h"
#include "base/sanitized.h"
#include "control/control_filter.h"
#include "gateway/gateway_filter.h"
#include "isolate/isolate_filter.h"
#include "supervisor/supervisor_filter.h"

#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TABLES_MAX  10
#define NUMBERS_MAX 1024 /* of calls of one architecture: Linux 6.12 has 467 */

/* ONLY IN SANITIZED BUILDS, never in a release: what the sanitizers' runtimes call on top. */
#if SANITIZED
static const struct filter_row sanitizer_rows[] = {
    {"gettid", FILTER_ALWAYS, "reports name the thread"},
    {"madvise", FILTER_ALWAYS, "freed shadow memory goes back"},
    {"mprotect", FILTER_WITHOUT(2, 4 /* PROT_EXEC */), "guards around the runtime's own stacks"},
    {"rt_sigaction", FILTER_ALWAYS, "the runtime's handlers"},
    {"rt_sigprocmask", FILTER_ALWAYS, "held back while a thread ends"},
    {"sched_yield", FILTER_ALWAYS, "the runtime's spin locks"},
    {"sigaltstack", FILTER_ALWAYS, "each thread's stack for fault reports"},
};
/* LeakSanitizer looks at the supervisor's memory when it ends: from a thread of its own, as a debugger does. */
static const struct filter_row leak_rows[] = {
    {"getdents", FILTER_ALWAYS, "lists the threads"},
    {"ptrace", FILTER_ALWAYS, "stops the threads that it looks at"},
    {"sched_yield", FILTER_ALWAYS, "waits for its own thread"},
};
static const struct filter_table sanitizer_table = {"sanitizer", sanitizer_rows,
                                                    sizeof sanitizer_rows / sizeof sanitizer_rows[0]};
static const struct filter_table leak_table = {"leak", leak_rows, sizeof leak_rows / sizeof leak_rows[0]};
#define SANITIZER &sanitizer_table
#define LEAK      &leak_table
#else
#define SANITIZER NULL
#define LEAK      NULL
#endif

/* A program allows what any of its tables allows. Filters are inherited, so the supervisor's must allow whatever those
 * that it starts are allowed, and the worker's first what its second does. */
static const struct program {
    const char *symbol, *name;
    bool counted;                                  /* what is refused raises SIGSYS, see base/blocked.h */
    const struct filter_table *tables[TABLES_MAX]; /* NULLs are skipped */
} programs[] = {
    {"filter_supervisor",
     "supervisor",
     false,
     {&supervisor_filter_table, &supervisor_filter_start, &control_filter_table, &gateway_filter_table,
      &isolate_filter_load, &isolate_filter_ingest, &isolate_filter_own, &isolate_filter_run, SANITIZER, LEAK}},
    {"filter_control", "control", false, {&control_filter_table, SANITIZER}},
    {"filter_gateway", "gateway", false, {&gateway_filter_table, SANITIZER}},
    {"filter_worker_load",
     "worker-load",
     BLOCKED_COUNTED,
     {&isolate_filter_load, &isolate_filter_ingest, &isolate_filter_own, &isolate_filter_run, &isolate_filter_known,
      SANITIZER}},
    {"filter_worker_run",
     "worker-run",
     BLOCKED_COUNTED,
     {&isolate_filter_own, &isolate_filter_run, &isolate_filter_known, SANITIZER}},
    {"filter_worker_shared", "worker-shared", BLOCKED_COUNTED, {&isolate_filter_run, &isolate_filter_known, SANITIZER}},
    {"filter_ingest_run",
     "ingest-run",
     BLOCKED_COUNTED,
     {&isolate_filter_ingest, &isolate_filter_own, &isolate_filter_run, &isolate_filter_known, SANITIZER}},
};

static _Noreturn void fail(const char *what, const char *call, int code)
{
    (void)fprintf(stderr, "bulkhead-filters: %s %s: %s\n", what, call, strerror(code < 0 ? -code : code));
    exit(1);
}

static bool unconditional(const struct program *p, const char *call)
{
    for (size_t t = 0; t < TABLES_MAX; t++) {
        const struct filter_row *row = p->tables[t] ? filter_table_find(p->tables[t], call) : NULL;
        if (row && !row->when.refused && row->when.n_values == 0)
            return true;
    }
    return false;
}

/* With that value of its argument? NULL: with any. */
static bool allowed(const struct program *p, const struct filter_row *refused, const uint32_t *value)
{
    for (size_t t = 0; t < TABLES_MAX; t++) {
        const struct filter_row *row = p->tables[t] ? filter_table_find(p->tables[t], refused->call) : NULL;
        if (!row || row->when.refused)
            continue;
        bool same = row->when.n_values == 0 || !value;
        for (size_t i = 0; !same && i < row->when.n_values; i++)
            same = row->when.arg != refused->when.arg || (*value & row->when.mask) == row->when.values[i];
        if (same)
            return true;
    }
    return false;
}

static void rule(scmp_filter_ctx ctx, uint32_t action, int number, const char *call, unsigned n,
                 const struct scmp_arg_cmp *compare)
{
    int r = seccomp_rule_add_array(ctx, action, number, n, compare);
    if (r < 0 && r != -EEXIST) /* the same value stands in two tables */
        fail("no rule for", call, r);
}

static void row_add(scmp_filter_ctx ctx, const struct program *p, const struct filter_row *row, uint32_t unknown)
{
    const struct filter_condition *c = &row->when;
    int number = seccomp_syscall_resolve_name(row->call);
    if (number == __NR_SCMP_ERROR || number < 0) /* too new for this libseccomp, or not of this architecture */
        return;
    uint32_t action = c->refused ? SCMP_ACT_ERRNO(c->refused) : SCMP_ACT_ALLOW;
    if (action == unknown) /* what all others get is no rule */
        return;
    if (c->refused && c->n_values == 0) {
        if (!allowed(p, row, NULL))
            rule(ctx, action, number, row->call, 0, NULL);
        return;
    }
    if (!c->refused && unconditional(p, row->call)) {
        rule(ctx, action, number, row->call, 0, NULL);
        return;
    }
    for (size_t i = 0; i < c->n_values; i++) {
        const struct scmp_arg_cmp compare = SCMP_CMP(c->arg, SCMP_CMP_MASKED_EQ, c->mask, c->values[i]);
        if (!c->refused || !allowed(p, row, &c->values[i])) /* two answers to one call: the stricter is not meant */
            rule(ctx, action, number, row->call, 1, &compare);
    }
}

static void program_print(scmp_filter_ctx ctx, const struct program *p, bool counted)
{
    FILE *file = tmpfile();
    int r = file ? seccomp_export_bpf(ctx, fileno(file)) : errno;
    if (r != 0)
        fail("no program for", p->name, r);
    rewind(file);
    struct sock_filter step;
    unsigned n = 0;
    printf("\nstatic const struct sock_filter code_%s[] = {\n", p->symbol);
    for (; fread(&step, sizeof step, 1, file) == 1; n++)
        printf("    {0x%04x, %u, %u, 0x%08x},\n", step.code, step.jt, step.jf, step.k);
    printf("};\nconst struct filter %s = {\"%s\", code_%s, %u, %d};\n", p->symbol, p->name, p->symbol, n, counted);
    (void)fclose(file); /* only read */
    if (n == 0 || n > BPF_MAXINSNS)
        fail("a bad program for", p->name, EINVAL);
}

/* One text and places in it: no pointers, so that a process that never looks pays nothing at its start. */
static void names_print(void)
{
    static char *names[NUMBERS_MAX];
    size_t at = 1;
    printf("\nstatic const char names[] = \"\"");
    for (int i = 0; i < NUMBERS_MAX; i++) {
        names[i] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);
        if (names[i])
            printf("\n    \"\\0%s\"", names[i]);
    }
    printf(";\nstatic const unsigned short places[%d] = {\n", NUMBERS_MAX);
    for (int i = 0; i < NUMBERS_MAX; i++) {
        printf("    %zu,\n", names[i] ? at : 0);
        at += names[i] ? strlen(names[i]) + 1 : 0;
        free(names[i]);
    }
    printf("};\nconst char *filter_call_name(uint32_t number)\n{\n"
           "    return number < %d && places[number] ? names + places[number] : NULL;\n}\n",
           NUMBERS_MAX);
    if (at > 65535)
        fail("too many names of", "system calls", EINVAL);
}

int main(int argc, char **argv)
{
    bool kill = argc == 2 && strcmp(argv[1], "kill") == 0;
    if (argc != 2 || (!kill && strcmp(argv[1], "eperm") != 0))
        return 2;
    printf("/* Made by src/filter_main.c. */\n#include \"base/filter.h\"\n\n#include <linux/filter.h>\n");
    for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++) {
        const struct program *p = &programs[i];
        bool counted = p->counted && !kill;
        uint32_t unknown = kill ? SCMP_ACT_KILL_PROCESS : counted ? SCMP_ACT_TRAP : SCMP_ACT_ERRNO(EPERM);
        scmp_filter_ctx ctx = seccomp_init(unknown);
        if (!ctx)
            fail("out of memory for", p->name, ENOMEM);
        int r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
        if (r == 0)
            r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree */
        if (r < 0)
            fail("no attributes for", p->name, r);
        for (size_t t = 0; t < TABLES_MAX; t++)
            for (size_t k = 0; p->tables[t] && k < p->tables[t]->n_rows; k++)
                row_add(ctx, p, &p->tables[t]->rows[k], unknown);
        program_print(ctx, p, counted);
        seccomp_release(ctx);
    }
    names_print();
    return fflush(stdout) == 0 ? 0 : 1;
}
