/* The bus's messages over a byte stream that carries no descriptors: from the supervisor into a virtual machine.
 *
 * One direction: the supervisor writes and never reads, so a guest has nothing to say to it. A message is {type, size,
 * body}; those of the table that have no descriptors can go this way. */
#ifndef BULKHEAD_BUS_PORT_H
#define BULKHEAD_BUS_PORT_H

#include "base/cleanup.h"
#include "bus/message.h"

/* Supervisor: writes the whole message into a non-blocking stream socket, whose buffer is far larger than all that is
 * ever sent. -ERROR_AGAIN when the other end does not take it (part of it may be gone: end the conversation),
 * -ERROR_GONE. */
must_check int bus_port_send(int fd, enum bus_type type, const void *body);

/* Guest: blocks for the next message. 1; -ERROR_GONE at the end; -ERROR_PEER when it is none that may come there. */
must_check int bus_port_recv(int fd, struct bus_message *ret_message);

#endif
