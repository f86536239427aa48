/* The admin surface end to end: the commands of the command line, over a Unix socket, into a registry in memory;
 * control is replaced by the few functions the surface calls. */
#include "cli/cli.h"
#include "control/control.h"
#include "wire/client.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* --- a control that only publishes: at the next turn of the loop --- */

struct owed {
    control_taken_cb taken;
    control_infer_cb answered;
    void *ctx;
};

struct control {
    struct registry *registry;
    uv_loop_t loop;
    uv_idle_t later;
    struct owed owed[4];
    unsigned n_owed;
    int taken_status;
    uint64_t published;
    char infer[256];
};

struct registry *control_registry(struct control *c)
{
    return c->registry;
}

static void pay(uv_idle_t *later)
{
    struct control *c = later->data;
    while (c->n_owed > 0) {
        struct owed owed = c->owed[--c->n_owed];
        if (owed.taken)
            owed.taken(owed.ctx, c->taken_status);
        else
            owed.answered(owed.ctx, 200, STR("{\"outputs\":[]}"));
    }
    uv_idle_stop(later);
}

void control_apply(struct control *c, struct str body, struct buf *results, control_applied_cb done, void *ctx,
                   struct control_apply **ret_apply)
{
    struct registry_ingest ingest;
    struct registry_change change;
    struct error err = {0};
    int rc;
    (void)ret_apply;
    registry_ingest_init(&ingest);
    while ((rc = registry_apply(c->registry, body, &ingest, &change, results, &err)) > 0)
        assert_int_equal(registry_ingest_add(&ingest, STR("signature")), 0);
    registry_ingest_done(&ingest);
    done(ctx, rc, &change, &err);
}

void control_apply_cancel(struct control_apply *a)
{
    (void)a;
    fail_msg("no apply waits here");
}

void control_publish(struct control *c, uint64_t generation, control_taken_cb taken, void *ctx)
{
    c->published = generation;
    c->owed[c->n_owed++] = (struct owed){.taken = taken, .ctx = ctx};
    uv_idle_start(&c->later, pay);
}

bool control_peer_allowed(const struct control *c, uid_t uid)
{
    (void)c;
    return uid == getuid();
}

void control_status(struct control *c, struct buf *json)
{
    (void)c;
    buf_append_text(json, "{\"version\":\"0\",\"ready\":true}");
}

uint32_t control_devices(struct control *c, struct str name, struct buf *ret_items)
{
    (void)c;
    (void)name;
    buf_append_text(ret_items, "[]");
    return 0;
}

int control_top(struct control *c, struct buf *json, struct error *err)
{
    (void)c;
    (void)err;
    buf_append_text(json, "{}");
    return 0;
}

void control_replicas(struct control *c, struct str tenant, struct str name, struct buf *ret_items)
{
    (void)c;
    buf_format(ret_items, "[{\"metadata\":{\"tenant\":\"" STR_FORMAT "\",\"name\":\"r" STR_FORMAT "\"}}]",
               STR_ARG(tenant), STR_ARG(name));
}

void control_infer(struct control *c, struct str tenant, struct str model, struct str body, control_infer_cb done,
                   void *ctx)
{
    (void)snprintf(c->infer, sizeof c->infer, STR_FORMAT "/" STR_FORMAT " " STR_FORMAT, STR_ARG(tenant), STR_ARG(model),
                   STR_ARG(body));
    c->owed[c->n_owed++] = (struct owed){.answered = done, .ctx = ctx};
    uv_idle_start(&c->later, pay);
}

/* --- the fixture --- */

struct fixture {
    char folder[64], socket[80], artifacts[80];
    int artifacts_dir;
    struct control control;
    struct wire_server *server;
    uv_poll_t child; /* its end of a pipe closes with it */
    char out[65536];
    int status;
};

static int runtime_refusal(void *ctx, uint32_t level, uint32_t runtime, struct error *err)
{
    (void)ctx;
    (void)level;
    (void)runtime;
    (void)err;
    return 0;
}

