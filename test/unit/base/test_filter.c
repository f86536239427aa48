/* The system call filters of every role: the tables' form, and what their programs do to a process that has installed
 * them. Whatever must fail is first shown to get further without a filter: an attack that finds nothing to try proves
 * nothing. Every attack's arguments are such that it does no harm where it is let through. */
#include "base/blocked.h"
#include "base/filter.h"
#include "base/sanitized.h"
#include "control/control_filter.h"
#include "gateway/gateway_filter.h"
#include "isolate/isolate_filter.h"
#include "supervisor/supervisor_filter.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

enum { GATEWAY_CALLS_MAX = 35 }; /* the product's promise */

static const struct filter_table *const tables[] = {
    &supervisor_filter_table, &supervisor_filter_start, &control_filter_table,
    &gateway_filter_table,    &isolate_filter_load,     &isolate_filter_ingest,
    &isolate_filter_own,      &isolate_filter_run,      &isolate_filter_known};

enum who {
    SUPERVISOR = 1,
    CONTROL = 2,
    GATEWAY = 4,
    LOAD = 8,
    RUN = 16,
    INGEST = 32,
    SHARED = 64,
    ALL = 127,
    ROLES = CONTROL | GATEWAY
};

static const struct {
    enum who who;
    const struct filter *filter;
} programs[] = {
    {SUPERVISOR, &filter_supervisor}, {CONTROL, &filter_control}, {GATEWAY, &filter_gateway},
    {LOAD, &filter_worker_load},      {RUN, &filter_worker_run},  {INGEST, &filter_ingest_run},
    {SHARED, &filter_worker_shared},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* --- in a child --- */

/* Runs it in a child with that filter (NULL: none) and returns the wait status. */
static int child_status(const struct filter *filter, int (*run)(const void *arg), const void *arg)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct error err = {0};
        if (filter && filter_install(filter, &err) != 0)
            _exit(99);
        _exit(run(arg));
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static int child(const struct filter *filter, int (*run)(const void *arg), const void *arg)
{
    int status = child_status(filter, run, arg);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* --- tables --- */

static void test_tables_form(void **state)
{
    (void)state;
    for (size_t t = 0; t < COUNT(tables); t++)
        for (size_t i = 0; i < tables[t]->n_rows; i++) {
            const struct filter_row *row = &tables[t]->rows[i];
            if (i > 0 && strcmp(row[-1].call, row->call) >= 0)
                fail_msg("%s: %s is not behind %s", tables[t]->name, row->call, row[-1].call);
            if (!row->why || strlen(row->why) < 4)
                fail_msg("%s: %s has no reason", tables[t]->name, row->call);
            assert_true(row->when.arg < 6 && row->when.n_values <= FILTER_VALUES_MAX);
            for (size_t v = 0; v < row->when.n_values; v++) /* else it could never be */
                assert_int_equal(row->when.values[v] & ~row->when.mask, 0);
        }
}

static void test_counts(void **state)
{
    (void)state;
    for (size_t t = 0; t < COUNT(tables); t++)
        print_message("%s: %zu calls\n", tables[t]->name, filter_table_count(tables[t]));
    assert_in_range(filter_table_count(&gateway_filter_table), 10, GATEWAY_CALLS_MAX);
    assert_in_range(filter_table_count(&control_filter_table), 10, 64);
    assert_in_range(filter_table_count(&isolate_filter_run), 10, 40);
    assert_in_range(filter_table_count(&isolate_filter_load), 1, 16);
    assert_int_equal(filter_table_count(&isolate_filter_known), 0); /* refusals only */
    assert_int_equal(filter_table_count(&(struct filter_table){"", NULL, 0}), 0);
}

/* What no role at all may be given. */
static void test_nobody_names_these(void **state)
{
    (void)state;
    static const char *const never[] = {
        "acct",
        "add_key",
        "adjtimex",
        "delete_module",
        "finit_module",
        "init_module",
        "io_uring_enter",
        "io_uring_register",
        "ioperm",
        "iopl",
        "kcmp",
        "kexec_file_load",
        "kexec_load",
        "lookup_dcookie",
        "open_by_handle_at",
        "perf_event_open",
        "personality",
        "pidfd_getfd",
        "process_madvise",
        "process_vm_readv",
        "process_vm_writev",
        "ptrace",
        "quotactl",
        "reboot",
        "request_key",
        "settimeofday",
        "swapoff",
        "swapon",
        "syslog",
        "userfaultfd",
        "uselib",
        "vhangup",
        "clock_settime",
        "clock_adjtime",
        "fanotify_init",
    };
    for (size_t t = 0; t < COUNT(tables); t++) {
        for (size_t i = 0; i < COUNT(never); i++)
            if (filter_table_find(tables[t], never[i]))
                fail_msg("%s names %s", tables[t]->name, never[i]);
        const struct filter_row *uring = filter_table_find(tables[t], "io_uring_setup");
        assert_true(!uring || uring->when.refused == EPERM);
    }
    static const char *const not_after_loading[] = {"openat", "open",  "execve", "execveat", "socket",
                                                    "fork",   "prctl", "kill",   "seccomp",  "unlink"};
    for (size_t i = 0; i < COUNT(not_after_loading); i++) {
        assert_null(filter_table_find(&gateway_filter_table, not_after_loading[i]));
        assert_null(filter_table_find(&isolate_filter_run, not_after_loading[i]));
    }
}

/* --- what is refused --- */

static const char nowhere[] = "/nonexistent/file";
static char page[64];

static const struct attack {
    const char *name;
    long number;
    enum who refused;
    long args[6];
} attacks[] = {
    {"io_uring_setup", SYS_io_uring_setup, ALL, {0, 0}},
    {"io_uring_enter", SYS_io_uring_enter, ALL, {-1, 0, 0, 0xffff}},
    {"perf_event_open", SYS_perf_event_open, ALL, {0, 0, -1, -1, 0}},
    {"process_vm_readv", SYS_process_vm_readv, ALL, {0, 0, 0, 0, 0, 0xff}},
    {"process_vm_writev", SYS_process_vm_writev, ALL, {0, 0, 0, 0, 0, 0xff}},
    {"userfaultfd", SYS_userfaultfd, ALL, {0xff}},
    {"add_key", SYS_add_key, ALL, {0, 0, 0, 0, 0}},
    {"request_key", SYS_request_key, ALL, {0, 0, 0, 0}},
    {"pidfd_getfd", SYS_pidfd_getfd, ALL, {-1, 0, 0}},
    {"open_by_handle_at", SYS_open_by_handle_at, ALL, {-1, 0, 0}},
    {"fanotify_init", SYS_fanotify_init, ALL, {~0U, 0}},
    {"kcmp", SYS_kcmp, ALL, {0, 0, 99, 0, 0}},
    {"personality", SYS_personality, ALL, {0xffffffff}},
    {"socket packet", SYS_socket, ALL, {AF_PACKET, SOCK_RAW, 0}},
    {"socket vsock", SYS_socket, ALL, {AF_VSOCK, SOCK_STREAM, 99}},
    {"bpf map", SYS_bpf, ALL, {BPF_MAP_CREATE, 0, 1}},
    {"bpf", SYS_bpf, ALL & ~SUPERVISOR, {BPF_PROG_LOAD, 0, 1}},
    {"keyctl", SYS_keyctl, ALL & ~SUPERVISOR, {999}},
    {"mount", SYS_mount, ALL & ~SUPERVISOR, {0, (long)nowhere, 0, 0, 0}},
    {"umount", SYS_umount2, ALL & ~SUPERVISOR, {(long)nowhere, 0}},
    {"pivot_root", SYS_pivot_root, ALL & ~SUPERVISOR, {(long)nowhere, (long)nowhere}},
    {"unshare", SYS_unshare, ALL & ~SUPERVISOR, {0x7f}},
    {"setns", SYS_setns, ALL & ~SUPERVISOR, {-1, 0}},
    {"execve", SYS_execve, ALL & ~SUPERVISOR, {(long)nowhere, 0, 0}},
    {"execveat", SYS_execveat, ALL & ~SUPERVISOR, {-1, (long)"", 0, 0, 0}},
    {"fork", SYS_clone, ALL & ~SUPERVISOR, {CLONE_THREAD | SIGCHLD, 0, 0, 0, 0}},
    {"new namespace", SYS_clone, ALL & ~SUPERVISOR, {CLONE_NEWUSER | CLONE_FS | CLONE_THREAD, 0, 0, 0, 0}},
    {"socket inet", SYS_socket, ALL & ~SUPERVISOR, {AF_INET, SOCK_STREAM, 0}},
    {"socket unix", SYS_socket, ALL & ~SUPERVISOR, {AF_UNIX, SOCK_STREAM, 0}},
    {"socket netlink", SYS_socket, ALL & ~SUPERVISOR, {AF_NETLINK, SOCK_RAW, 0}},
    {"socketpair", SYS_socketpair, ALL & ~SUPERVISOR, {AF_UNIX, SOCK_STREAM, 0, 0}},
    {"connect", SYS_connect, ALL & ~SUPERVISOR, {-1, 0, 0}},
    {"bind", SYS_bind, ALL & ~SUPERVISOR, {-1, 0, 0}},
    {"listen", SYS_listen, ALL & ~SUPERVISOR, {-1, 0}},
    {"kill", SYS_kill, ALL & ~SUPERVISOR, {1, 999}},
    {"tgkill", SYS_tgkill, ALL & ~SUPERVISOR, {1, 1, 999}},
    {"pidfd_open", SYS_pidfd_open, ALL & ~SUPERVISOR, {0, 0}},
    {"setuid", SYS_setuid, ALL & ~SUPERVISOR, {0}},
    {"capset", SYS_capset, ALL & ~SUPERVISOR, {0, 0}},
    {"chroot", SYS_chroot, ALL & ~SUPERVISOR, {(long)nowhere}},
    {"chdir", SYS_chdir, ALL & ~SUPERVISOR, {(long)nowhere}},
    {"shmget", SYS_shmget, ALL, {0, 0, 0}},
    {"msgget", SYS_msgget, ALL, {0x12345678, 0}},
    {"inotify", SYS_inotify_init1, ALL & ~SUPERVISOR, {~0U}},
    {"mknodat", SYS_mknodat, ALL & ~SUPERVISOR, {AT_FDCWD, (long)nowhere, 0, 0}},
    {"symlinkat", SYS_symlinkat, ALL & ~SUPERVISOR, {(long)nowhere, AT_FDCWD, (long)nowhere}},
    {"linkat", SYS_linkat, ALL & ~SUPERVISOR, {AT_FDCWD, (long)nowhere, AT_FDCWD, (long)nowhere, 0}},
    {"fcntl owner", SYS_fcntl, ALL & ~SUPERVISOR, {-1, F_SETOWN, 0}},
    {"ioctl terminal", SYS_ioctl, ALL & ~SUPERVISOR, {-1, TIOCSTI, 0}},
    {"prctl", SYS_prctl, ALL & ~SUPERVISOR, {999, 0, 0, 0, 0}},
    {"setrlimit", SYS_prlimit64, ALL & ~SUPERVISOR, {0, 999, 0, 0}},
    {"setpriority", SYS_setpriority, ALL & ~SUPERVISOR, {999, 0, 0}},
    {"splice", SYS_splice, ALL & ~SUPERVISOR, {-1, 0, -1, 0, 1, 0}},
    {"executable memory",
     SYS_mmap,
     ROLES | RUN | SHARED | INGEST,
     {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0}},
    {"made executable", SYS_mprotect, ROLES | RUN | SHARED | INGEST, {(long)page + 1, 1, PROT_EXEC}},
    {"openat", SYS_openat, GATEWAY | RUN | SHARED | INGEST, {AT_FDCWD, (long)"/", O_RDONLY, 0}},
    {"openat to write", SYS_openat, GATEWAY | LOAD | RUN | SHARED | INGEST, {AT_FDCWD, (long)nowhere, O_WRONLY, 0}},
    {"openat path", SYS_openat, GATEWAY | CONTROL | LOAD | RUN | SHARED | INGEST, {AT_FDCWD, (long)"/", O_PATH, 0}},
    {"openat2", SYS_openat2, ALL & ~SUPERVISOR, {AT_FDCWD, (long)nowhere, 0, 0}},
    {"unlinkat", SYS_unlinkat, GATEWAY | LOAD | RUN | SHARED | INGEST, {AT_FDCWD, (long)nowhere, 0}},
    {"mkdirat", SYS_mkdirat, GATEWAY | LOAD | RUN | SHARED | INGEST, {AT_FDCWD, (long)nowhere, 0}},
    {"renameat2",
     SYS_renameat2,
     GATEWAY | LOAD | RUN | SHARED | INGEST,
     {AT_FDCWD, (long)nowhere, AT_FDCWD, (long)nowhere, 0}},
    {"fchmod", SYS_fchmod, GATEWAY | LOAD | RUN | SHARED | INGEST, {-1, 0}},
    {"getdents64", SYS_getdents64, GATEWAY | RUN | SHARED | INGEST, {-1, 0, 0}},
    {"readlinkat", SYS_readlinkat, GATEWAY | LOAD | RUN | SHARED | INGEST, {AT_FDCWD, (long)nowhere, (long)page, 1}},
    {"seccomp", SYS_seccomp, ROLES | RUN | SHARED | INGEST, {1, ~0U, 0}},
    {"accept", SYS_accept4, LOAD | RUN | SHARED | INGEST, {-1, 0, 0, 0}},
    {"sendmsg", SYS_sendmsg, RUN | SHARED, {-1, 0, 0}},
    {"sendto", SYS_sendto, LOAD | RUN | SHARED | INGEST, {-1, 0, 0, 0, 0, 0}},
    {"memfd_create", SYS_memfd_create, RUN | SHARED, {(long)nowhere, ~0U}},
    {"epoll_create1", SYS_epoll_create1, ALL & ~SUPERVISOR, {~0U}},
    {"dup", SYS_dup, SHARED, {-1}},
    {"dup3", SYS_dup3, LOAD | RUN | SHARED | INGEST, {-1, -1, 0}},
    {"dup by fcntl", SYS_fcntl, LOAD | RUN | SHARED | INGEST, {-1, F_DUPFD, 0}},
    {"dup by fcntl, close-on-exec", SYS_fcntl, LOAD | RUN | SHARED | INGEST, {-1, F_DUPFD_CLOEXEC, 0}},
    {"eventfd2", SYS_eventfd2, LOAD | RUN | SHARED | INGEST, {0, ~0U}},
    {"pipe2", SYS_pipe2, ALL & ~SUPERVISOR, {0, ~0U}},
};

static long attack_try(const struct attack *a)
{
    errno = 0;
    long r = syscall(a->number, a->args[0], a->args[1], a->args[2], a->args[3], a->args[4], a->args[5]);
    return r < 0 ? -errno : r;
}

/* The number of attacks in this list that were refused. */
static int refused_all(const void *arg)
{
    enum who who = *(const enum who *)arg;
    int wrong = 0;
    for (size_t i = 0; i < COUNT(attacks); i++) {
        if (!(attacks[i].refused & who))
            continue;
        long r = attack_try(&attacks[i]);
        if (r != -EPERM) {
            wrong++;
            dprintf(STDERR_FILENO, "# %s: %s\n", attacks[i].name, r < 0 ? strerror((int)-r) : "done");
        }
    }
    return wrong;
}

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(programs); i++) {
        print_message("%s\n", programs[i].filter->name);
        assert_int_equal(child(programs[i].filter, refused_all, &programs[i].who), 0);
    }
}

