#include "gateway/gateway_filter.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* At most 35 calls, counted by test_gateway_filter.c. No path, no new socket, no process, no signal, no executable
 * memory: what a gateway that was taken over can still do is speak on the descriptors it was given. */
static const struct filter_row rows[] = {
    {"accept4", FILTER_ALWAYS, "clients' connections"},
    {"brk", FILTER_ALWAYS, "malloc"},
    {"clock_gettime", FILTER_ALWAYS, "the clock where the vDSO has none"},
    {"close", FILTER_ALWAYS, "connections, catalogs, channels that end"},
    {"epoll_ctl", FILTER_ALWAYS, "libuv: which descriptors are waited for"},
    {"epoll_pwait", FILTER_ALWAYS, "libuv 1.45 and later waits with this"},
    {"epoll_wait", FILTER_ALWAYS, "libuv before 1.45 waits with this"},
    {"exit_group", FILTER_ALWAYS, "the end: drained, or the supervisor is gone"},
    {"fcntl", FILTER_ONE_OF(1, F_GETFL, F_SETFL, F_SETFD, F_DUPFD_CLOEXEC, F_ADD_SEALS, F_GET_SEALS),
     "seals of catalogs and inboxes; copies for a bus queue that waits; libuv reads a stream's mode"},
    {"fstat", FILTER_ALWAYS, "size of a sealed memory (glibc 2.39 and later)"},
    {"ftruncate", FILTER_ALWAYS, "size of the answer to an operator's request"},
    {"futex", FILTER_ALWAYS, "locks of libcrypto and malloc; wakes a worker whose lease is given up"},
    {"getpid", FILTER_ALWAYS, "each log line names it; abort"},
    {"getrandom", FILTER_ALWAYS, "seeds of hash tables"},
    {"getsockopt", FILTER_ONE_OF(1, SOL_SOCKET), "libuv asks what kind of socket it was given"},
    {"gettid", FILTER_ALWAYS, "abort"},
    {"ioctl", FILTER_ONE_OF(1, FIONBIO, SIOCOUTQ), "libuv's non-blocking mode; what a client has not read yet"},
    {"lseek", FILTER_ALWAYS, "size of a memory that came over the bus; a catalog from its start"},
    {"madvise", FILTER_ONE_OF(2, MADV_DONTNEED, MADV_FREE, MADV_HUGEPAGE),
     "malloc gives pages back; tenants lie in huge pages"},
    {"memfd_create", FILTER_ALWAYS, "the answer to an operator's request"},
    {"mmap", FILTER_WITHOUT(2, PROT_EXEC), "malloc, channels"},
    {"mremap", FILTER_ALWAYS, "buffers that grow"},
    {"munmap", FILTER_ALWAYS, "malloc, channels"},
    {"newfstatat", FILTER_ALWAYS, "size of a sealed memory (glibc before 2.39); its root is empty"},
    {"read", FILTER_ALWAYS, "connections, bells, catalogs"},
    {"recvfrom", FILTER_ALWAYS, "a guest's channel, level microvm"},
    {"recvmsg", FILTER_ALWAYS, "the bus, with descriptors"},
    {"rt_sigaction", FILTER_ONE_OF(0, SIGABRT, SIGPIPE), "abort; a server that starts ignores SIGPIPE"},
    {"sendmsg", FILTER_ALWAYS, "the bus, with descriptors"},
    {"sendto", FILTER_ALWAYS, "tells a connection why it is refused"},
    {"setsockopt", FILTER_ONE_OF(1, 6 /* IPPROTO_TCP */), "no delay"},
    {"shutdown", FILTER_ALWAYS, "the end of an answer"},
    {"tgkill", FILTER_ONE_OF(2, SIGABRT), "abort, so that the log names the signal"},
    {"write", FILTER_ALWAYS, "answers, bells, the log"},
    {"writev", FILTER_ALWAYS, "answers of head and body"},
};

const struct filter_table gateway_filter_table = {"gateway", rows, sizeof rows / sizeof rows[0]};
