/* A worker that has been taken over: everything that code behind the wall can do to those it talks to.
 *
 * The live tests put this program in the place of bulkhead-worker. A model whose file reads {"hostile":"<name>", …}
 * gets the behaviour of that name in the table below; for every other model it is an honest worker. The signature it
 * tells is x: FP32 [-1,4] and y: BYTES [-1,1] for both inputs and outputs. As an ingest it tells that signature too, or
 * behaves as the second table has it.
 *
 * It installs no system call filter but where that is what is asked: each wall is tested without the others. */
#include "base/filter.h"
#include "base/log.h"
#include "channel/channel_internal.h"
#include "isolate/isolate_self.h"
#include "tensor/tensor.h"
#include "worker/worker.h"
#include "worker/worker_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

enum { BUS_FD = 3, ROW_FLOATS = 4, LIFE_S = 10 };

struct hostile {
    struct channel *c;
    char *slot; /* the own one */
    uint64_t slot_bytes;
    struct channel_frame lease;
};

int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return 1;
}

static _Noreturn void sleep_for_ever(void)
{
    for (;;)
        (void)poll(NULL, 0, -1);
}

/* --- what an honest worker does too --- */

static void say(struct hostile *h, struct channel_frame frame)
{
    while (channel_push(h->c, &frame) < 0)
        (void)poll(NULL, 0, 1);
    channel_ring(h->c);
}

static void await(struct hostile *h, enum channel_frame_type type, struct channel_frame *ret_frame)
{
    struct channel_frame f;
    for (;;) {
        int r = channel_pull(h->c, &f, NULL);
        if (r < 0)
            _exit(1);
        if (r > 0 && f.type == type) {
            *ret_frame = f;
            return;
        }
        if (r == 0 && channel_park(h->c)) {
            struct pollfd bell = {.fd = h->c->bell, .events = POLLIN};
            (void)poll(&bell, 1, -1);
            channel_awake(h->c);
        }
    }
}

static void greet(struct hostile *h)
{
    say(h, (struct channel_frame){.type = CHANNEL_OPEN, .a = CHANNEL_PROTOCOL});
}

static struct tensor_signature *signature(void)
{
    static struct tensor_signature s = {.n_inputs = 2, .n_outputs = 2, .batchable = true, .platform = "hostile"};
    s.inputs[0] = (struct tensor_spec){"x", TENSOR_FP32, {2, {-1, ROW_FLOATS}}};
    s.inputs[1] = (struct tensor_spec){"y", TENSOR_BYTES, {2, {-1, 1}}};
    memcpy(s.outputs, s.inputs, 2 * sizeof s.inputs[0]);
    return &s;
}

static void load(struct hostile *h)
{
    struct channel_frame f;
    size_t size = 0;
    greet(h);
    await(h, CHANNEL_LOAD, &f);
    if (tensor_signature_encode(signature(), h->slot, TENSOR_SIGNATURE_BYTES_MAX, &size) < 0)
        _exit(1);
    say(h, (struct channel_frame){.type = CHANNEL_LOAD, .length = size});
}

static void take_lease(struct hostile *h)
{
    await(h, CHANNEL_LEASE, &h->lease);
}

static void done(struct hostile *h)
{
    say(h, (struct channel_frame){.type = CHANNEL_DONE, .lease_id = h->lease.lease_id});
}

/* A whole output; x at the slot's start, y behind it: one element of four bytes a row. */
static struct channel_frame output(struct hostile *h, uint32_t index)
{
    uint64_t rows = h->lease.a, at = index == 0 ? 0 : h->slot_bytes / 2;
    struct channel_tensor t = {
        .dtype = index == 0 ? TENSOR_FP32 : TENSOR_BYTES,
        .rank = 2,
        .dims = {(int64_t)rows, index == 0 ? ROW_FLOATS : 1},
        .data = at + 128,
        .bytes = rows * (index == 0 ? ROW_FLOATS * 4 : 8),
    };
    memcpy(h->slot + at, &t, sizeof t);
    memset(h->slot + t.data, 0, t.bytes);
    for (uint64_t i = 0; index == 1 && i < rows; i++)
        h->slot[t.data + i * 8] = 4;
    return (struct channel_frame){.type = CHANNEL_PART,
                                  .flags = CHANNEL_FINAL,
                                  .lease_id = h->lease.lease_id,
                                  .index = index,
                                  .offset = at,
                                  .length = 128 + t.bytes};
}

