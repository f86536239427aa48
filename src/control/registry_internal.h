/* Inside of the registry; only registry*.c includes this. */
#ifndef BULKHEAD_CONTROL_REGISTRY_INTERNAL_H
#define BULKHEAD_CONTROL_REGISTRY_INTERNAL_H

#include "base/list.h"
#include "base/memory.h"
#include "catalog/catalog.h"
#include "control/registry.h"

#include <sys/types.h>

#define REGISTRY_UPLOADS_MAX 8u
/* A stored document: 16 labels and 16 annotations of 2 × 63 bytes, a source of 1 KiB, each character escaped as 6. */
#define REGISTRY_DOCUMENT_BYTES (64 * KIB)
#define REGISTRY_TITLE_BYTES    (3 * (LIMIT_NAME_BYTES + 1))
#define REGISTRY_HEX_BYTES      (2 * STORE_DIGEST_BYTES)
/* Names in the folder of artifacts that are none of an artifact's: not complete yet, and to be freed. */
#define REGISTRY_UPLOAD_PREFIX  ".upload-"
#define REGISTRY_REMOVED_PREFIX ".removed-"

struct registry {
    struct registry_config config;
    struct store *store;
    struct list uploads; /* struct registry_upload._node */
    uint32_t n_uploads;
    struct list copies;     /* struct registry_copy */
    struct list removals;   /* struct removal: what is freed in slices */
    uint64_t copying_bytes; /* what the copies that are under way have still to take */
    uint64_t n_tenants, n_models, n_grants, n_adapters, n_keys; /* committed, for the limits */
};

/* Any declared resource, decoded. */
union registry_resource {
    struct resource_meta meta;
    struct resource_tenant tenant;
    struct resource_model model;
    struct resource_grant grant;
    struct resource_adapter adapter;
};

/* The columns beside a stored document. */
struct registry_row {
    uint64_t uid, generation, resource_version;
    uint64_t created_ms, changed_ms;
};

/* --- registry.c --- */

static inline struct str str_any(void)
{
    return (struct str){NULL, 0};
}
/* An empty filter means any. */
static inline struct str str_filter(struct str s)
{
    return s.size > 0 ? s : str_any();
}

/* Decodes a stored document; meta.uid, generation and resource_version come from the row. */
must_check int registry_decode(const struct store_resource *stored, union registry_resource *ret_resource,
                               struct error *err);
/* The end of a transaction begun before: committed when `rc` >= 0 (store_ops.commit), else rolled back. Returns 0, `rc`
 * when that is negative, or the commit's failure. */
must_check int registry_transaction_end(struct registry *r, int rc, uint64_t *ret_revision, struct error *err);

/* 1 when found, 0 when not, negative on failure. `ret_resource` and `ret_row` may be NULL. */
must_check int registry_find(struct registry *r, enum resource_kind kind, struct str tenant, struct str name,
                             union registry_resource *ret_resource, struct registry_row *ret_row, struct error *err);
/* As registry_find, but absence is -ERROR_NOT_FOUND with a text. */
must_check int registry_need(struct registry *r, enum resource_kind kind, struct str tenant, struct str name,
                             union registry_resource *ret_resource, struct registry_row *ret_row, struct error *err);
/* "Model acme/digits" */
void registry_title(const struct resource_meta *meta, char title[static REGISTRY_TITLE_BYTES]);
const char *registry_level_name(uint32_t level);
/* DESIGN §5's rank as `isolate` counts it: 1 = shared … 5 = microvm. A resource's enum counts from 0. */
/* The index of a model's device; CATALOG_DEVICE_NONE: this server does not have it. */
uint32_t registry_device(const struct registry *r, const struct resource_model *model);
/* Slots that a lease takes: of cpu a core each, of any other device one. */
static inline uint32_t registry_slots(const struct resource_model *model)
{
    bool cpu = !model->device[0] || strcmp(model->device, "cpu") == 0;
    return cpu ? (uint32_t)(model->cpu_milli / 1000) : 1;
}

static inline uint32_t registry_level_rank(uint32_t level)
{
    return level + 1;
}

/* The newest version of a model and how many there are; n_versions 0 when there is none. */
struct registry_newest {
    uint32_t n_versions;
    uint32_t number;
    uint64_t uid, artifact_bytes, created_ms;
    uint8_t digest[STORE_DIGEST_BYTES];
    uint8_t image[STORE_DIGEST_BYTES], image_manifest[STORE_DIGEST_BYTES];
    uint64_t image_bytes;
};
must_check int registry_newest(struct registry *r, uint64_t model_uid, struct registry_newest *ret_newest,
                               struct error *err);

/* --- registry_version.c --- */

/* Writes the parts of the spec that make a version: {"engine":…,"source":…,"isolation":…,"resources":…}. */
must_check int registry_version_document(const struct resource_model *model, struct buf *json, struct error *err);
/* Reads it back: fields of no version are at their defaults; meta holds `tenant` and `name`. */
must_check int registry_version_decode(struct str document, const char *tenant, const char *name,
                                       struct resource_model *ret_model, struct error *err);

