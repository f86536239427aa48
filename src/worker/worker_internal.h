/* State of the worker process; shared by the files of this room only. */
#ifndef BULKHEAD_WORKER_INTERNAL_H
#define BULKHEAD_WORKER_INTERNAL_H

#include "base/blocked.h"
#include "base/filter.h"
#include "bus/bus.h"
#include "channel/channel.h"
#include "engine/engine.h"

#include <pthread.h>

struct worker;
struct worker_lease;

/* See watch.c. */
struct worker_watch {
    struct channel *channel; /* that it watches; NULL: there is no watcher */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t begun;         /* `running` is set; over a stream */
    struct worker_lease *running; /* guarded: submitted to the engine, its step not over */
    _Atomic bool ending, ended;
};

/* The lease being run. */
struct worker_lease {
    struct worker *worker;
    struct channel_frame frame; /* its LEASE */
    uint32_t n_items;
    struct engine_item items[LIMIT_BATCH_ITEMS];
    bool cancelled[LIMIT_BATCH_ITEMS];
    struct tensor_view inputs[LIMIT_TENSORS];
    uint64_t out_used;  /* bytes of the outbox slot taken by parts not yet credited */
    uint64_t out_total; /* bytes of all outputs so far */
    bool out_refused;   /* they would be more than the host takes */
};

struct worker_refused {
    uint64_t request_id;
    struct error err;
};

/* A language model's sequences, as far as they are the worker's and not the engine's. */
struct worker_tokens {
    struct channel_frame lease; /* the one being run */
    uint64_t out_used;          /* bytes of the outbox slot taken by events not yet credited */
    int result;                 /* of the sink */
    bool unrung;                /* events wait to be published */
    uint32_t n_deferred, n_refused;
    struct channel_frame deferred[LIMIT_CHANNEL_FRAMES]; /* came in the middle of a step */
    struct worker_refused refused[LIMIT_SEQUENCES];
};

/* An adapter on its way in. */
struct worker_adapter {
    uint32_t number, epoch;
    uint64_t bytes;
    int fd; /* owned; -1: too many came at once */
};

#define WORKER_ADAPTERS_MAX 64u /* of them LIMIT_ADAPTERS_WAITING with their descriptor */

struct worker {
    int bus_fd;
    struct worker_adapter adapters[WORKER_ADAPTERS_MAX]; /* put aside, first come first */
    uint32_t n_adapters;
    struct bus_message next; /* put aside, if has_next: it ends the channel, or the worker */
    bool has_next;
    struct channel *channel; /* NULL before the first and between two */
    struct bus_worker_config config;
    const void *model;
    int model_fd; /* the same, for an engine that maps it itself; -1: none */
    int library_fd;
    const struct filter *filter; /* to be installed before the model is looked at; NULL when done, and in tests */
    const struct engine_ops *ops;
    struct engine *engine; /* NULL until LOAD succeeded */
    struct tensor_signature *signature;
    uint32_t steps, items;       /* since the last STATS */
    struct worker_tokens tokens; /* of a token engine; 110 KiB */
    uint32_t rest_ms;            /* of waiting for nothing, then the engine rests; 0: it did, or a lease is under way */
    struct worker_lease lease;   /* one at a time; here and not on the stack: 20 KiB */
    struct worker_watch watch;
    struct blocked_list blocked; /* system calls that were refused; in a shared worker, those that this model took */
    bool blocked_told;           /* all of it, to this channel */
};

/* Pushes a frame, waiting for room; negative when the channel or the supervisor is gone. */
must_check int worker_push(struct worker *w, const struct channel_frame *frame);
/* Tells the host what calls were refused, if there are any that it does not know of. One load where there are none. */
must_check int worker_blocked_tell(struct worker *w);
/* Waits until the channel may have a frame or an adapter came and was put aside (1), or the bus has something else (0);
 * negative when the supervisor is gone. */
must_check int worker_wait(struct worker *w);

/* adapter.c */
/* Takes one message off the bus if there is one: an adapter is put aside (1), anything else becomes `next` (0, also
 * when it is there already). 2: there was none. Negative when the supervisor is gone. */
must_check int worker_bus_look(struct worker *w);
/* Gives the engine what was put aside, and tells the host of each. Between steps only. Negative: the channel cannot go
 * on. */
must_check int worker_adapters_load(struct worker *w);
/* The adapter is not wanted any more: forgets it where it waits, and in the engine. 0: all, because their channel has
 * ended. */
void worker_adapters_drop(struct worker *w, uint32_t number);

/* Waits for the first message. A worker may be told before to be a blank one (WORKER_BLANK): then it waits here,
 * without end, for what comes next, behind its last filter. On success the message is the caller's. */
must_check int worker_greet(struct worker *w, enum bus_role self, struct bus_message *ret_message);
/* Takes the configuration, which must be of `type` (WORKER_CONFIG or INGEST_CONFIG), and maps the model. Ends m. */
must_check int worker_configure(struct worker *w, enum bus_type type, struct bus_message *m);
/* A configured worker's life, from its first channel to its end, and everything of it given back but the bus. 0 told to
 * end, negative else. */
must_check int worker_serve(struct worker *w);
/* Opens the engine on the model and describes it; on failure what was made stays in w. */
must_check int worker_model_open(struct worker *w, struct error *err);

/* A thread that cancels a lease in the engine, while it runs, when the host gives it up (channel_lease_cancel). Nothing
 * happens where the engine cannot be cancelled by another thread: then a step runs to its end. To be stopped before the
 * channel is closed; both may be called twice. */
void worker_watch_start(struct worker *w);
void worker_watch_stop(struct worker *w);
/* Around the steps of a lease that the engine has taken. */
void worker_watch_begin(struct worker_lease *l);
void worker_watch_end(struct worker_lease *l);
/* Within them, before the step touches the channel. */
void worker_watch_output(struct worker_lease *l);

/* A shared worker's life: takes in a model for each WORKER_HOST, of which m is the first, until the supervisor is gone;
 * then the models' threads may still run. Ends m. */
void worker_host(struct worker *w, struct bus_message *m);

/* Runs one lease from its LEASE frame to its DONE. Negative only when the channel cannot go on. The second is for token
 * engines, and so are: a frame that is no LEASE; and that all sequences end, because their channel has. */
must_check int worker_lease_run(struct worker *w, const struct channel_frame *frame);
must_check int worker_tokens_lease(struct worker *w, const struct channel_frame *frame);
must_check int worker_tokens_frame(struct worker *w, const struct channel_frame *frame);
void worker_tokens_reset(struct worker *w);

#endif
