#include "isolate/isolate_runtime.h"

#include "base/buf.h"
#include "base/clock.h"
#include "isolate/isolate_host.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <yyjson.h>

#define ARGUMENTS_MAX   64u
#define LOG_BYTES_MAX   (64 * KIB)
#define COMPLAINT_BYTES 240u

/* How it is told which descriptors the container gets. */
enum handover {
    HANDOVER_NONE = 0, /* it has no word for it */
    HANDOVER_COUNT,    /* --preserve-fds N: 3 to 2 + N */
    HANDOVER_EACH,     /* --pass-fd N:N, once for each */
};

/* Where command lines differ. runsc: gVisor's runsc/cmd/run.go and config/flags.go; its network stack must be told that
 * there is none. kata: the command line of 1.x; from 2.0 on the program has no `run` any more and says so. */
static const struct dialect {
    const char *program;
    const char *option; /* before the verb; NULL */
    enum handover handover;
    bool slow, sandbox;
} dialects[ISOLATE_RUNTIME_COUNT] = {
    [ISOLATE_RUNTIME_ANY] = {.program = ""},
    [ISOLATE_RUNTIME_RUNC] = {.program = "runc", .handover = HANDOVER_COUNT},
    [ISOLATE_RUNTIME_CRUN] = {.program = "crun", .handover = HANDOVER_COUNT},
    [ISOLATE_RUNTIME_RUNSC] =
        {.program = "runsc", .option = "--network=none", .handover = HANDOVER_EACH, .slow = true, .sandbox = true},
    [ISOLATE_RUNTIME_KATA] = {.program = "kata-runtime", .slow = true, .sandbox = true},
};

const char *runtime_program(enum isolate_runtime kind)
{
    return dialects[kind].program;
}

bool runtime_slow(enum isolate_runtime kind)
{
    return dialects[kind].slow;
}

bool runtime_sandbox(enum isolate_runtime kind)
{
    return dialects[kind].sandbox;
}

void runtime_find(enum isolate_runtime kind, struct runtime *ret_runtime)
{
    *ret_runtime = (struct runtime){.kind = kind};
    struct stat info;
    if (!isolate_program_find(dialects[kind].program, ret_runtime->path, sizeof ret_runtime->path) ||
        stat(ret_runtime->path, &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != 0 || (info.st_mode & 0022) != 0)
        ret_runtime->path[0] = '\0';
}

/* ---- what it complained about ---- */

/* The runtime's words go into a message for people: printable ASCII only, cut. */
static void complaint_keep(char text[static COMPLAINT_BYTES], struct str words)
{
    size_t n = 0;
    for (size_t i = 0; i < words.size && n < COMPLAINT_BYTES - 1; i++)
        text[n++] = words.data[i] >= ' ' && words.data[i] <= '~' ? words.data[i] : ' ';
    text[n] = '\0';
}

/* One line of a log: {"level":"error","msg":"…"}, or plain words. */
static void line_hear(struct str line, char text[static COMPLAINT_BYTES])
{
    yyjson_doc *doc = line.size > 0 ? yyjson_read(line.data, line.size, 0) : NULL;
    const char *level = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "level"));
    yyjson_val *message = yyjson_obj_get(yyjson_doc_get_root(doc), "msg");
    if (yyjson_is_str(message) &&
        (!level || (strcmp(level, "debug") != 0 && strcmp(level, "info") != 0 && strcmp(level, "warning") != 0)))
        complaint_keep(text, (struct str){yyjson_get_str(message), yyjson_get_len(message)});
    else if (!doc && line.size > 0)
        complaint_keep(text, line);
    yyjson_doc_free(doc);
}

/* The last complaint of the log; untouched when there is none. */
static void log_hear(const char *path, char text[static COMPLAINT_BYTES])
{
    _buf_ struct buf log;
    buf_init(&log, LOG_BYTES_MAX);
    _close_ int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    for (ssize_t n = 1; fd >= 0 && n > 0;) {
        char *space = buf_reserve(&log, 4096);
        n = space ? read(fd, space, 4096) : 0;
        if (n > 0)
            buf_commit(&log, (size_t)n);
    }
    for (struct str rest = {log.data, log.size}; rest.size > 0;) {
        const char *end = memchr(rest.data, '\n', rest.size);
        struct str line = {rest.data, end ? (size_t)(end - rest.data) : rest.size};
        rest = str_skip(rest, line.size + (end ? 1 : 0));
        line_hear(line, text);
    }
}

/* ---- a call ---- */