static int one(const void *arg)
{
    return attack_try(arg) == -EPERM;
}

/* Without a filter each gets past the door, where this machine lets a test be root at all. */
static void test_refused_by_the_filter_only(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    size_t blocked = 0;
    for (size_t i = 0; i < COUNT(attacks); i++)
        if (child(NULL, one, &attacks[i]) != 0) {
            print_message("%s: the host itself refuses it\n", attacks[i].name);
            blocked++;
        }
    assert_in_range(blocked, 0, 3); /* a host may have io_uring or such switched off */
}

/* --- what works --- */

static bool memory_works(void)
{
    for (size_t size = 16; size < 256 * 1024 * 1024; size *= 4) {
        char *p = malloc(size);
        if (!p)
            return false;
        p[size - 1] = 1;
        p = realloc(p, size * 2);
        if (!p)
            return false;
        free(p);
    }
    return true;
}

static int works_everywhere(const void *arg)
{
    const int *fds = arg;
    char byte = 'x';
    struct pollfd none = {.fd = -1};
    (void)none;
    if (!memory_works())
        return 1;
    if (write(fds[1], &byte, 1) != 1 || read(fds[0], &byte, 1) != 1)
        return 2;
    if (fcntl(fds[0], F_GETFL) < 0)
        return 3;
    if (syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &(struct timespec){0}) != 0)
        return 4;
    if (getpid() != syscall(SYS_getpid) || syscall(SYS_getrandom, page, 8, 0) != 8)
        return 5;
    struct stat info;
    if (fstat(fds[0], &info) != 0)
        return 6;
    return prctl(PR_GET_NO_NEW_PRIVS, 0L, 0L, 0L, 0L) == 1 || errno == EPERM ? 0 : 7;
}

