/* The tables: every kind, every field. Paths and words here are a public contract (docs/resources.md). */
#include "resource/resource_internal.h"
#include "resource/resource_observed.h"

#include "base/clock.h"

#include <stddef.h>

static const char *const levels[] = {"shared", "pool", "process", "container", "microvm", NULL};
static const char *const runtimes[] = {"any", "runc", "crun", "runsc", "kata", NULL};
static const char *const cpusets[] = {"shared", "dedicated", NULL};
static const char *const log_levels[] = {"alert", "error", "warn", "info", "debug", NULL}; /* as enum log_level */

static const char *const classes[] = {"critical", "interactive", "batch", NULL}; /* as enum schedule_class */

static const char *const profiles[] = {"default", "edge", NULL};

#define OFFSET(kind, member) offsetof(struct resource_##kind, member)
#define SIZE(kind, member)   sizeof(((struct resource_##kind *)NULL)->member)
#define PLACE(kind, member)  .offset = OFFSET(kind, member), .size = SIZE(kind, member)
#define COUNT(array)         (sizeof(array) / sizeof(array)[0])

/* Rows of the metadata, which every kind has. */
#define META_NAME(kind_, default_, help_)                                                                  \
    {                                                                                                      \
        .path = "metadata.name", .type = RESOURCE_NAME, .min = 1, .max = LIMIT_NAME_BYTES,                 \
        .required = (default_) == NULL, .default_text = (default_), PLACE(kind_, meta.name), .help = help_ \
    }
#define META_TENANT(kind_)                                                                                     \
    {                                                                                                          \
        .path = "metadata.tenant", .type = RESOURCE_NAME, .min = 1, .max = LIMIT_NAME_BYTES, .required = true, \
        PLACE(kind_, meta.tenant), .help = "Whose it is."                                                      \
    }
#define META_REST(kind_)                                                                                          \
    {.path = "metadata.uid",                                                                                      \
     .type = RESOURCE_INTEGER,                                                                                    \
     .max = UINT64_MAX,                                                                                           \
     PLACE(kind_, meta.uid),                                                                                      \
     .help = "Set by the server: unique for ever."},                                                              \
        {.path = "metadata.generation",                                                                           \
         .type = RESOURCE_INTEGER,                                                                                \
         .max = UINT64_MAX,                                                                                       \
         PLACE(kind_, meta.generation),                                                                           \
         .help = "Set by the server: counts the changes of spec."},                                               \
        {.path = "metadata.resourceVersion",                                                                      \
         .type = RESOURCE_INTEGER,                                                                                \
         .max = UINT64_MAX,                                                                                       \
         PLACE(kind_, meta.resource_version),                                                                     \
         .help = "Set by the server at each change. In an applied document: change it only if this is still the " \
                 "stored one (409 otherwise); leave it out to overwrite."},                                       \
        {.path = "metadata.labels",                                                                               \
         .type = RESOURCE_MAP,                                                                                    \
         .mutable = true,                                                                                         \
         PLACE(kind_, meta.labels),                                                                               \
         .help = "Words to find it by; the server does not look at them."},                                       \
    {                                                                                                             \
        .path = "metadata.annotations", .type = RESOURCE_MAP, .mutable = true, PLACE(kind_, meta.annotations),    \
        .help = "Notes; the server does not look at them."                                                        \
    }