static int level_refusal(void *ctx, uint32_t level, struct error *err)
{
    (void)ctx;
    return level == 3 ? 0 : error_set(err, ERROR_ISOLATION_UNAVAILABLE, "not built yet");
}

static bool engine_known(void *ctx, struct str name)
{
    (void)ctx;
    return str_equal(name, STR("identity"));
}

static bool engine_shared(void *ctx, struct str name)
{
    (void)ctx;
    (void)name;
    return true;
}

static uint64_t engine_id(void *ctx, struct str name)
{
    (void)ctx;
    (void)name;
    return 1;
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 16), 0);
    return fd;
}

static int setup(void **state)
{
    static struct fixture f;
    struct error err = {0};
    f = (struct fixture){.folder = "/tmp/bulkhead-admin-XXXXXX"};
    assert_non_null(mkdtemp(f.folder));
    (void)snprintf(f.socket, sizeof f.socket, "%s/admin.sock", f.folder);
    (void)snprintf(f.artifacts, sizeof f.artifacts, "%s/artifacts", f.folder);
    assert_int_equal(mkdir(f.artifacts, 0700), 0);
    f.artifacts_dir = open(f.artifacts, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    static const struct bus_device devices[] = {{.name = "cpu", .slots = 2}};
    struct registry_config config = {.store = &store_memory,
                                     .database = "",
                                     .artifacts_dir = f.artifacts_dir,
                                     .devices = devices,
                                     .n_devices = 1,
                                     .memory_bytes_max = GIB,
                                     .level_refusal = level_refusal,
                                     .runtime_refusal = runtime_refusal,
                                     .engine_known = engine_known,
                                     .engine_shared = engine_shared,
                                     .engine_lends = engine_shared,
                                     .engine_id = engine_id};
    assert_int_equal(registry_open(&config, &f.control.registry, &err), 0);
    uv_loop_init(&f.control.loop);
    uv_idle_init(&f.control.loop, &f.control.later);
    f.control.later.data = &f.control;
    struct wire_config wire;
    wire_config_default(&wire);
    wire.bodies_bytes_max = 64 * MIB;
    int rc = wire_server_start(&f.control.loop, listen_at(f.socket), &wire, &manage_admin_handler, &f.control,
                               &f.server, &err);
    if (rc < 0)
        fail_msg("%s", err.text);
    *state = &f;
    return 0;
}

static void remove_folder(const char *path)
{
    char command[128];
    (void)snprintf(command, sizeof command, "%s", path);
    char *argv[] = {"rm", "-rf", command, NULL};
    pid_t pid = fork();
    if (pid == 0) {
        execvp("rm", argv);
        _exit(1);
    }
    waitpid(pid, NULL, 0);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    wire_server_stop(f->server);
    uv_close((uv_handle_t *)&f->control.later, NULL);
    uv_run(&f->control.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->control.loop), 0); /* nothing is left on it */
    registry_close(f->control.registry);
    close(f->artifacts_dir);
    remove_folder(f->folder);
    return 0;
}

static void child_ended(uv_poll_t *poll, int status, int events)
{
    struct fixture *f = poll->data;
    (void)status;
    (void)events;
    int fd;
    uv_fileno((uv_handle_t *)poll, &fd);
    size_t size = strlen(f->out);
    ssize_t n = read(fd, f->out + size, sizeof f->out - size - 1);
    if (n > 0) {
        f->out[size + (size_t)n] = '\0';
        return;
    }
    uv_close((uv_handle_t *)poll, NULL);
    uv_stop(&f->control.loop);
}

