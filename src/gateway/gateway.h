/* The gateway role, as the serving surfaces (api/serve) see it.
 *
 * One process, one libuv loop, one thread; no root, no files, no database. A surface is a table of routes; everything
 * that is not in a table is denied. Handlers run on the loop, never block, and answer exactly once, now or later. */
#ifndef BULKHEAD_GATEWAY_GATEWAY_H
#define BULKHEAD_GATEWAY_GATEWAY_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "tensor/generation.h"
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
    /* The body of an error on its routes and on all paths that begin with `prefix`. NULL: the server's own form. */
    const char *prefix;
    void (*error_body)(int code, const char *text, struct buf *body);
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

/* Memory that lives as long as the request. */
struct arena *gateway_arena(struct gateway_request *r);
/* The surface's own state of a request; `release` is called when the request ends, whatever became of it. Once. */
/* What the surface keeps for the request beside its arena is now so many bytes: they count against what all requests
 * may take, and its tenant's. 0, or -ERROR_QUEUE_FULL, -ERROR_OVERLOADED: the request is to be failed. Less never
 * fails. All is given back at the request's end, behind `release`. */
must_check int gateway_hold(struct gateway_request *r, size_t bytes, struct error *err);
void gateway_user_set(struct gateway_request *r, void *user, void (*release)(void *user));
void *gateway_user(const struct gateway_request *r);

/* Answers. The body is copied. Headers [n_headers] may be NULL. */
void gateway_answer(struct gateway_request *r, int status, const char *content_type, const struct wire_header *headers,
                    uint32_t n_headers, struct str body);
/* Before an answer that a model gave: -ERROR_RESPONSE_TOO_LARGE where it is more than the tenant's quota. */
must_check int gateway_answer_admit(struct gateway_request *r, size_t bytes, struct error *err);
/* The catalogued error answer of `code`; err may be NULL. */
void gateway_fail(struct gateway_request *r, int code, const struct error *err);
/* The same with a JSON body of the surface's own. */
void gateway_refuse(struct gateway_request *r, int code, struct str body);

/* Live: always. Ready: it has a catalog and is not shutting down. */
bool gateway_ready(const struct gateway *g);

/* The model of the request's tenant; version empty = the newest. -ERROR_MODEL_NOT_FOUND, -ERROR_NO_MEMORY. */
must_check int gateway_version_find(struct gateway_request *r, struct str model, struct str version,
                                    struct gateway_version **ret_version, struct error *err);
/* The newest version of the model of that name, or of the base of the tenant's adapter of that name ("adapter" or
 * "base:adapter"), with which the request's generations then run. Codes as above. */
must_check int gateway_model_find(struct gateway_request *r, struct str name, struct gateway_version **ret_version,
                                  struct error *err);
/* Could it serve now, perhaps after a start? 0, or the refusal that a request would get. */
must_check int gateway_version_state(const struct gateway_version *v, struct error *err);

/* Calls `each` for every model of the request's tenant, newest version. -ERROR_NO_MEMORY, perhaps in the middle. */
must_check int gateway_models_each(struct gateway_request *r,
                                   void (*each)(void *ctx, struct str name, const struct gateway_version *v), void *ctx,
                                   struct error *err);

/* What the request's tenant can name: a model of its own, one that is lent to it, or its adapter. Views of the catalog,
 * valid during the call. */
struct gateway_card {
    struct str name;
    struct str owner;   /* the tenant itself; empty of what is lent: whose that is it never learns */
    uint64_t created_s; /* since 1970: when the newest version, or the adapter's content, was applied */
};
/* Calls `each` for all of them, models first. */
void gateway_cards_each(struct gateway_request *r, void (*each)(void *ctx, const struct gateway_card *card), void *ctx);
/* By a name as gateway_model_find takes it. -ERROR_MODEL_NOT_FOUND. */
must_check int gateway_card_find(struct gateway_request *r, struct str name, struct gateway_card *ret_card,
                                 struct error *err);

/* Calls `each` for every version of the request's tenant's models that can be addressed, a model's newest first; with a
 * `model`, for its versions only. -ERROR_MODEL_NOT_FOUND; -ERROR_NO_MEMORY, perhaps in the middle. */
must_check int gateway_versions_each(struct gateway_request *r, struct str model,
                                     void (*each)(void *ctx, const struct gateway_version *v), void *ctx,
                                     struct error *err);

/* The version that gateway_signature_wait was called with. */
const struct gateway_version *gateway_version_of(const struct gateway_request *r);
struct str gateway_version_model(const struct gateway_version *v);
struct str gateway_version_text(const struct gateway_version *v); /* "3" */

