/* The gateway role, as the serving surfaces (api/serve) see it.
 *
 * One process, one libuv loop, one thread; no root, no files, no database. A surface is a table of routes; everything
 * that is not in a table is denied. Handlers run on the loop, never block, and answer exactly once, now or later. */
#ifndef BULKHEAD_GATEWAY_GATEWAY_H
#define BULKHEAD_GATEWAY_GATEWAY_H

#include "base/buf.h"
#include "base/error.h"
#include "tensor/oip.h"
#include "wire/wire.h"

struct gateway;
struct gateway_request;
struct gateway_tenant;
struct gateway_version;

/* 0 is no scope: a route without one stops the gateway at its start. */
enum gateway_scope { GATEWAY_OPEN = 1, GATEWAY_TENANT };

#define GATEWAY_PARAMS_MAX 2

struct gateway_route {
    enum wire_method method;
    const char *path; /* "/v2/models/{}/infer": {} is one segment, handed over as a parameter */
    enum gateway_scope scope;
    bool metered;                               /* counts against the tenant's rate limit */
    size_t body_bytes_max;                      /* 0: no body is taken; SIZE_MAX: the server's limit */
    void (*handler)(struct gateway_request *r); /* the whole body is there */
    const char *summary;
};

struct gateway_surface {
    const char *name;
    const struct gateway_route *routes;
    size_t n_routes;
};

/* NULL-terminated; defined by main.c. */
extern const struct gateway_surface *const gateway_surfaces[];

/* The role's process. */
int gateway_run(int bus_fd);

/* --- for handlers --- */

struct gateway *gateway_of(const struct gateway_request *r);
struct str gateway_param(const struct gateway_request *r, size_t index);
struct str gateway_body(const struct gateway_request *r);
/* Empty with data NULL when absent; always absent for a request that came over the bus. */
struct str gateway_header(const struct gateway_request *r, struct str name);

/* Answers. The body is copied. Headers [n_headers] may be NULL. */
void gateway_answer(struct gateway_request *r, int status, const char *content_type, const struct wire_header *headers,
                    uint32_t n_headers, struct str body);
/* The catalogued error answer of `code`; err may be NULL. */
void gateway_fail(struct gateway_request *r, int code, const struct error *err);

/* Live: always. Ready: it has a catalog and is not shutting down. */
bool gateway_ready(const struct gateway *g);

/* The model of the request's tenant; version empty = the newest. -ERROR_MODEL_NOT_FOUND. */
must_check int gateway_version_find(struct gateway_request *r, struct str model, struct str version,
                                    struct gateway_version **ret_version, struct error *err);
/* Could it serve now, perhaps after a start? 0, or the refusal that a request would get. */
must_check int gateway_version_state(const struct gateway_version *v, struct error *err);

/* Calls `each` for every model of the request's tenant, newest version. */
void gateway_models_each(struct gateway_request *r,
                         void (*each)(void *ctx, struct str name, const struct gateway_version *v), void *ctx);

/* The version that gateway_signature_wait was called with. */
const struct gateway_version *gateway_version_of(const struct gateway_request *r);
struct str gateway_version_model(const struct gateway_version *v);
struct str gateway_version_text(const struct gateway_version *v); /* "3" */

/* Calls `next` when the version's signature is known (now, or after a replica has started); fails the request itself
 * when it cannot be known. */
void gateway_signature_wait(struct gateway_request *r, struct gateway_version *v,
                            void (*next)(struct gateway_request *r, const struct tensor_signature *signature));

/* Takes the request from here to its answer: decodes the OIP body, queues, runs, encodes. json_size as in
 * oip_request_decode. */
void gateway_infer(struct gateway_request *r, struct gateway_version *v, size_t json_size);
/* The same for a raw request: the body is the model's only input. */
void gateway_infer_raw(struct gateway_request *r, struct gateway_version *v);

#endif
