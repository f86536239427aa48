/* What an OCI runtime takes by itself: `runtime run --detach` with the bundle that the server made for a replica, in
 * the server's mount namespace, where the bundle's root is. Its worker finds no descriptor and ends at once; what is
 * timed is the runtime's call, which returns when the container runs. */
#include "cli_bench_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define CONFIG_BYTES_MAX (256 * KIB)
#define NAME             "bulkhead-bench-bare"

/* "container (runc; …" */
static bool runtime_take(const struct bench_level *l, struct bench_bare *bare)
{
    static const char begin[] = "container (";
    const char *at = strstr(l->wall, begin);
    char name[32];
    if (!at ||
        str_copy((struct str){at + sizeof begin - 1, strcspn(at + sizeof begin - 1, ";)")}, name, sizeof name) < 0)
        return false;
    return isolate_program_find(name, bare->runtime, sizeof bare->runtime);
}

/* The file of a running replica's bundle, as the server sees it; -1: none. */
static int config_open(const struct bench *b)
{
    char path[PATH_MAX];
    int found = -1;
    (void)snprintf(path, sizeof path, "/proc/%d/root/run", (int)b->server); /* fits */
    DIR *run = opendir(path);
    for (struct dirent *scope; run && found < 0 && (scope = readdir(run));) {
        if (!str_starts(str_from(scope->d_name), STR("bulkhead.")))
            continue;
        (void)snprintf(path, sizeof path, "/proc/%d/root/run/%s/bundles", (int)b->server, scope->d_name); /* fits */
        DIR *bundles = opendir(path);
        for (struct dirent *one; bundles && found < 0 && (one = readdir(bundles));) {
            if (!str_starts(str_from(one->d_name), STR("replica-")))
                continue;
            (void)snprintf(path, sizeof path, "/proc/%d/root/run/%s/bundles/%s/config.json", (int)b->server,
                           scope->d_name, one->d_name); /* fits */
            found = open(path, O_RDONLY | O_CLOEXEC);
        }
        if (bundles)
            (void)closedir(bundles); /* were only read, both */
    }
    if (run)
        (void)closedir(run);
    return found;
}

/* The same bundle but for its control group, which is another one beside the replica's. */
static int config_copy(const struct bench_bare *bare, int from, struct error *err)
{
    _free_ char *text = calloc(1, CONFIG_BYTES_MAX);
    ssize_t size = text ? read(from, text, CONFIG_BYTES_MAX) : -1;
    yyjson_doc *doc = size > 0 ? yyjson_read(text, (size_t)size, 0) : NULL;
    yyjson_mut_doc *copy = doc ? yyjson_doc_mut_copy(doc, NULL) : NULL;
    yyjson_mut_val *part = yyjson_mut_obj_get(yyjson_mut_doc_get_root(copy), "linux");
    const char *group = yyjson_mut_get_str(yyjson_mut_obj_get(part, "cgroupsPath"));
    const char *slash = group ? strrchr(group, '/') : NULL;
    char path[PATH_MAX];
    bool good = slash != NULL;
    if (good) {
        (void)snprintf(path, sizeof path, "%.*s/" NAME, (int)(slash - group), group); /* a path of the server's: fits */
        (void)yyjson_mut_obj_remove_key(part, "cgroupsPath");
        good = yyjson_mut_obj_add_str(copy, part, "cgroupsPath", path) &&
               yyjson_mut_write_file(bare->config, copy, 0, NULL, NULL);
    }
    yyjson_mut_doc_free(copy);
    yyjson_doc_free(doc);
    return good ? 0 : error_set(err, ERROR_IO, "the bundle of a replica cannot be copied");
}

