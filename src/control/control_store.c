/* Roots of images on their way from memory into the store, in slices: one slice of one root per turn of the loop, one
 * root after the other, and between them whoever asks control anything is answered. */
#include "base/memory.h"
#include "bus/bus.h"
#include "control/control_internal.h"

#include <fcntl.h>
#include <sys/mman.h>

struct control_store {
    struct list node; /* in control.stores; the first is under way */
    struct control *control;
    struct registry_ingest *ingest;
    int fd;
    struct str bytes;           /* mapped */
    uint64_t stored_bytes;      /* ≤ bytes.size */
    struct registry_root *root; /* NULL: its turn has not come */
    control_stored_cb done;
    void *ctx;
};

static void store_free(struct control_store *p)
{
    struct control *c = p->control;
    list_remove(&p->node);
    registry_root_free(p->root);
    (void)munmap((void *)(uintptr_t)p->bytes.data, p->bytes.size); /* our own mapping */
    fd_close(&p->fd);
    free(p);
    if (list_empty(&c->stores))
        (void)uv_idle_stop(&c->store_idle);
}

static int store_step(struct control_store *p, struct error *err)
{
    struct control *c = p->control;
    if (!c->registry)
        return error_set_default(err, ERROR_DRAINING);
    int r = p->root ? 0 : registry_root_begin(c->registry, p->ingest, p->bytes, &p->root, err);
    if (r >= 0)
        r = registry_root_step(p->root, err);
    if (r < 0)
        return r;
    uint64_t left = p->bytes.size - p->stored_bytes;
    uint64_t slice = left < LIMIT_COPY_SLICE_BYTES ? left : LIMIT_COPY_SLICE_BYTES;
    memory_file_gather(p->fd, p->stored_bytes, slice); /* its end is ours to wait for: of huge pages it is short */
    p->stored_bytes += slice;
    return r;
}

static void on_idle(uv_idle_t *idle)
{
    struct control *c = idle->data;
    struct control_store *p = container_of(c->stores.next, struct control_store, node); /* else it is not active */
    struct error err = {0};
    int r = store_step(p, &err);
    if (r > 0)
        return;
    control_stored_cb done = p->done;
    void *ctx = p->ctx;
    store_free(p);
    done(ctx, r, &err);
}

void control_stores_init(struct control *c)
{
    list_init(&c->stores);
    (void)uv_idle_init(&c->loop, &c->store_idle); /* always succeeds */
    c->store_idle.data = c;
}

int control_store_start(struct control *c, struct registry_ingest *ingest, int fd, uint64_t bytes,
                        control_stored_cb done, void *ctx, struct control_store **ret_store, struct error *err)
{
    const void *data = NULL;
    if (bytes == 0 || bytes > LIMIT_IMAGE_RESULT_BYTES || bus_memfd_map(fd, bytes, &data) < 0)
        return error_set(err, ERROR_REFUSED, "what was unpacked from it is not readable");
    _close_ int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    struct control_store *p = own < 0 ? NULL : calloc(1, sizeof *p);
    if (!p) {
        (void)munmap((void *)(uintptr_t)data, bytes); /* our own mapping */
        return error_set_default(err, ERROR_NO_MEMORY);
    }
    *p = (struct control_store){
        .control = c, .ingest = ingest, .fd = take_fd(&own), .bytes = {data, bytes}, .done = done, .ctx = ctx};
    list_append(&c->stores, &p->node);
    (void)uv_idle_start(&c->store_idle, on_idle); /* fails only on a closing handle */
    *ret_store = p;
    return 0;
}

void control_store_cancel(struct control_store *p)
{
    if (p)
        store_free(p);
}
