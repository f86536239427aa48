/* The data folder and the listening sockets.
 *
 *   DIR/            0755, the operator's
 *     lock          held by the one server of this folder
 *     admin.sock    0660 root:GROUP, bound here, accepted by control
 *     store/        0700, control's uid: its whole world after chroot
 *     empty/        0555, root's: the gateway's whole world after chroot
 */
#include "supervisor/supervisor_internal.h"

#include "base/log.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/magic.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>

#define LISTEN_BACKLOG 4096 /* the kernel cuts it to net.core.somaxconn */

static int fail(struct error *err, const char *what)
{
    return error_set(err, ERROR_IO, "%s: %s", what, strerror(errno));
}

static int folder_open(int parent, const char *name, mode_t mode, uid_t owner, int *ret_fd, struct error *err)
{
    if (mkdirat(parent, name, mode) < 0 && errno != EEXIST)
        return fail(err, "a folder inside the data folder cannot be made");
    _close_ int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fchown(fd, owner, owner) < 0 || fchmod(fd, mode) < 0)
        return fail(err, "a folder inside the data folder cannot be prepared");
    *ret_fd = take_fd(&fd);
    return 0;
}

/* File systems whose files other hosts may change: a lock there may hold on this host only, and the store's log relies
 * on locks, on shared memory and on fsync that means it. FUSE is told apart no further: sshfs and a local disk look the
 * same. Cluster file systems (GFS2, OCFS2) keep POSIX's promises and are left alone. */
#define LUSTRE_MAGIC 0x0BD00BD0u /* not in linux/magic.h */

const char *supervisor_data_unfit(uint64_t f_type)
{
    static const struct {
        uint64_t f_type;
        const char *name;
    } unfit[] = {
        {NFS_SUPER_MAGIC, "NFS"},   {SMB_SUPER_MAGIC, "SMB"}, {SMB2_SUPER_MAGIC, "SMB"},  {CIFS_SUPER_MAGIC, "CIFS"},
        {NCP_SUPER_MAGIC, "NCP"},   {AFS_SUPER_MAGIC, "AFS"}, {AFS_FS_MAGIC, "AFS"},      {CODA_SUPER_MAGIC, "Coda"},
        {CEPH_SUPER_MAGIC, "Ceph"}, {V9FS_MAGIC, "9P"},       {FUSE_SUPER_MAGIC, "FUSE"}, {LUSTRE_MAGIC, "Lustre"},
    };
    for (size_t i = 0; i < sizeof unfit / sizeof unfit[0]; i++)
        if (unfit[i].f_type == f_type)
            return unfit[i].name;
    return NULL;
}

/* By descriptor: the folder that was looked at is the one that is used. */
static int local_check(struct supervisor *s, struct error *err)
{
    struct statfs info;
    if (fstatfs(s->data_dir, &info) < 0)
        return fail(err, "the file system of the data folder cannot be told");
    const char *name = supervisor_data_unfit((uint32_t)info.f_type); /* 32 bits that some kernels sign-extend */
    if (!name)
        return 0;
    return error_set(err, ERROR_REFUSED,
                     "the data folder %s lies on a %s file system, whose locks and fsync cannot be trusted with the "
                     "server's state; choose a folder on a local disk with --data",
                     s->config->data_dir, name);
}

static int lock_take(struct supervisor *s, struct error *err)
{
    s->lock = openat(s->data_dir, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (s->lock < 0)
        return fail(err, "the data folder cannot be written");
    if (flock(s->lock, LOCK_EX | LOCK_NB) < 0)
        return error_set(
            err, ERROR_REFUSED,
            "another server is using the data folder %s; stop it first, or choose another folder with --data",
            s->config->data_dir);
    return 0;
}

static int admin_listen(struct supervisor *s, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/admin.sock", s->data_dir);
    if (unlinkat(s->data_dir, "admin.sock", 0) < 0 && errno != ENOENT)
        return fail(err, "an old admin socket cannot be removed");
    s->admin_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->admin_fd < 0)
        return fail(err, "the admin socket cannot be made");
    mode_t old = umask(0177);
    int r = bind(s->admin_fd, (struct sockaddr *)&address, sizeof address);
    (void)umask(old);
    if (r < 0 || listen(s->admin_fd, 64) < 0)
        return fail(err, "the admin socket cannot be bound");
    struct group *group = getgrnam(s->config->admin_group);
    s->admin_gid = group ? group->gr_gid : UINT32_MAX;
    if (fchownat(s->data_dir, "admin.sock", 0, group ? group->gr_gid : 0, AT_SYMLINK_NOFOLLOW) < 0 ||
        fchmodat(s->data_dir, "admin.sock", 0660, 0) < 0)
        return fail(err, "the admin socket cannot be given to its group");
    return 0;
}

