/* llhttp, strict as it comes: no lenient flag is ever set. Bodies of known length never pass through it. */
#include "wire/wire_internal.h"

static struct wire_parser *parser_of(llhttp_t *llhttp)
{
    return container_of(llhttp, struct wire_parser, llhttp);
}

static int stop(struct wire_parser *p, int code)
{
    p->code = code;
    return HPE_USER;
}

static int on_url(llhttp_t *llhttp, const char *at, size_t size)
{
    struct wire_parser *p = parser_of(llhttp);
    if (!p->target.data)
        p->target.data = at;
    p->target.size += size;
    return p->target.size > p->config->target_bytes_max ? stop(p, -ERROR_URI_TOO_LONG) : 0;
}

/* A name or value that is cut by the end of a read comes in pieces that lie one behind the other. */
static int on_header_name(llhttp_t *llhttp, const char *at, size_t size)
{
    struct wire_parser *p = parser_of(llhttp);
    if (p->in_body) /* a trailer: checked by llhttp, dropped */
        return 0;
    if (p->n_headers > 0) {
        struct str *last = &p->headers[p->n_headers - 1].name;
        if (last->data + last->size == at) {
            last->size += size;
            return 0;
        }
    }
    if (p->n_headers == p->config->headers_max)
        return stop(p, -ERROR_HEADERS_TOO_LARGE);
    p->headers[p->n_headers++] = (struct wire_header){.name = {at, size}};
    return 0;
}

static int on_header_value(llhttp_t *llhttp, const char *at, size_t size)
{
    struct wire_parser *p = parser_of(llhttp);
    if (p->in_body || p->n_headers == 0)
        return 0;
    struct str *value = &p->headers[p->n_headers - 1].value;
    if (!value->data)
        value->data = at;
    value->size = (size_t)(at - value->data) + size;
    return 0;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    (void)llhttp;
    return HPE_PAUSED; /* the head is handled outside of llhttp_execute */
}

static int on_body(llhttp_t *llhttp, const char *at, size_t size)
{
    struct wire_parser *p = parser_of(llhttp);
    memmove(p->decoded_end, at, size);
    p->decoded_end += size;
    return 0;
}

static int on_message_complete(llhttp_t *llhttp)
{
    parser_of(llhttp)->complete = true;
    return HPE_PAUSED; /* what follows is the next request */
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_header_name,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

void wire_parser_start(struct wire_parser *p, const struct wire_config *config, struct wire_header *headers)
{
    llhttp_init(&p->llhttp, HTTP_REQUEST, &settings);
    p->config = config;
    p->headers = headers;
    p->n_headers = 0;
    p->target = (struct str){0};
    p->scanned = 0;
    p->in_body = p->complete = false;
    p->code = 0;
}

int wire_parser_head(struct wire_parser *p, const char *data, size_t size)
{
    if (size > p->config->head_bytes_max) /* so that the outcome does not hang on how the bytes were cut */
        size = p->config->head_bytes_max;
    enum llhttp_errno result = llhttp_execute(&p->llhttp, data + p->scanned, size - p->scanned);
    if (result == HPE_PAUSED)
        return (int)(llhttp_get_error_pos(&p->llhttp) - data);
    if (result != HPE_OK)
        return p->code ? p->code : -ERROR_HTTP_MALFORMED;
    p->scanned = size;
    return size == p->config->head_bytes_max ? -ERROR_HEADERS_TOO_LARGE : 0;
}

static void move(struct str *view, const char *from, const char *to)
{
    if (view->data)
        view->data = to + (view->data - from);
}

void wire_parser_moved(struct wire_parser *p, const char *from, const char *to)
{
    move(&p->target, from, to);
    for (uint32_t i = 0; i < p->n_headers; i++) {
        move(&p->headers[i].name, from, to);
        move(&p->headers[i].value, from, to);
    }
}

int wire_parser_chunks(struct wire_parser *p, char *data, size_t size, size_t *ret_decoded, size_t *ret_consumed)
{
    *ret_decoded = 0;
    *ret_consumed = 0;
    if (p->complete)
        return 1;
    if (!p->in_body) {
        p->in_body = true;
        p->body_bytes = p->framing_bytes = 0;
        p->llhttp.upgrade = 0; /* an Upgrade header changes nothing here: we never switch protocols */
        llhttp_resume(&p->llhttp);
    }
    p->decoded_end = data;
    enum llhttp_errno result = llhttp_execute(&p->llhttp, data, size);
    if (result != HPE_OK && !(result == HPE_PAUSED && p->complete))
        return -ERROR_HTTP_MALFORMED;
    size_t consumed = p->complete ? (size_t)(llhttp_get_error_pos(&p->llhttp) - data) : size;
    size_t decoded = (size_t)(p->decoded_end - data);
    p->body_bytes += decoded;
    p->framing_bytes += consumed - decoded;
    if (p->framing_bytes > WIRE_FRAMING_BYTES_MAX + 16 * p->body_bytes)
        return -ERROR_HTTP_MALFORMED;
    *ret_decoded = decoded;
    *ret_consumed = consumed;
    return p->complete;
}
