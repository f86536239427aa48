/* Server-sent events (WHATWG HTML §9.2) in an answer that streams. On the server's loop; formats, and begins the
 * stream; the events' meaning is their author's. */
#ifndef BULKHEAD_WIRE_SSE_H
#define BULKHEAD_WIRE_SSE_H

#include "base/buf.h"
#include "wire/wire.h"

/* How OpenAI's clients know that a stream is complete. */
#define WIRE_SSE_DONE STR("data: [DONE]\n\n")

#define WIRE_SSE_HEADERS_MAX 12u /* of the caller's own */

/* wire_stream_begin with status 200, the headers that event streams need and the caller's [n_headers], and a comment
 * whenever nothing was sent for idle_ms (0: never), so that proxies keep the connection. Returns as wire_stream_write.
 */
must_check int wire_sse_begin(struct wire_exchange *x, const struct wire_header *headers, uint32_t n_headers,
                              size_t buffer_bytes_max, uint32_t idle_ms);
/* Appends one event. `event`: its type, without line ends, empty for none. Each line of `data` (ended by LF, CR or
 * both) becomes a field of its own, so that no content can pretend to be another event; empty data is an event too. */
void wire_sse_append(struct buf *b, struct str event, struct str data);

#endif