/* Runs `function` in a child whose output is collected, and the server here meanwhile. */
static void run_child(struct fixture *f, int (*function)(struct fixture *f, char **argv), char **argv)
{
    int pipes[2];
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    f->out[0] = '\0';
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        setvbuf(stderr, NULL, _IONBF, 0);
        int status = function(f, argv);
        fflush(stdout);
        _exit(status);
    }
    close(pipes[1]);
    uv_poll_init(&f->control.loop, &f->child, pipes[0]);
    f->child.data = f;
    uv_poll_start(&f->child, UV_READABLE | UV_DISCONNECT, child_ended);
    uv_run(&f->control.loop, UV_RUN_DEFAULT);
    close(pipes[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    f->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run_cli(struct fixture *f, char **argv)
{
    static const struct cli_hooks hooks = {.serve = NULL};
    (void)f;
    int argc = 0;
    while (argv[argc])
        argc++;
    return cli_main(&hooks, argc, argv);
}

/* `bulkhead line --admin SOCKET` */
static const char *run(struct fixture *f, int expected, const char *line)
{
    char words[512], *argv[32] = {"bulkhead"}, *rest = words;
    int argc = 1;
    (void)snprintf(words, sizeof words, "%s --admin %s", line, f->socket);
    for (char *word = strsep(&rest, " "); word && argc < 31; word = rest ? strsep(&rest, " ") : NULL)
        argv[argc++] = word;
    run_child(f, run_cli, argv);
    if (f->status != expected)
        fail_msg("bulkhead %s: %d, not %d: %s", line, f->status, expected, f->out);
    return f->out;
}

static void has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not hold \"%s\"", text, part);
}

static void write_file(struct fixture *f, const char *name, const char *content)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/%s", f->folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(content, file) >= 0);
    fclose(file);
}

#define API "apiVersion: bulkhead.dev/v1alpha1\n"

static const char *apply(struct fixture *f, int expected, const char *yaml)
{
    char line[128];
    write_file(f, "file.yaml", yaml);
    (void)snprintf(line, sizeof line, "apply -f %s/file.yaml", f->folder);
    return run(f, expected, line);
}

#define DEMO                                                                                                \
    API "kind: Model\nmetadata: {name: digits, tenant: acme}\nspec: {engine: identity, source: sub.json}\n" \
        "---\n" API "kind: Tenant\nmetadata: {name: acme}\nspec: {weight: 3}\n"

/* --- the tests --- */

static void test_life(void **state)
{
    struct fixture *f = *state;
    write_file(f, "sub.json", "{}");
    assert_string_equal(apply(f, 0, DEMO), "Model acme/digits created (version 1)\nTenant acme created\n");
    assert_int_equal(f->control.published, 1);
    assert_string_equal(apply(f, 0, DEMO), "Model acme/digits unchanged (version 1)\nTenant acme unchanged\n");
    write_file(f, "sub.json", "{ }");
    assert_string_equal(apply(f, 0, DEMO), "Model acme/digits changed (version 2)\nTenant acme unchanged\n");

    const char *table = run(f, 0, "get models");
    has(table, "TENANT  NAME    ENGINE    LEVEL    CPU  MEMORY  VERSION  REPLICAS  DIGEST        AGE\n");
    has(table, "acme    digits  identity  process  1    256Mi   2        0-1       ");
    has(run(f, 0, "get tenant acme"), "acme  3 ");
    has(run(f, 0, "get versions --tenant acme"), "acme    digits  1        false");
    has(run(f, 0, "get replicas --tenant acme"), "acme    -      -        r     -");
    has(run(f, 0, "get model digits --tenant acme -o json"), "\"kind\": \"Model\"");
    has(run(f, 0, "get models -o json"), "\"items\": [");

    has(run(f, 1, "delete tenant acme"), "Tenant acme still has models (digits, for one); delete them first");
    assert_string_equal(run(f, 0, "delete model digits --tenant acme"), "Model acme/digits deleted\n");
    assert_string_equal(run(f, 0, "delete tenant acme"), "Tenant acme deleted\n");
    has(run(f, 0, "get tenants"), "none");
}

static int apply_stdin(struct fixture *f, char **argv)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/again.yaml", f->folder);
    int fd = open(path, O_RDONLY);
    dup2(fd, STDIN_FILENO);
    return chdir(f->artifacts) == 0 ? run_cli(f, argv) : 99; /* the source is not here */
}

