/* Kinds, their field tables, decoding and validation.
 *
 * Pure; used by control (admin API), by main (the Server file) and by the CLI (`explain`). Each kind is one table of
 * fields; decoding, defaults, exact error paths, `bulkhead explain` and documentation all come from it. JSON in and out
 * (yyjson); YAML becomes JSON in the CLI. An unknown field is an error that names its path and, where one is near, the
 * field that was probably meant. */
#ifndef BULKHEAD_RESOURCE_RESOURCE_H
#define BULKHEAD_RESOURCE_RESOURCE_H

#include "base/buf.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

#include <yyjson.h>

#define RESOURCE_API_VERSION "bulkhead.dev/v1alpha1"

enum resource_kind {
    RESOURCE_NONE = 0,
    RESOURCE_SERVER,
    RESOURCE_TENANT,
    RESOURCE_MODEL,
    RESOURCE_GRANT,
    RESOURCE_ADAPTER,
    /* observed, read-only: known to `get` and `explain`, refused by `apply` */
    RESOURCE_VERSION,
    RESOURCE_REPLICA,
    RESOURCE_KEY,
    RESOURCE_DEVICE,
    RESOURCE_KIND_COUNT
};

enum resource_type {
    RESOURCE_STRING = 1, /* char[n] in the struct, `max` = bytes without NUL */
    RESOURCE_NAME,       /* DNS-1123 token, char[LIMIT_NAME_BYTES + 1] */
    RESOURCE_INTEGER,    /* uint64_t */
    RESOURCE_BYTES,      /* uint64_t; 256Mi, 1Gi, 1000000 (Kubernetes quantities, integral) */
    RESOURCE_DURATION,   /* uint64_t nanoseconds; "0ms", "5m", "1h30m" */
    RESOURCE_CPU,        /* uint64_t milli; 1, 2, "500m" (Kubernetes) */
    RESOURCE_BOOLEAN,    /* bool */
    RESOURCE_ENUM,       /* uint32_t, index into `names` */
    RESOURCE_MAP,        /* labels/annotations: struct resource_map */
    RESOURCE_SET,        /* uint32_t, bit i for names[i]; a list of at least one of them */
    RESOURCE_SIZES,      /* struct resource_sizes; a list of whole numbers, ascending */
    RESOURCE_DEVICES,    /* struct resource_devices; a list of {name, slots} */
    RESOURCE_NAMES,      /* struct resource_names; a list of different names, `min` to `max` of them */
    RESOURCE_TYPE_COUNT
};

struct resource_field {
    const char *path; /* "spec.resources.memory" */
    enum resource_type type;
    const char *unit;         /* for people; NULL */
    uint64_t min, max;        /* numbers: of the value; strings: of its size in bytes */
    const char *default_text; /* as the user would write it; NULL = required when `required`, else zero/absent */
    bool required;
    bool mutable;             /* may change after creation */
    const char *const *names; /* RESOURCE_ENUM, RESOURCE_SET: NULL-terminated */
    size_t offset;            /* into the kind's struct */
    size_t size;              /* of the member */
    const char *help;
    uint64_t absent; /* numbers without default_text: the value that stands for "not given"; encode leaves it out */
};

struct resource_kind_info {
    const char *name;   /* "Model" */
    const char *plural; /* "models": in addresses */
    bool tenanted;      /* metadata.tenant is required */
    bool declared;      /* apply takes it */
    size_t bytes;       /* sizeof its struct */
    const struct resource_field *fields;
    size_t n_fields;
    const char *help;
};

#define RESOURCE_LABELS_MAX 16u
struct resource_map {
    uint32_t n;
    struct {
        char key[LIMIT_NAME_BYTES + 1];
        char value[LIMIT_NAME_BYTES + 1];
    } entries[RESOURCE_LABELS_MAX];
};

