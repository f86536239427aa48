/* The gateway's part of a channel, as a test plays it. */
#ifndef BULKHEAD_TEST_HOST_PULL_H
#define BULKHEAD_TEST_HOST_PULL_H

#include "channel/channel.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* The worker's next frame; the test fails when none comes within wait_ms. */
static struct channel_frame host_pull(struct channel *host, int wait_ms)
{
    struct channel_frame frame = {0};
    struct error err = {0};
    for (;;) {
        int r = channel_pull(host, &frame, &err);
        if (r < 0)
            fail_msg("%s", err.text);
        if (r > 0)
            return frame;
        channel_ring(host);
        if (!channel_park(host))
            continue;
        struct pollfd bell = {.fd = host->bell, .events = POLLIN};
        if (poll(&bell, 1, wait_ms) != 1)
            fail_msg("the worker says nothing");
        channel_awake(host);
    }
}

#endif
