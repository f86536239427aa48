/* One group per worker: make, join, kill, remove. */
#include "isolate/isolate_cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define REMOVE_WAIT_MS   10u
#define KILL_ROUNDS      16u /* each kills everything it sees; forking is switched off first */
#define KILL_BATCH       64u
#define PROCS_TEXT_BYTES 8192u
#define GROUP_PATH_BYTES (LIMIT_NAME_BYTES + 64)
#define DIRECTORY_MODE   0700
#define LINGERING_MAX    (sizeof((struct cgroup_tree *)0)->_lingering / sizeof(((struct cgroup_tree *)0)->_lingering[0]))

static void wait_ms(int ms)
{
    (void)poll(NULL, 0, ms); /* a bounded pause: the kernel tells nobody when a group becomes removable */
}

int cgroup_file_open(const struct cgroup_home *h, const char *group, const char *file, int flags)
{
    char path[GROUP_PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", group, file); /* fits: names are checked */
    return openat(h->base_fd, path, flags | O_CLOEXEC);
}

int cgroup_file_write(const struct cgroup_home *h, const char *group, const char *file, const char *text)
{
    _close_ int fd = cgroup_file_open(h, group, file, O_WRONLY);
    if (fd < 0)
        return -errno;
    return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

int cgroup_file_read(const struct cgroup_home *h, const char *group, const char *file, char *text, size_t capacity)
{
    _close_ int fd = cgroup_file_open(h, group, file, O_RDONLY);
    if (fd < 0)
        return -errno;
    ssize_t size = read(fd, text, capacity - 1);
    if (size < 0)
        return -errno;
    text[size] = '\0';
    return (int)size;
}

/* ---- processes ---- */

/* Reads at most `max` process ids of the group. */
static size_t procs_read(const struct cgroup_home *h, const char *group, pid_t pids[], size_t max)
{
    char text[PROCS_TEXT_BYTES];
    int size = cgroup_file_read(h, group, "cgroup.procs", text, sizeof text);
    size_t n = 0;
    const char *line = text;
    while (size > 0 && n < max) {
        const char *end = memchr(line, '\n', (size_t)(text + size - line));
        uint64_t pid;
        if (!end)
            break;
        if (str_to_u64((struct str){line, (size_t)(end - line)}, &pid) == 0 && pid > 1 && pid <= INT32_MAX)
            pids[n++] = (pid_t)pid;
        line = end + 1;
    }
    return n;
}

static bool pid_among(pid_t pid, const pid_t pids[], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (pids[i] == pid)
            return true;
    }
    return false;
}

/* Between reading a pid and signalling it, it may be given to another process. So: open pidfds, read again, and signal
 * only those that are still in the group; such a pidfd means the process of the group, or one that is gone. */
static size_t batch_kill(const struct cgroup_home *h, const char *group)
{
    pid_t first[KILL_BATCH], second[PROCS_TEXT_BYTES / 2];
    int fds[KILL_BATCH];
    size_t n = procs_read(h, group, first, KILL_BATCH);
    for (size_t i = 0; i < n; i++)
        fds[i] = (int)syscall(SYS_pidfd_open, first[i], 0);
    size_t n_second = procs_read(h, group, second, sizeof second / sizeof *second);
    for (size_t i = 0; i < n; i++) {
        if (fds[i] >= 0 && first[i] != getpid() && pid_among(first[i], second, n_second))
            (void)syscall(SYS_pidfd_send_signal, fds[i], SIGKILL, NULL, 0); /* ESRCH: gone, as wished */
        fd_close(&fds[i]);
    }
    return n;
}

static void home_kill(const struct cgroup_home *h, const char *group)
{
    if (h->version == 2 && cgroup_file_write(h, group, "cgroup.kill", "1") == 0) /* since Linux 5.14 */
        return;
    if (h->controllers & (1u << CGROUP_PIDS))
        (void)cgroup_file_write(h, group, "pids.max", "0"); /* no new ones meanwhile; without it the rounds must win */
    for (unsigned round = 0; round < KILL_ROUNDS && batch_kill(h, group) > 0; round++)
        wait_ms(1);
}

bool cgroup_group_holds(const struct cgroup_tree *t, const struct cgroup_group *g, pid_t pid)
{
    bool holds = g->homes != 0;
    for_each_home(t, g, h)
    {
        pid_t pids[PROCS_TEXT_BYTES / 2];
        holds = holds && pid_among(pid, pids, procs_read(&t->homes[h], g->name, pids, sizeof pids / sizeof *pids));
    }
    return holds;
}

void cgroup_group_kill(const struct cgroup_tree *t, const struct cgroup_group *g)
{
    for_each_home(t, g, h) home_kill(&t->homes[h], g->name);
}

/* ---- make and remove ---- */

/* True when the group exists nowhere any more. */
static bool group_rmdir(const struct cgroup_tree *t, const char *name, unsigned ms)
{
    for (unsigned waited = 0;; waited++) {
        bool busy = false;
        for (size_t h = 0; h < t->n_homes; h++)
            busy |= unlinkat(t->homes[h].base_fd, name, AT_REMOVEDIR) != 0 && errno != ENOENT;
        if (!busy || waited >= ms)
            return !busy;
        wait_ms(1);
    }
}

static void lingering_retry(struct cgroup_tree *t)
{
    for (size_t i = 0; i < LINGERING_MAX; i++) {
        if (t->_lingering[i][0] && group_rmdir(t, t->_lingering[i], 0))
            t->_lingering[i][0] = '\0';
    }
}

static void lingering_add(struct cgroup_tree *t, const char *name)
{
    for (size_t i = 0; i < LINGERING_MAX; i++) {
        if (!t->_lingering[i][0]) {
            (void)snprintf(t->_lingering[i], sizeof t->_lingering[i], "%s", name); /* fits */
            return;
        }
    }
    /* Full: the sweep at the end finds it by looking. */
}

void cgroup_group_remove(struct cgroup_tree *t, struct cgroup_group *g)
{
    lingering_retry(t);
    if (g->name[0] && !group_rmdir(t, g->name, REMOVE_WAIT_MS))
        lingering_add(t, g->name);
    *g = (struct cgroup_group){0};
}

/* One pass over a home's groups; returns how many are left. */
static size_t home_sweep(const struct cgroup_home *h)
{
    int dir_fd = openat(h->base_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = dir_fd < 0 ? NULL : fdopendir(dir_fd);
    if (!dir) {
        fd_close(&dir_fd);
        return 0;
    }
    size_t n_left = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.' || strlen(entry->d_name) > LIMIT_NAME_BYTES)
            continue;
        if (unlinkat(h->base_fd, entry->d_name, AT_REMOVEDIR) == 0)
            continue;
        home_kill(h, entry->d_name);
        n_left++;
    }
    (void)closedir(dir); /* read-only: nothing to lose */
    return n_left;
}

bool cgroup_tree_sweep(struct cgroup_tree *t, unsigned ms)
{
    for (unsigned waited = 0;; waited++) {
        size_t n_left = 0;
        for (size_t h = 0; h < t->n_homes; h++)
            n_left += home_sweep(&t->homes[h]);
        if (n_left == 0 || waited >= ms) {
            memset(t->_lingering, 0, sizeof t->_lingering);
            return n_left == 0;
        }
        wait_ms(1);
    }
}

int cgroup_group_new(struct cgroup_tree *t, const char *name, struct cgroup_group *ret_group, struct error *err)
{
    struct cgroup_group g = {0};
    lingering_retry(t);
    (void)snprintf(g.name, sizeof g.name, "%s", name); /* length was checked */
    for (size_t h = 0; h < t->n_homes; h++) {
        if (t->homes[h].other)
            continue;
        int r = mkdirat(t->homes[h].base_fd, name, DIRECTORY_MODE);
        if (r != 0 && errno == EEXIST) {
            home_kill(&t->homes[h], name);
            (void)group_rmdir(t, name, REMOVE_WAIT_MS); /* mkdir tells */
            r = mkdirat(t->homes[h].base_fd, name, DIRECTORY_MODE);
        }
        if (r != 0) {
            r = error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The worker's control group could not be made: %m.");
            cgroup_group_remove(t, &g);
            return r;
        }
        g.homes |= 1u << h;
        r = -cgroup_cpus_inherit(&t->homes[h], name);
        if (r != 0) {
            errno = r;
            r = error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The worker's control group got no processors: %m.");
            cgroup_group_remove(t, &g);
            return r;
        }
    }
    *ret_group = g;
    return 0;
}

/* ---- join ---- */

int cgroup_group_join(const struct cgroup_tree *t, const struct cgroup_group *g, struct cgroup_join *ret_join,
                      struct error *err)
{
    struct cgroup_join join = CGROUP_JOIN_NONE;
    bool failed = false;
    for_each_home(t, g, h)
    {
        const struct cgroup_home *home = &t->homes[h];
        if (home->version == 1) {
            int fd = cgroup_file_open(home, g->name, "tasks", O_WRONLY);
            if (fd < 0)
                failed = true;
            else
                join.fds[join.n_fds++] = fd;
        } else {
            join.into_fd = cgroup_file_open(home, g->name, ".", O_RDONLY | O_DIRECTORY);
            join.into_procs_fd = cgroup_file_open(home, g->name, "cgroup.procs", O_WRONLY);
            failed |= join.into_fd < 0 || join.into_procs_fd < 0;
        }
    }
    if (failed) {
        int r = error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The worker's control group could not be opened: %m.");
        cgroup_join_done(&join);
        return r;
    }
    *ret_join = join;
    return 0;
}

void cgroup_join_done(struct cgroup_join *join)
{
    for (size_t i = 0; i < join->n_fds; i++)
        fd_close(&join->fds[i]);
    join->n_fds = 0;
    fd_close(&join->into_fd);
    fd_close(&join->into_procs_fd);
}