static const struct resource_field server_fields[] = {
    META_NAME(server, "server", "There is one server per document; its name is for people."),
    META_REST(server),
    {.path = "spec.listen",
     .type = RESOURCE_STRING,
     .min = 1,
     .max = 63,
     .default_text = "127.0.0.1:8080",
     PLACE(server, listen),
     .help =
         "Address and port of the public surface: 127.0.0.1:8080, 0.0.0.0:80, [::1]:8080. Port 0 takes a free one."},
    {.path = "spec.metrics.listen",
     .type = RESOURCE_STRING,
     .min = 1,
     .max = 63,
     PLACE(server, metrics_listen),
     .help = "Address and port where anyone may GET /metrics, such as 127.0.0.1:9090. Left out: the admin socket only. "
             "Whoever can reach it learns the names of tenants and models."},
    {.path = "spec.limits.connections",
     .type = RESOURCE_INTEGER,
     .unit = "connections",
     .min = 1,
     .max = 100000,
     .default_text = "4096",
     PLACE(server, connections),
     .help =
         "Open client connections at once. One more takes the place of one at which nothing is being done, of the tenant "
         "that has most; where there is none it is refused with 503."},
    {.path = "spec.limits.bodyBytes",
     .type = RESOURCE_BYTES,
     .min = 1 * KIB,
     .max = LIMIT_BODIES_BYTES,
     .default_text = "32Mi",
     PLACE(server, body_bytes),
     .help = "The largest body of an inference request; a larger one is refused with 413 before it is read."},
    {.path = "spec.limits.queueBytes",
     .type = RESOURCE_BYTES,
     .min = 64 * KIB,
     .max = 64 * GIB,
     .default_text = "256Mi",
     PLACE(server, queue_bytes),
     .help = "Bytes of inputs that may wait for a device, of all tenants together. Beyond it the newest request of the "
             "lowest class that waits is refused with 503, of the tenant that is furthest over its share there."},
    {.path = "spec.timeouts.head",
     .type = RESOURCE_DURATION,
     .min = 10 * NS_PER_MS,
     .max = 3600 * NS_PER_S,
     .default_text = "10s",
     PLACE(server, head_timeout_ns),
     .help = "A request's head must have arrived within this time."},
    {.path = "spec.timeouts.idle",
     .type = RESOURCE_DURATION,
     .min = 10 * NS_PER_MS,
     .max = 3600 * NS_PER_S,
     .default_text = "1m15s",
     PLACE(server, idle_timeout_ns),
     .help = "A connection without a request is closed after this time."},
    {.path = "spec.timeouts.write",
     .type = RESOURCE_DURATION,
     .min = 10 * NS_PER_MS,
     .max = 3600 * NS_PER_S,
     .default_text = "30s",
     PLACE(server, write_timeout_ns),
     .help = "A client that takes no byte of its answer for this time is cut off."},
    {.path = "spec.timeouts.request",
     .type = RESOURCE_DURATION,
     .min = 10 * NS_PER_MS,
     .max = 3600 * NS_PER_S,
     .default_text = "30s",
     PLACE(server, request_timeout_ns),
     .help = "An inference request waits at most this long for its turn; then it is refused with 503. A client may ask "
             "for less, with the header X-Request-Timeout-Ms or the parameter timeout, and never gets more."},
    {.path = "spec.cpu.reserved",
     .type = RESOURCE_INTEGER,
     .unit = "cores",
     .min = 0,
     .max = 4096,
     .absent = UINT64_MAX,
     PLACE(server, cpu_reserved),
     .help =
         "Cores kept from the models, for the server itself. Left out: 1 where there are more than 2 cores, else 0."},
    {.path = "spec.uids.base",
     .type = RESOURCE_INTEGER,
     .min = 1000,
     .max = 4294900000,
     .default_text = "790000",
     PLACE(server, uid_base),
     .help = "First of the user ids that the server's processes and the models' workers run as, each with its own. "
             "Nothing else on the host may use them."},
    {.path = "spec.uids.count",
     .type = RESOURCE_INTEGER,
     .min = 32, /* 16 are for the roles */
     .max = 1000000,
     .default_text = "4096",
     PLACE(server, uid_count),
     .help = "How many user ids from spec.uids.base on."},
    {.path = "spec.admin.group",
     .type = RESOURCE_STRING,
     .min = 1,
     .max = 32,
     .default_text = "bulkhead",
     PLACE(server, group),
     .help = "Members of this group may use the admin socket, beside root and the server's own user."},
    {.path = "spec.log.level",
     .type = RESOURCE_ENUM,
     .names = log_levels,
     .default_text = "info",
     PLACE(server, log_level),
     .help = "The least urgent lines that are written."},
    {.path = "spec.drainTimeout",
     .type = RESOURCE_DURATION,
     .min = 0,
     .max = 3600 * NS_PER_S,
     .default_text = "30s",
     PLACE(server, drain_timeout_ns),
     .help = "After SIGTERM, requests in flight get this long to finish."},
    {.path = "spec.pool.size",
     .type = RESOURCE_INTEGER,
     .unit = "workers",
     .min = 0,
     .max = LIMIT_POOL_SIZE,
     .default_text = "1",
     PLACE(server, pool_size),
     .help =
         "Blank workers kept ready for models of isolation level pool, for each engine that such a model needs. Each "
         "takes a user id and the memory of its engine's library. 0: none; a start at this level then takes as long "
         "as one at level process."},
    {.path = "spec.devices",
     .type = RESOURCE_DEVICES,
     PLACE(server, devices),
     .help =
         "Pools of slots that leases run on. cpu is always there, with a slot for each core that is not reserved if "
         "it is not listed here. A lease takes as many slots of cpu as its model has cores, and one of any other "
         "device."},
    {.path = "spec.classes.interactive",
     .type = RESOURCE_INTEGER,
     .unit = "percent",
     .min = 0,
     .max = 50,
     .default_text = "5",
     PLACE(server, share_interactive),
     .help = "The least of each device that class interactive keeps while critical requests could use all of it."},
    {.path = "spec.classes.batch",
     .type = RESOURCE_INTEGER,
     .unit = "percent",
     .min = 0,
     .max = 50,
     .default_text = "5",
     PLACE(server, share_batch),
     .help = "Likewise of class batch, against the two above it. Together at most 50."},
    {.path = "spec.profile",
     .type = RESOURCE_ENUM,
     .names = profiles,
     .default_text = "default",
     PLACE(server, profile),
     .help =
         "edge: for many models on one small machine. The server's own processes stay below 64 MiB together: data of "
         "control and gateway are bounded, and limits.connections, limits.bodyBytes and limits.queueBytes are cut to "
         "64, 1Mi and 4Mi, pool.size to 0. docs/edge.md says so in detail, and how long a critical request waits at "
         "most."},
};