struct resource_sizes {
    uint32_t n;
    uint32_t values[LIMIT_BATCH_PREFERRED]; /* ascending, each within its field's min and max */
};

#define RESOURCE_DEVICE_SLOTS_MAX 4096u
struct resource_devices {
    uint32_t n;
    struct {
        char name[LIMIT_NAME_BYTES + 1]; /* unique */
        uint32_t slots;                  /* ≥ 1 */
    } entries[LIMIT_DEVICES];
};

struct resource_names {
    uint32_t n;
    char entries[LIMIT_GRANT_TENANTS][LIMIT_NAME_BYTES + 1]; /* each once */
};

/* First member of every kind's struct. */
struct resource_meta {
    enum resource_kind kind;
    char name[LIMIT_NAME_BYTES + 1];
    char tenant[LIMIT_NAME_BYTES + 1]; /* "" where not tenanted */
    uint64_t uid; /* output only: an applied document may carry them (from `get -o yaml`), then … */
    uint64_t generation;
    uint64_t resource_version; /* … resourceVersion ≠ 0 means: refuse with 409 unless it is the stored one */
    struct resource_map labels, annotations;
};

struct resource_server { /* defaults are those of base/limits.h */
    struct resource_meta meta;
    char listen[64];         /* spec.listen, "127.0.0.1:8080" */
    char metrics_listen[64]; /* spec.metrics.listen; "" = none */
    uint64_t connections;    /* spec.limits.connections … each with the limits.h default */
    uint64_t body_bytes;
    uint64_t head_timeout_ns, idle_timeout_ns, write_timeout_ns, request_timeout_ns;
    uint64_t cpu_reserved; /* spec.cpu.reserved: cores kept from the device; default: 1 where more than 2 cores, so
                              UINT64_MAX = not set */
    uint64_t uid_base, uid_count;            /* spec.uids.base/count: roles and replicas get their uids from here */
    char group[33];                          /* spec.admin.group: "bulkhead" */
    uint32_t log_level;                      /* spec.log.level */
    uint64_t drain_timeout_ns;               /* spec.drainTimeout */
    uint64_t pool_size;                      /* spec.pool.size: blank workers per engine */
    struct resource_devices devices;         /* spec.devices; n 0: `cpu` as it was found */
    uint64_t share_interactive, share_batch; /* spec.classes: percent of each device */
    uint64_t queue_bytes;                    /* spec.limits.queueBytes */
    uint32_t profile;                        /* index into default, edge */
};

struct resource_tenant {
    struct resource_meta meta;
    uint64_t weight;              /* 1..1000 */
    uint32_t isolation_minimum;   /* index into shared, pool, process, container, microvm */
    uint64_t requests_per_minute; /* spec.quota.requestsPerMinute; 0 = unlimited */
    uint64_t burst;               /* spec.quota.burst; 0 = a sixtieth of requestsPerMinute, at least 1 … */
    uint64_t queue_depth;         /* spec.quota.queueDepth */
    uint64_t queue_bytes;         /* spec.quota.queueBytes; 0 = only the server's bound */
    uint32_t classes;             /* bit per class: critical, interactive, batch; at least one */
    uint64_t concurrency;         /* spec.quota.concurrency … 0 = no limit, here and below */
    struct {                      /* spec.quota.perKey: of each key, beside the tenant's own */
        uint64_t requests_per_minute, burst, concurrency;
        uint64_t compute_s_per_hour, compute_s_per_day;
        uint64_t tokens_per_minute, tokens_per_day;
    } per_key;
    uint64_t compute_s_per_hour, compute_s_per_day;
    uint64_t tokens_per_minute, tokens_per_day;
    uint64_t body_bytes, response_bytes, bytes_per_s_in, bytes_per_s_out;
    uint64_t memory_bytes, replicas, models, artifact_bytes; /* spec.quota.memory … */
    uint64_t adapter_bytes;                                  /* spec.quota.adapterBytes; 0 = an equal share */
    uint64_t connections;                                    /* spec.quota.connections */
};

