#include "serve.h"

#include "base/log.h"
#include "cli/yaml.h"
#include "engine/engine.h"
#include "isolate/isolate_rootless.h"
#include "resource/resource.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define CONFIG_BYTES_MAX (64 * KIB)
#define PROFILE_EDGE     1u /* index of the profile in its field's words */

struct arguments {
    const char *data, *listen, *config, *engines, *scheduler;
    bool allow_unlimited;
    uint32_t rootless_ids; /* 0: started as root; else users 1 … of the namespace are the server's */
};

static int usage(const char *text, const char *argument)
{
    (void)fprintf(stderr, "bulkhead serve: %s%s%s\nTry `bulkhead serve --help`.\n", text, argument ? " " : "",
                  argument ? argument : "");
    return 2;
}

static int arguments_parse(int argc, char **argv, struct arguments *a)
{
    struct {
        const char *name;
        const char **value;
    } flags[] = {{"--data", &a->data},
                 {"--listen", &a->listen},
                 {"--config", &a->config},
                 {"--engines", &a->engines},
                 {"--scheduler", &a->scheduler}};
    for (int i = 1; i < argc; i++) {
        bool known = strcmp(argv[i], "--allow-unlimited") == 0;
        a->allow_unlimited = a->allow_unlimited || known;
        for (size_t k = 0; !known && k < sizeof flags / sizeof flags[0]; k++) {
            size_t size = strlen(flags[k].name);
            if (strcmp(argv[i], flags[k].name) == 0) {
                if (i + 1 >= argc)
                    return usage("a value is missing after", argv[i]);
                *flags[k].value = argv[++i];
                known = true;
            } else if (strncmp(argv[i], flags[k].name, size) == 0 && argv[i][size] == '=') {
                *flags[k].value = argv[i] + size + 1;
                known = true;
            }
        }
        if (!known)
            return usage("unknown argument", argv[i]);
    }
    if (a->scheduler && strcmp(a->scheduler, "fair") != 0 && strcmp(a->scheduler, "fifo") != 0)
        return usage("--scheduler takes fair or fifo, not", a->scheduler);
    return a->data ? 0 : usage("--data DIR is required", NULL);
}

/* --- the Server file --- */

static int file_read(const char *path, struct buf *content, struct error *err)
{
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "%s cannot be read: %s", path, strerror(errno));
    for (;;) {
        char *room = buf_reserve(content, 4096);
        if (!room)
            return error_set(err, ERROR_INVALID_ARGUMENT, "%s is larger than %zu bytes", path, CONFIG_BYTES_MAX);
        ssize_t got = read(fd, room, 4096);
        if (got < 0)
            return error_set(err, ERROR_INVALID_ARGUMENT, "%s cannot be read: %s", path, strerror(errno));
        if (got == 0)
            return 0;
        buf_commit(content, (size_t)got);
    }
}

static int server_decode(struct str yaml, struct resource_server *server, struct error *err)
{
    _buf_ struct buf json;
    buf_init(&json, 4 * CONFIG_BYTES_MAX);
    int r = cli_yaml_to_json(yaml, &json, err);
    if (r < 0)
        return r;
    yyjson_doc *doc = yyjson_read(json.data, json.size, 0);
    yyjson_val *first = doc ? yyjson_arr_get(yyjson_doc_get_root(doc), 0) : NULL;
    enum resource_kind kind = RESOURCE_NONE;
    if (!doc || yyjson_arr_size(yyjson_doc_get_root(doc)) != 1)
        r = error_set(err, ERROR_INVALID_RESOURCE, "the file must hold exactly one document of kind Server");
    if (r >= 0)
        r = resource_peek(first, &kind, err);
    if (r >= 0 && kind != RESOURCE_SERVER)
        r = error_set(err, ERROR_INVALID_RESOURCE, "the document is a %s; --config takes a Server",
                      resource_kinds[kind].name);
    if (r >= 0)
        r = resource_decode(first, kind, server, err);
    yyjson_doc_free(doc);
    return r;
}