static void test_allowed(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    for (size_t i = 0; i < COUNT(programs); i++)
        assert_int_equal(child(programs[i].filter, works_everywhere, fds), 0);
    close(fds[0]);
    close(fds[1]);
}

static void *thread_openat(void *arg)
{
    int *gates = arg;
    char byte;
    if (read(gates[0], &byte, 1) != 1)
        return (void *)1L;
    return (void *)(long)(syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY, 0) == -1 && errno == EPERM ? 0 : 2);
}

static void *thread_nothing(void *arg)
{
    return arg;
}

/* A worker's life: loads a library, starts a thread, narrows; the old thread is narrowed too, a new one still starts.
 */
static int worker_life(const void *arg)
{
    (void)arg;
    int gates[2];
    pthread_t before, after;
    void *result = NULL;
    if (pipe(gates) != 0 || filter_install(&filter_worker_load, NULL) != 0)
        return 1;
    if (!dlopen("libresolv.so.2", RTLD_NOW | RTLD_LOCAL)) /* libc's own; nothing here has it loaded */
        return 2;
    if (syscall(SYS_clone3, NULL, 0) != -1 || errno != ENOSYS)
        return 3;
    if (pthread_create(&before, NULL, thread_openat, gates) != 0)
        return 4;
    if (filter_install(&filter_worker_run, NULL) != 0)
        return 5;
    if (write(gates[1], "x", 1) != 1 || pthread_join(before, &result) != 0 || result != NULL)
        return 6;
    if (pthread_create(&after, NULL, thread_nothing, NULL) != 0 || pthread_join(after, &result) != 0)
        return 7;
    if (filter_install(&filter_worker_load, NULL) == 0) /* no way back, and none forward */
        return 8;
    return memory_works() ? 0 : 9;
}

