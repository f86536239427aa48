/* The private server of the bench: this program again, with a folder and a port of its own. */
#include "cli_bench_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define START_MS    (3 * 60000u) /* testing a virtual machine under software emulation takes long */
#define STOP_MS     30000u
#define REQUEST_MS  60000u
#define LOOK_MS     10 /* between two looks at the status */
#define N_ROLES     2u /* control and gateway */
#define UIDS_BASE   1000000u
#define UIDS_COUNT  4096u
#define UIDS_RANGES 256u /* several benches side by side, and beside a server with the usual ids */

const char *const bench_tenants[2] = {"victim", "neighbour"};

static const char *const sources[2] = {"empty.json", "bound.json"};

/* false when a signal came. */
static bool wait_ms(int ms)
{
    (void)poll(NULL, 0, ms); /* a signal ends it early, and is looked at */
    return !bench_stop;
}

/* --- requests --- */

int bench_admin(struct bench *b, const char *method, const char *target, struct str body, struct cli_answer *ret_answer,
                struct error *err)
{
    struct wire_client_request request = {.method = method,
                                          .target = target,
                                          .content_type = body.size > 0 ? "application/json" : NULL,
                                          .body = body,
                                          .body_fd = -1,
                                          .timeout_ms = REQUEST_MS};
    cli_answer_done(ret_answer);
    buf_init(&ret_answer->body, CLI_ANSWER_BYTES_MAX);
    int r = wire_client_unix(b->admin, &request, &ret_answer->status, &ret_answer->body, err);
    if (r < 0)
        return r;
    ret_answer->json = yyjson_read(ret_answer->body.data, ret_answer->body.size, 0);
    if (ret_answer->status / 100 == 2)
        return 0;
    _buf_ struct buf text;
    buf_init(&text, 4 * KIB);
    cli_answer_error(ret_answer, &text);
    return error_set(err, ERROR_REFUSED, "%s", buf_terminate(&text));
}

static yyjson_val *root_of(const struct cli_answer *answer)
{
    return answer->json ? yyjson_doc_get_root(answer->json) : NULL;
}

static void append_model(struct buf *json, const struct bench_model *m)
{
    buf_format(
        json,
        "{\"apiVersion\":\"" RESOURCE_API_VERSION "\",\"kind\":\"Model\",\"metadata\":{\"name\":\"%s\","
        "\"tenant\":\"%s\"},\"spec\":{\"engine\":\"identity\",\"source\":\"%s\",\"isolation\":{\"level\":\"%s\"},"
        "\"resources\":{\"cpuset\":\"%s\"},\"batching\":{\"maxSize\":1},\"replicas\":{\"min\":%u,\"max\":%u,\"idleAfter\":\"%ums\"}}}",
        m->name, bench_tenants[m->tenant], sources[m->busy], ladder_level_names[m->level],
        m->dedicated ? "dedicated" : "shared", m->replicas_min, m->replicas_max, m->idle_ms);
}

int bench_model_apply(struct bench *b, const struct bench_model *model, struct error *err)
{
    static const char empty[] = "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,16]}]}";
    char text[256];
    _answer_ struct cli_answer answer = {0};
    _buf_ struct buf body;
    buf_init(&body, 16 * KIB);
    (void)snprintf(text, sizeof text, "%.*s,\"busy\":\"%ums\"}", (int)sizeof empty - 2, empty,
                   BENCH_BUSY_MS); /* fits */
    int r = bench_admin(b, "POST", "/v1alpha1/artifacts", str_from(model->busy ? text : empty), &answer, err);
    if (r < 0)
        return r;
    const char *digest = yyjson_get_str(yyjson_obj_get(root_of(&answer), "digest"));
    buf_append_text(&body, "{\"resources\":[");
    append_model(&body, model);
    buf_format(&body, "],\"artifacts\":{\"%s\":\"%s\"}}", sources[model->busy], digest ? digest : "");
    return bench_admin(b, "POST", "/v1alpha1/apply", (struct str){body.data, body.size}, &answer, err);
}

int bench_model_delete(struct bench *b, enum bench_tenant tenant, const char *name, struct error *err)
{
    char target[CLI_TARGET_BYTES];
    _answer_ struct cli_answer answer = {0};
    (void)snprintf(target, sizeof target, "/v1alpha1/models/%s?tenant=%s", name, bench_tenants[tenant]); /* fits */
    int r = bench_admin(b, "DELETE", target, STR(""), &answer, err);
    return answer.status == 404 ? 0 : r;
}

