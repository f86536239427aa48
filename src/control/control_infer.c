/* `bulkhead infer`: the operator's request goes to the gateway over the bus and comes back the same way. */
#include "base/log.h"
#include "control/control_internal.h"

#include <stdio.h>
#include <sys/mman.h>

struct infer {
    control_infer_cb done;
    void *ctx;
};

static void fail(control_infer_cb done, void *ctx, int code, const char *text)
{
    _buf_ struct buf body;
    buf_init(&body, 4 * KIB);
    buf_append_text(&body, "{\"error\":");
    buf_append_json(&body, str_from(text));
    buf_format(&body, ",\"code\":\"%s\"}", error_info(code)->name);
    done(ctx, error_info(code)->http_status, (struct str){body.data, body.size});
}

void control_infer(struct control *c, struct str tenant, struct str model, struct str body, control_infer_cb done,
                   void *ctx)
{
    struct bus_infer message = {.id = ++c->infer_last, .bytes = body.size};
    if (str_copy(tenant, message.tenant, sizeof message.tenant) < 0 ||
        str_copy(model, message.model, sizeof message.model) < 0) {
        fail(done, ctx, ERROR_MODEL_NOT_FOUND, error_info(ERROR_MODEL_NOT_FOUND)->text);
        return;
    }
    struct infer *infer = calloc(1, sizeof *infer);
    _close_ int fd = -1;
    int r = infer ? bus_memfd("bulkhead-infer", body.data, body.size, &fd) : -ERROR_NO_MEMORY;
    if (r >= 0)
        r = map_put(&c->infers, message.id, infer);
    if (r >= 0 && bus_conn_send(c->gateway, BUS_INFER, &message, &fd, 1) < 0) {
        (void)map_remove(&c->infers, message.id);
        r = -ERROR_GONE;
    }
    if (r < 0) {
        free(infer);
        fail(done, ctx, ERROR_OVERLOADED, "The serving side is not there right now; try again.");
        return;
    }
    *infer = (struct infer){done, ctx};
}

void control_infer_done(struct control *c, const struct bus_infer_done *body, int fd)
{
    struct infer *infer = map_remove(&c->infers, body->id);
    const void *data = NULL;
    if (!infer)
        return;
    if (bus_memfd_map(fd, body->bytes, &data) < 0) {
        fail(infer->done, infer->ctx, ERROR_PEER, "The serving side gave no readable answer.");
    } else {
        infer->done(infer->ctx, (int)body->http_status, (struct str){data, body->bytes});
        if (data)
            (void)munmap((void *)(uintptr_t)data, body->bytes); /* our own mapping */
    }
    free(infer);
}

void control_infer_lost(struct control *c)
{
    for (;;) {
        uint64_t id = 0;
        for (uint32_t i = 0; i < c->infers.capacity && id == 0; i++)
            if (c->infers.entries[i].value)
                id = c->infers.entries[i].id;
        struct infer *infer = id ? map_remove(&c->infers, id) : NULL;
        if (!infer)
            return;
        fail(infer->done, infer->ctx, ERROR_OVERLOADED, "The serving side went away; try again.");
        free(infer);
    }
}
