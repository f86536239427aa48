/* Back-end `shm`: two sealed memfds, two pipes as bells. */
#include "channel/channel_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define INBOX_SEALS  (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)
#define OUTBOX_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

void channel_fds_close(struct channel_fds *fds)
{
    fd_close(&fds->inbox);
    fd_close(&fds->outbox);
    fd_close(&fds->bell_guest);
    fd_close(&fds->bell_host);
}

static int memory_create(const char *name, uint64_t bytes, int *ret_fd)
{
    _close_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        return -ERROR_NO_MEMORY;
    *ret_fd = take_fd(&fd);
    return 0;
}

/* Opens an end of a pipe once more, for reading and writing: nobody's closing is then felt by the others. */
static int pipe_reopen(int fd, int *ret_fd)
{
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* fits */
    *ret_fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    return *ret_fd < 0 ? -ERROR_IO : 0;
}

/* A bell is a pipe that each side has opened for itself. O_NONBLOCK belongs to the open file and not to the descriptor:
 * of one that is shared (an eventfd always is) a guest could take it away and let the host's next read or write block
 * for ever. */
static int bell_create(int *ret_host, int *ret_guest)
{
    int ends[2];
    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0)
        return -ERROR_IO;
    _close_ int one = ends[0], other = ends[1];
    int r = pipe_reopen(one, ret_host);
    return r < 0 ? r : pipe_reopen(other, ret_guest);
}

int channel_create(const struct channel_geometry *g, struct channel_fds *ret_host, struct channel_fds *ret_guest,
                   struct error *err)
{
    uint64_t inbox_bytes, outbox_bytes;
    int r = channel_geometry_bytes(g, &inbox_bytes, &outbox_bytes);
    if (r < 0)
        return error_set(err, r, "the channel geometry is out of range");
    _cleanup_(channel_fds_close) struct channel_fds fds = CHANNEL_FDS_NONE, guest = CHANNEL_FDS_NONE;
    r = memory_create("bulkhead-inbox", inbox_bytes, &fds.inbox);
    if (r < 0)
        return error_set(err, r, "no memory for a channel: %s", strerror(errno));
    r = memory_create("bulkhead-outbox", outbox_bytes, &fds.outbox);
    if (r < 0)
        return error_set(err, r, "no memory for a channel: %s", strerror(errno));
    if (fcntl(fds.outbox, F_ADD_SEALS, OUTBOX_SEALS) < 0)
        return error_set(err, ERROR_IO, "a channel memory cannot be sealed: %s", strerror(errno));
    guest.inbox = fcntl(fds.inbox, F_DUPFD_CLOEXEC, 3);
    guest.outbox = fcntl(fds.outbox, F_DUPFD_CLOEXEC, 3);
    if (guest.inbox < 0 || guest.outbox < 0 || bell_create(&fds.bell_guest, &guest.bell_guest) < 0 ||
        bell_create(&fds.bell_host, &guest.bell_host) < 0)
        return error_set(err, ERROR_IO, "no descriptors for a channel: %s", strerror(errno));
    *ret_host = fds;
    *ret_guest = guest;
    fds = guest = CHANNEL_FDS_NONE;
    return 0;
}

int channel_check_sealed(int inbox_fd, struct error *err)
{
    int seals = fcntl(inbox_fd, F_GET_SEALS);
    if (seals < 0 || (seals & INBOX_SEALS) != INBOX_SEALS)
        return error_set(err, ERROR_PEER, "the inbox of a channel is not sealed");
    return 0;
}

static void shm_wake(struct channel *c)
{
    if (write(c->_bell_other, "", 1) < 0) {
        /* EAGAIN: the pipe is full, so it rings already; anything else cannot happen, as we hold it open for reading */
    }
}

static void shm_awake(struct channel *c)
{
    char rings[64]; /* an honest other end leaves one or two */
    if (read(c->bell, rings, sizeof rings) < 0) {
        /* EAGAIN: was not rung */
    }
}

static void shm_release(struct channel *c)
{
    if (c->_own)
        (void)munmap(c->_own, c->_own_bytes); /* cannot fail for a mapping of ours */
    if (c->_other)
        (void)munmap((void *)(uintptr_t)c->_other, c->_other_bytes); /* as above */
    fd_close(&c->bell);
    fd_close(&c->_bell_other);
    fd_close(&c->_memory_fds[0]);
    fd_close(&c->_memory_fds[1]);
}

static const struct channel_ops shm_ops = {
    .name = "shm",
    .wake = shm_wake,
    .awake = shm_awake,
    .release = shm_release,
};

static int map_memory(int fd, size_t bytes, int protection, void **ret_memory, struct error *err)
{
    off_t size = lseek(fd, 0, SEEK_END);
    if (size < 0 || (uint64_t)size != bytes)
        return error_set(err, ERROR_PEER, "a channel memory has the wrong size");
    void *memory = mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return error_set(err, ERROR_NO_MEMORY, "a channel memory cannot be mapped: %s", strerror(errno));
    *ret_memory = memory;
    return 0;
}

int channel_shm_open(bool host, const struct channel_geometry *g, uint32_t epoch, struct channel_fds *fds,
                     struct channel **ret_channel, struct error *err)
{
    uint64_t inbox_bytes, outbox_bytes;
    int r = channel_geometry_bytes(g, &inbox_bytes, &outbox_bytes);
    if (r < 0)
        return error_set(err, r, "the channel geometry is out of range");
    struct channel *c = malloc(sizeof *c);
    if (!c)
        return error_set(err, ERROR_NO_MEMORY, "no memory for a channel");
    channel_setup(c, &shm_ops, host, g, epoch);
    void *own = NULL, *other = NULL;
    c->_own_bytes = host ? inbox_bytes : outbox_bytes;
    c->_other_bytes = host ? outbox_bytes : inbox_bytes;
    r = map_memory(host ? fds->inbox : fds->outbox, c->_own_bytes, PROT_READ | PROT_WRITE, &own, err);
    c->_own = own;
    if (r >= 0)
        r = map_memory(host ? fds->outbox : fds->inbox, c->_other_bytes, PROT_READ, &other, err);
    c->_other = other;
    if (r >= 0 && host && fcntl(fds->inbox, F_ADD_SEALS, INBOX_SEALS) < 0)
        r = error_set(err, ERROR_IO, "the inbox of a channel cannot be sealed: %s", strerror(errno));
    if (r < 0) {
        channel_close(c); /* the caller keeps the descriptors */
        return r;
    }
    c->bell = host ? fds->bell_host : fds->bell_guest;
    c->_bell_other = host ? fds->bell_guest : fds->bell_host;
    c->_memory_fds[0] = fds->inbox;
    c->_memory_fds[1] = fds->outbox;
    *fds = CHANNEL_FDS_NONE;
    *ret_channel = c;
    return 0;
}