static int tenant_make(struct bench *b, enum bench_tenant tenant, struct error *err)
{
    char body[512];
    _answer_ struct cli_answer answer = {0};
    (void)snprintf(body, sizeof body, /* fits */
                   "{\"resources\":[{\"apiVersion\":\"" RESOURCE_API_VERSION "\",\"kind\":\"Tenant\",\"metadata\":"
                   "{\"name\":\"%s\"},\"spec\":{}}],\"artifacts\":{}}",
                   bench_tenants[tenant]);
    int r = bench_admin(b, "POST", "/v1alpha1/apply", str_from(body), &answer, err);
    (void)snprintf(body, sizeof body, "{\"tenant\":\"%s\"}", bench_tenants[tenant]); /* fits */
    if (r >= 0)
        r = bench_admin(b, "POST", "/v1alpha1/keys", str_from(body), &answer, err);
    const char *key = yyjson_get_str(yyjson_obj_get(root_of(&answer), "key"));
    if (r >= 0 && (!key || str_copy(str_from(key), b->keys[tenant], sizeof b->keys[tenant]) < 0))
        r = error_set(err, ERROR_PEER, "the server's answer has no key");
    return r;
}

/* --- what runs --- */

static int replica_look(const struct bench_model *model, yyjson_val *status, pid_t *ret_pid, char *ret_wall,
                        struct error *err)
{
    const char *level = yyjson_get_str(yyjson_obj_get(status, "level"));
    const char *wall = yyjson_get_str(yyjson_obj_get(status, "wall"));
    if (!level || strcmp(level, ladder_level_names[model->level]) != 0)
        return error_set(err, ERROR_PEER, "a replica runs at level %s, not %s", level ? level : "?",
                         ladder_level_names[model->level]);
    if (ret_pid)
        *ret_pid = (pid_t)yyjson_get_int(yyjson_obj_get(status, "pid"));
    if (ret_wall)
        (void)snprintf(ret_wall, 512, "%s", wall ? wall : ""); /* cut is fine: for people */
    return 0;
}

/* Looks once: the number of ready replicas, or -1 while others are there too; else an error below -1. */
static int replicas_look(struct bench *b, const struct bench_model *model, uint32_t n, pid_t *ret_pids, char *ret_wall,
                         struct error *err)
{
    char target[CLI_TARGET_BYTES];
    _answer_ struct cli_answer answer = {0};
    (void)snprintf(target, sizeof target, "/v1alpha1/replicas?tenant=%s", bench_tenants[model->tenant]); /* fits */
    int r = bench_admin(b, "GET", target, STR(""), &answer, err);
    if (r < 0)
        return r;
    uint32_t ready = 0, others = 0;
    yyjson_arr_iter each = yyjson_arr_iter_with(yyjson_obj_get(root_of(&answer), "items"));
    for (yyjson_val *item = yyjson_arr_iter_next(&each); item; item = yyjson_arr_iter_next(&each)) {
        yyjson_val *status = yyjson_obj_get(item, "status");
        const char *name = yyjson_get_str(yyjson_obj_get(status, "model"));
        const char *state = yyjson_get_str(yyjson_obj_get(status, "state"));
        if (!name || strcmp(name, model->name) != 0)
            continue;
        const char *wall = yyjson_get_str(yyjson_obj_get(status, "wall"));
        bool own = wall && strstr(wall, "on processors of its own"); /* else it is of the version before */
        if (!state || strcmp(state, "ready") != 0 || ready == n || own != model->dedicated) {
            others++;
            continue;
        }
        r = replica_look(model, status, ret_pids ? &ret_pids[ready] : NULL, ret_wall, err);
        if (r < 0)
            return r;
        ready++;
    }
    return others > 0 || ready != n ? 0 : 1;
}

int bench_replicas_wait(struct bench *b, const struct bench_model *model, uint32_t n, pid_t *ret_pids, char *ret_wall,
                        struct error *err)
{
    uint64_t end_ns = clock_monotonic_ns() + BENCH_SILENCE_NS;
    for (;;) {
        int r = replicas_look(b, model, n, ret_pids, ret_wall, err);
        if (r != 0)
            return r < 0 ? r : 0;
        if (clock_monotonic_ns() > end_ns)
            return error_set(err, ERROR_REQUEST_TIMEOUT, "waited in vain for %u replicas of the model", n);
        if (!wait_ms(LOOK_MS))
            return error_set(err, ERROR_CANCELLED, "stopped by a signal");
    }
}

/* Its children, the two roles among them; -1 where the kernel does not list them. */
static int children_count(pid_t pid)
{
    char path[64], text[4096];
    int n = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid); /* fits */
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text);
    for (ssize_t i = 0; i < size; i++)
        n += text[i] == ' ';
    return size < 0 ? -1 : n;
}

int bench_rest_wait(struct bench *b, struct error *err)
{
    uint64_t end_ns = clock_monotonic_ns() + BENCH_SILENCE_NS;
    while (children_count(b->server) > (int)N_ROLES) {
        if (clock_monotonic_ns() > end_ns)
            return error_set(err, ERROR_REQUEST_TIMEOUT, "waited in vain for the end of the server's other processes");
        if (!wait_ms(LOOK_MS))
            return error_set(err, ERROR_CANCELLED, "stopped by a signal");
    }
    return 0;
}