static void test_worker_life(void **state)
{
    (void)state;
    assert_int_equal(child(NULL, worker_life, NULL), 0);
}

/* Under the supervisor's filter every other can be installed, and stays as strict. */
static int roles_start(const void *arg)
{
    const struct filter *filter = arg;
    if (filter_install(&filter_supervisor, NULL) != 0)
        return 1;
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(filter_install(filter, NULL) == 0 && memory_works() ? 0 : 2);
    return pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ? 3 : WEXITSTATUS(status);
}

static void test_inherited(void **state)
{
    (void)state;
    for (size_t i = 1; i < COUNT(programs); i++)
        assert_int_equal(child(NULL, roles_start, programs[i].filter), 0);
}

static int abort_run(const void *arg)
{
    (void)arg;
    struct sigaction standard = {.sa_handler = SIG_DFL};
    (void)sigaction(SIGABRT, &standard, NULL); /* cmocka has a handler */
    abort();
}

/* A failed assertion shows as what it is. */
static void test_abort(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(programs); i++) {
        int status = child_status(programs[i].filter, abort_run, NULL);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGABRT);
    }
}

/* --- counted --- */

enum { KINDS = LIMIT_BLOCKED_CALLS + 4, N_THREADS = 4, PER_THREAD = 500 };

static uint32_t count_of(const struct blocked_list *list, uint32_t number)
{
    for (uint32_t i = 0; i < list->n; i++)
        if (list->calls[i].number == number)
            return list->calls[i].count;
    return 0;
}