/* --- registry_artifact.c --- */

void registry_hex(const uint8_t digest[static STORE_DIGEST_BYTES], char hex[static REGISTRY_HEX_BYTES + 1]);
must_check int registry_hex_decode(struct str hex, uint8_t ret_digest[static STORE_DIGEST_BYTES]);
/* Removes what an earlier life left: unfinished uploads, and artifacts no version names. */
must_check int registry_artifact_sweep(struct registry *r, struct error *err);
/* Size of a stored artifact; -ERROR_NOT_FOUND. */
must_check int registry_artifact_bytes(struct registry *r, const uint8_t digest[static STORE_DIGEST_BYTES],
                                       uint64_t *ret_bytes, struct error *err);
/* Removes it unless a version still names it. Failures are logged: the sweep of the next start repeats it. */
void registry_artifact_release(struct registry *r, const uint8_t digest[static STORE_DIGEST_BYTES]);
/* The error for a failed file operation of ours (errno): what an operator can act on, without the path. */
int registry_io_error(struct error *err, const char *what);
/* All of it, or -1 with errno. */
must_check int registry_write_all(int fd, struct str data);
/* Ends the uploads that are still open; their owners abort them later without harm. */
void registry_upload_orphan_all(struct registry *r);

/* --- registry_copy.c --- */

/* Does that one, of registry.copies, read the file of this inode? */
bool registry_copy_reads(const struct list *copy, ino_t inode);

/* --- registry_remove.c --- */

/* Removes that entry of the folder of artifacts: a small file at once; a larger one gets another name at once and is
 * freed by registry_remove_step. -1 with errno; that it is not there is no failure. */
must_check int registry_remove(struct registry *r, const char *name);
/* Closes it (-1: nothing). Where that may be the last of a larger file or memory that has no name, it is freed by
 * registry_remove_step; open for writing, and not sealed. */
void registry_remove_fd(struct registry *r, int *fd);
/* The registry closes: what is not freed yet is left to the sweep of the next start. */
void registry_removals_end(struct registry *r);

/* --- registry_apply.c and registry_check.c --- */

struct registry_plan_item {
    enum resource_kind kind;
    union registry_resource next;
    union registry_resource present; /* valid when `exists` */
    struct registry_row row;         /* likewise */
    bool exists;
    bool spec_changed, meta_changed, version_new;
    bool has_artifact;                        /* the request brought one */
    bool image_wanted;                        /* the request brought its image, which is not unpacked yet */
    uint8_t image_source[STORE_DIGEST_BYTES]; /* that image, as it was uploaded */
    uint64_t image_source_bytes;
    uint8_t image[STORE_DIGEST_BYTES], image_manifest[STORE_DIGEST_BYTES]; /* its root; image_bytes 0: none */
    uint64_t image_bytes;
    uint8_t digest[STORE_DIGEST_BYTES];
    uint64_t artifact_bytes;
    struct registry_newest newest; /* models that exist */
    uint32_t version;              /* number, models */
    char title[REGISTRY_TITLE_BYTES];
};

struct registry_plan {
    struct registry *registry;
    struct registry_plan_item *items; /* [n_items] */
    uint32_t n_items;
    const struct registry_ingest *ingest;
    yyjson_val *artifacts;
    const struct registry_loans *loans; /* as they will be; while the plan is checked */
};

/* registry_lend.c. A model that is lent, for each borrower. */
struct registry_loan {
    char borrower[LIMIT_NAME_BYTES + 1], model[LIMIT_NAME_BYTES + 1];
    char lender[LIMIT_NAME_BYTES + 1], grant[LIMIT_NAME_BYTES + 1];
    bool shared_batch;
};
struct registry_loans {
    struct registry_loan *rows; /* [n], by (borrower, model) */
    size_t n, capacity;
};
/* Those of all Grants, as they will be after the plan (NULL: as they are); *loans is zeroed, and to be done in any
 * case.
 */
must_check int registry_loans_load(struct registry *r, const struct registry_plan *plan, struct registry_loans *loans,
                                   struct error *err);
void registry_loans_done(struct registry_loans *loans);
/* One of that borrower and name, or NULL. */
const struct registry_loan *registry_loan_find(const struct registry_loans *loans, const char *borrower,
                                               const char *model);
/* 1 with the loan by which a tenant has a model of that name, 0, or negative. */
must_check int registry_loan_of(struct registry *r, struct str borrower, struct str model,
                                struct registry_loan *ret_loan, struct error *err);
/* The level at which a model of `level` runs for a borrower with this floor; of a resource's words, or ranks. */
uint32_t registry_level_lent(uint32_t level, uint32_t floor);
/* registry_adapter.c. Adapters fit a base when an ingest has opened both: 1, 0, or negative. */
must_check int registry_adapter_fits(struct registry *r, const uint8_t adapter[static STORE_DIGEST_BYTES],
                                     const uint8_t base[static STORE_DIGEST_BYTES], struct error *err);
