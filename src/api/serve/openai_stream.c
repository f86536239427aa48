/* Answers in server-sent events: a chunk for each event of a generation. */
#include "api/serve/openai_call.h"

#include "wire/sse.h"

/* One chunk's JSON: an event of 16 KiB, in which each byte may become six, beside its names. */
#define CHUNK_BYTES_MAX (256 * KIB)
/* Of a prompt that is echoed. */
#define ECHO_PIECE_BYTES (2 * KIB)

static void append_event(struct openai_call *call, const struct buf *json)
{
    if (json->failed)
        call->out.failed = json->failed;
    wire_sse_append(&call->out, (struct str){0}, (struct str){json->data, json->size});
}

/* The first chunk of each choice of a chat: who speaks. */
static void append_roles(struct openai_call *call, struct buf *json)
{
    for (uint32_t i = 0; call->request.kind == OPENAI_CHAT && i < call->n; i++) {
        buf_clear(json);
        openai_chunk_role(&call->answer, i, call->request.include_usage, json);
        append_event(call, json);
    }
}

/* Cut before a character that would not fit whole. */
static struct str piece_of(struct str text)
{
    size_t size = text.size < ECHO_PIECE_BYTES ? text.size : ECHO_PIECE_BYTES;
    while (size > 0 && size < text.size && ((unsigned char)text.data[size] & 0xC0u) == 0x80u)
        size--;
    return (struct str){text.data, size};
}

/* The first chunks of each choice of a completion that repeats its prompt, which is UTF-8. */
static void append_echo(struct openai_call *call, struct buf *json)
{
    for (uint32_t i = 0; call->request.echo && i < call->n; i++)
        for (struct str rest = call->request.prompts[i / call->request.n].text; rest.size > 0;) {
            struct generation_event event = {.kind = GENERATION_EVENT_TEXT, .text = piece_of(rest)};
            buf_clear(json);
            (void)openai_chunk_event(&call->answer, i, &event, false, call->request.include_usage, &call->offsets[i],
                                     json);
            append_event(call, json);
            rest = str_skip(rest, event.text.size);
        }
}

static int out_write(struct gateway_request *r, struct openai_call *call)
{
    if (call->out.failed)
        return call->out.failed;
    return gateway_stream_write(r, (struct str){call->out.data, call->out.size});
}

int openai_stream_event(struct gateway_request *r, struct openai_call *call, uint32_t index,
                        const struct generation_event *event)
{
    const struct openai_request *q = &call->request;
    bool logprobs = q->common.flags & GENERATION_LOGPROBS;
    _buf_ struct buf json;
    buf_init(&json, CHUNK_BYTES_MAX);
    buf_clear(&call->out);
    int begun = 0;
    if (!gateway_streams(r)) {
        append_roles(call, &json);
        append_echo(call, &json);
        begun = call->out.failed ? call->out.failed : gateway_stream_begin(r, call->out.size);
        if (begun < 0)
            return begun;
    }
    buf_clear(&json);
    if (openai_chunk_event(&call->answer, index, event, logprobs, q->include_usage, &call->offsets[index], &json)) {
        append_event(call, &json);
        call->told = true;
    }
    int written = out_write(r, call);
    if (written >= 0 && call->out.capacity > 2 * CHUNK_BYTES_MAX) /* of an echo; the request may be gone otherwise */
        buf_done(&call->out);
    return written == 0 ? begun : written;
}

void openai_stream_end(struct gateway_request *r, struct openai_call *call)
{
    _buf_ struct buf json;
    buf_init(&json, CHUNK_BYTES_MAX);
    buf_clear(&call->out);
    if (call->request.include_usage) {
        struct openai_usage usage = openai_call_usage(call);
        openai_chunk_usage(&call->answer, &usage, &json);
        append_event(call, &json);
    }
    buf_append_str(&call->out, WIRE_SSE_DONE);
    if (out_write(r, call) != -ERROR_CANCELLED)
        gateway_stream_end(r);
}

void openai_stream_fail(struct gateway_request *r, struct openai_call *call, int code, const struct error *err)
{
    _buf_ struct buf json;
    buf_init(&json, 16 * KIB);
    buf_clear(&call->out);
    openai_failure_encode(code, error_text(err, code), &json);
    append_event(call, &json);
    if (out_write(r, call) != -ERROR_CANCELLED)
        gateway_stream_end(r);
}