struct runtime_launch {
    struct isolate_launch launch; /* first: `run` gets its address */
    const char *path;
    char *const *arguments;
};

/* In the child, by path: a runtime looks at /proc/self/exe, and it may be a script. */
static int program_run(const struct isolate_launch *launch, struct error *err)
{
    static char *const environment[] = {(char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                        NULL};
    const struct runtime_launch *l = (const struct runtime_launch *)launch;
    (void)execve(l->path, l->arguments, environment);
    return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The OCI runtime could not be executed: %m.");
}

int runtime_wait(int *pidfd, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now_ns = clock_monotonic_ns();
        struct pollfd end = {.fd = *pidfd, .events = POLLIN};
        int n = poll(&end, 1, now_ns >= deadline_ns ? 0 : (int)((deadline_ns - now_ns) / NS_PER_MS) + 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            (void)syscall(SYS_pidfd_send_signal, *pidfd, SIGKILL, NULL, 0); /* reaped below */
        int status;
        (void)isolate_wait(*pidfd, true, &status);
        fd_close(pidfd);
        return status;
    }
}

struct arguments {
    const char *list[ARGUMENTS_MAX];
    size_t n;
    char fds[ISOLATE_LAUNCH_FDS_MAX][16];
};

_Static_assert(ARGUMENTS_MAX > 18 + 2 * ISOLATE_LAUNCH_FDS_MAX, "all arguments fit");

static void add(struct arguments *a, const char *option, const char *value)
{
    a->list[a->n++] = option;
    if (value)
        a->list[a->n++] = value;
}

static void arguments_make(struct arguments *a, const struct runtime_call *call)
{
    const struct dialect *d = &dialects[call->runtime->kind];
    *a = (struct arguments){.n = 0};
    add(a, d->program, NULL);
    add(a, "--root", call->state);
    add(a, "--log", call->log);
    add(a, "--log-format", "json");
    if (d->option)
        add(a, d->option, NULL);
    if (call->verb == RUNTIME_DELETE) {
        add(a, "delete", "--force");
        add(a, call->name, NULL);
        return;
    }
    add(a, "run", "--detach");
    add(a, "--bundle", call->bundle);
    add(a, "--pid-file", call->pid_path);
    if (d->handover == HANDOVER_COUNT) {
        (void)snprintf(a->fds[0], sizeof a->fds[0], "%zu", call->n_fds); /* fits */
        add(a, "--preserve-fds", a->fds[0]);
    }
    for (size_t i = 0; d->handover == HANDOVER_EACH && i < call->n_fds && i < ISOLATE_LAUNCH_FDS_MAX; i++) {
        (void)snprintf(a->fds[i], sizeof a->fds[i], "%zu:%zu", 3 + i, 3 + i); /* fits */
        add(a, "--pass-fd", a->fds[i]);
    }
    add(a, call->name, NULL);
}

int runtime_begin(const struct runtime_call *call, int *ret_pidfd, struct error *err)
{
    struct arguments arguments;
    arguments_make(&arguments, call);
    (void)unlink(call->log); /* of an earlier call; the runtime makes it anew */
    const struct isolate_spawn spawn = {
        .name = "runtime",
        .program_fd = -1,
        .argv = arguments.list,
        .fds = call->fds,
        .n_fds = call->n_fds,
        .stderr_fd = call->stderr_fd,
        .cpus = call->cpus,
    };
    struct runtime_launch l = {
        .launch = {.spawn = &spawn, .walls = false, .join = CGROUP_JOIN_NONE, .run = program_run},
        .path = call->runtime->path,
        .arguments = (char *const *)(uintptr_t)arguments.list,
    };
    pid_t pid;
    return isolate_launch(&l.launch, &pid, ret_pidfd, err);
}

int runtime_run(const struct runtime_call *call, struct error *err)
{
    const char *name = isolate_runtime_names[call->runtime->kind];
    int pidfd = -1;
    int r = runtime_begin(call, &pidfd, err);
    if (r != 0)
        return r;
    int status = runtime_wait(&pidfd, clock_monotonic_ns() + RUNTIME_MS * NS_PER_MS);
    if (status == 0)
        return 0;
    char complaint[COMPLAINT_BYTES] = "";
    log_hear(call->log, complaint);
    if (complaint[0])
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The OCI runtime %s refused: %s", name, complaint);
    if (WIFSIGNALED(status))
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The OCI runtime %s was ended by signal %d.", name,
                         WTERMSIG(status));
    return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The OCI runtime %s ended with status %d and said nothing.",
                     name, WEXITSTATUS(status));
}