static void test_get_feeds_apply(void **state)
{
    struct fixture *f = *state;
    write_file(f, "sub.json", "{}");
    apply(f, 0, DEMO);
    const char *yaml = run(f, 0, "get models -o yaml");
    has(yaml, "---\napiVersion: bulkhead.dev/v1alpha1\nkind: Model\n");
    write_file(f, "again.yaml", yaml);
    char *argv[] = {"bulkhead", "apply", "-f", "-", "--admin", f->socket, NULL};
    run_child(f, apply_stdin, argv);
    assert_string_equal(f->out, "Model acme/digits unchanged (version 1)\n");
    assert_int_equal(f->status, 0);
    apply(f, 0,
          API "kind: Model\nmetadata: {name: digits, tenant: acme}\n"
              "spec: {engine: identity, source: sub.json, replicas: {max: 2}}\n");
    run_child(f, apply_stdin, argv);
    assert_int_equal(f->status, 1);
    has(f->out, "standard input: document 1 (line 2): Model acme/digits: metadata.resourceVersion is ");
}

static void test_keys(void **state)
{
    struct fixture *f = *state;
    write_file(f, "sub.json", "{}");
    apply(f, 0, DEMO);
    char out[256], line[128];
    (void)snprintf(out, sizeof out, "%s", run(f, 0, "key create --tenant acme --name ci"));
    char *key = strrchr(out, ' ') + 1;
    key[strcspn(key, "\n")] = '\0';
    assert_int_equal(strlen(key), REGISTRY_KEY_BYTES);
    const char *list = run(f, 0, "key list");
    has(list, "acme    ci");
    assert_null(strstr(list, key + 20));
    (void)snprintf(line, sizeof line, "key revoke %.16s", key + 3);
    has(run(f, 0, line), " revoked\n");
    has(run(f, 1, line), "there is no key of this id");
    has(run(f, 1, "key create --tenant nobody"), "there is no Tenant nobody");
}

static void test_refused(void **state)
{
    struct fixture *f = *state;
    write_file(f, "sub.json", "{}");
    has(apply(f, 1,
              API "kind: Model\nmetadata: {name: m, tenant: nobody}\nspec: {engine: identity, source: sub.json}\n"),
        "file.yaml: document 1 (line 1): Model nobody/m: metadata.tenant: there is no Tenant nobody");
    has(apply(f, 1,
              DEMO "---\n" API "kind: Model\nmetadata: {name: m, tenant: acme}\n"
                   "spec: {engine: identity, source: sub.json, isolation: {level: microvm}}\n"),
        "document 3 (line 11): Model acme/m: spec.isolation.level: \"microvm\" is not available: not built yet");
    has(run(f, 0, "get tenants"), "none"); /* nothing of it stayed */
    has(run(f, 1, "get models --tenant nobody"), "there is no Tenant nobody");
    has(run(f, 1, "get tenant nobody"), "there is no Tenant nobody");
}

static void test_pending(void **state)
{
    struct fixture *f = *state;
    write_file(f, "sub.json", "{}");
    f->control.taken_status = -ERROR_PENDING;
    has(apply(f, 0, DEMO), "stored as generation 1, but pending");
}

static void test_status_and_infer(void **state)
{
    struct fixture *f = *state;
    assert_string_equal(run(f, 0, "status"), "version: \"0\"\nready: true\n");
    char line[128];
    write_file(f, "in.json", "{\"inputs\":[]}");
    (void)snprintf(line, sizeof line, "infer digits --tenant acme --input %s/in.json", f->folder);
    assert_string_equal(run(f, 0, line), "{\"outputs\":[]}\n");
    assert_string_equal(f->control.infer, "acme/digits {\"inputs\":[]}");
}

/* argv: method, target, body; prints status and answer. */
static int run_raw(struct fixture *f, char **argv)
{
    struct wire_client_request request = {
        .method = argv[0], .target = argv[1], .body = str_from(argv[2]), .body_fd = -1, .timeout_ms = 5000};
    struct buf body;
    struct error err = {0};
    int status = 0;
    buf_init(&body, MIB);
    if (wire_client_unix(f->socket, &request, &status, &body, &err) < 0)
        printf("%s", err.text);
    printf("%d %s", status, buf_terminate(&body));
    buf_done(&body);
    return 0;
}

