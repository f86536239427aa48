#include "support.h"

#include "bus/port.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/sha.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

int test_wait_ms = 15000;

static int n_fds_before;
static size_t n_groups;

const char *test_scope(void)
{
    static char scope[32];
    snprintf(scope, sizeof scope, "unit-%d", (int)getpid());
    return scope;
}

uid_t test_uid(void)
{
    return 700000000u + (uid_t)getpid() * 16u;
}

static int program_fd(void)
{
    static int fd = -1;
    if (fd < 0) {
        char path[4096];
        const char *build = getenv("BULKHEAD_BUILD");
        snprintf(path, sizeof path, "%s/test/unit/isolate/isolate-child", build ? build : ".");
        fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        n_fds_before++;
    }
    return fd;
}

struct isolate_spawn child_spawn_default(const char *mode, ...)
{
    static const char *argv[16];
    size_t n = 0;
    argv[n++] = "child";
    argv[n++] = mode;
    va_list arguments;
    va_start(arguments, mode);
    while ((argv[n] = va_arg(arguments, const char *)))
        assert_true(++n < 15);
    va_end(arguments);
    return (struct isolate_spawn){
        .name = "worker-1",
        .program_fd = program_fd(),
        .argv = argv,
        .library_fd = -1,
        .proc = strcmp(mode, "facts") == 0, /* which reads itself there; sanitized programs have one anyway */
        .stderr_fd = 2,
        .uid = test_uid(),
        .gid = test_uid(),
        .limits = {.memory_bytes = 256 * MIB, .cpu_milli = 1000, .pids = 16, .file_bytes = 16 * MIB, .fds = 64},
        .limits_required = true,
    };
}

/* Tells the first program of a machine what the supervisor would: the worker's limits and model, then its channel. */
static void guest_tell(const struct child *c, const struct isolate_spawn *spawn, struct str model)
{
    struct bus_guest_config config = {
        .worker = {.model_bytes = model.size, .memory_bytes = spawn->limits.memory_bytes, .library = BUS_LIBRARY_NONE},
        .memory_bytes = spawn->limits.memory_bytes,
        .cpu_milli = spawn->limits.cpu_milli,
        .pids = spawn->limits.pids,
        .fds = spawn->limits.fds,
    };
    const struct bus_channel channel = {.n_slots = 1};
    assert_non_null(SHA256((const unsigned char *)model.data, model.size, config.model_sha256));
    assert_int_equal(bus_port_send(c->control, BUS_GUEST_CONFIG, &config), 0);
    assert_int_equal(bus_port_send(c->control, BUS_GUEST_CHANNEL, &channel), 0);
}

static int machine_spawn(struct child *c, const struct isolate_ops *ops, const struct isolate_spawn *spawn,
                         struct error *err)
{
    char text[1024] = "";
    size_t size = 0;
    for (size_t i = 1; spawn->argv[i]; i++)
        size += (size_t)snprintf(text + size, sizeof text - size, "%s\n", spawn->argv[i]);
    _close_ int disk = memfd_create("disk", MFD_CLOEXEC);
    int control[2], channel[2];
    assert_true(disk >= 0 && write(disk, text, size) == (ssize_t)size);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, control), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, channel), 0);
    const struct isolate_machine machine = {
        .disk_fd = disk, .disk_bytes = size, .control_fd = control[1], .channel_fd = channel[1]};
    struct isolate_spawn s = *spawn;
    s.machine = &machine;
    s.stderr_fd = -1;
    *c = (struct child){.ops = ops, .pidfd = -1, .out = channel[0], .control = control[0]};
    int r = ops->spawn(&s, &c->instance, &c->pidfd, err);
    close(control[1]);
    close(channel[1]);
    if (r != 0) {
        fd_close(&c->out);
        fd_close(&c->control);
    } else {
        guest_tell(c, &s, (struct str){text, size});
    }
    return r;
}

int child_spawn(struct child *c, const struct isolate_ops *ops, const struct isolate_spawn *spawn, struct error *err)
{
    int ends[2], fds[ISOLATE_FDS_MAX];
    if (ops->machine)
        return machine_spawn(c, ops, spawn, err);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    struct isolate_spawn s = *spawn;
    fds[0] = ends[1];
    for (size_t i = 0; i < s.n_fds; i++)
        fds[1 + i] = s.fds[i];
    s.fds = fds;
    s.n_fds++;
    *c = (struct child){.ops = ops, .pidfd = -1, .out = ends[0]};
    int r = ops->spawn(&s, &c->instance, &c->pidfd, err);
    close(ends[1]);
    if (r != 0)
        fd_close(&c->out);
    return r;
}

