/* The blocking client, against our server and against servers that misbehave, each on a thread of its own. */
#include "wire/client.h"
#include "wire/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static char dir[] = "/tmp/wire-client-XXXXXX", path[64];

static int listen_at_path(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    (void)unlink(path);
    assert_int_equal(str_copy(str_from(path), a.sun_path, sizeof(a.sun_path)), 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 10), 0);
    return fd;
}

static struct wire_client_request request_of(const char *method, const char *target)
{
    return (struct wire_client_request){.method = method, .target = target, .body_fd = -1, .timeout_ms = 15000};
}

/* ---- our server ---- */

struct server_thread {
    pthread_t thread;
    uv_loop_t loop;
    uv_async_t quit;
    struct wire_server *server;
};

static void on_head(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    if (str_equal(x->request.path, STR("/refuse"))) {
        struct wire_answer a = {.status = 403, .body = STR("no"), .close = true};
        wire_answer(x, &a);
        return;
    }
    wire_accept(x, WIRE_WHOLE, 4 << 20);
}

static void on_end(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    char text[256];
    struct str type = wire_header_find(&x->request, STR("content-type"));
    uint32_t sum = 0;
    for (size_t i = 0; i < x->body.size; i++)
        sum = sum * 31 + (unsigned char)x->body.data[i];
    int n = snprintf(text, sizeof(text), "%s %.*s %.*s %zu %u", wire_method_names[x->request.method],
                     STR_ARG(x->request.target), STR_ARG(type), x->body.size, sum);
    struct wire_answer a = {.status = 200, .body = {text, (size_t)n}};
    static char large[100000];
    if (str_equal(x->request.path, STR("/large")))
        a.body = (struct str){memset(large, 'l', sizeof(large)), sizeof(large)};
    wire_answer(x, &a);
}

static void on_reset(void *ctx, struct wire_exchange *x, int code)
{
    (void)ctx;
    (void)x;
    (void)code;
}

static void on_done(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    (void)x;
}

static const struct wire_handler handler = {.head = on_head, .end = on_end, .reset = on_reset, .done = on_done};

static void on_quit(uv_async_t *quit)
{
    struct server_thread *s = quit->data;
    wire_server_stop(s->server);
    uv_close((uv_handle_t *)quit, NULL);
}

