/* A table of raw requests: what each is answered, and whether the connection goes on. Each is sent in one piece and
 * byte by byte. */
#include "test/unit/wire/fixture.h"

struct row {
    const char *name;
    struct str raw;
    int status[3];    /* of the answers, in order; 0 ends */
    bool goes_on;     /* the connection takes another request afterwards */
    const char *echo; /* body of the first answer; NULL: any */
};

#define H "Host: a\r\n"
#define ROW(name, raw, ...)         \
    {                               \
        name, STR(raw), __VA_ARGS__ \
    }

static const struct row rows[] = {
    ROW("get", "GET /x HTTP/1.1\r\n" H "\r\n", {200}, true, "GET /x  0"),
    ROW("query", "GET /x?a=b&c?d HTTP/1.1\r\n" H "\r\n", {200}, true, "GET /x a=b&c?d 0"),
    ROW("no path before the query", "GET http://a?b HTTP/1.1\r\n" H "\r\n", {200}, true, "GET / b 0"),
    ROW("put", "PUT /x HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc", {200}, true, "PUT /x  3"),
    ROW("delete", "DELETE /x HTTP/1.1\r\n" H "\r\n", {200}, true, "DELETE /x  0"),
    ROW("a method without a name here", "PATCH /x HTTP/1.1\r\n" H "\r\n", {200}, true, "OTHER /x  0"),
    ROW("post without a body", "POST /x HTTP/1.1\r\n" H "\r\n", {200}, true, "POST /x  0"),
    ROW("length zero", "POST /x HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", {200}, true, "POST /x  0"),
    ROW("leading zeros", "POST /x HTTP/1.1\r\n" H "Content-Length: 003\r\n\r\nabc", {200}, true, "POST /x  3"),
    ROW("get with a body", "GET /x HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc", {200}, true, "GET /x  3"),
    ROW("header names in any case", "POST /x HTTP/1.1\r\nhOST: a\r\nCONTENT-LENGTH: 3\r\n\r\nabc", {200}, true,
        "POST /x  3"),
    ROW("empty header", "GET /x HTTP/1.1\r\n" H "A:\r\nB:  \t \r\n\r\n", {200}, true, NULL),
    ROW("bytes above 127 in a value", "GET /x HTTP/1.1\r\n" H "A: \xe4\xff\r\n\r\n", {200}, true, NULL),
    ROW("one empty line before", "\r\nGET /x HTTP/1.1\r\n" H "\r\n", {200}, true, NULL),
    ROW("chunked",
        "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
        {200}, true, "POST /x  13"),
    ROW("chunked, no chunk", "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", {200}, true,
        "POST /x  0"),
    ROW("trailers", "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: u\r\nV: w\r\n\r\n",
        {200}, true, "POST /x  1"),
    ROW("two in one piece", GET("/x") GET("/y"), {200, 200}, true, "GET /x  0"),
    ROW("three, the last with a body", GET("/x") GET("/y") "POST /z HTTP/1.1\r\n" H "Content-Length: 1\r\n\r\na",
        {200, 200, 200}, true, NULL),
    ROW("chunked, then another",
        "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n" GET("/y"), {200, 200}, true,
        NULL),
    ROW("close", "GET /x HTTP/1.1\r\n" H "Connection: close\r\n\r\n", {200}, false, NULL),
    ROW("close among others", "GET /x HTTP/1.1\r\n" H "Connection: te, CLOSE\r\n\r\n", {200}, false, NULL),
    ROW("nothing after close", "GET /x HTTP/1.1\r\n" H "Connection: close\r\n\r\n" GET("/y"), {200}, false, NULL),
    ROW("1.0", "GET /x HTTP/1.0\r\n\r\n", {200}, false, NULL),
    ROW("1.0 that stays", "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", {200}, true, NULL),
    ROW("upgrade is ignored", "GET /x HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" GET("/y"),
        {200, 200}, true, NULL),
    ROW("upgrade with a body is ignored",
        "POST /x HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n"
        "1\r\na\r\n0\r\n\r\n" GET("/y"),
        {200, 200}, true, "POST /x  1"),
    ROW("absolute form", "GET http://b:80/x?y HTTP/1.1\r\n" H "\r\n", {200}, true, "GET /x y 0"),
    ROW("absolute form, https", "GET HTTPS://b/x HTTP/1.1\r\n" H "\r\n", {200}, true, "GET /x  0"),
    ROW("asterisk form", "OPTIONS * HTTP/1.1\r\n" H "\r\n", {200}, true, "OPTIONS *  0"),
    ROW("continue", "POST /x HTTP/1.1\r\n" H "Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc", {200}, true, NULL),
    ROW("continue without a body", "GET /x HTTP/1.1\r\n" H "Expect: 100-continue\r\n\r\n", {200}, true, NULL),
    ROW("1.0 knows no expectation", "POST /x HTTP/1.0\r\nContent-Length: 3\r\nExpect: tea\r\n\r\nabc", {200}, false,
        NULL),

    ROW("asterisk form, wrong method", "GET * HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("authority form", "CONNECT b:80 HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("another scheme", "GET ftp://b/x HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("absolute form without a host", "GET http:///x HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("fragment", "GET /x#y HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("relative target", "GET x HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("unknown method", "BREW /x HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("method in small letters", "get /x HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("two spaces", "GET  /x HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("two spaces before the version", "GET /x  HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("space behind the version", "GET /x HTTP/1.1 \r\n" H "\r\n", {400}, false, NULL),
    ROW("0.9", "GET /x\r\n\r\n", {400}, false, NULL),
    ROW("1.2", "GET /x HTTP/1.2\r\n" H "\r\n", {400}, false, NULL),
    ROW("2.0", "GET /x HTTP/2.0\r\n" H "\r\n", {400}, false, NULL),
    ROW("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", {400}, false, NULL),
    ROW("another protocol", "OPTIONS /x RTSP/1.0\r\n" H "\r\n", {400}, false, NULL),
    ROW("TLS", "\x16\x03\x01\x00\xc2\x01\x00\x00\xbe\x03\x03", {400}, false, NULL),
    ROW("control byte in the target", "GET /x\001 HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("high byte in the target", "GET /x\xc3\xa4 HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("no host", "GET /x HTTP/1.1\r\n\r\n", {400}, false, NULL),
    ROW("two hosts", "GET /x HTTP/1.1\r\n" H H "\r\n", {400}, false, NULL),
    ROW("no host name", "GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", {400}, false, NULL),
    ROW("two empty lines before", "\r\n\r\nGET /x HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("bare LF before", "\nGET /x HTTP/1.1\r\n" H "\r\n", {400}, false, NULL),
    ROW("bare LF", "GET /x HTTP/1.1\nHost: a\n\n", {400}, false, NULL),
    ROW("bare LF behind a header", "GET /x HTTP/1.1\r\nHost: a\nB: c\r\n\r\n", {400}, false, NULL),
    ROW("bare LF at the end", "GET /x HTTP/1.1\r\n" H "\n", {400}, false, NULL),
    ROW("bare CR", "GET /x HTTP/1.1\r\n" H "A: b\rC: d\r\n\r\n", {400}, false, NULL),
    ROW("CR and no LF at the end", "GET /x HTTP/1.1\r\n" H "\rX", {400}, false, NULL),
    ROW("NUL in a value", "GET /x HTTP/1.1\r\n" H "A: b\0c\r\n\r\n", {400}, false, NULL),
    ROW("control byte in a value", "GET /x HTTP/1.1\r\n" H "A: b\001\r\n\r\n", {400}, false, NULL),
    ROW("DEL in a value", "GET /x HTTP/1.1\r\n" H "A: b\x7f\r\n\r\n", {400}, false, NULL),
    ROW("NUL in a name", "GET /x HTTP/1.1\r\n" H "A\0: b\r\n\r\n", {400}, false, NULL),
    ROW("folded header", "GET /x HTTP/1.1\r\n" H "A: b\r\n c\r\n\r\n", {400}, false, NULL),
    ROW("space before the colon", "GET /x HTTP/1.1\r\n" H "A : b\r\n\r\n", {400}, false, NULL),
    ROW("space before a name", "GET /x HTTP/1.1\r\n A: b\r\n" H "\r\n", {400}, false, NULL),
    ROW("no colon", "GET /x HTTP/1.1\r\n" H "A\r\n\r\n", {400}, false, NULL),
    ROW("no name", "GET /x HTTP/1.1\r\n" H ": b\r\n\r\n", {400}, false, NULL),

    ROW("length and chunked",
        "POST /x HTTP/1.1\r\n" H "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}, false,
        NULL),
    ROW("chunked and length",
        "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", {400}, false,
        NULL),
    ROW("length twice", "POST /x HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", {400}, false,
        NULL),
    ROW("lengths that differ", "POST /x HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", {400},
        false, NULL),
    ROW("list of lengths", "POST /x HTTP/1.1\r\n" H "Content-Length: 3, 3\r\n\r\nabc", {400}, false, NULL),
    ROW("signed length", "POST /x HTTP/1.1\r\n" H "Content-Length: +3\r\n\r\nabc", {400}, false, NULL),
    ROW("negative length", "POST /x HTTP/1.1\r\n" H "Content-Length: -3\r\n\r\nabc", {400}, false, NULL),
    ROW("hexadecimal length", "POST /x HTTP/1.1\r\n" H "Content-Length: 0x3\r\n\r\nabc", {400}, false, NULL),
    ROW("length with a space", "POST /x HTTP/1.1\r\n" H "Content-Length: 3 3\r\n\r\nabc", {400}, false, NULL),
    ROW("empty length", "POST /x HTTP/1.1\r\n" H "Content-Length:\r\n\r\nabc", {400}, false, NULL),
    ROW("length of 2^64", "POST /x HTTP/1.1\r\n" H "Content-Length: 18446744073709551616\r\n\r\n", {400}, false, NULL),
    ROW("length of 2^63", "POST /x HTTP/1.1\r\n" H "Content-Length: 9223372036854775808\r\n\r\n", {400}, false, NULL),
    ROW("gzip", "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n", {400}, false, NULL),
    ROW("gzip, chunked", "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", {400}, false,
        NULL),
    ROW("chunked, gzip", "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", {400}, false,
        NULL),
    ROW("chunked twice",
        "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400},
        false, NULL),
    ROW("not quite chunked", "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", {400}, false,
        NULL),
    ROW("chunked in 1.0", "POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}, false, NULL),
    ROW("chunk size that is none", "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\nG\r\n", {400}, false,
        NULL),
    ROW("chunk size with 0x", "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n", {400}, false,
        NULL),
    ROW("negative chunk size", "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n-1\r\na\r\n", {400}, false,
        NULL),
    ROW("chunk size of 2^64", "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", {400},
        false, NULL),
    ROW("space behind a chunk size", "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
        {400}, false, NULL),
    ROW("chunk with bare LF", "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n", {400}, false,
        NULL),
    ROW("chunk longer than it says", "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        {400}, false, NULL),
    ROW("length in a trailer",
        "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", {400}, false,
        NULL),
    ROW("another expectation", "POST /x HTTP/1.1\r\n" H "Content-Length: 3\r\nExpect: tea\r\n\r\n", {417}, false, NULL),
    ROW("over the handler's limit", "POST /x HTTP/1.1\r\n" H "Content-Length: 1048577\r\n\r\n", {413}, false, NULL),
    ROW("good, then bad", GET("/x") "GET /y\r\n\r\n", {200, 400}, false, NULL),
};

static int statuses(const struct row *row)
{
    int n = 0;
    while (n < 3 && row->status[n])
        n++;
    return n;
}

static void run_row(struct fixture *f, const struct row *row, size_t step)
{
    struct peer p = peer_open(f);
    for (size_t at = 0; at < row->raw.size; at += step) {
        size_t size = row->raw.size - at < step ? row->raw.size - at : step;
        if (!peer_send(f, &p, row->raw.data + at, size))
            break; /* closed already: its answer says why */
        if (step < row->raw.size)
            (void)uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    for (int i = 0; i < statuses(row); i++) {
        struct answer a = peer_answer(f, &p);
        while (a.status == 100)
            a = peer_answer(f, &p);
        if (a.status != row->status[i])
            fail_msg("%s (step %zu): answer %d is %d, not %d: %s", row->name, step, i, a.status, row->status[i],
                     a.body);
        if (i == 0 && row->echo)
            assert_string_equal(a.body, row->echo);
        bool last = i + 1 == statuses(row);
        if (a.close != (last && !row->goes_on))
            fail_msg("%s (step %zu): Connection: close is %d in: %s", row->name, step, a.close, a.head);
    }
    if (row->goes_on) {
        struct answer a = peer_ask(f, &p, GET("/again"));
        assert_string_equal(a.body, "GET /again  0");
    } else {
        until(f, peer_ended(&p));
        if (p.size > 0)
            fail_msg("%s: more than was expected: %s", row->name, p.in);
    }
    peer_close(&p);
}

static void test_table(void **state)
{
    (void)state;
    static struct fixture f;
    fixture_init(&f);
    fixture_start(&f);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        run_row(&f, &rows[i], rows[i].raw.size);
        run_row(&f, &rows[i], 1);
    }
    fixture_done_all(&f);
}

/* "GET /xxx HTTP/1.1 Host: a", `n_headers` in all, head (0: as it comes) and target of exactly these sizes. */
static void sized_request(struct buf *text, size_t head_bytes, size_t target_bytes, uint32_t n_headers)
{
    static char pad[20000];
    memset(pad, 'x', sizeof(pad));
    buf_init(text, MIB);
    buf_format(text, "GET /%.*s HTTP/1.1\r\nHost: a", (int)target_bytes - 1, pad);
    for (uint32_t i = 1; i < n_headers; i++)
        buf_format(text, "\r\nH%u: v", i);
    if (head_bytes > text->size + 4) /* the last header's value grows */
        buf_append(text, pad, head_bytes - text->size - 4);
    buf_append_text(text, "\r\n\r\n");
    assert_int_equal(text->failed, 0);
}

static int status_of(struct fixture *f, size_t head_bytes, size_t target_bytes, uint32_t n_headers, size_t step)
{
    _buf_ struct buf text;
    sized_request(&text, head_bytes, target_bytes, n_headers);
    assert_true(head_bytes == 0 || text.size == head_bytes);
    struct peer p = peer_open(f);
    for (size_t at = 0; at < text.size; at += step) {
        if (!peer_send(f, &p, text.data + at, text.size - at < step ? text.size - at : step))
            break;
        (void)uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    struct answer a = peer_answer(f, &p);
    assert_true(a.close == (a.status != 200));
    peer_close(&p);
    return a.status;
}

static void test_limits(void **state)
{
    (void)state;
    static struct fixture f;
    fixture_init(&f);
    fixture_start(&f);
    size_t head = f.config.head_bytes_max, target = f.config.target_bytes_max;
    uint32_t headers = f.config.headers_max;
    static const size_t steps[] = {SIZE_MAX / 2, 1000, 7};
    for (int i = 0; i < 3; i++) {
        size_t step = steps[i];
        assert_int_equal(status_of(&f, head - 1, 10, 5, step), 200);
        assert_int_equal(status_of(&f, head, 10, 5, step), 200);
        assert_int_equal(status_of(&f, head + 1, 10, 5, step), 431);
        assert_int_equal(status_of(&f, 0, target - 1, 5, step), 200);
        assert_int_equal(status_of(&f, 0, target, 5, step), 200);
        assert_int_equal(status_of(&f, 0, target + 1, 5, step), 414);
        assert_int_equal(status_of(&f, 0, 10, headers - 1, step), 200);
        assert_int_equal(status_of(&f, 0, 10, headers, step), 200);
        assert_int_equal(status_of(&f, 0, 10, headers + 1, step), 431);
    }
    assert_int_equal(status_of(&f, head, target, headers, 1), 200);
    fixture_done_all(&f);
}

static void test_header_find(void **state)
{
    (void)state;
    struct wire_header headers[] = {{STR("X-A"), STR("1")}, {STR("x-b"), STR("")}, {STR("x-a"), STR("2")}};
    struct wire_request request = {.headers = headers, .n_headers = 3};
    assert_true(str_equal(wire_header_find(&request, STR("x-a")), STR("1")));
    assert_non_null(wire_header_find(&request, STR("X-B")).data);
    assert_null(wire_header_find(&request, STR("X-C")).data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_header_find),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
