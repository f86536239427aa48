/* The bus: SOCK_SEQPACKET pairs between roles, made by the supervisor.
 *
 * This half needs no loop and serves the worker too; bus_loop.h adds queues and callbacks on libuv. One message is one
 * packet: {type, body} and its descriptors. Who may say what to whom is the table in message.h and nothing else. */
#ifndef BULKHEAD_BUS_BUS_H
#define BULKHEAD_BUS_BUS_H

#include "base/cleanup.h"
#include "bus/message.h"

/* A connected pair, CLOEXEC, non-blocking on both ends. Nothing below relies on that: an OCI runtime that passes an end
 * on makes it blocking (runc does). */
must_check int bus_pair(int ret_fds[static 2], struct error *err);

/* Sends one message; `fds` are borrowed. `self` and `peer` are checked against the matrix (assert: our own bug).
 * -ERROR_AGAIN when the socket is full, -ERROR_GONE when the peer is. */
must_check int bus_send(int fd, enum bus_role self, enum bus_role peer, enum bus_type type, const void *body,
                        const int *fds, uint32_t n_fds);

/* Receives one message from `peer` for `self`. 1 = got one, 0 = none now (non-blocking), -ERROR_GONE = closed,
 * -ERROR_PEER = it broke the protocol (descriptors are closed). Text fields are NUL-terminated. */
must_check int bus_recv(int fd, enum bus_role self, enum bus_role peer, struct bus_message *ret_message);

/* Waits for the next message at most timeout_ms (-1 = for ever). 1, -ERROR_REQUEST_TIMEOUT, -ERROR_GONE, -ERROR_PEER.
 */
must_check int bus_wait(int fd, enum bus_role self, enum bus_role peer, int timeout_ms,
                        struct bus_message *ret_message);

/* Puts bytes into a sealed memfd (SHRINK|GROW|WRITE|SEAL) for a message. */
must_check int bus_memfd(const char *name, const void *data, size_t size, int *ret_fd);
/* A sealed memfd of exactly `size` bytes; -ERROR_PEER when it is not. */
must_check int bus_memfd_check(int fd, size_t size);
/* Maps a sealed memfd of exactly `size` bytes read-only after checking seals and size; *ret_data NULL when size is 0.
 * Unmap with munmap(data, size). */
must_check int bus_memfd_map(int fd, size_t size, const void **ret_data);

#endif