static void answer(struct hostile *h)
{
    say(h, output(h, 0));
    say(h, output(h, 1));
    done(h);
}

static struct channel_tensor *tensor_at(struct hostile *h, const struct channel_frame *f)
{
    return (struct channel_tensor *)(void *)(h->slot + f->offset);
}

/* --- and what it does not --- */

static void never_open(struct hostile *h)
{
    (void)h;
}

static void exit_at_open(struct hostile *h)
{
    greet(h);
    _exit(0);
}

static void open_twice(struct hostile *h)
{
    greet(h);
    greet(h);
}

static void wrong_epoch(struct hostile *h)
{
    h->c->epoch++;
    greet(h);
}

static void gateways_frame(struct hostile *h)
{
    say(h, (struct channel_frame){.type = CHANNEL_LEASE});
}

static void signature_huge(struct hostile *h)
{
    struct channel_frame f;
    greet(h);
    await(h, CHANNEL_LOAD, &f);
    say(h, (struct channel_frame){.type = CHANNEL_LOAD, .length = h->slot_bytes});
}

static void signature_garbage(struct hostile *h)
{
    struct channel_frame f;
    greet(h);
    await(h, CHANNEL_LOAD, &f);
    memset(h->slot, 0xff, 4096);
    say(h, (struct channel_frame){.type = CHANNEL_LOAD, .length = 4096});
}

/* A text that would write a log line of its own, colour a terminal and end a JSON string. */
static void load_fails_loudly(struct hostile *h)
{
    struct channel_frame f;
    static const char text[] = "\"}\n{\"level\":\"alert\",\"event\":\"forged\"}\n\033[31m\x80\xff";
    greet(h);
    await(h, CHANNEL_LOAD, &f);
    memset(h->slot, 'a', h->slot_bytes);
    memcpy(h->slot, text, sizeof text - 1);
    say(h, (struct channel_frame){.type = CHANNEL_LOAD, .status = -ERROR_REFUSED, .length = h->slot_bytes});
}

static void load_twice(struct hostile *h)
{
    load(h);
    say(h, (struct channel_frame){.type = CHANNEL_LOAD});
}

static void lease_before_load(struct hostile *h)
{
    greet(h);
    say(h, (struct channel_frame){.type = CHANNEL_DONE, .lease_id = 1});
}

static void flood(struct hostile *h)
{
    load(h);
    take_lease(h);
    for (;;)
        say(h, (struct channel_frame){.type = CHANNEL_STATS});
}

static void flood_idle(struct hostile *h)
{
    load(h);
    for (;;)
        say(h, (struct channel_frame){.type = CHANNEL_STATS});
}

/* Rings without a word. */
static void ring_for_ever(struct hostile *h)
{
    load(h);
    for (;;)
        h->c->ops->wake(h->c);
}

static void offset_outside(struct hostile *h)
{
    load(h);
    take_lease(h);
    struct channel_frame f = output(h, 0);
    f.offset = UINT64_MAX - 64;
    say(h, f);
}

static void length_outside(struct hostile *h)
{
    load(h);
    take_lease(h);
    struct channel_frame f = output(h, 0);
    f.length = h->slot_bytes + 1;
    say(h, f);
}

static void slot_outside(struct hostile *h)
{
    load(h);
    take_lease(h);
    struct channel_frame f = output(h, 0);
    f.slot = 7;
    say(h, f);
}

static void data_outside(struct hostile *h)
{
    load(h);
    take_lease(h);
    struct channel_frame f = output(h, 0);
    tensor_at(h, &f)->data = UINT64_MAX - 8;
    say(h, f);
}

static void data_before(struct hostile *h)
{
    load(h);
    take_lease(h);
    struct channel_frame f = output(h, 0);
    tensor_at(h, &f)->data = 0;
    say(h, f);
}