/* 4096 slots, as many as a device can have, for an hour. */
#define COMPUTE_HOUR_MAX (4096u * 3600u)
#define TOKENS_MAX       1000000000000u

/* A number of spec.quota, 0 meaning no limit. */
#define QUOTA(path_, type_, unit_, max_, member_, help_)                                                \
    {                                                                                                   \
        .path = path_, .type = type_, .unit = unit_, .max = max_, .default_text = "0", .mutable = true, \
        PLACE(tenant, member_), .help = help_                                                           \
    }

static const struct resource_field tenant_fields[] = {
    META_NAME(tenant, NULL, "The tenant's name, unique on the server."),
    META_REST(tenant),
    {.path = "spec.weight",
     .type = RESOURCE_INTEGER,
     .unit = "shares",
     .min = 1,
     .max = 1000,
     .default_text = "1",
     .mutable = true,
     PLACE(tenant, weight),
     .help = "Its share of a busy device against other tenants' shares. An idle tenant's share goes to the others."},
    {.path = "spec.classes",
     .type = RESOURCE_SET,
     .names = classes,
     .default_text = "interactive, batch",
     .mutable = true,
     PLACE(tenant, classes),
     .help = "The classes that its requests may have, whatever they ask for; one that asks for another is refused with "
             "403."},
    {.path = "spec.isolation.minimum",
     .type = RESOURCE_ENUM,
     .names = levels,
     .default_text = "shared",
     .mutable = true,
     PLACE(tenant, isolation_minimum),
     .help = "The floor: a model of this tenant below it is refused, and nothing of the tenant ever runs below it."},
    {.path = "spec.quota.requestsPerMinute",
     .type = RESOURCE_INTEGER,
     .unit = "requests per minute",
     .min = 0,
     .max = 1000000000,
     .default_text = "0",
     .mutable = true,
     PLACE(tenant, requests_per_minute),
     .help = "Sustained request rate; more is refused with 429 and a Retry-After. 0 means no limit."},
    {.path = "spec.quota.burst",
     .type = RESOURCE_INTEGER,
     .unit = "requests",
     .min = 0,
     .max = 1000000000,
     .default_text = "0",
     .mutable = true,
     PLACE(tenant, burst),
     .help = "Requests that may come at once within the rate. 0 means one second's worth, at least 1."},
    {.path = "spec.quota.queueDepth",
     .type = RESOURCE_INTEGER,
     .unit = "requests",
     .min = 1,
     .max = 65536,
     .default_text = "256",
     .mutable = true,
     PLACE(tenant, queue_depth),
     .help = "Requests that may wait for a device at once; one more is refused with 429."},
    QUOTA(
        "spec.quota.queueBytes", RESOURCE_BYTES, NULL, 64 * GIB, queue_bytes,
        "Bytes of inputs that may wait for a device at once; more is refused with 429. 0: only spec.limits.queueBytes "
        "of the Server counts."),
    QUOTA("spec.quota.concurrency", RESOURCE_INTEGER, "requests", 1000000, concurrency,
          "Inference requests at once, from their head to the end of their answer; one more is refused with 429. 0 "
          "means no limit."),
    QUOTA(
        "spec.quota.connections", RESOURCE_INTEGER, "connections", 100000, connections,
        "Connections at once whose last request had a key of this tenant. Beyond them one of its own at which nothing is "
        "being done is closed; where all are busy, the request of one more is refused with 429. 0: only "
        "spec.limits.connections of the Server counts."),
    QUOTA(
        "spec.quota.computeSecondsPerHour", RESOURCE_INTEGER, "seconds", COMPUTE_HOUR_MAX, compute_s_per_hour,
        "Time on the device, times the slots taken, in each hour of the clock (UTC), as the server measures it. Who has "
        "used it up is refused with 429 until the hour ends. 0 means no limit."),
    QUOTA("spec.quota.computeSecondsPerDay", RESOURCE_INTEGER, "seconds", 24 * COMPUTE_HOUR_MAX, compute_s_per_day,
          "Likewise in each day (UTC)."),
    QUOTA("spec.quota.tokensPerMinute", RESOURCE_INTEGER, "tokens", TOKENS_MAX, tokens_per_minute,
          "Tokens of prompts and answers of language models in each minute of the clock (UTC). Who has used them up is "
          "refused with 429 until the minute ends; an answer that would go beyond is cut. 0 means no limit."),
    QUOTA("spec.quota.tokensPerDay", RESOURCE_INTEGER, "tokens", TOKENS_MAX, tokens_per_day,
          "Likewise in each day (UTC)."),
    QUOTA(
        "spec.quota.bodyBytes", RESOURCE_BYTES, NULL, 512 * MIB, body_bytes,
        "The largest body of an inference request; a larger one is refused with 413. 0 means the server's own limit."),
    QUOTA(
        "spec.quota.responseBytes", RESOURCE_BYTES, NULL, 4 * GIB, response_bytes,
        "The largest answer to an inference request; a larger one is replaced by a 422. 0 means the server's own limit."),
    QUOTA(
        "spec.quota.bytesPerSecondIn", RESOURCE_BYTES, NULL, 1024 * GIB, bytes_per_s_in,
        "Bodies of inference requests, on average. The next body is read later, at most half a minute, then refused with "
        "429. A second's worth may come at once. 0 means no limit."),
    QUOTA(
        "spec.quota.bytesPerSecondOut", RESOURCE_BYTES, NULL, 1024 * GIB, bytes_per_s_out,
        "Answers to inference requests, on average: after larger ones the next request's body is read later; likewise."),
    QUOTA(
        "spec.quota.replicas", RESOURCE_INTEGER, "replicas", LIMIT_REPLICAS, replicas,
        "Replicas of all its models that run at once; no further one is started. Those that run already stay. 0 means no "
        "limit."),
    QUOTA("spec.quota.memory", RESOURCE_BYTES, NULL, 1024 * GIB, memory_bytes,
          "spec.resources.memory of all replicas that run at once; likewise."),
    QUOTA("spec.quota.models", RESOURCE_INTEGER, "models", LIMIT_MODELS, models,
          "Models it may have; apply refuses one more. 0 means no limit."),
    QUOTA(
        "spec.quota.artifactBytes", RESOURCE_BYTES, NULL, 1024 * GIB, artifact_bytes,
        "Size of the artifacts of all its models' versions and of its adapters, each artifact once; apply refuses what "
        "goes beyond it. 0 means no limit."),
    QUOTA("spec.quota.adapterBytes", RESOURCE_BYTES, NULL, 1024 * GIB, adapter_bytes,
          "Size of its adapters that may be loaded in one worker at once; the least recently used goes first. 0 means "
          "an equal share of what the worker has room for."),
    QUOTA("spec.quota.perKey.requestsPerMinute", RESOURCE_INTEGER, "requests per minute", 1000000000,
          per_key.requests_per_minute, "Like spec.quota.requestsPerMinute, for each key of the tenant beside it."),
    QUOTA("spec.quota.perKey.burst", RESOURCE_INTEGER, "requests", 1000000000, per_key.burst,
          "Like spec.quota.burst, for each key."),
    QUOTA("spec.quota.perKey.concurrency", RESOURCE_INTEGER, "requests", 1000000, per_key.concurrency,
          "Like spec.quota.concurrency, for each key."),
    QUOTA("spec.quota.perKey.computeSecondsPerHour", RESOURCE_INTEGER, "seconds", COMPUTE_HOUR_MAX,
          per_key.compute_s_per_hour, "Like spec.quota.computeSecondsPerHour, for each key."),
    QUOTA("spec.quota.perKey.computeSecondsPerDay", RESOURCE_INTEGER, "seconds", 24 * COMPUTE_HOUR_MAX,
          per_key.compute_s_per_day, "Like spec.quota.computeSecondsPerDay, for each key."),
    QUOTA("spec.quota.perKey.tokensPerMinute", RESOURCE_INTEGER, "tokens", TOKENS_MAX, per_key.tokens_per_minute,
          "Like spec.quota.tokensPerMinute, for each key."),
    QUOTA("spec.quota.perKey.tokensPerDay", RESOURCE_INTEGER, "tokens", TOKENS_MAX, per_key.tokens_per_day,
          "Like spec.quota.tokensPerDay, for each key."),
};

