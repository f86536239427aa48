/* What lease_fixture.h makes, with a bus to control whose other end the test holds. */
#ifndef BULKHEAD_TEST_CONTROL_FIXTURE_H
#define BULKHEAD_TEST_CONTROL_FIXTURE_H

#include "test/unit/gateway/lease_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { BODY_BYTES_MAX = 8192 };

static const struct channel_geometry geometry = {1024, 1, 2 * BODY_BYTES_MAX, 2 * BODY_BYTES_MAX};
static const char one_row[] = "{\"inputs\":[{\"name\":\"t\",\"datatype\":\"FP32\",\"shape\":[1,1],\"data\":[7]}]}";

struct world {
    struct lease_fixture f;
    int control; /* the other end of the bus to control */
};

static void on_control(void *ctx, struct bus_message *m)
{
    (void)ctx;
    (void)m;
}

static void on_control_gone(void *ctx, int code)
{
    (void)ctx;
    (void)code;
}

static void control_open(struct world *w)
{
    static const struct bus_conn_events events = {on_control, on_control_gone};
    int pair[2];
    assert_int_equal(bus_pair(pair, NULL), 0);
    assert_int_equal(bus_conn_open(&w->f.g.loop, pair[0], BUS_GATEWAY, BUS_CONTROL, &events, &w->f.g, &w->f.g.control),
                     0);
    w->control = pair[1];
}

static void control_close(struct world *w)
{
    bus_conn_close(w->f.g.control);
    w->f.g.control = NULL;
    (void)uv_run(&w->f.g.loop, UV_RUN_DEFAULT);
    fd_close(&w->control);
}

/* A model of one tensor in and out. */
static void world_init(struct world *w, uint32_t batch_max)
{
    static struct tensor_signature signature; /* 42 KiB */
    signature = (struct tensor_signature){.n_inputs = 1, .n_outputs = 1, .batchable = true};
    signature.inputs[0] = (struct tensor_spec){"t", TENSOR_FP32, {2, {-1, 1}}};
    signature.outputs[0] = signature.inputs[0];
    fixture_init(&w->f, &geometry, BODY_BYTES_MAX, batch_max, &signature);
    assert_int_equal(map_put(&w->f.g.versions, w->f.version->uid, w->f.version), 0);
    assert_int_equal(uv_loop_init(&w->f.g.loop), 0);
    control_open(w);
}

static void world_done(struct world *w)
{
    fixture_done(&w->f);
    control_close(w);
    assert_int_equal(uv_loop_close(&w->f.g.loop), 0);
}

#endif