static void *serve(void *arg)
{
    struct server_thread *s = arg;
    (void)uv_run(&s->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void server_begin(struct server_thread *s)
{
    struct wire_config config;
    wire_config_default(&config);
    assert_int_equal(uv_loop_init(&s->loop), 0);
    assert_int_equal(uv_async_init(&s->loop, &s->quit, on_quit), 0);
    s->quit.data = s;
    assert_int_equal(wire_server_start(&s->loop, listen_at_path(), &config, &handler, NULL, &s->server, NULL), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_end(struct server_thread *s)
{
    assert_int_equal(uv_async_send(&s->quit), 0);
    assert_int_equal(pthread_join(s->thread, NULL), 0);
    assert_int_equal(uv_loop_close(&s->loop), 0);
}

static void expect(const struct wire_client_request *request, int wanted_status, const char *wanted)
{
    struct error err = {0};
    _buf_ struct buf body;
    buf_init(&body, MIB);
    int status = 0;
    if (wire_client_unix(path, request, &status, &body, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(status, wanted_status);
    if (wanted)
        assert_string_equal(buf_terminate(&body), wanted);
}

static void test_requests(void **state)
{
    (void)state;
    struct server_thread s;
    server_begin(&s);
    struct wire_client_request r = request_of("GET", "/a?b=c");
    expect(&r, 200, "GET /a?b=c  0 0");
    r = request_of("HEAD", "/a");
    expect(&r, 200, "");
    r = request_of("POST", "/a");
    expect(&r, 200, "POST /a  0 0");
    r.content_type = "application/json";
    r.body = STR("{}");
    expect(&r, 200, "POST /a application/json 2 3938");
    r = request_of("GET", "/large");
    struct error err = {0};
    _buf_ struct buf body;
    buf_init(&body, 100000);
    int status = 0;
    assert_int_equal(wire_client_unix(path, &r, &status, &body, &err), 0);
    assert_int_equal(body.size, 100000);
    buf_done(&body);
    buf_init(&body, 99999);
    assert_int_equal(wire_client_unix(path, &r, &status, &body, &err), -ERROR_LIMIT);
    server_end(&s);
}

static void test_file(void **state)
{
    (void)state;
    struct server_thread s;
    server_begin(&s);
    int fd = memfd_create("body", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 3000000), 0);
    struct wire_client_request r = request_of("PUT", "/f");
    r.body_fd = fd;
    r.body_fd_bytes = 2999999;
    expect(&r, 200, "PUT /f  2999999 0");
    /* refused while it is being sent: the refusal is the answer */
    r.target = "/refuse";
    expect(&r, 403, "no");
    r.target = "/f";
    r.body_fd_bytes = 4 << 20; /* the file is shorter */
    struct error err = {0};
    _buf_ struct buf body;
    buf_init(&body, 100);
    int status = 0;
    assert_int_equal(wire_client_unix(path, &r, &status, &body, &err), -ERROR_IO);
    close(fd);
    server_end(&s);
}

/* ---- others ---- */

struct canned {
    pthread_t thread;
    int fd;
    const char *answer; /* NULL: says nothing until the client goes */
};

static void *canned_serve(void *arg)
{
    struct canned *canned = arg;
    char piece[4096];
    int fd = accept4(canned->fd, NULL, NULL, SOCK_CLOEXEC);
    (void)!recv(fd, piece, sizeof(piece), 0);
    if (canned->answer)
        (void)!send(fd, canned->answer, strlen(canned->answer), MSG_NOSIGNAL);
    else
        (void)!recv(fd, piece, sizeof(piece), 0);
    close(fd);
    return NULL;
}

static int ask_canned(const char *answer, uint32_t timeout_ms, int *ret_status, struct buf *body, struct error *err)
{
    struct canned canned = {.fd = listen_at_path(), .answer = answer};
    assert_int_equal(pthread_create(&canned.thread, NULL, canned_serve, &canned), 0);
    struct wire_client_request r = request_of("GET", "/");
    r.timeout_ms = timeout_ms;
    int result = wire_client_unix(path, &r, ret_status, body, err);
    assert_int_equal(pthread_join(canned.thread, NULL), 0);
    close(canned.fd);
    return result;
}

static void test_answers(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        int result, status;
        const char *body;
    } rows[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 0, 200, "ok"},
        {"HTTP/1.1 200 OK\r\n\r\nuntil the end", 0, 200, "until the end"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 0, 200, "ok"},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 0, 201, ""},
        {"HTTP/1.1 204 No Content\r\n\r\n", 0, 204, ""},
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", -ERROR_PEER, 0, NULL},
        {"HTTP/1.1 200 OK\r\nContent-Le", -ERROR_PEER, 0, NULL},
        {"HTTP/1.1 100 Continue\r\n\r\n", -ERROR_PEER, 0, NULL},
        {"SSH-2.0-x\r\n", -ERROR_PEER, 0, NULL},
        {"", -ERROR_GONE, 0, NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct error err = {0};
        _buf_ struct buf body;
        buf_init(&body, 1000);
        int status = 0;
        int result = ask_canned(rows[i].answer, 15000, &status, &body, &err);
        if (result != rows[i].result)
            fail_msg("%s: %d %s", rows[i].answer, result, err.text);
        assert_int_equal(status, rows[i].status);
        if (rows[i].body)
            assert_string_equal(buf_terminate(&body), rows[i].body);
    }
    struct error err = {0};
    _buf_ struct buf body;
    buf_init(&body, 1000);
    int status = 0;
    assert_int_equal(ask_canned(NULL, 50, &status, &body, &err), -ERROR_REQUEST_TIMEOUT);
}

static int ask(const char *where, const struct wire_client_request *r)
{
    struct error err = {0};
    _buf_ struct buf body;
    buf_init(&body, 1000);
    int status = -7;
    int result = wire_client_unix(where, r, &status, &body, &err);
    assert_int_equal(status, -7); /* untouched on failure */
    assert_true(err.text[0] != '\0');
    return result;
}

static void test_nobody(void **state)
{
    (void)state;
    struct wire_client_request r = request_of("GET", "/");
    assert_int_equal(ask("/nowhere/admin.sock", &r), -ERROR_GONE);
    int fd = listen_at_path();
    if (geteuid() != 0) { /* root may do everything */
        assert_int_equal(chmod(path, 0), 0);
        assert_int_equal(ask(path, &r), -ERROR_FORBIDDEN);
    }
    close(fd);
    assert_int_equal(ask(path, &r), -ERROR_GONE); /* a socket file that nobody listens on */
    static char longer[200];
    memset(longer, 'x', sizeof(longer) - 1);
    assert_int_equal(ask(longer, &r), -ERROR_INVALID_ARGUMENT);
    fd = listen_at_path();
    r.target = "/a b";
    assert_int_equal(ask(path, &r), -ERROR_INVALID_ARGUMENT);
    r.target = "/a\r\nX: y";
    assert_int_equal(ask(path, &r), -ERROR_INVALID_ARGUMENT);
    close(fd);
}

int main(void)
{
    if (!mkdtemp(dir))
        return 1;
    (void)snprintf(path, sizeof(path), "%s/s", dir); /* fits */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_nobody),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    (void)rmdir(dir);
    return failed;
}
