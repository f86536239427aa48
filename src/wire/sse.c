#include "wire/sse.h"

#include <assert.h>

int wire_sse_begin(struct wire_exchange *x, const struct wire_header *headers, uint32_t n_headers,
                   size_t buffer_bytes_max, uint32_t idle_ms)
{
    struct wire_header all[WIRE_SSE_HEADERS_MAX + 2] = {
        {STR("Cache-Control"), STR("no-store")},
        {STR("X-Accel-Buffering"), STR("no")}, /* nginx and its kin pass events on as they come */
    };
    assert(n_headers <= WIRE_SSE_HEADERS_MAX);
    if (n_headers > 0)
        memcpy(all + 2, headers, n_headers * sizeof(all[0]));
    struct wire_answer head = {
        .status = 200, .content_type = "text/event-stream", .headers = all, .n_headers = n_headers + 2};
    struct wire_stream_options options = {
        .buffer_bytes_max = buffer_bytes_max, .idle_ms = idle_ms, .idle = STR(": keep-alive\n\n")};
    return wire_stream_begin(x, &head, &options);
}

void wire_sse_append(struct buf *b, struct str event, struct str data)
{
    if (event.size > 0) {
        buf_append_text(b, "event: ");
        buf_append_str(b, event);
        buf_append_char(b, '\n');
    }
    size_t from = 0;
    for (size_t at = 0; at <= data.size; at++) {
        if (at < data.size && data.data[at] != '\n' && data.data[at] != '\r')
            continue;
        buf_append_text(b, "data: ");
        buf_append_str(b, (struct str){data.data + from, at - from});
        buf_append_char(b, '\n');
        if (at + 1 < data.size && data.data[at] == '\r' && data.data[at + 1] == '\n')
            at++;
        from = at + 1;
    }
    buf_append_char(b, '\n');
}
