/* Makes the mount namespaces of workers, in a short-lived child, and keeps their descriptors. */
#include "isolate/isolate_root.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#define BUILD_MS       10000u
#define STAGE          "/tmp" /* any folder that every host has: covered in the child's namespace only */
#define ROOT_OPTIONS   "size=4m,nr_inodes=512,mode=0755"
#define DEV_OPTIONS    "size=64k,nr_inodes=16,mode=0755"
#define COPY_BYTES_MAX MIB
#define ROOT_MODE      0755

struct root {
    struct stat program, library; /* st_ino 0: without */
    bool kvm;
    int ns_fd; /* -1: free */
};

static struct {
    struct root roots[ISOLATE_ROOTS_MAX];
    size_t n_roots; /* ever made, for the turn of whom to forget */
} cache;

/* What is bound from the host. Anything else that a /dev may hold is a way to talk to a driver. */
static const char *const devices[] = {"null", "zero", "full", "random", "urandom"};

/* Copied, since an engine looks there how many processors and what features there are: without them it says so on
 * stderr and guesses. What they tell is no secret: the processor answers the same to anybody. */
static const char *const copies[] = {
    "/proc/cpuinfo",
    "/sys/devices/system/cpu/kernel_max",
    "/sys/devices/system/cpu/possible",
    "/sys/devices/system/cpu/present",
    "/sys/devices/system/cpu/online",
};
#define COPIES (sizeof copies / sizeof *copies)

/* Everything that the child needs, opened before it has a namespace of its own: detached copies of the files' mounts
 * can be attached in any namespace. */
struct plan {
    const struct isolate_root_files *files;
    int trees[ISOLATE_ROOT_FILES_MAX];
    int device_trees[sizeof devices / sizeof *devices];
    struct buf texts[COPIES];
    int report_fd;
    const struct isolate_root_extra *extra;
    const char *what; /* child: what it is about to do */
};

static int tree_open(int dir, const char *path)
{
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (path[0] ? 0 : AT_EMPTY_PATH);
    return open_tree(dir, path, flags);
}

static void plan_done(struct plan *p)
{
    for (size_t i = 0; i < ISOLATE_ROOT_FILES_MAX; i++)
        fd_close(&p->trees[i]);
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        fd_close(&p->device_trees[i]);
    for (size_t i = 0; i < COPIES; i++)
        buf_done(&p->texts[i]);
}

static void text_load(const char *path, struct buf *text)
{
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : 1;
    while (size > 0) {
        char *space = buf_reserve(text, 4096);
        size = space ? read(fd, space, 4096) : -1;
        if (size > 0)
            buf_commit(text, (size_t)size);
    }
    if (size < 0)
        buf_clear(text); /* not on this host: an engine manages without */
}

static int plan_make(struct plan *p, const struct isolate_root_files *files, struct error *err)
{
    char path[64];
    *p = (struct plan){.files = files, .report_fd = -1};
    memset(p->trees, -1, sizeof p->trees);
    memset(p->device_trees, -1, sizeof p->device_trees);
    for (size_t i = 0; i < COPIES; i++) {
        buf_init(&p->texts[i], COPY_BYTES_MAX);
        text_load(copies[i], &p->texts[i]);
    }
    for (size_t i = 0; i < files->n_files; i++) {
        p->trees[i] = tree_open(files->files[i].fd, "");
        if (p->trees[i] < 0)
            return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                             "The worker's root could not be prepared: a library cannot be mounted (%m); this needs "
                             "root (CAP_SYS_ADMIN).");
    }
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        (void)snprintf(path, sizeof path, "/dev/%s", devices[i]); /* fits */
        p->device_trees[i] = tree_open(AT_FDCWD, path);
        if (p->device_trees[i] < 0)
            return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                             "The worker's root could not be prepared: %s cannot be mounted (%m); this needs root "
                             "(CAP_SYS_ADMIN).",
                             path);
    }
    return 0;
}

/* ---- in the child ---- */

/* Makes the folders above a path that is relative to the working folder. */
static int folders_make(const char *path)
{
    char part[PATH_MAX];
    (void)snprintf(part, sizeof part, "%s", path); /* checked: below PATH_MAX */
    for (char *slash = strchr(part, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, ROOT_MODE) != 0 && errno != EEXIST)
            return -1;
        *slash = '/';
    }
    return 0;
}

