#include "control/control_filter.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <linux/sockios.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* Files, but only in its own root, the store; no new socket, no process, no executable memory. */
static const struct filter_row rows[] = {
    {"accept4", FILTER_ALWAYS, "operators' connections, scrapers of /metrics"},
    {"access", FILTER_ALWAYS, "SQLite: is there a journal?"},
    {"brk", FILTER_ALWAYS, "malloc"},
    {"clock_gettime", FILTER_ALWAYS, "the clock where the vDSO has none"},
    {"close", FILTER_ALWAYS, "connections, files, memories"},
    {"epoll_ctl", FILTER_ALWAYS, "libuv: which descriptors are waited for"},
    {"epoll_pwait", FILTER_ALWAYS, "libuv 1.45 and later waits with this"},
    {"epoll_wait", FILTER_ALWAYS, "libuv before 1.45 waits with this"},
    {"exit_group", FILTER_ALWAYS, "the end"},
    {"faccessat", FILTER_ALWAYS, "access, where the architecture has only this"},
    {"fchmod", FILTER_ALWAYS, "SQLite: a journal gets the database's mode"},
    {"fchown", FILTER_ALWAYS, "SQLite: a journal gets the database's owner"},
    {"fcntl", FILTER_ONE_OF(1, F_GETFL, F_SETFD, F_DUPFD_CLOEXEC, F_ADD_SEALS, F_GET_SEALS, F_SETLK, F_GETLK, F_SETFL),
     "SQLite's locks; seals of catalogs and artifacts; copies for a bus queue that waits"},
    {"fdatasync", FILTER_ALWAYS, "SQLite: nothing is acknowledged before"},
    {"fstat", FILTER_ALWAYS, "sizes of files (glibc 2.39 and later)"},
    {"fsync", FILTER_ALWAYS, "SQLite, artifacts, folders"},
    {"ftruncate", FILTER_ALWAYS, "SQLite's journal; sizes of catalogs; removed files grow shorter"},
    {"futex", FILTER_ALWAYS, "locks of SQLite, libcrypto and malloc"},
    {"getcwd", FILTER_ALWAYS, "SQLite makes paths absolute"},
    {"getdents64", FILTER_ALWAYS, "the sweep of artifacts that nobody names"},
    {"geteuid", FILTER_ALWAYS, "SQLite: is fchown worth a try?"},
    {"getpid", FILTER_ALWAYS, "each log line names it; SQLite looks for a fork; abort"},
    {"getrandom", FILTER_ALWAYS, "keys, names of uploads, seeds"},
    {"getsockopt", FILTER_ONE_OF(1, SOL_SOCKET), "who is at the admin socket; what kind of socket it is"},
    {"gettid", FILTER_ALWAYS, "abort"},
    {"getuid", FILTER_ALWAYS, "SQLite"},
    {"ioctl", FILTER_ONE_OF(1, FIONBIO, SIOCOUTQ), "libuv's non-blocking mode; what a client has not read yet"},
    {"lseek", FILTER_ALWAYS, "size of a memory that came over the bus"},
    {"lstat", FILTER_ALWAYS, "SQLite: is a part of the path a link?"},
    {"madvise", FILTER_ONE_OF(2, MADV_DONTNEED, MADV_FREE, MADV_COLLAPSE),
     "malloc gives pages back; models lie in huge ones"},
    {"memfd_create", FILTER_ALWAYS, "catalogs, models for workers, operators' requests"},
    {"mkdirat", FILTER_ALWAYS, "folders of artifacts"},
    {"mmap", FILTER_WITHOUT(2, PROT_EXEC), "malloc, the gateway's figures, answers"},
    {"mremap", FILTER_ALWAYS, "buffers that grow"},
    {"munmap", FILTER_ALWAYS, "malloc, answers"},
    {"newfstatat", FILTER_ALWAYS, "sizes of files; SQLite: is it still the same file?"},
    {"openat", FILTER_WITHOUT(2, O_PATH | O_DIRECT | O_ASYNC),
     "the database, its journal, artifacts; its root is the store"},
    {"poll", FILTER_ALWAYS, "SQLite waits for a lock"},
    {"pread64", FILTER_ALWAYS, "SQLite, how much memory is free"},
    {"pwrite64", FILTER_ALWAYS, "SQLite"},
    {"read", FILTER_ALWAYS, "connections, artifacts"},
    {"readlink", FILTER_ALWAYS, "SQLite: where does a link in the path lead?"},
    {"readlinkat", FILTER_ALWAYS, "readlink, where the architecture has only this"},
    {"recvmsg", FILTER_ALWAYS, "the bus, with descriptors"},
    {"renameat", FILTER_ALWAYS, "an upload that is complete gets its name"},
    {"renameat2", FILTER_ALWAYS, "renameat, where the architecture has only this"},
    {"rt_sigaction", FILTER_ONE_OF(0, SIGABRT, SIGPIPE), "abort; a server that starts ignores SIGPIPE"},
    {"sendmsg", FILTER_ALWAYS, "the bus, with descriptors"},
    {"sendto", FILTER_ALWAYS, "tells a connection why it is refused"},
    {"setsockopt", FILTER_ONE_OF(1, 6 /* IPPROTO_TCP */), "no delay, for scrapers"},
    {"shutdown", FILTER_ALWAYS, "the end of an answer"},
    {"stat", FILTER_ALWAYS, "SQLite: is it still the same file? (glibc before 2.33)"},
    {"statx", FILTER_ALWAYS, "stat, where the architecture has only this"},
    {"sysinfo", FILTER_ALWAYS, "qsort asks how much memory there is"},
    {"tgkill", FILTER_ONE_OF(2, SIGABRT), "abort, so that the log names the signal"},
    {"unlink", FILTER_ALWAYS, "SQLite's journal is done"},
    {"unlinkat", FILTER_ALWAYS, "artifacts that nobody names, uploads that broke off"},
    {"write", FILTER_ALWAYS, "answers, artifacts, the log"},
    {"writev", FILTER_ALWAYS, "answers of head and body"},
};

const struct filter_table control_filter_table = {"control", rows, sizeof rows / sizeof rows[0]};