/* --- life --- */

static void levels_take(struct bench *b, yyjson_val *levels, bool *ret_testing)
{
    yyjson_arr_iter each = yyjson_arr_iter_with(levels);
    for (yyjson_val *item = yyjson_arr_iter_next(&each); item; item = yyjson_arr_iter_next(&each)) {
        const char *name = yyjson_get_str(yyjson_obj_get(item, "name"));
        const char *state = yyjson_get_str(yyjson_obj_get(item, "state"));
        const char *text = yyjson_get_str(yyjson_obj_get(item, "text"));
        enum ladder_level level = ladder_level_from_name(str_from(name));
        if (level == LADDER_NONE || !state)
            continue;
        struct bench_level *l = &b->levels[level - 1];
        l->available = strcmp(state, "available") == 0 && yyjson_get_bool(yyjson_obj_get(item, "limits"));
        l->degraded = yyjson_get_bool(yyjson_obj_get(item, "degraded"));
        (void)snprintf(l->text, sizeof l->text, "%s", text ? text : ""); /* cut is fine: for people */
        *ret_testing = *ret_testing || (l->wanted && strcmp(state, "testing") == 0);
    }
}

static int port_take(struct bench *b, const char *listen)
{
    const char *colon = listen ? strrchr(listen, ':') : NULL;
    uint64_t port = 0;
    if (!colon || str_to_u64(str_from(colon + 1), &port) < 0 || port == 0 || port > UINT16_MAX)
        return -ERROR_PEER;
    b->port = (uint16_t)port;
    return 0;
}

/* The last thing that the server said, for a failure. */
static void last_words(const struct bench *b, struct error *err)
{
    char path[PATH_MAX], tail[400] = "";
    (void)snprintf(path, sizeof path, "%s/log", b->folder); /* folder is half of it */
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    off_t from = size > (off_t)sizeof tail - 1 ? size - (off_t)sizeof tail + 1 : 0;
    ssize_t got = fd >= 0 ? pread(fd, tail, sizeof tail - 1, from) : 0;
    tail[got > 0 ? got : 0] = '\0';
    (void)error_set(err, ERROR_GONE, "the server of the bench did not start: ... %s", tail); /* the caller returns it */
}

static int server_ready(struct bench *b, struct error *err)
{
    uint64_t end_ns = clock_monotonic_ns() + START_MS * NS_PER_MS;
    for (;;) {
        _answer_ struct cli_answer answer = {0};
        struct error ignored = {0}; /* nobody listens yet */
        int r = bench_admin(b, "GET", "/v1alpha1/status", STR(""), &answer, &ignored);
        yyjson_val *root = r < 0 ? NULL : root_of(&answer);
        bool testing = false;
        /* `ready` waits for a first change */
        if (root && yyjson_get_bool(yyjson_obj_get(yyjson_obj_get(root, "gateway"), "connected"))) {
            levels_take(b, yyjson_obj_get(yyjson_obj_get(root, "isolation"), "levels"), &testing);
            b->slots = (uint32_t)yyjson_get_uint(yyjson_obj_get(yyjson_obj_get(root, "device"), "slots"));
            if (port_take(b, yyjson_get_str(yyjson_obj_get(root, "listen"))) == 0)
                return 0;
        }
        int status;
        if (waitpid(b->server, &status, WNOHANG) == b->server) {
            b->server = 0;
            last_words(b, err);
            return -ERROR_GONE;
        }
        if (clock_monotonic_ns() > end_ns)
            return error_set(err, ERROR_REQUEST_TIMEOUT, "the server of the bench was not ready in time");
        if (!wait_ms(LOOK_MS))
            return error_set(err, ERROR_CANCELLED, "stopped by a signal");
    }
}

/* A slow level is tested when a model first asks for it: one does, for each wanted level that is not there yet, and is
 * refused. What takes too long to test is not available. */
static int levels_wait(struct bench *b, struct error *err)
{
    for (int i = 0; i < LADDER_LEVEL_COUNT - 1; i++) {
        struct error refused = {0};
        struct bench_model model = {
            .tenant = BENCH_VICTIM, .name = "empty", .level = b->levels[i].level, .replicas_max = 1};
        if (b->levels[i].wanted && !b->levels[i].available && bench_model_apply(b, &model, &refused) >= 0 &&
            bench_model_delete(b, model.tenant, model.name, err) < 0)
            return -ERROR_PEER;
    }
    uint64_t end_ns = clock_monotonic_ns() + START_MS * NS_PER_MS;
    for (bool testing = true; testing && clock_monotonic_ns() < end_ns;) {
        _answer_ struct cli_answer answer = {0};
        int r = bench_admin(b, "GET", "/v1alpha1/status", STR(""), &answer, err);
        if (r < 0)
            return r;
        testing = false;
        levels_take(b, yyjson_obj_get(yyjson_obj_get(root_of(&answer), "isolation"), "levels"), &testing);
        if (testing && !wait_ms(LOOK_MS))
            return error_set(err, ERROR_CANCELLED, "stopped by a signal");
    }
    return 0;
}