static void rows_lie(struct hostile *h)
{
    load(h);
    take_lease(h);
    struct channel_frame f = output(h, 0);
    tensor_at(h, &f)->dims[0] = 1000000;
    tensor_at(h, &f)->bytes = UINT64_C(1000000) * ROW_FLOATS * 4;
    say(h, f);
}

static void rank_lies(struct hostile *h)
{
    load(h);
    take_lease(h);
    struct channel_frame f = output(h, 0);
    tensor_at(h, &f)->rank = 0xffffffff;
    say(h, f);
}

static void bytes_lie(struct hostile *h)
{
    load(h);
    take_lease(h);
    struct channel_frame f = output(h, 1);
    memset(h->slot + tensor_at(h, &f)->data, 0xff, 4); /* an element of 4 GiB */
    say(h, f);
}

static void size_lies(struct hostile *h)
{
    load(h);
    take_lease(h);
    struct channel_frame f = output(h, 1);
    tensor_at(h, &f)->bytes = UINT64_C(1) << 62;
    say(h, f);
}

static void unwanted_output(struct hostile *h)
{
    load(h);
    take_lease(h);
    struct channel_frame f = output(h, 0);
    f.index = 63;
    say(h, f);
}

static void output_twice(struct hostile *h)
{
    load(h);
    take_lease(h);
    say(h, output(h, 0));
    say(h, output(h, 0));
}

static void pieces_for_ever(struct hostile *h)
{
    load(h);
    take_lease(h);
    struct channel_frame f = output(h, 1);
    for (f.flags = CHANNEL_WAIT;; f.a++) {
        f.length = f.a == 0 ? 128 : 0;
        say(h, f);
        struct channel_frame credit;
        await(h, CHANNEL_CREDIT, &credit);
    }
}

static void done_early(struct hostile *h)
{
    load(h);
    take_lease(h);
    done(h);
}

static void done_twice(struct hostile *h)
{
    load(h);
    take_lease(h);
    answer(h);
    done(h);
}

/* Serves as asked, and says that each lease took no time. */
static void takes_no_time(struct hostile *h)
{
    load(h);
    for (;;) {
        take_lease(h);
        (void)poll(NULL, 0, 300);
        answer(h);
    }
}

static void lease_of_another(struct hostile *h)
{
    load(h);
    take_lease(h);
    h->lease.lease_id++;
    answer(h);
}

static void failure_text(struct hostile *h)
{
    load(h);
    take_lease(h);
    memset(h->slot, '\n', h->slot_bytes);
    say(h, (struct channel_frame){
               .type = CHANNEL_DONE, .lease_id = h->lease.lease_id, .status = INT32_MIN, .length = h->slot_bytes});
}

static void produced_leaps(struct hostile *h)
{
    load(h);
    take_lease(h);
    atomic_store(&h->c->_own->produced, h->c->_produced + 5000);
    h->c->ops->wake(h->c);
}

/* The gateway believes that nothing it sent was taken: its ring is full, for ever. */
static void consumed_lies(struct hostile *h)
{
    load(h);
    for (;;) {
        take_lease(h);
        answer(h);
        atomic_store(&h->c->_own->consumed, h->c->_consumed - 5000);
        sleep_for_ever();
    }
}

static void *scribble(void *arg)
{
    struct hostile *h = arg;
    volatile char *x = h->slot, *y = h->slot + h->slot_bytes / 2;
    for (unsigned i = 0;; i++) {
        x[i % 256] = (char)i;
        y[i % 256] = (char)(i / 3);
        y[128 + i % 8] = (char)(i / 7);
    }
    return NULL;
}

/* Answers as it should while another thread writes over descriptors, lengths and data. */
static void changes_memory(struct hostile *h)
{
    pthread_t thread;
    load(h);
    if (pthread_create(&thread, NULL, scribble, h) != 0)
        _exit(1);
    for (;;) {
        take_lease(h);
        answer(h);
    }
}