static const struct resource_field adapter_fields[] = {
    META_NAME(adapter, NULL,
              "The adapter's name, unique within its tenant, among its models and those lent to it too."),
    META_TENANT(adapter),
    META_REST(adapter),
    {.path = "spec.base",
     .type = RESOURCE_NAME,
     .min = 1,
     .max = LIMIT_NAME_BYTES,
     .required = true,
     .mutable = true,
     PLACE(adapter, base),
     .help = "The language model that it changes: one of the same tenant, or one that is lent to it by a Grant. "
             "Requests name the adapter as model NAME or BASE:NAME."},
    {.path = "spec.source",
     .type = RESOURCE_STRING,
     .min = 1,
     .max = 1023,
     .required = true,
     .mutable = true,
     PLACE(adapter, source),
     .help =
         "A LoRA adapter as a GGUF file, relative to the applied document. It is stored by its digest. The engine opens "
         "it once, with its base, before it is taken: what does not fit is refused."},
};

static const struct resource_field grant_fields[] = {
    META_NAME(grant, NULL, "The grant's name, unique within its tenant."),
    META_TENANT(grant),
    META_REST(grant),
    {.path = "spec.model",
     .type = RESOURCE_NAME,
     .min = 1,
     .max = LIMIT_NAME_BYTES,
     .required = true,
     PLACE(grant, model),
     .help = "The language model of this tenant that is lent. Borrowers address it by this name."},
    {.path = "spec.tenants",
     .type = RESOURCE_NAMES,
     .min = 1,
     .max = LIMIT_GRANT_TENANTS,
     .required = true,
     .mutable = true,
     PLACE(grant, tenants),
     .help = "The borrowers: other tenants that have nothing of the model's name. Who is no longer named loses the "
             "model at once."},
    {.path = "spec.sharedBatch",
     .type = RESOURCE_BOOLEAN,
     .default_text = "false",
     .mutable = true,
     PLACE(grant, shared_batch),
     .help = "Whether requests of these borrowers may be computed in one batch with those of the owner and of other "
             "borrowers who may, where the model's level is shared."},
};

