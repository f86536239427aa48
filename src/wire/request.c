/* What a head must satisfy beyond llhttp's grammar (RFC 9112 §2.2, §3, §6; RFC 9110 §10.1.1). Two readers that
 * disagree about where a request ends are how requests get smuggled, so everything ambiguous is refused. */
#include "wire/wire_internal.h"

const char *const wire_method_names[WIRE_METHOD_COUNT] = {
    [WIRE_GET] = "GET",       [WIRE_HEAD] = "HEAD",       [WIRE_POST] = "POST",   [WIRE_PUT] = "PUT",
    [WIRE_DELETE] = "DELETE", [WIRE_OPTIONS] = "OPTIONS", [WIRE_OTHER] = "OTHER",
};

struct framing {
    uint32_t n_hosts, n_lengths, n_encodings;
    bool expect_continue, expect_other;
    int64_t content_length;
    bool chunked;
    const char *wrong; /* static text */
};

static enum wire_method method_of(const char *data, size_t size)
{
    for (int method = 0; method < WIRE_OTHER; method++) {
        const char *name = wire_method_names[method];
        if (strlen(name) == size && memcmp(name, data, size) == 0)
            return (enum wire_method)method;
    }
    return WIRE_OTHER;
}

/* uri-host [":" port]: RFC 3986's unreserved, pct-encoded, sub-delims, and the brackets and colons of IPv6. */
static const bool host_bytes[256] = {
    ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['-'] = true, ['.'] = true, ['_'] = true,
    ['~'] = true,         ['%'] = true,         ['!'] = true,         ['$'] = true, ['&'] = true, ['\''] = true,
    ['('] = true,         [')'] = true,         ['*'] = true,         ['+'] = true, [','] = true, [';'] = true,
    ['='] = true,         [':'] = true,         ['['] = true,         [']'] = true,
};

static bool host_valid(struct str host)
{
    for (size_t i = 0; i < host.size; i++) {
        if (!host_bytes[(unsigned char)host.data[i]])
            return false;
    }
    return true;
}

static void read_length(struct framing *f, struct str value)
{
    uint64_t length;
    f->n_lengths++;
    if (str_to_u64(value, &length) < 0 || length > INT64_MAX)
        f->wrong = "Content-Length is not a decimal number.";
    else
        f->content_length = (int64_t)length;
}

static void read_header(struct framing *f, const struct wire_header *header)
{
    switch (header->name.size) { /* nearly all headers end here, uncompared */
    case 4:
        if (str_equal_nocase(header->name, STR("Host"))) {
            f->n_hosts++;
            if (!host_valid(header->value))
                f->wrong = "Host is not a host name.";
        }
        break;
    case 6:
        if (str_equal_nocase(header->name, STR("Expect"))) {
            if (str_equal_nocase(header->value, STR("100-continue")))
                f->expect_continue = true;
            else
                f->expect_other = true;
        }
        break;
    case 14:
        if (str_equal_nocase(header->name, STR("Content-Length")))
            read_length(f, header->value);
        break;
    case 17:
        if (str_equal_nocase(header->name, STR("Transfer-Encoding"))) {
            f->n_encodings++;
            f->chunked = str_equal_nocase(header->value, STR("chunked"));
            if (!f->chunked)
                f->wrong = "The only Transfer-Encoding known here is chunked.";
        }
        break;
    default:
        break;
    }
}

static const char *framing_wrong(const struct framing *f, bool is_http10)
{
    if (f->wrong)
        return f->wrong;
    if (f->n_lengths + f->n_encodings > 1)
        return "Content-Length and Transfer-Encoding may stand only once, and not together.";
    if (f->n_encodings > 0 && is_http10)
        return "HTTP/1.0 has no Transfer-Encoding.";
    if (f->n_hosts > 1 || (f->n_hosts == 0 && !is_http10))
        return "An HTTP/1.1 request needs exactly one Host header.";
    return NULL;
}

/* Splits the target. Absolute form (RFC 9112 §3.2.2: to be accepted): its authority replaces Host, which means
 * nothing to us either way. */
