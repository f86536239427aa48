/* Error codes and the error object that explains one.
 *
 * For every role and every room. A fallible function returns int: 0 or positive is success, negative is
 * -enum error_code. A function that can explain itself takes `struct error *err` last (NULL allowed): caller-owned,
 * fixed size, never allocates, holds no pointer, so it works when memory is out and may cross a pipe or a bus message.
 * Outputs are untouched on failure. The text is for the person who made the request: it says what happened, where, and
 * what to do, and names no internal path, address or process.
 *
 * Set the text where the cause is known (error_set), add context going up (error_wrap), log once at the edge. */
#ifndef BULKHEAD_BASE_ERROR_H
#define BULKHEAD_BASE_ERROR_H

#include <stdbool.h>
#include <stdint.h>

#define ERROR_TEXT_BYTES_MAX 512

/* X(code, name on the wire, HTTP status, retryable by the client, default text) */
#define ERROR_TABLE(X)                                                                                             \
    X(INTERNAL, "internal", 500, 0, "The server failed in a way it did not expect.")                               \
    X(NO_MEMORY, "no_memory", 503, 1, "The server is out of memory for this request; try again later.")            \
    X(IO, "io", 500, 0, "The server could not read or write its own state.")                                       \
    X(INVALID_ARGUMENT, "invalid_argument", 400, 0, "An argument is not valid.")                                   \
    X(INVALID_JSON, "invalid_json", 400, 0, "The body is not valid JSON.")                                         \
    X(INVALID_REQUEST, "invalid_request", 400, 0, "The request is not valid.")                                     \
    X(INVALID_TENSOR, "invalid_tensor", 400, 0, "A tensor of the request is not valid.")                           \
    X(INVALID_RESOURCE, "invalid_resource", 400, 0, "A resource is not valid.")                                    \
    X(INVALID_NAME, "invalid_name", 400, 0, "A name is not a lower-case DNS-1123 token of at most 63 characters.") \
    X(HTTP_MALFORMED, "http_malformed", 400, 0, "The request is not well-formed HTTP/1.1.")                        \
    X(UNAUTHENTICATED, "unauthenticated", 401, 0, "A valid API key is required: Authorization: Bearer KEY.")       \
    X(FORBIDDEN, "forbidden", 403, 0, "This is not allowed.")                                                      \
    X(NOT_FOUND, "not_found", 404, 0, "There is nothing at this address.")                                         \
    X(MODEL_NOT_FOUND, "model_not_found", 404, 0, "There is no model of this name and version.")                   \
    X(METHOD_NOT_ALLOWED, "method_not_allowed", 405, 0, "This address does not take this method.")                 \
    X(REQUEST_TIMEOUT, "request_timeout", 408, 1, "The request did not arrive in time.")                           \
    X(CONFLICT, "conflict", 409, 0, "The resource changed meanwhile; read it again and repeat.")                   \
    X(LENGTH_REQUIRED, "length_required", 411, 0, "The request needs a body with a length.")                       \
    X(BODY_TOO_LARGE, "body_too_large", 413, 0, "The body is larger than this address takes.")                     \
    X(URI_TOO_LONG, "uri_too_long", 414, 0, "The address is longer than the server takes.")                        \
    X(EXPECTATION_FAILED, "expectation_failed", 417, 0, "The server only knows Expect: 100-continue.")             \
    X(REFUSED, "refused", 422, 0, "The server refuses this.")                                                      \
    X(ISOLATION_UNAVAILABLE, "isolation_unavailable", 422, 0, "This host cannot provide the isolation asked for.") \
    X(RESPONSE_TOO_LARGE, "response_too_large", 422, 0, "The answer is larger than the tenant's quota allows.")    \
    X(RATE_LIMITED, "rate_limited", 429, 1, "The tenant's request rate is used up.")                               \
    X(QUEUE_FULL, "queue_full", 429, 1, "The tenant's queue is full.")                                             \
    X(QUOTA_EXCEEDED, "quota_exceeded", 429, 1, "A quota of the tenant is used up.")                               \
    X(HEADERS_TOO_LARGE, "headers_too_large", 431, 0, "The request head is larger than the server takes.")         \
    X(UNSUPPORTED, "unsupported", 501, 0, "The server does not support this.")                                     \
    X(OVERLOADED, "overloaded", 503, 1, "The server is at its limit; try again later.")                            \
    X(DRAINING, "draining", 503, 1, "The server is shutting down; try again elsewhere or later.")                  \
    X(MODEL_UNAVAILABLE, "model_unavailable", 503, 1, "The model cannot serve right now; try again later.")        \
    X(WORKER_LOST, "worker_lost", 503, 1, "The model's worker ended while it held this request; try again.")       \
    X(MODEL_MEMORY_EXCEEDED, "model_memory_exceeded", 503, 0,                                                      \
      "The model needed more memory for this request than its spec.resources.memory.")                             \
    X(DEADLINE, "deadline_exceeded", 503, 1, "The request could not be answered before its deadline.")             \
    X(CANCELLED, "cancelled", 499, 0, "The client went away.")                                                     \
    X(ENGINE, "engine_failed", 500, 0, "The engine could not execute the model on this input.")                    \
    X(PEER, "peer_invalid", 500, 0, "A process of the server broke its protocol.")                                 \
    X(LIMIT, "limit", 500, 0, "An internal limit was reached.")                                                    \
    X(AGAIN, "again", 503, 1, "Not now.")                                                                          \
    X(GONE, "gone", 503, 1, "The other side is gone.")                                                             \
    X(PENDING, "pending", 202, 0, "Stored, but not yet taken up by the serving side.")

enum error_code {
    ERROR_NONE = 0,
#define X(code, name, status, retryable, text) ERROR_##code,
    ERROR_TABLE(X)
#undef X
        ERROR_COUNT
};

struct error_info {
    const char *name; /* on the wire, stable */
    uint16_t http_status;
    bool retryable;   /* the same request may succeed later */
    const char *text; /* used where no better text was set */
};

struct error {
    int code;                        /* -enum error_code; 0 = not set */
    uint32_t retry_after_ms;         /* 0 = not known */
    char text[ERROR_TEXT_BYTES_MAX]; /* NUL-terminated, valid UTF-8 as far as its inputs were */
};

/* The row of a code; accepts the code negative or positive, an unknown one gets INTERNAL's row. Never NULL. */
const struct error_info *error_info(int code);

/* Sets code and text (truncated to fit). Returns -code, so that `return error_set(...)` reads well.
 * `code` is positive (ERROR_X) or negative (-ERROR_X). err may be NULL. */
int error_set(struct error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As error_set with the default text of the code. */
int error_set_default(struct error *err, int code);

/* Puts context before the present text: "context: text". Returns the present code. err may be NULL (returns
 * `code` then). */
int error_wrap(struct error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The text to show for a failure: err's own if it has one, else the default of `code`. */
const char *error_text(const struct error *err, int code);

#endif