/* Takes away what is read, where the memory lets it. */
static void punches_holes(struct hostile *h)
{
    load(h);
    take_lease(h);
    say(h, output(h, 0));
    say(h, output(h, 1));
    off_t end = lseek(h->c->_memory_fds[1], 0, SEEK_END);
    (void)!ftruncate(h->c->_memory_fds[1], 0);
    (void)fallocate(h->c->_memory_fds[1], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, CHANNEL_PAGE_BYTES, end);
    (void)fallocate(h->c->_memory_fds[0], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, end);
    done(h);
}

/* The bells are shared with the gateway: who can make it block on one has stopped it. */
static void blocks_bell_reader(struct hostile *h)
{
    load(h);
    int bell = h->c->_bell_other;
    (void)fcntl(bell, F_SETFL, fcntl(bell, F_GETFL) & ~O_NONBLOCK);
    char taken[64];
    for (;;) {
        h->c->ops->wake(h->c);
        struct pollfd full = {.fd = bell, .events = POLLIN};
        if (poll(&full, 1, 0) > 0)
            (void)!read(bell, taken, sizeof taken);
    }
}

static void blocks_bell_writer(struct hostile *h)
{
    load(h);
    int bell = h->c->bell;
    (void)fcntl(bell, F_SETFL, fcntl(bell, F_GETFL) & ~O_NONBLOCK);
    static const uint64_t most[512] = {UINT64_MAX - 1};
    for (;;) { /* an eventfd takes the first, a pipe as many as fit */
        struct pollfd room = {.fd = bell, .events = POLLOUT};
        if (poll(&room, 1, 10) > 0 && (room.revents & POLLOUT))
            (void)!write(bell, most, h->lease.type ? 1 : 8);
        atomic_store(&h->c->_own->parked, 1);
        struct channel_frame f;
        if (channel_pull(h->c, &f, NULL) > 0 && f.type == CHANNEL_LEASE) {
            h->lease = f;
            sleep_for_ever();
        }
    }
}

static void closes_bells(struct hostile *h)
{
    load(h);
    fd_close(&h->c->_bell_other);
    fd_close(&h->c->bell);
    sleep_for_ever();
}

/* The supervisor hears it too. */
static void sends_descriptors(struct hostile *h)
{
    load(h);
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } space;
    memset(&space, 0, sizeof space);
    struct msghdr m = {.msg_control = space.bytes, .msg_controllen = sizeof space.bytes};
    struct cmsghdr *head = CMSG_FIRSTHDR(&m);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(8 * sizeof(int));
    int fds[8];
    for (size_t i = 0; i < 8; i++)
        fds[i] = h->c->_memory_fds[0];
    memcpy(CMSG_DATA(head), fds, sizeof fds);
    (void)!sendmsg(BUS_FD, &m, MSG_NOSIGNAL); /* an empty packet with eight descriptors */
}

static void talks_to_supervisor(struct hostile *h)
{
    load(h);
    char junk[4096] = {1};
    while (send(BUS_FD, junk, sizeof junk, MSG_NOSIGNAL) > 0) {
    }
}