/* ingest->wanted_adapter fits ingest->wanted. */
must_check int registry_fit_add(struct registry_ingest *ingest);
void registry_fits_done(struct registry_ingest *ingest);
must_check int registry_fits_write(struct registry *r, const struct registry_ingest *ingest, struct error *err);
/* Why what is stored cannot be used; *ret_fault NULL: it can. */
must_check int registry_adapter_fault(struct registry *r, const struct registry_loans *loans,
                                      const struct resource_adapter *a, const uint8_t digest[static STORE_DIGEST_BYTES],
                                      const char **ret_fault, struct error *err);
/* Names, references and levels of the plan's adapters, and of stored ones on what it changes. Uses plan->loans. */
must_check int registry_adapters_check(const struct registry_plan *plan, struct error *err);
/* 0 when every adapter on what the plan changes fits; else 1 with what is wanted next. */
must_check int registry_plan_fitted(struct registry_plan *plan, struct registry_ingest *ingest, struct error *err);
/* -ERROR_CONFLICT when an adapter of the tenant's rests on that model; data NULL: when it has any. */
must_check int registry_adapters_check_delete(struct registry *r, struct str tenant, struct str model,
                                              struct error *err);
/* The uid of a borrower's part in what has that uid: a model, or a version. Unlike all that the store gives out, and of
 * no other pair. -ERROR_LIMIT where one is too large: after two thousand million changes. */
must_check int registry_lent_uid(uint64_t uid, uint64_t borrower_uid, uint64_t *ret_uid, struct error *err);
/* What the plan's loans demand of names, references and levels, and the server's counts. */
must_check int registry_lend_check(struct registry_plan *plan, struct error *err);
/* May it go, as far as Grants are concerned? -ERROR_CONFLICT names one. */
must_check int registry_lend_check_delete_model(struct registry *r, struct str tenant, struct str name,
                                                struct error *err);
must_check int registry_lend_check_delete_tenant(struct registry *r, struct str name, struct error *err);

/* registry_limits.c. What a tenant's stored models hold, and what the plan (NULL: none) adds. */
struct registry_holding {
    uint64_t models;
    uint64_t artifact_bytes; /* each artifact once */
};
must_check int registry_holding(struct registry *r, struct str tenant, const struct registry_plan *plan,
                                struct registry_holding *ret_holding, struct error *err);
/* May a model's item add what it adds to its tenant? */
must_check int registry_holding_check(const struct registry_plan *plan, const struct registry_plan_item *item,
                                      const struct resource_tenant *tenant, struct error *err);

/* registry_quota.c. Appends `"quota":{…},` of a tenant's status. */
must_check int registry_quota_status(struct registry *r, const struct resource_tenant *tenant, uint64_t uid,
                                     struct buf *json, struct error *err);
/* Requests at once within a rate, as a quota means it. */
static inline uint64_t registry_burst(uint64_t burst, uint64_t per_minute)
{
    burst = burst ? burst : per_minute / 60;
    return burst && per_minute ? burst : 1;
}

/* registry_image.c. The image of an item: what its version will have, or image_wanted. */
must_check int registry_image_load(struct registry_plan *plan, struct registry_plan_item *item, struct error *err);
/* 1 with what is wanted next, 0 when every image of the plan is unpacked. */
int registry_plan_unpacked(const struct registry_plan *plan, struct registry_ingest *ingest);
/* It was written: drops the images that were uploaded for it, of which only the roots are kept. */
void registry_apply_done(struct registry *r, const struct registry_ingest *ingest);
void registry_ingest_images_done(struct registry_ingest *ingest);
/* An apply came to nothing: removes the images that were uploaded for it, and their roots unless a version names them.
 */
void registry_images_drop(struct registry *r, const struct registry_ingest *ingest);

/* registry_describe.c. 0 when every new version of a plan that was checked is described; else 1 with what is
 * wanted next. */
must_check int registry_plan_described(const struct registry_plan *plan, struct registry_ingest *ingest,
                                       struct error *err);
/* Inside the transaction that writes the versions. */
must_check int registry_described_write(struct registry *r, const struct registry_ingest *ingest, struct error *err);
/* registry_artifact.c: as registry_artifact_release, but not when it was stored after that time (wall clock). */
void registry_artifact_drop(struct registry *r, const uint8_t digest[static STORE_DIGEST_BYTES], uint64_t before_ns);

/* The item of the plan with that identity, or NULL. */
struct registry_plan_item *registry_plan_find(const struct registry_plan *plan, enum resource_kind kind,
                                              struct str tenant, struct str name);
/* Everything that may refuse a plan whose items are loaded. Writes nothing. */
must_check int registry_plan_check(struct registry_plan *plan, struct error *err);
/* registry_check.c: does the server hold so many? Uses plan->loans. */
must_check int registry_counts_check(const struct registry_plan *plan, struct error *err);
/* The tenant of a tenanted item, as it will be; -ERROR_INVALID_RESOURCE where there is none. */
must_check int registry_plan_tenant(const struct registry_plan *plan, const struct registry_plan_item *item,
                                    struct resource_tenant *ret_tenant, struct error *err);

#endif