static int file_make(const char *path, const char *data, size_t size)
{
    if (folders_make(path) != 0)
        return -1;
    _close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n <= 0)
            return -1;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

static int tree_attach(int tree_fd, const char *path, unsigned long flags)
{
    if (file_make(path, NULL, 0) != 0 || move_mount(tree_fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) != 0)
        return -1;
    if (mount(NULL, path, NULL, MS_PRIVATE, NULL) != 0) /* a copy stays in its original's peer group */
        return -1;
    return mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | flags, NULL);
}

static int devices_attach(const struct plan *p)
{
    char path[64];
    if (mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, DEV_OPTIONS) != 0)
        return -1;
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        (void)snprintf(path, sizeof path, "dev/%s", devices[i]); /* fits */
        /* Read-only is about the node: its owner and mode. Bytes go through. */
        if (tree_attach(p->device_trees[i], path, MS_RDONLY | MS_NOSUID | MS_NOEXEC) != 0)
            return -1;
    }
    /* A node of its own: the host's belongs to a group. Who enters this root is who may use it. */
    if (p->extra->kvm && mknod("dev/kvm", S_IFCHR | 0666, makedev(10, 232)) != 0)
        return -1;
    return mount(NULL, "dev", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC, DEV_OPTIONS);
}

/* The old root is stacked below the new one by pivot_root(".", ".") and then let go (pivot_root(2)). */
static int root_enter(void)
{
    if (syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0)
        return -1;
    return chdir("/");
}

static int root_build(struct plan *p)
{
    (void)umask(0); /* modes are as written here */
    p->what = "make its mounts private";
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return -1;
    p->what = "mount a temporary file system";
    if (mount("tmpfs", STAGE, "tmpfs", MS_NOSUID | MS_NODEV, ROOT_OPTIONS) != 0 || chdir(STAGE) != 0)
        return -1;
    p->what = "fill its root";
    if (mkdir("dev", ROOT_MODE) != 0 || mkdir(&ISOLATE_ROOT_TMP[1], ROOT_MODE) != 0 ||
        mkdir(&ISOLATE_ROOT_PROC[1], ROOT_MODE) != 0)
        return -1;
    for (size_t i = 0; i < COPIES; i++) {
        if (p->texts[i].size > 0 && file_make(copies[i] + 1, p->texts[i].data, p->texts[i].size) != 0)
            return -1;
    }
    if (p->extra->folder &&
        (folders_make(p->extra->folder + 1) != 0 || (mkdir(p->extra->folder + 1, ROOT_MODE) != 0 && errno != EEXIST)))
        return -1;
    p->what = "mount its libraries";
    for (size_t i = 0; i < p->files->n_files; i++) {
        if (tree_attach(p->trees[i], p->files->files[i].path + 1, MS_RDONLY | MS_NOSUID | MS_NODEV) != 0)
            return -1;
    }
    p->what = "mount its devices";
    if (devices_attach(p) != 0)
        return -1;
    p->what = "make its root read-only";
    if (mount(NULL, STAGE, NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, ROOT_OPTIONS) != 0)
        return -1;
    p->what = "change its root";
    return root_enter();
}

static _Noreturn void child_run(struct plan *p)
{
    struct error report = {0};
    (void)prctl(PR_SET_PDEATHSIG, (long)SIGKILL, 0L, 0L, 0L);
    if (root_build(p) != 0)
        (void)error_set(&report, ERROR_ISOLATION_UNAVAILABLE, "The worker's root could not be made: to %s failed: %m.",
                        p->what);
    (void)!write(p->report_fd, &report, sizeof report); /* a lost one reads as death */
    for (;;)
        (void)poll(NULL, 0, -1); /* the parent takes the namespace and kills */
}

/* ---- in the parent ---- */

static int report_read(int fd, struct error *err)
{
    struct error report;
    struct pollfd end = {.fd = fd, .events = POLLIN};
    int n;
    do
        n = poll(&end, 1, (int)BUILD_MS);
    while (n < 0 && errno == EINTR);
    if (n != 1 || read(fd, &report, sizeof report) != (ssize_t)sizeof report || report.code > 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The worker's root could not be made in time.");
    report.text[sizeof report.text - 1] = '\0';
    return report.code == 0 ? 0 : error_set(err, report.code, "%s", report.text);
}

static int namespace_take(pid_t pid, int *ret_ns_fd, struct error *err)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)pid); /* fits */
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The worker's root cannot be opened: %m; is /proc mounted?");
    *ret_ns_fd = fd;
    return 0;
}

