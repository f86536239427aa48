/* Replicas in virtual machines. */
#include "supervisor/supervisor_internal.h"

#include "base/random.h"
#include "bus/port.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* As for any worker: threads, and the channel's and the model's descriptors. */
#define GUEST_PIDS_BASE 16u
#define GUEST_FDS       64u

static int config_send(struct supervisor_replica *r, int library_fd, struct error *err)
{
    struct bus_guest_config body = {
        .memory_bytes = r->start.memory_bytes,
        .cpu_milli = r->start.cpu_milli,
        .pids = GUEST_PIDS_BASE + 2 * ((r->start.cpu_milli + 999) / 1000),
        .fds = GUEST_FDS,
    };
    supervisor_worker_config(r, library_fd, &body.worker);
    memcpy(body.model_sha256, r->start.model_sha256, sizeof body.model_sha256);
    int result = bus_port_send(r->control_fd, BUS_GUEST_CONFIG, &body);
    return result < 0 ? error_set(err, result, "a guest does not take its configuration") : 0;
}

int supervisor_machine_offer(struct supervisor_replica *r, struct error *err)
{
    struct bus_channel body;
    r->epoch++;
    supervisor_channel_body(r, &body);
    /* Fresh: nothing that the worker wrote before can look like the start of this stream. */
    body.nonce[0] = random_u64();
    body.nonce[1] = random_u64();
    int result = bus_port_send(r->control_fd, BUS_GUEST_CHANNEL, &body);
    if (result < 0)
        return error_set(err, result, "a guest does not take its channel");
    supervisor_tell(r->supervisor, CHILD_GATEWAY, BUS_CHANNEL_STREAM, &body, &r->stream_fd, 1);
    return 0;
}

int supervisor_machine_launch(struct supervisor_replica *r, int model_fd, int library_fd, struct error *err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_set(err, ERROR_IO, "no socket pair for a machine: %s", strerror(errno));
    _close_ int control = pair[1];
    r->control_fd = pair[0];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return error_set(err, ERROR_IO, "no socket pair for a machine: %s", strerror(errno));
    _close_ int stream = pair[1];
    r->stream_fd = pair[0];
    const struct isolate_machine machine = {
        .disk_fd = model_fd, .disk_bytes = r->start.model_bytes, .control_fd = control, .channel_fd = stream};
    int result = supervisor_worker_spawn(r, &machine, NULL, library_fd, err);
    if (result < 0)
        return result;
    result = config_send(r, library_fd, err);
    return result < 0 ? result : supervisor_machine_offer(r, err);
}