void child_start(struct child *c, const struct isolate_ops *ops, const struct isolate_spawn *spawn)
{
    struct error err = {0};
    int r = child_spawn(c, ops, spawn, &err);
    if (r != 0)
        fail_msg("spawn: %s", error_text(&err, r));
}

bool wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;
    do
        n = poll(&p, 1, test_wait_ms);
    while (n < 0 && errno == EINTR);
    return n == 1;
}

const char *child_report(struct child *c)
{
    static char text[65536];
    size_t size = 0;
    for (;;) {
        assert_true(wait_readable(c->out));
        ssize_t n = read(c->out, text + size, sizeof text - 1 - size);
        assert_true(n >= 0);
        size += (size_t)n;
        text[size] = '\0';
        if (n == 0 || strstr(text, "ready 1\n"))
            return text;
    }
}

pid_t child_pid(const struct child *c)
{
    char path[64], line[128];
    long pid = -1;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", c->pidfd);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, "Pid:", 4) == 0)
            pid = strtol(line + 4, NULL, 10);
    }
    if (file)
        fclose(file);
    assert_true(pid > 0);
    return (pid_t)pid;
}

int child_end(struct child *c)
{
    int status = -1;
    assert_true(wait_readable(c->pidfd));
    assert_int_equal(c->ops->discard(c->instance, &status), 0);
    fd_close(&c->out);
    if (c->control > 0)
        fd_close(&c->control);
    return status;
}

int child_kill(struct child *c)
{
    c->ops->kill(c->instance);
    c->ops->kill(c->instance); /* idempotent */
    return child_end(c);
}

pid_t bystander_start(void)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, (long)SIGKILL, 0L, 0L, 0L);
        while (pause() < 0)
            ;
    }
    return pid;
}

const char *report_value(const char *report, const char *key)
{
    static char value[256];
    size_t key_size = strlen(key);
    for (const char *line = report; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncmp(line, key, key_size) == 0 && line[key_size] == ' ') {
            snprintf(value, sizeof value, "%.*s", (int)strcspn(line + key_size + 1, "\n"), line + key_size + 1);
            return value;
        }
    }
    return NULL;
}

long report_number(const char *report, const char *key)
{
    const char *value = report_value(report, key);
    if (!value)
        fail_msg("the report lacks %s:\n%s", key, report);
    return strtol(value, NULL, 10);
}

size_t report_count(const char *report, const char *key)
{
    size_t n = 0, key_size = strlen(key);
    for (const char *line = report; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        n += strncmp(line, key, key_size) == 0 && line[key_size] == ' ';
    return n;
}

static int fds_count(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static int group_visit(const char *path, const struct stat *s, int type, struct FTW *where)
{
    (void)s;
    char ours[64];
    snprintf(ours, sizeof ours, "bulkhead.%s", test_scope());
    if (type == FTW_D && strncmp(path + where->base, ours, strlen(ours)) == 0)
        n_groups++;
    return 0;
}

size_t leftover_groups(void)
{
    n_groups = 0;
    (void)nftw("/sys/fs/cgroup", group_visit, 16, FTW_PHYS);
    return n_groups;
}

static void assert_no_process(void)
{
    DIR *dir = opendir("/proc");
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char path[300];
        struct stat s;
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
            continue;
        snprintf(path, sizeof path, "/proc/%s/task", entry->d_name);
        if (stat(path, &s) == 0 && s.st_uid >= test_uid() && s.st_uid < test_uid() + 16)
            fail_msg("process %s of uid %u is left", entry->d_name, (unsigned)s.st_uid);
    }
    closedir(dir);
}

int leftovers_before(void **state)
{
    (void)state;
    n_fds_before = fds_count();
    return 0;
}

int leftovers_after(void **state)
{
    (void)state;
    assert_int_equal(fds_count(), n_fds_before);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_no_process();
    assert_int_equal(leftover_groups(), 0);
    return 0;
}

size_t mounts_count(void)
{
    size_t n = 0;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    assert_non_null(file);
    for (int c; (c = fgetc(file)) != EOF;)
        n += c == '\n';
    fclose(file);
    return n;
}

bool have_root(void)
{
    if (geteuid() == 0)
        return true;
    if (!getenv("BULKHEAD_EXPECT_NO_ROOT"))
        fail_msg("this test needs root; set BULKHEAD_EXPECT_NO_ROOT=1 where that is known to be missing");
    print_message("skipped: no root here, as expected\n");
    return false;
}

bool container_runtime_here(void)
{
    if (access("/usr/sbin/runc", X_OK) == 0 || access("/usr/bin/runc", X_OK) == 0)
        return true;
    print_message("skipped: no runc on this host (Debian: apt-get install runc)\n");
    return false;
}