/* One call of the runtime in the server's mount namespace; its exit status, or -1. */
static int call(const struct bench_bare *bare, const char *const *arguments)
{
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0 ||
            setns(bare->mounts, CLONE_NEWNS) < 0)
            _exit(126);
        (void)execv(bare->runtime, (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
    int status = 0;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The container's first process has become our child. */
static void container_reap(const struct bench_bare *bare)
{
    const char *const remove[] = {bare->runtime, "--root",  bare->state, "--log", bare->log,
                                  "delete",      "--force", NAME,        NULL};
    char text[32] = "";
    uint64_t pid;
    _close_ int fd = open(bare->pid, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    (void)call(bare, remove); /* it may be gone already */
    if (size > 0 && str_to_u64((struct str){text, strspn(text, "0123456789")}, &pid) == 0 && pid > 1 && pid <= INT_MAX)
        while (waitpid((pid_t)pid, NULL, 0) < 0 && errno == EINTR)
            ;
    (void)unlink(bare->pid); /* each run writes it anew */
}

static int run_once(const struct bench_bare *bare, uint64_t *ret_ns, struct error *err)
{
    const char *const run[] = {bare->runtime, "--root",     bare->state,  "--log",   bare->log, "run", "--detach",
                               "--bundle",    bare->bundle, "--pid-file", bare->pid, NAME,      NULL};
    uint64_t begin_ns = clock_monotonic_ns();
    int status = call(bare, run);
    *ret_ns = clock_monotonic_ns() - begin_ns;
    container_reap(bare);
    return status == 0 ? 0 : error_set(err, ERROR_IO, "%s, run by itself, ended with status %d", bare->runtime, status);
}

static int prepare(const struct bench *b, const struct bench_level *l, struct bench_bare *bare, struct error *err)
{
    char path[PATH_MAX];
    if (!runtime_take(l, bare))
        return error_set(err, ERROR_NOT_FOUND, "the runtime that the server used is not found");
    (void)snprintf(bare->state, sizeof bare->state, "%s/runtime", b->folder); /* folder is half of it, as below */
    (void)snprintf(bare->bundle, sizeof bare->bundle, "%s/bundle", b->folder);
    (void)snprintf(bare->log, sizeof bare->log, "%s/runtime.log", b->folder);
    (void)snprintf(bare->pid, sizeof bare->pid, "%s/runtime.pid", b->folder);
    (void)snprintf(bare->config, sizeof bare->config, "%s/bundle/config.json", b->folder);
    (void)snprintf(path, sizeof path, "/proc/%d/ns/mnt", (int)b->server); /* fits */
    bare->mounts = open(path, O_RDONLY | O_CLOEXEC);
    _close_ int config = config_open(b);
    if (bare->mounts < 0 || config < 0)
        return error_set(err, ERROR_NOT_FOUND, "the bundle of a replica is not found");
    if ((mkdir(bare->state, 0711) < 0 || mkdir(bare->bundle, 0711) < 0) && errno != EEXIST)
        return error_set(err, ERROR_IO, "cannot write into a temporary folder: %s", strerrordesc_np(errno));
    return config_copy(bare, config, err);
}

void bench_bare_open(struct bench *b, struct bench_level *level, struct bench_bare *ret_bare)
{
    struct error err = {0};
    *ret_bare = (struct bench_bare){.mounts = -1};
    int r = prepare(b, level, ret_bare, &err);
    if (r >= 0 && prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L) < 0)
        r = error_set(&err, ERROR_IO, "cannot adopt what the runtime leaves: %s", strerrordesc_np(errno));
    ret_bare->open = r >= 0;
    if (r < 0) {
        (void)snprintf(level->bare_text, sizeof level->bare_text, "%s", error_text(&err, r)); /* same size */
        fd_close(&ret_bare->mounts);
    }
}

bool bench_bare_once(struct bench_level *level, struct bench_bare *bare, uint64_t *ret_ns)
{
    struct error err = {0};
    int r = bare->open ? run_once(bare, ret_ns, &err) : 0;
    if (r >= 0)
        return bare->open;
    (void)snprintf(level->bare_text, sizeof level->bare_text, "%s", error_text(&err, r)); /* same size */
    bench_bare_close(bare);
    return false;
}

void bench_bare_close(struct bench_bare *bare)
{
    if (bare->open)
        (void)prctl(PR_SET_CHILD_SUBREAPER, 0L, 0L, 0L, 0L); /* cannot fail */
    fd_close(&bare->mounts);
    bare->open = false;
}