struct gateway_version_limits {
    uint32_t batch_rows_max; /* where the model is batchable */
    uint32_t replicas_max;
    uint64_t batch_delay_ns;
};
struct gateway_version_limits gateway_version_limits(const struct gateway_version *v);

struct gateway_duration {
    uint64_t count, ns;
};

/* A lease's time in three parts, each counted once per lease or once per request of it. */
struct gateway_compute {
    struct gateway_duration input;  /* from the grant until all inputs lie in the channel */
    struct gateway_duration infer;  /* as the worker says, but no more than there was time for */
    struct gateway_duration output; /* the rest: waking each other up, and taking the outputs */
};

struct gateway_batch_stats {
    uint32_t rows;
    struct gateway_compute compute; /* by lease */
};

/* Since the gateway began. Of inference requests that reached the version: `success` counts those answered with 200,
 * `failure` those answered with an error; a client that went away is neither. */
struct gateway_version_stats {
    uint64_t last_inference_ms;               /* end of the last lease, wall time; 0: none */
    uint64_t inferences;                      /* rows of requests that succeeded */
    uint64_t executions;                      /* leases that succeeded */
    struct gateway_duration success, failure; /* from the body's last byte to the answer */
    struct gateway_duration queue;            /* of success: from the body's last byte to the lease, starts included */
    struct gateway_compute compute;           /* of success: the whole lease for each of its requests */
    struct gateway_batch_stats *batches;      /* by rows, ascending */
    uint32_t n_batches;                       /* ≤ LIMIT_BATCH_ITEMS + 1 */
};
/* Valid until the handler returns; all zero for a version that nobody asked. */
const struct gateway_version_stats *gateway_version_stats(const struct gateway_version *v);

/* Calls `next` when the version's signature is known (now, or after a replica has started); fails the request itself
 * when it cannot be known. */
void gateway_signature_wait(struct gateway_request *r, struct gateway_version *v,
                            void (*next)(struct gateway_request *r, const struct tensor_signature *signature));

/* Takes the request from here to its answer: decodes the OIP body, queues, runs, encodes. json_size as in
 * oip_request_decode. */
void gateway_infer(struct gateway_request *r, struct gateway_version *v, size_t json_size);
/* The same for a raw request: the body is the model's only input. */
void gateway_infer_raw(struct gateway_request *r, struct gateway_version *v);

/* --- language models ---
 *
 * A request is one or more generations, which queue for a place in a replica's running batch and give events until each
 * has ended. The worker is hostile: what comes here was copied, decoded and checked against what was asked for. When
 * the client goes, all of them are given up within a step. */

struct gateway_generate {
    /* Generation `index` as the worker is to get it; cache_secret is filled in by the gateway. Called when its turn
     * comes, perhaps twice. */
    void (*make)(struct gateway_request *r, uint32_t index, struct generation *ret_generation);
    /* An event, valid during the call. 0; or 1: the client does not read, nothing more is generated for it until it
     * does (gateway_stream_write said so); or -ERROR_CANCELLED: the request is gone (the same); or another failure,
     * with which the request ends: `fail` is called. Neither answers nor ends the request. */
    int (*event)(struct gateway_request *r, uint32_t index, const struct generation_event *event, struct error *err);
    void (*end)(struct gateway_request *r);                                     /* all have ended: answer */
    void (*fail)(struct gateway_request *r, int code, const struct error *err); /* it is over: answer */
    /* All generations begin anew, as if nothing had been told of any: forget it. False, forgetting nothing: the client
     * knows some of it. Called once at most; NULL: never. */
    bool (*again)(struct gateway_request *r);
};

/* From a gateway_signature_wait's `next` on, for a model whose signature says that it is a language model: runs
 * generations 0 … n - 1, of which each `choices` after each other have one prompt (n is a multiple of it), which counts
 * once in the tenant's tokens. Where these are used up meanwhile, what still runs ends with GENERATION_LENGTH.
 * `generate` is a constant. */
void gateway_generate(struct gateway_request *r, uint32_t n, uint32_t choices, const struct gateway_generate *generate);

/* Answers as server-sent events (wire/sse.h). Each returns 0, 1 (told to stop) or -ERROR_CANCELLED: the client is gone
 * or too slow, and so is the request. gateway_stream_write also says -ERROR_RESPONSE_TOO_LARGE, taking nothing: the
 * tenant's quota of one answer ends there. Of a stream `ahead` bytes are known before its first event and written at
 * once: they do not count as what a client leaves unread. */
must_check int gateway_stream_begin(struct gateway_request *r, size_t ahead);
must_check int gateway_stream_write(struct gateway_request *r, struct str events);
void gateway_stream_end(struct gateway_request *r);
bool gateway_streams(const struct gateway_request *r);

#endif
