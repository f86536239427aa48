/* Inside of the admin surface; only admin*.c includes this. */
#ifndef BULKHEAD_API_MANAGE_ADMIN_INTERNAL_H
#define BULKHEAD_API_MANAGE_ADMIN_INTERNAL_H

#include "control/control.h"

#define ADMIN_ANSWER_BYTES_MAX (64 * MIB) /* a list of a hundred thousand models; beyond: filter */

struct admin_route;

/* One exchange, from its head to the later of its end and the last callback that may still come for it. */
struct admin_request {
    struct wire_exchange *exchange; /* NULL once wire is done with it, or once it is answered */
    struct control *control;
    const struct admin_route *route;
    struct registry_upload *upload; /* artifacts only; owned */
    struct control_apply *apply;    /* under way; one of `callbacks` */
    uint32_t callbacks;             /* control still owes so many */
    bool finished;                  /* wire has forgotten it */
    enum resource_kind kind;
    struct str name;             /* of the path; valid while the exchange is */
    struct str tenant, model;    /* of the query; likewise */
    const char *content_type;    /* NULL: application/json */
    struct buf answer;           /* kept while the gateway takes a generation */
    struct registry_change done; /* likewise */
};

struct admin_route {
    enum wire_method method;
    const char *path; /* "{kind}" and "{name}" stand for one part each */
    enum wire_body_mode mode;
    size_t body_max; /* bytes */
    /* Runs at the end of the body and answers, now or later. Returns a negative code to have the error answered. */
    int (*handler)(struct admin_request *request, struct str body, struct error *err);
    const char *query; /* names it knows, separated by a space */
    const char *summary;
};

/* First match wins; ends with a row whose path is NULL. */
extern const struct admin_route admin_routes[];

/* Answers 200 with request->answer, or 202 when `status` is 202; the buffer's memory goes to wire. */
void admin_answer(struct admin_request *request, int status);
void admin_answer_error(struct admin_request *request, int code, const struct error *err);
/* One step of a callback from control: frees the request when nothing else holds it. Call last. */
void admin_callback_end(struct admin_request *request);

#endif