struct resource_model {
    struct resource_meta meta;
    char engine[32];
    char source[1024]; /* as the user wrote it; content is the artifact */
    uint32_t isolation_level;
    char isolation_image[1024];            /* spec.isolation.image, as written; "" = none */
    uint32_t isolation_runtime;            /* index into any, runc, crun, runsc, kata */
    uint64_t cpu_milli;                    /* spec.resources.cpu; whole cores for now: 1000, 2000 … */
    uint32_t cpuset;                       /* spec.resources.cpuset: 0 shared, 1 dedicated */
    uint64_t memory_bytes;                 /* spec.resources.memory */
    bool repack;                           /* spec.resources.repack */
    uint64_t batch_max;                    /* spec.batching.maxSize */
    uint64_t batch_delay_ns;               /* spec.batching.maxDelay */
    struct resource_sizes batch_preferred; /* spec.batching.preferredSizes */
    bool batch_invariant;                  /* spec.batching.invariant: batched outputs equal the unbatched ones */
    uint64_t weight;                       /* 1..1000, against the tenant's other models */
    uint32_t class;                        /* index into critical, interactive, batch */
    char device[LIMIT_NAME_BYTES + 1];     /* spec.resources.device; "" = cpu */
    uint64_t replicas_min, replicas_max, replicas_idle_after_ns;
};

struct resource_adapter {
    struct resource_meta meta;
    char base[LIMIT_NAME_BYTES + 1];
    char source[1024]; /* as the user wrote it; content is the artifact */
};

struct resource_grant {
    struct resource_meta meta;
    char model[LIMIT_NAME_BYTES + 1];
    struct resource_names tenants;
    bool shared_batch;
};

extern const struct resource_kind_info resource_kinds[RESOURCE_KIND_COUNT]; /* row NONE is empty */

/* "Model", "model" or "models"; RESOURCE_NONE when unknown. */
enum resource_kind resource_kind_from_name(struct str name);
const struct resource_field *resource_field_find(enum resource_kind kind, struct str path);

/* Checks one document and fills *resource (a struct of resource_kinds[kind].bytes, zeroed by the callee) with defaults
 * applied. The kind is taken from the document (resource_peek). err->text holds the exact path:
 * `Model acme/digits: spec.resources.memroy: unknown field (did you mean "memory"?)`. -ERROR_INVALID_RESOURCE, or
 * -ERROR_INVALID_NAME where a name is no token; *resource is untouched then. A member `status` is ignored, so that what
 * `get -o yaml` shows can be applied. Observed kinds are refused as read-only. Bytes of the struct that hold nothing
 * are zero: two decoded structs may be compared with memcmp. */
must_check int resource_peek(yyjson_val *document, enum resource_kind *ret_kind, struct error *err);
must_check int resource_decode(yyjson_val *document, enum resource_kind kind, void *resource, struct error *err);

/* The parts of spec.isolation.image: a path, and "sha256:" with 64 digits or "". Views of it.
 * -ERROR_INVALID_ARGUMENT. */
must_check int resource_image_split(const char *image, struct str *ret_path, struct str *ret_pin);

/* The whole document, defaults included, as JSON: apiVersion, kind, metadata, spec and, when `status_json` is not NULL,
 * that object as status. decode(encode(x)) gives x. Declared kinds and Server only. */
void resource_encode(enum resource_kind kind, const void *resource, const char *status_json, struct buf *body);

/* Text of `bulkhead explain KIND[.field]`: a kind with its fields, a part of it ("model.spec.replicas"), or one field
 * in detail. "spec." may be left out. -ERROR_NOT_FOUND when there is no such kind or field. */
must_check int resource_explain(struct str kind_and_field, struct buf *text, struct error *err);

/* docs/resources.md, whole. */
void resource_reference(struct buf *text);

#endif