/* "host:port" or "[host]:port" into its parts. */
static int listen_parse(const char *text, char host[static 64], char port[static 8], struct error *err)
{
    struct str all = str_from(text);
    const char *colon = strrchr(text, ':');
    uint64_t number = 0;
    if (!colon || str_to_u64(str_from(colon + 1), &number) < 0 || number > 65535)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "\"%s\" is no address to listen on; write ADDRESS:PORT, such as 127.0.0.1:8080", text);
    struct str h = {all.data, (size_t)(colon - text)};
    if (h.size >= 2 && h.data[0] == '[' && h.data[h.size - 1] == ']')
        h = (struct str){h.data + 1, h.size - 2};
    if (h.size == 0 || str_copy(h, host, 64) < 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "\"%s\" names no address to listen on; write ADDRESS:PORT", text);
    (void)snprintf(port, 8, "%u", (unsigned)number);
    return 0;
}

/* An address of the configuration on its way to a listening socket. */
struct listener {
    const char *text;  /* as configured */
    const char *where; /* the operator changes it there */
    int fd;
    char bound[64]; /* with the port that the kernel chose */
};

static int bind_address(struct listener *l, const struct addrinfo *info, struct error *err)
{
    l->fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0)
        return fail(err, "no socket to listen on");
    int one = 1;
    (void)setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); /* only saves a wait after a restart */
    if (bind(l->fd, info->ai_addr, info->ai_addrlen) < 0) {
        if (errno == EADDRINUSE)
            return error_set(err, ERROR_REFUSED, "%s is in use by another program; choose another with %s", l->text,
                             l->where);
        return error_set(err, ERROR_REFUSED, "cannot listen on %s: %s", l->text, strerror(errno));
    }
    if (listen(l->fd, LISTEN_BACKLOG) < 0)
        return fail(err, "cannot listen");
    return 0;
}

/* On failure the caller closes l->fd. */
static int tcp_listen(struct listener *l, struct error *err)
{
    char host[64], port[8];
    int r = listen_parse(l->text, host, port, err);
    if (r < 0)
        return r;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    struct addrinfo *info = NULL;
    if (getaddrinfo(host, port, &hints, &info) != 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "\"%s\" is no numeric address; write one such as 127.0.0.1:8080 or [::1]:8080", l->text);
    r = bind_address(l, info, err);
    freeaddrinfo(info);
    if (r < 0)
        return r;
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    if (getsockname(l->fd, (struct sockaddr *)&bound, &size) < 0 ||
        getnameinfo((struct sockaddr *)&bound, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return fail(err, "cannot tell the listening address");
    (void)snprintf(l->bound, sizeof l->bound, bound.ss_family == AF_INET6 ? "[%.50s]:%s" : "%.50s:%s", host, port);
    return 0;
}

static int public_listen(struct supervisor *s, struct error *err)
{
    struct listener l = {.text = s->config->listen, .where = "--listen ADDRESS:PORT", .fd = -1};
    int r = tcp_listen(&l, err);
    s->listen_fd = l.fd;
    memcpy(s->listen_text, l.bound, sizeof s->listen_text);
    return r;
}

static int metrics_listen(struct supervisor *s, struct error *err)
{
    struct listener l = {.text = s->config->metrics_listen, .where = "spec.metrics.listen", .fd = -1};
    if (!l.text || !l.text[0])
        return 0;
    int r = tcp_listen(&l, err);
    s->metrics_fd = l.fd;
    if (r >= 0)
        log_info("metrics", "listen=%s", l.bound);
    return r;
}

int supervisor_data_open(struct supervisor *s, struct error *err)
{
    uid_t control = s->config->uid_base + s->children[CHILD_CONTROL].role->uid_offset;
    if (mkdir(s->config->data_dir, 0755) < 0 && errno != EEXIST)
        return error_set(err, ERROR_IO, "the data folder %s cannot be made: %s", s->config->data_dir, strerror(errno));
    s->data_dir = open(s->config->data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->data_dir < 0)
        return error_set(err, ERROR_IO, "the data folder %s cannot be opened: %s", s->config->data_dir,
                         strerror(errno));
    int r = local_check(s, err);
    if (r >= 0)
        r = lock_take(s, err);
    if (r >= 0)
        r = folder_open(s->data_dir, "store", 0700, control, &s->store_dir, err);
    if (r >= 0)
        r = folder_open(s->data_dir, "empty", 0555, 0, &s->empty_dir, err);
    if (r >= 0)
        r = public_listen(s, err);
    if (r >= 0)
        r = metrics_listen(s, err);
    if (r >= 0)
        r = admin_listen(s, err);
    return r;
}

void supervisor_data_close(struct supervisor *s)
{
    if (s->admin_fd >= 0)
        (void)unlinkat(s->data_dir, "admin.sock", 0); /* a stale one is replaced at the next start */
    fd_close(&s->admin_fd);
    fd_close(&s->metrics_fd);
    fd_close(&s->listen_fd);
    fd_close(&s->empty_dir);
    fd_close(&s->store_dir);
    fd_close(&s->lock);
    fd_close(&s->data_dir);
}