static int server_load(const char *path, struct resource_server *server, struct error *err)
{
    static const char defaults[] = "apiVersion: " RESOURCE_API_VERSION "\nkind: Server\nmetadata: {name: default}\n";
    if (!path)
        return server_decode(str_from(defaults), server, err);
    _buf_ struct buf yaml;
    buf_init(&yaml, CONFIG_BYTES_MAX + 4096);
    int r = file_read(path, &yaml, err);
    if (r < 0)
        return r;
    r = server_decode((struct str){yaml.data, yaml.size}, server, err);
    return r < 0 ? error_wrap(err, r, "%s", path) : r;
}

/* --- programs and libraries --- */

static int open_beside(const char *folder, const char *name)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    return length > 0 && (size_t)length < sizeof path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
}

static int self_folder(char folder[static PATH_MAX], struct error *err)
{
    ssize_t size = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    if (size <= 0)
        return error_set(err, ERROR_IO, "cannot find this program's own file: %s", strerror(errno));
    folder[size] = '\0';
    char *slash = strrchr(folder, '/');
    *(slash ? slash : folder) = '\0';
    return 0;
}

static int programs_open(const struct arguments *a, struct supervisor_config *config, struct error *err)
{
    char folder[PATH_MAX], engines[PATH_MAX + 16];
    int r = self_folder(folder, err);
    if (r < 0)
        return r;
    config->program_fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    config->worker_fd = open_beside(folder, "bulkhead-worker");
    if (config->worker_fd < 0 && errno == ENOENT)
        return error_set(err, ERROR_IO,
                         "the program bulkhead-worker is not beside bulkhead; build it with `make build`");
    config->image_fd = open_beside(folder, "bulkhead-image"); /* without it images are refused */
    if (config->program_fd < 0 || config->worker_fd < 0)
        return error_set(err, ERROR_IO, "the programs bulkhead and bulkhead-worker cannot be opened: %s",
                         strerror(errno));
    (void)snprintf(engines, sizeof engines, "%s/engines", folder); /* PATH_MAX and 16 hold both */
    for (size_t i = 0; config->n_engines < SUPERVISOR_ENGINES_MAX; i++) {
        const struct engine_ops *ops = engine_at(i);
        if (!ops)
            break;
        int fd = ops->library ? open_beside(a->engines ? a->engines : engines, ops->library) : -1;
        if (ops->library && fd < 0) {
            log_warn("engine_missing", "engine %s: %s is not in the engines folder; models that need it are refused",
                     ops->name, ops->library);
            continue;
        }
        config->engines[config->n_engines++] = (struct supervisor_engine){ops->name, fd};
    }
    return 0;
}

static uint32_t cpu_slots(const struct resource_server *server)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t have = cores > 0 ? (uint64_t)cores : 1;
    uint64_t reserved = server->cpu_reserved == UINT64_MAX ? (have > 2 ? 1 : 0) : server->cpu_reserved;
    return (uint32_t)(have > reserved ? have - reserved : 1);
}

/* cpu first, listed or found; then the others in their order. LIMIT_DEVICES hold all that the file may list, but cpu.
 */
static uint32_t devices_of(const struct resource_server *server, struct bus_device devices[static LIMIT_DEVICES])
{
    uint32_t n = 1;
    devices[0] = (struct bus_device){.name = "cpu", .slots = cpu_slots(server)};
    for (uint32_t i = 0; i < server->devices.n; i++) {
        bool is_cpu = strcmp(server->devices.entries[i].name, "cpu") == 0;
        if (!is_cpu && n == LIMIT_DEVICES)
            break;
        struct bus_device *device = is_cpu ? &devices[0] : &devices[n++];
        device->slots = server->devices.entries[i].slots;
        memcpy(device->name, server->devices.entries[i].name, sizeof device->name);
    }
    return n;
}

