/* The supervisor role: the only process with privilege, and the parent of all others.
 *
 * One libuv loop, one thread (parent-death signals are tied to it). It binds and keeps the listening sockets but never
 * accepts or reads them; starts control and gateway and starts them again when they die; starts, limits, watches and
 * kills workers; hands descriptors around. It parses no byte of a tenant: bus messages of fixed size are all it reads.
 */
#ifndef BULKHEAD_SUPERVISOR_SUPERVISOR_H
#define BULKHEAD_SUPERVISOR_SUPERVISOR_H

#include "base/cleanup.h"
#include "base/error.h"
#include "bus/message.h"

#include <stdint.h>

#define SUPERVISOR_ENGINES_MAX 8

struct supervisor_engine {
    const char *name; /* Model.spec.engine */
    int library_fd;   /* its shared library; -1: built in */
};

struct supervisor_config {      /* its texts are borrowed for the life of the process */
    const char *data_dir;       /* as typed by the operator; created when missing */
    const char *listen;         /* "127.0.0.1:8080", "[::1]:8080"; port 0: any */
    const char *metrics_listen; /* address for GET /metrics, as `listen`; "" or NULL: none */
    const char *admin_group;    /* group that may use the admin socket; ignored when there is none of that name */
    uint32_t uid_base, uid_count;
    uint32_t n_devices;
    struct bus_device devices[LIMIT_DEVICES]; /* [0]: cpu */
    uint32_t fifo;                            /* 1: first come, first served */
    uint32_t share_interactive, share_batch;  /* permille */
    uint64_t queue_bytes_max;
    uint64_t bodies_bytes_max;
    uint32_t edge; /* 1: spec.profile edge */
    uint32_t log_level;
    uint32_t connections_max;
    uint64_t body_bytes_max;
    uint32_t head_timeout_ms, idle_timeout_ms, write_timeout_ms, drain_timeout_ms, request_timeout_ms;
    uint32_t pool_size; /* blank workers kept per engine that a model of level pool needs */
    bool allow_unlimited;
    int program_fd; /* `bulkhead` itself */
    int worker_fd;  /* `bulkhead-worker` */
    int image_fd;   /* `bulkhead-image`, which unpacks images; -1: this server takes none */
    struct supervisor_engine engines[SUPERVISOR_ENGINES_MAX];
    uint32_t n_engines;
    /* On SIGHUP: reads the configuration again, checks it, and calls `use` with it, whose texts need not outlive that
     * call. Only what it cannot read or check is an error. NULL: there is no file to read. */
    int (*reload)(void *ctx, void (*use)(void *use_ctx, const struct supervisor_config *config), void *use_ctx,
                  struct error *err);
    void *reload_ctx;
};

/* Runs until SIGTERM or SIGINT (SIGHUP: reloads), drains, and returns the exit status: 0; or 1 when it could not start
 * (err says why: port in use, data folder in use, no root …). */
int supervisor_run(const struct supervisor_config *config, struct error *err);

#endif
