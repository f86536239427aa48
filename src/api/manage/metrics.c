/* GET /metrics on an address of its own: read by anyone who can reach it, so it gives nothing else. */
#include "control/control.h"

#define METRICS_BYTES_MAX \
    (8 * MIB) /* about 90 lines of 200 bytes for each of LIMIT_METRICS_ROWS + 1 pairs, four times */

static void refuse(struct wire_exchange *x, int code)
{
    const struct error_info *info = error_info(code);
    wire_answer(x, &(struct wire_answer){.status = info->http_status,
                                         .content_type = "text/plain; charset=utf-8",
                                         .body = str_from(info->text)});
}

static void on_head(void *ctx, struct wire_exchange *x)
{
    struct control *c = ctx;
    if (!str_equal(x->request.path, STR("/metrics"))) {
        refuse(x, -ERROR_NOT_FOUND);
        return;
    }
    if (x->request.method != WIRE_GET && x->request.method != WIRE_HEAD) {
        refuse(x, -ERROR_METHOD_NOT_ALLOWED);
        return;
    }
    struct buf text;
    buf_init(&text, METRICS_BYTES_MAX);
    control_metrics(c, &text);
    if (text.failed) {
        buf_done(&text);
        refuse(x, -ERROR_NO_MEMORY);
        return;
    }
    wire_answer(x, &(struct wire_answer){.status = 200,
                                         .content_type = CONTROL_METRICS_TYPE,
                                         .body = {text.data, text.size},
                                         .body_owned = text.data});
}

/* Everything is answered at the head: nothing is left for the rest of the exchange. */
static void on_end(void *ctx, struct wire_exchange *x)
{
    (void)ctx;
    (void)x;
}

static void on_reset(void *ctx, struct wire_exchange *x, int code)
{
    (void)ctx;
    (void)x;
    (void)code;
}

const struct wire_handler manage_metrics_handler = {
    .head = on_head,
    .end = on_end,
    .reset = on_reset,
    .done = on_end,
};