/* Asks the kernel for what no engine needs, and tells what it got: the batch fails with that text. */
static void asks_the_kernel(struct hostile *h)
{
    static const char file[] = "/etc/passwd";
    if (filter_install(&filter_worker_load, NULL) < 0 || filter_install(&filter_worker_run, NULL) < 0)
        _exit(1);
    load(h);
    take_lease(h);
    const struct {
        const char *name;
        long number, a, b, c, d;
    } calls[] = {
        {"io_uring_setup", SYS_io_uring_setup, 8, (long)h->slot, 0, 0},
        {"socket", SYS_socket, AF_INET, SOCK_STREAM, 0, 0},
        {"socketpair", SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, (long)h->slot},
        {"openat", SYS_openat, AT_FDCWD, (long)file, O_RDONLY, 0},
        {"open", SYS_open, (long)file, O_RDONLY, 0, 0},
        {"execve", SYS_execve, (long)"/bin/true", 0, 0, 0},
        {"ptrace", SYS_ptrace, 0 /* PTRACE_TRACEME */, 0, 0, 0},
        {"fork", SYS_fork, 0, 0, 0, 0},
        {"clone", SYS_clone, SIGCHLD, 0, 0, 0},
        {"unshare", SYS_unshare, CLONE_NEWUSER, 0, 0, 0},
        {"mount", SYS_mount, (long)"none", (long)"/tmp", (long)"tmpfs", 0},
        {"bpf", SYS_bpf, 0, (long)h->slot, 16, 0},
        {"perf_event_open", SYS_perf_event_open, (long)h->slot, 0, -1, -1},
        {"keyctl", SYS_keyctl, 0, -3, 0, 0},
        {"userfaultfd", SYS_userfaultfd, 0, 0, 0, 0},
        {"process_vm_readv", SYS_process_vm_readv, 1, 0, 0, 0},
        {"memfd_create", SYS_memfd_create, (long)"x", 0, 0, 0},
        {"mmap exec", SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS},
        {"kill", SYS_kill, -1, 0, 0, 0},
        {"prctl", SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0},
        {"seccomp", SYS_seccomp, 1, 0, (long)h->slot, 0},
    };
    char text[2048];
    int used = 0, refused = 0;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        errno = 0;
        long r = syscall(calls[i].number, calls[i].a, calls[i].b, calls[i].c, calls[i].d, -1, 0);
        if (r == -1 && errno == EPERM)
            refused++;
        else
            used += snprintf(text + used, sizeof text - (size_t)used, "%s: %ld %d; ", calls[i].name, r, errno);
    }
    used +=
        snprintf(text + used, sizeof text - (size_t)used, "EPERM %d of %zu.", refused, sizeof calls / sizeof calls[0]);
    memcpy(h->slot, text, (size_t)used);
    say(h, (struct channel_frame){
               .type = CHANNEL_DONE, .lease_id = h->lease.lease_id, .status = -ERROR_ENGINE, .length = (uint64_t)used});
}

/* --- in a virtual machine (test_microvm.py): the channel is a stream --- */

/* No records at all, for ever. */
static void guest_garbage(struct hostile *h)
{
    static char noise[4096];
    load(h);
    take_lease(h);
    memset(noise, 0xA5, sizeof noise);
    for (;;)
        if (write(h->c->bell, noise, sizeof noise) < 0)
            (void)poll(&(struct pollfd){.fd = h->c->bell, .events = POLLOUT}, 1, 100);
}

/* A record whose payload is larger than the slot, and the payload. */
static void guest_oversized(struct hostile *h)
{
    load(h);
    take_lease(h);
    say(h, (struct channel_frame){.type = CHANNEL_PART, .lease_id = h->lease.lease_id, .length = h->slot_bytes + 1});
    sleep_for_ever();
}

/* More memory than its limit. */
static void guest_eats(struct hostile *h)
{
    load(h);
    take_lease(h);
    for (;;) {
        char *piece = malloc(1 << 20);
        for (size_t i = 0; piece && i < 1 << 20; i += 4096)
            ((volatile char *)piece)[i] = 1;
    }
}

static const struct {
    const char *name;
    void (*run)(struct hostile *h);
} behaviours[] = {
    {"never-open", never_open},
    {"exit-at-open", exit_at_open},
    {"open-twice", open_twice},
    {"wrong-epoch", wrong_epoch},
    {"gateways-frame", gateways_frame},
    {"signature-huge", signature_huge},
    {"signature-garbage", signature_garbage},
    {"load-fails-loudly", load_fails_loudly},
    {"load-twice", load_twice},
    {"lease-before-load", lease_before_load},
    {"flood", flood},
    {"flood-idle", flood_idle},
    {"ring-for-ever", ring_for_ever},
    {"offset-outside", offset_outside},
    {"length-outside", length_outside},
    {"slot-outside", slot_outside},
    {"data-outside", data_outside},
    {"data-before", data_before},
    {"rows-lie", rows_lie},
    {"rank-lies", rank_lies},
    {"bytes-lie", bytes_lie},
    {"size-lies", size_lies},
    {"unwanted-output", unwanted_output},
    {"output-twice", output_twice},
    {"pieces-for-ever", pieces_for_ever},
    {"done-early", done_early},
    {"done-twice", done_twice},
    {"takes-no-time", takes_no_time},
    {"lease-of-another", lease_of_another},
    {"failure-text", failure_text},
    {"produced-leaps", produced_leaps},
    {"consumed-lies", consumed_lies},
    {"changes-memory", changes_memory},
    {"punches-holes", punches_holes},
    {"blocks-bell-reader", blocks_bell_reader},
    {"blocks-bell-writer", blocks_bell_writer},
    {"closes-bells", closes_bells},
    {"sends-descriptors", sends_descriptors},
    {"talks-to-supervisor", talks_to_supervisor},
    {"asks-the-kernel", asks_the_kernel},
    {"guest-garbage", guest_garbage},
    {"guest-oversized", guest_oversized},
    {"guest-eats", guest_eats},
};