static uint32_t ms_of(uint64_t ns)
{
    uint64_t ms = ns / 1000000;
    return ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

/* The profile's bounds, over whatever the file says. */
static void edge_cut(struct supervisor_config *config)
{
    config->edge = 1;
    config->bodies_bytes_max = LIMIT_EDGE_BODIES_BYTES;
    config->pool_size = 0;
    if (config->connections_max > LIMIT_EDGE_CONNECTIONS)
        config->connections_max = LIMIT_EDGE_CONNECTIONS;
    if (config->body_bytes_max > LIMIT_EDGE_BODY_BYTES)
        config->body_bytes_max = LIMIT_EDGE_BODY_BYTES;
    if (config->queue_bytes_max > LIMIT_EDGE_QUEUE_BYTES)
        config->queue_bytes_max = LIMIT_EDGE_QUEUE_BYTES;
}

static void config_fill(const struct arguments *a, const struct resource_server *server,
                        struct supervisor_config *config)
{
    *config = (struct supervisor_config){
        .data_dir = a->data,
        .listen = a->listen ? a->listen : server->listen,
        .metrics_listen = server->metrics_listen,
        .admin_group = server->group,
        .uid_base = (uint32_t)server->uid_base,
        .uid_count = (uint32_t)server->uid_count,
        .fifo = a->scheduler && strcmp(a->scheduler, "fifo") == 0,
        .share_interactive = (uint32_t)server->share_interactive * 10,
        .share_batch = (uint32_t)server->share_batch * 10,
        .queue_bytes_max = server->queue_bytes,
        .bodies_bytes_max = LIMIT_BODIES_BYTES,
        .log_level = server->log_level,
        .connections_max = (uint32_t)server->connections,
        .body_bytes_max = server->body_bytes,
        .head_timeout_ms = ms_of(server->head_timeout_ns),
        .idle_timeout_ms = ms_of(server->idle_timeout_ns),
        .write_timeout_ms = ms_of(server->write_timeout_ns),
        .drain_timeout_ms = ms_of(server->drain_timeout_ns),
        .request_timeout_ms = ms_of(server->request_timeout_ns),
        .pool_size = (uint32_t)server->pool_size,
        .allow_unlimited = a->allow_unlimited,
        .program_fd = -1,
        .worker_fd = -1,
        .image_fd = -1,
    };
    config->n_devices = devices_of(server, config->devices);
    if (server->profile == PROFILE_EDGE)
        edge_cut(config);
    if (a->rootless_ids > 0) { /* spec.uids speaks of the host's ids, which a plain user does not have */
        config->uid_base = 1;
        config->uid_count = config->uid_count < a->rootless_ids ? config->uid_count : a->rootless_ids;
    }
}

/* A plain user's server lives in a user namespace. Before anything is opened: nothing may be left from outside. */
static int rootless(struct arguments *a, struct error *err)
{
    if (geteuid() == 0)
        return 0;
    int r = isolate_rootless_enter(&a->rootless_ids, err);
    return r < 0 ? error_wrap(err, r,
                              "the server needs root to give each worker its own user, namespaces and limits; start it "
                              "with sudo. As a plain user it can do less, but here not even that")
                 : 0;
}

/* SIGHUP: the same file and the same arguments again. */
static int reload(void *ctx, void (*use)(void *use_ctx, const struct supervisor_config *config), void *use_ctx,
                  struct error *err)
{
    const struct arguments *a = ctx;
    struct resource_server server;
    struct supervisor_config config;
    int r = server_load(a->config, &server, err);
    if (r < 0)
        return r;
    config_fill(a, &server, &config);
    use(use_ctx, &config);
    return 0;
}

int serve_main(int argc, char **argv)
{
    struct arguments a = {0};
    int r = arguments_parse(argc, argv, &a);
    if (r != 0)
        return r;
    struct error err = {0};
    struct resource_server server;
    struct supervisor_config config;
    r = server_load(a.config, &server, &err);
    if (r < 0) {
        (void)fprintf(stderr, "bulkhead serve: %s\n", error_text(&err, r));
        return 1;
    }
    r = rootless(&a, &err);
    if (r < 0) {
        (void)fprintf(stderr, "bulkhead serve: %s\n", error_text(&err, r));
        return 1;
    }
    config_fill(&a, &server, &config);
    config.reload = a.config ? reload : NULL;
    config.reload_ctx = &a;
    log_setup("supervisor", (enum log_level)config.log_level);
    if (a.rootless_ids > 0)
        log_warn("rootless",
                 "started as a plain user: users and groups are %u subordinate ids; limits by control groups "
                 "need root, so models are refused unless --allow-unlimited is given",
                 a.rootless_ids);
    r = programs_open(&a, &config, &err);
    int status = r < 0 ? 1 : supervisor_run(&config, &err);
    if (err.code < 0)
        (void)fprintf(stderr, "bulkhead serve: %s\n", error_text(&err, err.code));
    return status;
}
