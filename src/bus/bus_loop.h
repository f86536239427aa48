/* A bus connection on a libuv loop: queued sending, one callback per message.
 *
 * Supervisor, control and gateway. The callback owns the message's descriptors until it returns; those it did not take
 * (set to -1) are closed after. When the peer is gone or broke the protocol `gone` is called once, from the loop; the
 * connection is then closed already. More than BUS_QUEUE_MAX unsent messages count as a stuck peer: gone. */
#ifndef BULKHEAD_BUS_LOOP_H
#define BULKHEAD_BUS_LOOP_H

#include "bus/bus.h"

#include <uv.h>

#define BUS_QUEUE_MAX 8192u

struct bus_conn;

struct bus_conn_events {
    void (*message)(void *ctx, struct bus_message *m);
    void (*gone)(void *ctx, int code);
};

/* Takes over fd on success. */
must_check int bus_conn_open(uv_loop_t *loop, int fd, enum bus_role self, enum bus_role peer,
                             const struct bus_conn_events *events, void *ctx, struct bus_conn **ret_conn);

/* Sends or queues. fds are borrowed (duplicated when queued). Failure means the peer is or will be reported gone;
 * callers may ignore the result where they have no better idea than waiting for that. conn NULL: -ERROR_GONE. */
int bus_conn_send(struct bus_conn *conn, enum bus_type type, const void *body, const int *fds, uint32_t n_fds);

/* Says nothing further, and drops what is still queued: the peer reads the end. What it says until its own end is still
 * received, then `gone` is called. */
void bus_conn_finish(struct bus_conn *conn);

/* Closes without calling `gone`; accepts NULL; memory goes when libuv has closed the handle. */
void bus_conn_close(struct bus_conn *conn);

#endif