/* --- as an ingest --- */

static void described_with(const void *data, size_t size, uint64_t told)
{
    struct bus_described body = {.bytes = told};
    int fd;
    if (bus_memfd("hostile", data, size, &fd) == 0)
        (void)!bus_send(BUS_FD, BUS_INGEST, BUS_SUPERVISOR, BUS_DESCRIBED, &body, &fd, 1);
}

static void ingest_honest(void)
{
    static char encoded[LIMIT_SIGNATURE_BYTES];
    size_t size = 0;
    if (tensor_signature_encode(signature(), encoded, sizeof encoded, &size) == 0)
        described_with(encoded, size, size);
}

static void ingest_crashes(void)
{
    struct sigaction fatal = {.sa_handler = SIG_DFL}; /* not a sanitizer's */
    (void)sigaction(SIGILL, &fatal, NULL);
    __builtin_trap();
}

static void ingest_exits(void)
{
    _exit(0);
}

static void ingest_hangs(void) {}

static void ingest_eats(void)
{
    for (;;) {
        char *more = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (more == MAP_FAILED)
            return;
    }
}

static void ingest_garbage(void)
{
    described_with("not a signature", 15, 15);
}

static void ingest_lies(void)
{
    described_with("short", 5, LIMIT_SIGNATURE_BYTES);
}

static void ingest_unsealed(void)
{
    struct bus_described body = {.bytes = 5};
    int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    (void)!write(fd, "hello", 5);
    (void)!bus_send(BUS_FD, BUS_INGEST, BUS_SUPERVISOR, BUS_DESCRIBED, &body, &fd, 1);
}

static void ingest_pipe(void)
{
    struct bus_described body = {.bytes = 5};
    int ends[2];
    if (pipe(ends) == 0)
        (void)!bus_send(BUS_FD, BUS_INGEST, BUS_SUPERVISOR, BUS_DESCRIBED, &body, &ends[0], 1);
}

static void ingest_talks(void)
{
    char junk[4096] = {1};
    while (send(BUS_FD, junk, sizeof junk, MSG_NOSIGNAL) > 0) {
    }
}

static void ingest_forges_text(void)
{
    struct bus_describe_failed body = {.error = {.code = -ERROR_REFUSED}};
    memset(body.error.text, '\n', sizeof body.error.text);
    memcpy(body.error.text, "\x1b[2Jforged\xff", 12);
    (void)!bus_send(BUS_FD, BUS_INGEST, BUS_SUPERVISOR, BUS_DESCRIBE_FAILED, &body, NULL, 0);
}