static void *thread_refused(void *arg)
{
    for (int i = 0; i < PER_THREAD; i++)
        if (syscall(SYS_io_uring_setup, 1, NULL) != -1 || errno != EPERM || syscall(SYS_chroot, nowhere) != -1)
            return NULL;
    return arg;
}

/* All at once, the same two calls. */
static bool threads_refused(void)
{
    pthread_t threads[N_THREADS];
    bool good = true;
    for (int i = 0; i < N_THREADS; i++)
        if (pthread_create(&threads[i], NULL, thread_refused, threads) != 0)
            return false;
    for (int i = 0; i < N_THREADS; i++) {
        void *result = NULL;
        good = pthread_join(threads[i], &result) == 0 && result == threads && good;
    }
    return good;
}

static int refused_counted(const void *arg)
{
    static const int kinds[KINDS] = {SYS_mount,  SYS_umount2, SYS_swapon,  SYS_swapoff, SYS_reboot,
                                     SYS_bpf,    SYS_add_key, SYS_keyctl,  SYS_setns,   SYS_unshare,
                                     SYS_setuid, SYS_setgid,  SYS_capset,  SYS_kill,    SYS_sync,
                                     SYS_syslog, SYS_acct,    SYS_getppid, SYS_getuid,  SYS_getgid};
    (void)arg;
    struct blocked_list list = {0};
    if (blocked_take(&list) || filter_install(&filter_worker_load, NULL) != 0)
        return 1;
    if (!threads_refused())
        return 2;
    if (!blocked_take(&list) || list.n != 2 || count_of(&list, SYS_io_uring_setup) != N_THREADS * PER_THREAD ||
        count_of(&list, SYS_chroot) != N_THREADS * PER_THREAD || blocked_take(&list))
        return 4;
    if (filter_install(&filter_worker_run, NULL) != 0) /* the handler stays, and what is counted goes on */
        return 5;
    for (int i = 0; i < KINDS; i++)
        if (syscall(kinds[i], -1, -1, -1, -1, -1) != -1 || errno != EPERM)
            return 6;
    if (syscall(-1) != -1 || errno != EPERM || syscall(SYS_io_uring_setup, 1, NULL) != -1)
        return 7;
    if (!blocked_take(&list) || list.n != LIMIT_BLOCKED_CALLS + 1 ||
        count_of(&list, SYS_io_uring_setup) != N_THREADS * PER_THREAD + 1)
        return 8;
    uint32_t known = LIMIT_BLOCKED_CALLS - 2;
    return count_of(&list, BLOCKED_OTHERS) == KINDS - known + 1 && count_of(&list, SYS_mount) == 1 &&
                   blocked_sum(&list) == 2 * N_THREADS * PER_THREAD + KINDS + 2
               ? 0
               : 9;
}