static bool target_read(struct wire_request *r)
{
    struct str rest = r->target;
    if (rest.size > 0 && rest.data[0] != '/') {
        if (rest.size == 1 && rest.data[0] == '*' && r->method == WIRE_OPTIONS) {
            r->path = rest;
            return true;
        }
        struct str scheme = rest.size >= 7 ? (struct str){rest.data, 7} : (struct str){0};
        if (!str_equal_nocase(scheme, STR("http://"))) {
            scheme = rest.size >= 8 ? (struct str){rest.data, 8} : (struct str){0};
            if (!str_equal_nocase(scheme, STR("https://")))
                return false;
        }
        rest = str_skip(rest, scheme.size);
        size_t authority = 0;
        while (authority < rest.size && rest.data[authority] != '/' && rest.data[authority] != '?')
            authority++;
        if (authority == 0 || !host_valid((struct str){rest.data, authority}))
            return false;
        rest = str_skip(rest, authority);
    }
    if (memchr(rest.data, '#', rest.size)) /* a fragment never belongs into a request */
        return false;
    const char *question = memchr(rest.data, '?', rest.size);
    r->path = question ? (struct str){rest.data, (size_t)(question - rest.data)} : rest;
    if (question)
        r->query = str_skip(rest, r->path.size + 1);
    if (r->path.size == 0)
        r->path = STR("/");
    return true;
}

/* llhttp forgives several spaces, HTTP/0.9, HTTP/2.0 and RTSP in the request line; we do not. One empty line before it
 * is allowed (RFC 9112 §2.2). */
static const char *line_read(const struct wire_parser *p, struct str head, struct wire_request *r, bool *ret_is_http10)
{
    static const char wrong[] = "The request line is not METHOD SP TARGET SP HTTP/1.1 or HTTP/1.0.";
    if (p->target.size == 0)
        return wrong;
    const char *line = head.data;
    if (line[0] == '\r' && line[1] == '\n')
        line += 2;
    const char *space = memchr(line, ' ', (size_t)(p->target.data - line));
    const char *version = p->target.data + p->target.size;
    if (!space || space + 1 != p->target.data || line[0] < 'A' || line[0] > 'Z')
        return wrong;
    bool known = version + 10 <= head.data + head.size && memcmp(version, " HTTP/1.", 8) == 0;
    if (!known || (version[8] != '0' && version[8] != '1') || version[9] != '\r')
        return wrong;
    *ret_is_http10 = version[8] == '0';
    r->method = method_of(line, (size_t)(space - line));
    r->target = p->target;
    return target_read(r) ? NULL : "The target of the request is not a path.";
}

int wire_request_read(const struct wire_parser *p, struct str head, struct wire_request *ret_request,
                      bool *ret_expect_continue, const char **ret_text)
{
    struct wire_request r = {.headers = p->headers, .n_headers = p->n_headers};
    bool is_http10 = false;
    const char *wrong = line_read(p, head, &r, &is_http10);
    struct framing f = {.content_length = -1};
    for (uint32_t i = 0; i < p->n_headers && !wrong; i++) {
        p->headers[i].value = str_trim(p->headers[i].value);
        read_header(&f, &p->headers[i]);
    }
    if (!wrong)
        wrong = framing_wrong(&f, is_http10);
    if (wrong) {
        *ret_text = wrong;
        return -ERROR_HTTP_MALFORMED;
    }
    if (f.expect_other && !is_http10)
        return -ERROR_EXPECTATION_FAILED;
    r.content_length = f.content_length;
    r.chunked = f.chunked;
    r.keep_alive = llhttp_should_keep_alive(&p->llhttp) != 0;
    *ret_request = r;
    /* HTTP/1.0 knows no 100-continue; without a body there is nothing to wait for. */
    *ret_expect_continue = f.expect_continue && !is_http10 && (f.chunked || f.content_length > 0);
    return 0;
}

struct str wire_header_find(const struct wire_request *request, struct str name)
{
    for (uint32_t i = 0; i < request->n_headers; i++) {
        if (str_equal_nocase(request->headers[i].name, name))
            return request->headers[i].value;
    }
    return (struct str){0};
}