__attribute__((noreturn)) static void server_exec(const struct bench *b, pid_t parent, int log)
{
    char data[PATH_MAX], config[PATH_MAX];
    (void)snprintf(data, sizeof data, "%s/data", b->folder);            /* folder is half of it */
    (void)snprintf(config, sizeof config, "%s/server.yaml", b->folder); /* likewise */
    sigset_t none;
    (void)sigemptyset(&none); /* cannot fail */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    /* ^C at the terminal is for us; we end the server */
    if (null < 0 || setpgid(0, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || getppid() != parent ||
        sigprocmask(SIG_SETMASK, &none, NULL) < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
        dup2(log, STDERR_FILENO) < 0)
        _exit(126);
    execl("/proc/self/exe", "bulkhead", "serve", "--data", data, "--listen", "127.0.0.1:0", "--config", config, NULL);
    _exit(127);
}

static int server_fork(struct bench *b, struct error *err)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/server.yaml", b->folder); /* folder is half of it */
    FILE *file = fopen(path, "wxe");
    if (!file)
        return error_set(err, ERROR_IO, "cannot write into a temporary folder: %s", strerrordesc_np(errno));
    fprintf(file,
            "apiVersion: " RESOURCE_API_VERSION "\nkind: Server\nmetadata: {name: bench}\n"
            "spec:\n  uids: {base: %u, count: %u}\n  drainTimeout: 1s\n",
            UIDS_BASE + ((uint32_t)getpid() % UIDS_RANGES) * UIDS_COUNT, UIDS_COUNT);
    if (fclose(file) != 0)
        return error_set(err, ERROR_IO, "cannot write into a temporary folder: %s", strerrordesc_np(errno));
    (void)snprintf(path, sizeof path, "%s/log", b->folder); /* likewise */
    _close_ int log = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0)
        return error_set(err, ERROR_IO, "cannot write into a temporary folder: %s", strerrordesc_np(errno));
    pid_t self = getpid();
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        return error_set(err, ERROR_IO, "cannot start a process: %s", strerrordesc_np(errno));
    if (pid == 0)
        server_exec(b, self, log);
    b->server = pid;
    return 0;
}

int bench_server_start(struct bench *b, struct error *err)
{
    const char *base = getenv("TMPDIR");
    int length = snprintf(b->folder, sizeof b->folder, "%s/bulkhead-bench-XXXXXX", base && base[0] ? base : "/tmp");
    if (length < 0 || (size_t)length >= sizeof b->folder || !mkdtemp(b->folder)) {
        b->folder[0] = '\0';
        return error_set(err, ERROR_IO, "cannot make a temporary folder: %s", strerrordesc_np(errno));
    }
    (void)snprintf(b->admin, sizeof b->admin, "%s/data/admin.sock", b->folder); /* folder is half of it */
    int r = server_fork(b, err);
    if (r >= 0)
        r = server_ready(b, err);
    if (r >= 0)
        r = tenant_make(b, BENCH_VICTIM, err);
    if (r >= 0)
        r = tenant_make(b, BENCH_NEIGHBOUR, err);
    return r < 0 ? r : levels_wait(b, err);
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    (void)remove(path); /* what stays is seen when its folder cannot be removed */
    return 0;
}

void bench_server_stop(struct bench *b)
{
    int status;
    if (b->server > 0) {
        uint64_t end_ns = clock_monotonic_ns() + STOP_MS * NS_PER_MS;
        (void)kill(b->server, SIGTERM); /* not reaped: it is there */
        while (waitpid(b->server, &status, WNOHANG) == 0) {
            if (clock_monotonic_ns() > end_ns) {
                (void)kill(b->server, SIGKILL);       /* likewise */
                (void)waitpid(b->server, &status, 0); /* its end is all that matters */
                (void)cli_complain("the server of the bench did not end by itself and was killed"); /* we end anyway */
                break;
            }
            (void)poll(NULL, 0, LOOK_MS); /* a pause */
        }
        b->server = 0;
    }
    if (b->folder[0] &&
        (nftw(b->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) < 0 || access(b->folder, F_OK) == 0))
        (void)cli_complain("the temporary folder %s could not be removed", b->folder); /* all that can be done */
    b->folder[0] = '\0';
}
