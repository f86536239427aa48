#include "isolate/isolate_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

/* What pthread_create asks for: a thread and nothing else. clone3 hides its flags behind a pointer, so it is refused in
 * the way that lets libc come back with clone. */
#define THREAD_FLAGS                                                                                   \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS | \
     CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

static const struct filter_row run_rows[] = {
    {"brk", FILTER_ALWAYS, "malloc"},
    {"clock_gettime", FILTER_ALWAYS, "the clock of a thread, and where the vDSO has none"},
    {"clock_nanosleep", FILTER_ALWAYS, "engines' threads back off"},
    {"clone", FILTER_ONE_OF(0, THREAD_FLAGS), "the engine's threads; no process, no namespace"},
    {"clone3", FILTER_REFUSED(ENOSYS), "libc then uses clone, whose flags can be looked at"},
    {"close", FILTER_ALWAYS, "channels that end"},
    {"exit", FILTER_ALWAYS, "the end of a thread"},
    {"exit_group", FILTER_ALWAYS, "the end"},
    {"fcntl", FILTER_ONE_OF(1, F_GET_SEALS, F_ADD_SEALS, F_GETFL, F_SETFD), "seals of a channel's memory"},
    {"fstat", FILTER_ALWAYS, "size of a memory (glibc 2.39 and later)"},
    {"futex", FILTER_ALWAYS, "the engine's threads wait for each other; the watcher for a lease that is given up"},
    {"getpid", FILTER_ALWAYS, "each log line names it; abort"},
    {"getrandom", FILTER_ALWAYS, "seeds"},
    {"gettid", FILTER_ALWAYS, "the engine names threads; abort"},
    {"lseek", FILTER_ALWAYS, "size of a memory"},
    {"madvise", FILTER_ONE_OF(2, MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE, MADV_NOHUGEPAGE), "malloc and arenas"},
    {"mmap", FILTER_WITHOUT(2, PROT_EXEC), "malloc, channels, threads' stacks"},
    {"mprotect", FILTER_WITHOUT(2, PROT_EXEC), "threads' stacks, malloc"},
    {"mremap", FILTER_ALWAYS, "buffers that grow"},
    {"munmap", FILTER_ALWAYS, "malloc, channels, threads' stacks"},
    {"newfstatat", FILTER_ALWAYS, "size of a memory (glibc before 2.39)"},
    {"poll", FILTER_ALWAYS, "waits for the gateway and the supervisor"},
    {"ppoll", FILTER_ALWAYS, "poll, where the architecture has only this"},
    {"read", FILTER_ALWAYS, "the bell"},
    {"recvmsg", FILTER_ALWAYS, "the supervisor hands over a new gateway's channel"},
    {"restart_syscall", FILTER_ALWAYS, "a wait that a stop signal interrupted goes on"},
    {"rseq", FILTER_ALWAYS, "libc, in each new thread"},
    {"rt_sigaction", FILTER_ONE_OF(0, SIGABRT, 33 /* SIGSETXID */), "abort; libc with its first thread"},
    {"rt_sigprocmask", FILTER_ALWAYS, "libc, around the birth and the end of a thread"},
    {"rt_sigreturn", FILTER_ALWAYS, "the end of the handler that counts refused calls"},
    {"sched_getaffinity", FILTER_ALWAYS, "how many cores there are"},
    {"sched_setaffinity", FILTER_ALWAYS, "the engine pins its threads"},
    {"sched_yield", FILTER_ALWAYS, "the engine's threads wait for each other"},
    {"set_robust_list", FILTER_ALWAYS, "libc, in each new thread"},
    {"sysinfo", FILTER_ALWAYS, "qsort asks how much memory there is"},
    {"tgkill", FILTER_ONE_OF(2, SIGABRT), "abort"},
    {"write", FILTER_ALWAYS, "the bell, the log"},
};

static const struct filter_row own_rows[] = {
    {"dup", FILTER_ALWAYS, "llama.cpp reads the model and its adapters through a descriptor of its own"},
};

/* Advice about a file's pages. A model's are all in memory already: sealed memory, or in a virtual machine what its
 * digest was made of. So nothing is lost, and each call that is not allowed is one less to think about. */
static const struct filter_row known_rows[] = {
    {"fadvise64", FILTER_REFUSED_ONE_OF(EPERM, 3, POSIX_FADV_SEQUENTIAL), "llama.cpp, before it maps a model"},
    {"madvise", FILTER_REFUSED_ONE_OF(EPERM, 2, MADV_WILLNEED), "llama.cpp, once it has mapped it"},
};

static const struct filter_row ingest_rows[] = {
    {"memfd_create", FILTER_ALWAYS, "the model's signature"},
    {"sendmsg", FILTER_ALWAYS, "hands it to the supervisor"},
};

static const struct filter_row load_rows[] = {
    {"access", FILTER_ALWAYS, "the loader: is there a preload file?"},
    {"getcwd", FILTER_ALWAYS, "the loader: where is a relative path?"},
    {"getdents64", FILTER_ALWAYS, "ONNX Runtime looks for graphics cards"},
    {"mmap", FILTER_ALWAYS, "the library's code"},
    {"mprotect", FILTER_ALWAYS, "the library's relocated pages"},
    {"openat", FILTER_WITHOUT(2, O_WRONLY | O_RDWR | O_CREAT | O_PATH), "the library, /proc/cpuinfo, /sys: to read"},
    {"prctl",
     FILTER_ONE_OF(0, PR_SET_NAME, PR_SET_DUMPABLE, PR_GET_NO_NEW_PRIVS, PR_GET_PDEATHSIG, PR_SET_NO_NEW_PRIVS,
                   0x53564d41 /* PR_SET_VMA */),
     "the worker checks its wall; the filter's second half"},
    {"pread64", FILTER_ALWAYS, "the loader reads the library's head"},
    {"readlink", FILTER_ALWAYS, "the loader: where does the library lie?"},
    {"seccomp", FILTER_ONE_OF(0, SECCOMP_SET_MODE_FILTER), "the filter's second half"},
    {"stat", FILTER_ALWAYS, "ONNX Runtime looks for graphics cards"},
    {"statx", FILTER_ALWAYS, "stat, where the architecture has only this"},
};

const struct filter_table isolate_filter_run = {"worker-run", run_rows, sizeof run_rows / sizeof run_rows[0]};
const struct filter_table isolate_filter_own = {"worker-own", own_rows, sizeof own_rows / sizeof own_rows[0]};
const struct filter_table isolate_filter_known = {"known", known_rows, sizeof known_rows / sizeof known_rows[0]};
const struct filter_table isolate_filter_ingest = {"ingest", ingest_rows, sizeof ingest_rows / sizeof ingest_rows[0]};
const struct filter_table isolate_filter_load = {"worker-load", load_rows, sizeof load_rows / sizeof load_rows[0]};