static int namespace_make(const struct isolate_root_files *files, const struct isolate_root_extra *extra,
                          int *ret_ns_fd, struct error *err)
{
    _cleanup_(plan_done) struct plan plan;
    int ends[2];
    int r = plan_make(&plan, files, err);
    if (r != 0)
        return r;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return error_set(err, ERROR_INTERNAL, "The worker's root could not be made: %m.");
    _close_ int in = ends[0], out = ends[1];
    plan.report_fd = out;
    plan.extra = extra;
    sigset_t all, before; /* as in isolate_launch: no handler of ours runs in the child */
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &before);
    /* The old call: every kernel and every filter above us knows it. */
    pid_t pid = (pid_t)syscall(SYS_clone, (unsigned long)(CLONE_NEWNS | SIGCHLD), NULL, NULL, NULL, 0UL);
    if (pid == 0)
        child_run(&plan);
    int clone_errno = errno;
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    errno = clone_errno;
    if (pid < 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "The worker's mount namespace could not be made: %m; this needs root (CAP_SYS_ADMIN).");
    fd_close(&out);
    r = report_read(in, err);
    if (r == 0)
        r = namespace_take(pid, ret_ns_fd, err);
    (void)kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return r;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static int root_key(int program_fd, int library_fd, struct root *ret_root, struct error *err)
{
    *ret_root = (struct root){.ns_fd = -1};
    if (fstat(program_fd, &ret_root->program) != 0 || (library_fd >= 0 && fstat(library_fd, &ret_root->library) != 0))
        return error_set(err, ERROR_INVALID_ARGUMENT, "The worker cannot be started: its program cannot be read: %m.");
    return 0;
}

int isolate_root_get(int program_fd, int library_fd, const struct isolate_root_extra *extra, int *ret_ns_fd,
                     struct error *err)
{
    struct root root;
    const struct isolate_root_extra none = {0};
    extra = extra ? extra : &none;
    bool kvm = extra->kvm;
    int r = root_key(program_fd, library_fd, &root, err);
    if (r != 0)
        return r;
    size_t n_kept = cache.n_roots < ISOLATE_ROOTS_MAX ? cache.n_roots : ISOLATE_ROOTS_MAX;
    for (size_t i = 0; i < n_kept; i++) {
        if (cache.roots[i].kvm == kvm && same_file(&cache.roots[i].program, &root.program) &&
            same_file(&cache.roots[i].library, &root.library)) {
            *ret_ns_fd = cache.roots[i].ns_fd;
            return 0;
        }
    }
    _free_ struct isolate_root_files *files = calloc(1, sizeof *files);
    if (!files)
        return error_set_default(err, ERROR_NO_MEMORY);
    r = isolate_root_files_find(program_fd, library_fd,
                                extra->library_path ? extra->library_path : ISOLATE_LIBRARY_PATH, files, err);
    if (r == 0)
        r = namespace_make(files, extra, &root.ns_fd, err);
    isolate_root_files_done(files);
    if (r != 0)
        return r;
    struct root *place = &cache.roots[cache.n_roots % ISOLATE_ROOTS_MAX];
    if (cache.n_roots >= ISOLATE_ROOTS_MAX)
        fd_close(&place->ns_fd);
    root.kvm = kvm;
    *place = root;
    cache.n_roots++;
    *ret_ns_fd = root.ns_fd;
    return 0;
}

int isolate_root_new_bare(int *ret_ns_fd, struct error *err)
{
    const struct isolate_root_extra none = {0};
    _free_ struct isolate_root_files *files = calloc(1, sizeof *files);
    return files ? namespace_make(files, &none, ret_ns_fd, err) : error_set_default(err, ERROR_NO_MEMORY);
}

void isolate_roots_close(void)
{
    size_t n_kept = cache.n_roots < ISOLATE_ROOTS_MAX ? cache.n_roots : ISOLATE_ROOTS_MAX;
    for (size_t i = 0; i < n_kept; i++)
        fd_close(&cache.roots[i].ns_fd);
    cache.n_roots = 0;
}