static void test_refused_is_counted(void **state)
{
    (void)state;
    assert_int_equal(filter_worker_run.counted, BLOCKED_COUNTED);
    assert_false(filter_gateway.counted || filter_control.counted || filter_supervisor.counted);
    if (!BLOCKED_COUNTED)
        skip();
    assert_int_equal(child(NULL, refused_counted, NULL), 0);
}

/* What engines are known to ask is refused and is no news; the same call with another argument is. */
static int known_not_counted(const void *arg)
{
    (void)arg;
    struct blocked_list list = {0};
    void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || filter_install(&filter_worker_load, NULL) != 0)
        return 1;
    for (int i = 0; i < 2; i++) {
        if (posix_fadvise(-1, 0, 0, POSIX_FADV_SEQUENTIAL) != EPERM)
            return 2;
        if (!SANITIZED && (madvise(p, 4096, MADV_WILLNEED) != -1 || errno != EPERM)) /* they may give any advice */
            return 3;
        if (i == 0 && filter_install(&filter_worker_run, NULL) != 0)
            return 4;
    }
    if (blocked_take(&list))
        return 5;
    if (posix_fadvise(-1, 0, 0, POSIX_FADV_DONTNEED) != EPERM)
        return 6;
    if (!SANITIZED && (madvise(p, 4096, MADV_REMOVE) != -1 || errno != EPERM))
        return 7;
    return blocked_take(&list) && count_of(&list, SYS_fadvise64) == 1 && blocked_sum(&list) == (SANITIZED ? 1 : 2) &&
                   madvise(p, 4096, MADV_DONTNEED) == 0
               ? 0
               : 8;
}

static void test_known_is_not_counted(void **state)
{
    (void)state;
    if (!BLOCKED_COUNTED)
        skip();
    assert_int_equal(child(NULL, known_not_counted, NULL), 0);
}

/* Who takes the count's signal away gets no call either. */
static int refused_muffled(const void *arg)
{
    (void)arg;
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGSYS);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return 1;
    (void)syscall(SYS_chroot, "/");
    return 0;
}

static int handler_replaced(const void *arg)
{
    struct sigaction ignored = {.sa_handler = SIG_IGN};
    (void)arg;
    return sigaction(SIGSYS, &ignored, NULL) != -1 || errno != EPERM;
}

static void test_counting_cannot_be_evaded(void **state)
{
    (void)state;
    if (!BLOCKED_COUNTED)
        skip();
    int status = child_status(&filter_worker_run, refused_muffled, NULL);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    if (!SANITIZED) /* their runtimes may take any signal */
        assert_int_equal(child(&filter_worker_run, handler_replaced, NULL), 0);
}