static void ingest_forges_code(void)
{
    struct bus_describe_failed body = {.error = {.code = 12345, .text = "odd"}};
    (void)!bus_send(BUS_FD, BUS_INGEST, BUS_SUPERVISOR, BUS_DESCRIBE_FAILED, &body, NULL, 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} ingests[] = {
    {"ingest-crashes", ingest_crashes},
    {"ingest-exits", ingest_exits},
    {"ingest-hangs", ingest_hangs},
    {"ingest-eats", ingest_eats},
    {"ingest-garbage", ingest_garbage},
    {"ingest-lies", ingest_lies},
    {"ingest-unsealed", ingest_unsealed},
    {"ingest-pipe", ingest_pipe},
    {"ingest-talks", ingest_talks},
    {"ingest-forges-text", ingest_forges_text},
    {"ingest-forges-code", ingest_forges_code},
};

/* Finds the name in {"hostile":"<name>"} in the first message, which stays where it is. false: there is none. */
static bool hostile_name(char name[static 64])
{
    struct {
        uint32_t type, _reserved;
        struct bus_worker_config body;
    } packet;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } space;
    struct iovec iov = {&packet, sizeof packet};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space.bytes, .msg_controllen = sizeof space.bytes};
    struct pollfd wait = {.fd = BUS_FD, .events = POLLIN};
    (void)poll(&wait, 1, -1);
    if (recvmsg(BUS_FD, &m, MSG_PEEK | MSG_CMSG_CLOEXEC) <= 0 || !CMSG_FIRSTHDR(&m))
        _exit(1);
    int fds[2];
    memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fds);
    char text[4096] = {0};
    (void)!pread(fds[0], text, sizeof text - 1, 0);
    fd_close(&fds[0]);
    fd_close(&fds[1]);
    static const char start[] = "{\"hostile\":\"";
    if (strncmp(text, start, sizeof start - 1) != 0)
        return false;
    const char *first = text + sizeof start - 1;
    size_t size = strcspn(first, "\"");
    if (size >= 64)
        return false;
    memcpy(name, first, size);
    name[size] = '\0';
    return true;
}

static void ingest(const char *name)
{
    for (size_t i = 0; i < sizeof ingests / sizeof ingests[0]; i++)
        if (strcmp(name, ingests[i].name) == 0) {
            ingests[i].run();
            sleep_for_ever();
        }
    ingest_honest();
    sleep_for_ever();
}

static void (*behaviour(const char *name))(struct hostile *h)
{
    for (size_t i = 0; i < sizeof behaviours / sizeof behaviours[0]; i++)
        if (strcmp(name, behaviours[i].name) == 0)
            return behaviours[i].run;
    _exit(1);
}

static void channel_take(struct hostile *h)
{
    struct bus_message m;
    if (bus_wait(BUS_FD, BUS_WORKER, BUS_SUPERVISOR, -1, &m) < 0)
        _exit(1);
    bus_message_done(&m);
    if (bus_wait(BUS_FD, BUS_WORKER, BUS_SUPERVISOR, -1, &m) < 0)
        _exit(1);
    const struct bus_channel *b = &m.body.CHANNEL_GUEST;
    struct channel_geometry geometry = {b->n_frames, b->n_slots, b->inbox_slot_bytes, b->outbox_slot_bytes};
    struct channel_fds fds = {m.fds[0], m.fds[1], m.fds[2], m.fds[3]};
    int r = m.type == BUS_CHANNEL_STREAM_GUEST /* in a virtual machine */
                ? channel_stream_open(false, &geometry, b->epoch, b->nonce, &m.fds[0], &h->c, NULL)
                : channel_shm_open(false, &geometry, b->epoch, &fds, &h->c, NULL);
    if (r < 0)
        _exit(1);
    h->slot = channel_slot_own(h->c, 0);
    h->slot_bytes = geometry.outbox_slot_bytes;
}

int main(int argc, char **argv)
{
    static struct hostile h;
    log_setup("worker", LOG_LEVEL_INFO);
    if (isolate_lockdown_self(NULL) < 0)
        return 1;
    bool as_ingest = argc > 1 && strcmp(argv[1], INGEST_ARGUMENT) == 0;
    char name[64];
    if (!hostile_name(name))
        return as_ingest ? ingest_run(BUS_FD) : worker_run(BUS_FD);
    if (as_ingest)
        ingest(name);
    void (*run)(struct hostile *) = behaviour(name);
    channel_take(&h);
    /* A lease that is never done would keep the test waiting for its limit of 30 s. By default the first process of a
     * namespace takes no signal. */
    struct sigaction end = {.sa_handler = _exit};
    (void)sigaction(SIGALRM, &end, NULL);
    (void)alarm(LIFE_S);
    run(&h);
    sleep_for_ever();
}