static void test_routes(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *method, *target, *body, *answer;
    } cases[] = {
        {"GET", "/", "", "404 {\"error\":\"There is nothing at this address.\",\"code\":\"not_found\"}\n"},
        {"GET", "/v1alpha1", "", "404 "},
        {"GET", "/v1alpha1/", "", "404 "},
        {"GET", "/v1alpha1/frogs", "", "404 {\"error\":\"there is no kind \\\"frogs\\\"\",\"code\":\"not_found\"}"},
        {"GET", "/v1alpha1/models/a/b", "", "404 "},
        {"GET", "/v1alpha1/models//", "", "404 "},
        {"GET", "/v1alpha1/servers", "", "404 "},
        {"POST", "/v1alpha1/models", "{}", "405 "},
        {"GET", "/v1alpha1/apply", "", "405 "},
        {"GET", "/v1alpha1/artifacts", "", "405 "},
        {"DELETE", "/v1alpha1/status", "", "405 "},
        {"GET", "/v1alpha1/models?frog=1", "", "400 {\"error\":\"this address does not take \\\"frog\\\""},
        {"GET", "/v1alpha1/models?tenant=A%20", "", "400 {\"error\":\"A name is not"},
        {"GET", "/v1alpha1/models?tenant=&", "", "200 {\"items\":[]}\n"},
        {"GET", "/v1alpha1/versions", "", "200 {\"items\":[]}\n"},
        {"POST", "/v1alpha1/apply", "{", "400 {\"error\":\"the body is not valid JSON"},
        {"POST", "/v1alpha1/apply", "", "400 "},
        {"POST", "/v1alpha1/keys", "[]", "400 {\"error\":\"expected {\\\"tenant\\\""},
        {"POST", "/v1alpha1/keys", "{\"name\":\"a\"}", "400 {\"error\":\"tenant: required\""},
        {"POST", "/v1alpha1/keys", "{\"tenant\":1}", "400 {\"error\":\"tenant: expected a string\""},
        {"POST", "/v1alpha1/keys", "{\"frog\":1}", "400 {\"error\":\"unknown member \\\"frog\\\"\""},
        {"POST", "/v1alpha1/infer", "{}", "400 {\"error\":\"the query must name tenant and model\""},
        {"POST", "/v1alpha1/artifacts", "", "400 {\"error\":\"the artifact is empty\""},
        {"POST", "/v1alpha1/artifacts", "abc",
         "200 {\"digest\":\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\",\"bytes\":3}\n"},
        {"DELETE", "/v1alpha1/versions/x?tenant=a", "", "400 "},
        {"DELETE", "/v1alpha1/keys/nope", "", "404 "},
        {"DELETE", "/v1alpha1/models/x", "", "400 "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *argv[] = {(char *)cases[i].method, (char *)cases[i].target, (char *)cases[i].body, NULL};
        run_child(f, run_raw, argv);
        if (strncmp(f->out, cases[i].answer, strlen(cases[i].answer)) != 0)
            fail_msg("%s %s: \"%s\", not \"%s\"", cases[i].method, cases[i].target, f->out, cases[i].answer);
    }
}

/* A client that goes away while control still owes it an answer, and one in the middle of an upload. */
static int run_cut(struct fixture *f, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", f->socket);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        write(fd, argv[0], strlen(argv[0])) != (ssize_t)strlen(argv[0]))
        return 1;
    close(fd);
    return 0;
}

static void test_cut(void **state)
{
    struct fixture *f = *state;
    char *infer[] = {"POST /v1alpha1/infer?tenant=a&model=b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", NULL};
    char *upload[] = {"POST /v1alpha1/artifacts HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\nhalf", NULL};
    for (int i = 0; i < 10; i++) {
        run_child(f, run_cut, infer);
        assert_int_equal(f->status, 0);
        run_child(f, run_cut, upload);
        assert_int_equal(f->status, 0);
    }
    has(run(f, 0, "status"), "ready: true");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_life),    TEST(test_get_feeds_apply),  TEST(test_keys),   TEST(test_refused),
        TEST(test_pending), TEST(test_status_and_infer), TEST(test_routes), TEST(test_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