static const struct resource_field model_fields[] = {
    META_NAME(model, NULL, "The model's name, unique within its tenant."),
    META_TENANT(model),
    META_REST(model),
    {.path = "spec.engine",
     .type = RESOURCE_STRING,
     .min = 1,
     .max = 31,
     .required = true,
     .mutable = true,
     PLACE(model, engine),
     .help =
         "What executes it: onnx, llama (GGUF files), or identity, which gives back what it gets. A change makes a new version."},
    {.path = "spec.source",
     .type = RESOURCE_STRING,
     .min = 1,
     .max = 1023,
     .required = true,
     .mutable = true,
     PLACE(model, source),
     .help =
         "The model's file, or the folder of its files (onnx: model.onnx or its only *.onnx, with external data inside), relative to the applied document. It is stored by its digest; a change of its content "
         "makes a new version. The engine opens it once before it is taken: what it cannot open is refused."},
    {.path = "spec.isolation.level",
     .type = RESOURCE_ENUM,
     .names = levels,
     .default_text = "process",
     .mutable = true,
     PLACE(model, isolation_level),
     .help = "The wall around its workers, weakest first. A host that cannot provide it refuses the model. A change "
             "makes a new version."},
    {.path = "spec.isolation.image",
     .type = RESOURCE_STRING,
     .min = 1,
     .max = 1023,
     .mutable = true,
     PLACE(model, isolation_image),
     .help =
         "Level container: an OCI image layout (a folder or a tar file, relative to the applied document) as the root "
         "of its workers; PATH@sha256:DIGEST takes it only if that is the digest of its manifest or index. It is "
         "unpacked and checked when it is applied. Left out: a root that holds nothing but the worker. A change "
         "makes a new version."},
    {.path = "spec.isolation.runtime",
     .type = RESOURCE_ENUM,
     .names = runtimes,
     .default_text = "any",
     .mutable = true,
     PLACE(model, isolation_runtime),
     .help =
         "Level container: the OCI runtime that runs its workers; any: the first of runc, crun, runsc, kata that "
         "works here. Level microvm: crun runs them in a container inside their machine; any: none. A host where it "
         "does not work refuses the model. A change makes a new version."},
    {.path = "spec.resources.cpu",
     .type = RESOURCE_CPU,
     .unit = "cores",
     .min = 1,
     .max = 4096 * 1000,
     .default_text = "1",
     .mutable = true,
     PLACE(model, cpu_milli),
     .help = "Cores a replica computes with, and device slots each of its leases takes; whole cores for now. A change "
             "makes a new version."},
    {.path = "spec.resources.cpuset",
     .type = RESOURCE_ENUM,
     .names = cpusets,
     .default_text = "shared",
     .mutable = true,
     PLACE(model, cpuset),
     .help =
         "dedicated: each replica runs on whole cores of its own, as many as spec.resources.cpu says (and the other "
         "hardware threads of these), which no other replica and no process of the server uses meanwhile, and its "
         "leases take no slots from others. At least one core stays for all others: who asks for more is refused, "
         "and a replica waits while none are free. Not at level shared. shared: on the cores that are nobody's own. "
         "A change makes a new version."},
    {.path = "spec.resources.device",
     .type = RESOURCE_NAME,
     .min = 1,
     .max = LIMIT_NAME_BYTES,
     .mutable = true,
     PLACE(model, device),
     .help = "The device of the Server's spec.devices that its leases run on. Left out: cpu. A change makes a new "
             "version."},
    {.path = "spec.resources.memory",
     .type = RESOURCE_BYTES,
     .min = 16 * MIB,
     .max = 1024 * GIB,
     .default_text = "256Mi",
     .mutable = true,
     PLACE(model, memory_bytes),
     .help = "A replica that needs more is ended. A change makes a new version."},
    {.path = "spec.resources.repack",
     .type = RESOURCE_BOOLEAN,
     .default_text = "false",
     .mutable = true,
     PLACE(model, repack),
     .help =
         "Engine llama: whether each replica keeps a copy of the quantised weights in the order that this processor "
         "computes fastest with, within spec.resources.memory. false: all replicas use the same pages of the model. "
         "A change makes a new version."},
    {.path = "spec.batching.maxSize",
     .type = RESOURCE_INTEGER,
     .unit = "rows",
     .min = 1,
     .max = LIMIT_BATCH_ITEMS,
     .default_text = "32",
     .mutable = true,
     PLACE(model, batch_max),
     .help = "Rows of several requests that are computed together at most; of a language model generations, as far as "
             "its memory has places for them. 1 means no batching."},
    {.path = "spec.batching.maxDelay",
     .type = RESOURCE_DURATION,
     .min = 0,
     .max = NS_PER_S,
     .default_text = "0s",
     .mutable = true,
     PLACE(model, batch_delay_ns),
     .help = "How long a free device waits for more rows. 0 never waits: batches form while the device is busy."},
    {.path = "spec.batching.preferredSizes",
     .type = RESOURCE_SIZES,
     .min = 1,
     .max = LIMIT_BATCH_ITEMS,
     .mutable = true,
     PLACE(model, batch_preferred),
     .help =
         "Numbers of rows that it computes best. With maxDelay a batch waits no longer once it has reached the least of "
         "these, and is cut to the largest that it reaches, while nothing else wants the device and the rest may still "
         "wait for more."},
    {.path = "spec.batching.invariant",
     .type = RESOURCE_BOOLEAN,
     .default_text = "true",
     .mutable = true,
     PLACE(model, batch_invariant),
     .help = "Whether a row's outputs are the same whatever else is in its batch. false: its requests are never "
             "batched."},
    {.path = "spec.weight",
     .type = RESOURCE_INTEGER,
     .unit = "shares",
     .min = 1,
     .max = 1000,
     .default_text = "1",
     .mutable = true,
     PLACE(model, weight),
     .help = "Its part of its tenant's share, against the tenant's other models on the same device."},
    {.path = "spec.class",
     .type = RESOURCE_ENUM,
     .names = classes,
     .default_text = "interactive",
     .mutable = true,
     PLACE(model, class),
     .help = "The class of requests that name none. Where the tenant may not use interactive, the next lower one that "
             "it may, else the lowest above."},
    {.path = "spec.replicas.min",
     .type = RESOURCE_INTEGER,
     .unit = "replicas",
     .min = 0,
     .max = LIMIT_REPLICAS_PER_MODEL,
     .default_text = "0",
     .mutable = true,
     PLACE(model, replicas_min),
     .help = "Replicas that always run. With 0 the first request starts one."},
    {.path = "spec.replicas.max",
     .type = RESOURCE_INTEGER,
     .unit = "replicas",
     .min = 1,
     .max = LIMIT_REPLICAS_PER_MODEL,
     .default_text = "1",
     .mutable = true,
     PLACE(model, replicas_max),
     .help = "Replicas that run at most; at least spec.replicas.min."},
    {.path = "spec.replicas.idleAfter",
     .type = RESOURCE_DURATION,
     .min = 0,
     .max = 720 * 3600 * NS_PER_S,
     .default_text = "0s",
     .mutable = true,
     PLACE(model, replicas_idle_after_ns),
     .help = "Replicas above spec.replicas.min stop after this time without a request. 0 means never."},
};