/* The lists that are told: what they may be told is anything. */
static void test_lists(void **state)
{
    (void)state;
    struct blocked_list list = {0};
    char text[BLOCKED_WORDS_BYTES], name[BLOCKED_NAME_BYTES];
    assert_string_equal(blocked_words(&list, text), "");
    assert_int_equal(blocked_raise(&list, SYS_bpf, 0), 0);
    assert_int_equal(list.n, 0);
    assert_int_equal(blocked_raise(&list, SYS_bpf, 5), 5);
    assert_int_equal(blocked_raise(&list, SYS_bpf, 4), 0);
    assert_int_equal(blocked_raise(&list, SYS_bpf, UINT32_MAX), UINT32_MAX - 5);
    blocked_add(&list, SYS_bpf, 1);
    blocked_add(&list, 999, 1);
    assert_string_equal(blocked_words(&list, text), "bpf (4294967295 times), call 999 (1 time)");
    for (uint32_t number = 10000; number < 10100; number++)
        blocked_add(&list, number, UINT32_MAX);
    assert_int_equal(list.n, LIMIT_BLOCKED_CALLS + 1);
    assert_int_equal(list.calls[LIMIT_BLOCKED_CALLS].number, BLOCKED_OTHERS);
    assert_int_equal(blocked_sum(&list), (uint64_t)UINT32_MAX * LIMIT_BLOCKED_CALLS + 1);
    assert_non_null(strstr(blocked_words(&list, text), " and 13 more"));
    assert_string_equal(blocked_name(BLOCKED_OTHERS, name), "others");
    assert_string_equal(blocked_name(SYS_read, name), "read");
    assert_string_equal(blocked_name(SYS_io_uring_setup, name), "io_uring_setup");
    list = (struct blocked_list){0}; /* BLOCKED_OTHERS may be told first, and is then in the way of nothing */
    blocked_add(&list, BLOCKED_OTHERS, 1);
    for (uint32_t number = 0; number < 100; number++)
        blocked_add(&list, number, 1);
    assert_int_equal(list.n, LIMIT_BLOCKED_CALLS);
    assert_int_equal(blocked_sum(&list), 101);
}

#if defined(__x86_64__)
static int old_call(const void *arg)
{
    (void)arg;
    long r = 20; /* getpid, as 32-bit programs number it */
    __asm__ volatile("int $0x80" : "+a"(r) : : "memory", "r8", "r9", "r10", "r11");
    return 0;
}

static int x32_call(const void *arg)
{
    (void)arg;
    (void)syscall(0x40000000L | SYS_getpid);
    return 0;
}

static void test_other_architectures_kill(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(programs); i++) {
        int status = child_status(programs[i].filter, x32_call, NULL);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
        status = child_status(programs[i].filter, old_call, NULL);
        assert_true(WIFSIGNALED(status)); /* SIGSYS, or SIGSEGV where the kernel has no 32-bit calls at all */
    }
}
#endif

/* The debuggers' call is in no table; the sanitizers' own list gives it to the supervisor for LeakSanitizer. */
static void test_ptrace(void **state)
{
    (void)state;
    static const struct attack attack = {"ptrace", SYS_ptrace, ALL, {999, 0, 0, 0}};
    assert_int_equal(child(NULL, one, &attack), 0);
    for (size_t i = 0; i < COUNT(programs); i++)
        if (!(SANITIZED && programs[i].who == SUPERVISOR))
            assert_int_equal(child(programs[i].filter, one, &attack), 1);
}

static void test_install_says_why(void **state)
{
    (void)state;
    static const struct sock_filter bad[] = {{0xffff, 0, 0, 0}};
    const struct filter filter = {"bad", bad, 1};
    struct error err = {0};
    pid_t pid = fork();
    if (pid == 0)
        _exit(filter_install(&filter, &err) == -ERROR_ISOLATION_UNAVAILABLE && strstr(err.text, "filter") ? 0 : 1);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables_form),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_nobody_names_these),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_refused_by_the_filter_only),
        cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_worker_life),
        cmocka_unit_test(test_inherited),
        cmocka_unit_test(test_abort),
        cmocka_unit_test(test_ptrace),
        cmocka_unit_test(test_refused_is_counted),
        cmocka_unit_test(test_known_is_not_counted),
        cmocka_unit_test(test_counting_cannot_be_evaded),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_install_says_why),
#if defined(__x86_64__)
        cmocka_unit_test(test_other_architectures_kill),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