const struct resource_kind_info resource_kinds[RESOURCE_KIND_COUNT] = {
    [RESOURCE_SERVER] =
        {.name = "Server",
         .plural = "servers",
         .bytes = sizeof(struct resource_server),
         .fields = server_fields,
         .n_fields = COUNT(server_fields),
         .help = "The server's own configuration: a file for `bulkhead serve --config`, read at start. "
                 "It cannot be applied. On SIGHUP the file is read again: limits.connections, timeouts, "
                 "log.level, drainTimeout and pool.size take effect at once; what else has changed is named in the "
                 "log and waits for a restart."},
    [RESOURCE_TENANT] = {.name = "Tenant",
                         .plural = "tenants",
                         .declared = true,
                         .bytes = sizeof(struct resource_tenant),
                         .fields = tenant_fields,
                         .n_fields = COUNT(tenant_fields),
                         .help = "Somebody who shares the server: owns models and keys, has a share and quotas, and "
                                 "never learns of the other tenants."},
    [RESOURCE_MODEL] = {.name = "Model",
                        .plural = "models",
                        .tenanted = true,
                        .declared = true,
                        .bytes = sizeof(struct resource_model),
                        .fields = model_fields,
                        .n_fields = COUNT(model_fields),
                        .help = "A model of a tenant: what executes it, behind which wall, with what resources, in how "
                                "many copies."},
    [RESOURCE_GRANT] = {.name = "Grant",
                        .plural = "grants",
                        .tenanted = true,
                        .declared = true,
                        .bytes = sizeof(struct resource_grant),
                        .fields = grant_fields,
                        .n_fields = COUNT(grant_fields),
                        .help = "Lends a language model of a tenant to others. Where the model's level is shared, its "
                                "owner's workers serve them; else each borrower has workers of its own."},
    [RESOURCE_ADAPTER] = {.name = "Adapter",
                          .plural = "adapters",
                          .tenanted = true,
                          .declared = true,
                          .bytes = sizeof(struct resource_adapter),
                          .fields = adapter_fields,
                          .n_fields = COUNT(adapter_fields),
                          .help = "A LoRA adapter of a tenant: its own voice for a language model that it has or is "
                                  "lent. Nobody else sees it."},
    [RESOURCE_VERSION] = {.name = "Version",
                          .plural = "versions",
                          .tenanted = true,
                          .bytes = sizeof(struct resource_meta),
                          .fields = version_fields,
                          .n_fields = COUNT(version_fields),
                          .help = "One immutable state of a model: its artifact, engine, isolation and resources. The "
                                  "server makes one whenever an applied Model changes any of these."},
    [RESOURCE_REPLICA] = {.name = "Replica",
                          .plural = "replicas",
                          .tenanted = true,
                          .bytes = sizeof(struct resource_meta),
                          .fields = replica_fields,
                          .n_fields = COUNT(replica_fields),
                          .help = "A running copy of a version, in a worker of its own."},
    [RESOURCE_KEY] = {.name = "Key",
                      .plural = "keys",
                      .tenanted = true,
                      .bytes = sizeof(struct resource_meta),
                      .fields = key_fields,
                      .n_fields = COUNT(key_fields),
                      .help = "An API key of a tenant. `key create` prints its text once; the server keeps a hash."},
    [RESOURCE_DEVICE] = {.name = "Device",
                         .plural = "devices",
                         .bytes = sizeof(struct resource_meta),
                         .fields = device_fields,
                         .n_fields = COUNT(device_fields),
                         .help = "A pool of slots that leases run on."},
};
