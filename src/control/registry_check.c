/* What may refuse a change: existence, conflict, immutability, isolation, limits. Reads the store, writes nothing. */
#include "registry_internal.h"

#include <stdio.h>

#define LEVEL_SHARED 1u /* its rank */

static int check_conflict(const struct registry_plan_item *item, struct error *err)
{
    uint64_t expected = item->next.meta.resource_version;
    if (expected == 0)
        return 0;
    if (!item->exists)
        return error_set(err, -ERROR_CONFLICT,
                         "%s: metadata.resourceVersion is %llu, but it does not exist (any more); leave it out to "
                         "create it",
                         item->title, (unsigned long long)expected);
    if (expected != item->row.resource_version)
        return error_set(err, -ERROR_CONFLICT,
                         "%s: metadata.resourceVersion is %llu, but the stored one is %llu; read it again and repeat",
                         item->title, (unsigned long long)expected, (unsigned long long)item->row.resource_version);
    return 0;
}

/* Fields whose row says that they never change after creation. */
static int check_immutable(const struct registry_plan_item *item, struct error *err)
{
    const struct resource_kind_info *info = &resource_kinds[item->kind];
    for (size_t i = 0; item->exists && i < info->n_fields; i++) {
        const struct resource_field *field = &info->fields[i];
        const char *next = (const char *)&item->next, *present = (const char *)&item->present;
        if (field->mutable || !str_starts(str_from(field->path), STR("spec.")))
            continue;
        if (memcmp(next + field->offset, present + field->offset, field->size) != 0)
            return error_set(err, -ERROR_REFUSED, "%s: %s: cannot change after creation", item->title, field->path);
    }
    return 0;
}

static int check_isolation(const struct registry_plan *plan, const struct registry_plan_item *item,
                           const struct resource_tenant *tenant, struct error *err)
{
    const struct resource_model *model = &item->next.model;
    const struct registry_config *config = &plan->registry->config;
    struct error reason = {0};
    if (model->isolation_level < tenant->isolation_minimum) {
        /* Whoever raises the level to the floor next should not have to find out only then that it is not there. */
        const char *minimum = registry_level_name(tenant->isolation_minimum);
        int rc = config->level_refusal(config->ctx, registry_level_rank(tenant->isolation_minimum), &reason);
        return error_set(err, -ERROR_REFUSED,
                         "%s: spec.isolation.level: \"%s\" is below Tenant %s's isolation.minimum \"%s\"%s%s%s%.200s",
                         item->title, registry_level_name(model->isolation_level), tenant->meta.name, minimum,
                         rc < 0 ? ", and " : "", rc < 0 ? minimum : "", rc < 0 ? " cannot be had: " : "",
                         rc < 0 ? error_text(&reason, rc) : "");
    }
    int rc = config->level_refusal(config->ctx, registry_level_rank(model->isolation_level), &reason);
    if (rc == -ERROR_AGAIN)
        return error_set(err, rc, "%s: spec.isolation.level: \"%s\" %s", item->title,
                         registry_level_name(model->isolation_level), error_text(&reason, rc));
    if (rc < 0)
        return error_set(err, rc, "%s: spec.isolation.level: \"%s\" is not available: %s", item->title,
                         registry_level_name(model->isolation_level), error_text(&reason, rc));
    rc = config->runtime_refusal(config->ctx, registry_level_rank(model->isolation_level), model->isolation_runtime,
                                 &reason);
    if (rc < 0)
        return error_set(err, rc, "%s: spec.isolation.runtime: \"%s\" %s%s", item->title,
                         registry_runtime_name(model->isolation_runtime),
                         rc == -ERROR_AGAIN ? "" : "is not available: ", error_text(&reason, rc));
    return 0;
}

/* A class that is not the default was chosen: then the tenant must have it. */
static int check_class(const struct registry_plan_item *item, const struct resource_tenant *tenant, struct error *err)
{
    static const char *const classes[CATALOG_CLASS_COUNT] = {"critical", "interactive", "batch"};
    const struct resource_model *model = &item->next.model;
    if (model->class == CATALOG_CLASS_DEFAULT || (tenant->classes >> model->class & 1))
        return 0;
    return error_set(err, -ERROR_REFUSED, "%s: spec.class: tenant %s may not use class %s; its spec.classes say which",
                     item->title, model->meta.tenant, classes[model->class]);
}

uint32_t registry_device(const struct registry *r, const struct resource_model *model)
{
    for (uint32_t i = 0; i < r->config.n_devices; i++)
        if (strcmp(model->device[0] ? model->device : "cpu", r->config.devices[i].name) == 0)
            return i;
    return CATALOG_DEVICE_NONE;
}

static int check_resources(const struct registry_plan *plan, const struct registry_plan_item *item, struct error *err)
{
    const struct resource_model *model = &item->next.model;
    const struct registry_config *config = &plan->registry->config;
    if (!config->engine_known(config->ctx, str_from(model->engine)))
        return error_set(err, -ERROR_INVALID_RESOURCE, "%s: spec.engine: this server has no engine \"%s\"", item->title,
                         model->engine);
    if (registry_level_rank(model->isolation_level) == LEVEL_SHARED &&
        !config->engine_shared(config->ctx, str_from(model->engine)))
        return error_set(err, -ERROR_REFUSED,
                         "%s: spec.isolation.level: \"shared\" cannot be had with engine \"%s\", whose models cannot "
                         "be in one worker with others; take \"pool\" or above",
                         item->title, model->engine);
    if (model->repack && !config->engine_lends(config->ctx, str_from(model->engine)))
        return error_set(err, -ERROR_INVALID_RESOURCE,
                         "%s: spec.resources.repack: engine \"%s\" has no weights that could be; leave it out",
                         item->title, model->engine);
    if ((model->batch_delay_ns > 0 || model->batch_preferred.n > 0) &&
        config->engine_lends(config->ctx, str_from(model->engine)))
        return error_set(
            err, -ERROR_INVALID_RESOURCE,
            "%s: spec.batching.%s: the requests of a language model (engine \"%s\") join its running batch "
            "at the next step and wait for no others; leave it out",
            item->title, model->batch_delay_ns > 0 ? "maxDelay" : "preferredSizes", model->engine);
    if (model->cpu_milli < 1000 || model->cpu_milli % 1000 != 0)
        return error_set(err, -ERROR_INVALID_RESOURCE, "%s: spec.resources.cpu: whole cores only, 1 or more",
                         item->title);
    if (model->cpu_milli / 1000 > config->devices[0].slots)
        return error_set(err, -ERROR_REFUSED, "%s: spec.resources.cpu: %llu cores, but the device has %u slots",
                         item->title, (unsigned long long)(model->cpu_milli / 1000), config->devices[0].slots);
    struct error why = {0};
    int rc = 0;
    if (model->cpuset != 0)
        rc = config->cores_refusal
                 ? config->cores_refusal(config->ctx, model->cpu_milli / 1000, model->replicas_max, &why)
                 : error_set_default(&why, ERROR_ISOLATION_UNAVAILABLE);
    if (rc < 0)
        return error_set(err, rc, "%s: spec.resources.cpuset: \"dedicated\" %s", item->title, error_text(&why, rc));
    if (registry_device(plan->registry, model) == CATALOG_DEVICE_NONE)
        return error_set(err, -ERROR_REFUSED,
                         "%s: spec.resources.device: this server has no device \"%s\"; `bulkhead get devices` lists "
                         "those it has",
                         item->title, model->device);
    if (model->memory_bytes > config->memory_bytes_max)
        return error_set(err, -ERROR_REFUSED, "%s: spec.resources.memory: %llu MiB, but the host has %llu MiB",
                         item->title, (unsigned long long)(model->memory_bytes / MIB),
                         (unsigned long long)(config->memory_bytes_max / MIB));
    if (model->replicas_min > model->replicas_max)
        return error_set(err, -ERROR_INVALID_RESOURCE, "%s: spec.replicas.min: %llu is more than max, %llu",
                         item->title, (unsigned long long)model->replicas_min, (unsigned long long)model->replicas_max);
    return 0;
}

int registry_plan_tenant(const struct registry_plan *plan, const struct registry_plan_item *item,
                         struct resource_tenant *ret_tenant, struct error *err)
{
    struct str name = str_from(item->next.meta.tenant);
    const struct registry_plan_item *planned = registry_plan_find(plan, RESOURCE_TENANT, str_any(), name);
    union registry_resource stored;
    if (!planned) {
        int found = registry_find(plan->registry, RESOURCE_TENANT, str_any(), name, &stored, NULL, err);
        if (found < 0)
            return found;
        if (found == 0)
            return error_set(err, -ERROR_INVALID_RESOURCE, "%s: metadata.tenant: there is no Tenant %s", item->title,
                             item->next.meta.tenant);
    }
    *ret_tenant = planned ? planned->next.tenant : stored.tenant;
    return 0;
}

static int check_model(const struct registry_plan *plan, const struct registry_plan_item *item, struct error *err)
{
    struct resource_tenant tenant;
    int rc = registry_plan_tenant(plan, item, &tenant, err);
    if (rc >= 0)
        rc = check_isolation(plan, item, &tenant, err);
    if (rc >= 0)
        rc = check_class(item, &tenant, err);
    if (rc >= 0)
        rc = check_resources(plan, item, err);
    return rc < 0 ? rc : registry_holding_check(plan, item, &tenant, err);
}

/* The rest is for registry_lend_check, and registry_adapters_check. */
static int check_tenanted(const struct registry_plan *plan, const struct registry_plan_item *item, struct error *err)
{
    struct resource_tenant tenant;
    int rc = registry_plan_tenant(plan, item, &tenant, err);
    return rc < 0 || item->kind == RESOURCE_GRANT ? rc : registry_holding_check(plan, item, &tenant, err);
}

struct floor {
    const struct registry_plan *plan;
    const struct registry_plan_item *tenant;
    struct error *err;
    int rc;
};

/* A stored model of a tenant whose floor changes; models of the plan are checked on their own. */
static int check_floor_model(void *ctx, const struct store_resource *stored)
{
    struct floor *floor = ctx;
    if (registry_plan_find(floor->plan, RESOURCE_MODEL, stored->tenant, stored->name))
        return 0;
    union registry_resource resource;
    floor->rc = registry_decode(stored, &resource, floor->err);
    if (floor->rc >= 0 && resource.model.isolation_level < floor->tenant->next.tenant.isolation_minimum)
        floor->rc =
            error_set(floor->err, -ERROR_REFUSED,
                      "%s: spec.isolation.minimum: \"%s\" is above Model %s/%s's isolation.level \"%s\"; raise the "
                      "model's first, or both in one apply",
                      floor->tenant->title, registry_level_name(floor->tenant->next.tenant.isolation_minimum),
                      resource.meta.tenant, resource.meta.name, registry_level_name(resource.model.isolation_level));
    return floor->rc < 0;
}

static int check_tenant(const struct registry_plan *plan, const struct registry_plan_item *item, struct error *err)
{
    if (!item->exists || item->next.tenant.isolation_minimum <= item->present.tenant.isolation_minimum)
        return 0;
    struct registry *r = plan->registry;
    struct floor floor = {.plan = plan, .tenant = item, .err = err};
    int rc = r->config.store->resource_each(r->store, RESOURCE_MODEL, str_from(item->next.meta.name), str_any(),
                                            check_floor_model, &floor, err);
    return rc < 0 ? rc : floor.rc;
}

int registry_counts_check(const struct registry_plan *plan, struct error *err)
{
    const struct registry *r = plan->registry;
    uint64_t tenants = r->n_tenants, models = r->n_models + plan->loans->n, grants = r->n_grants,
             adapters = r->n_adapters;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct registry_plan_item *item = &plan->items[i];
        tenants += !item->exists && item->kind == RESOURCE_TENANT;
        models += !item->exists && item->kind == RESOURCE_MODEL;
        grants += !item->exists && item->kind == RESOURCE_GRANT;
        adapters += !item->exists && item->kind == RESOURCE_ADAPTER;
    }
    if (tenants > LIMIT_TENANTS)
        return error_set(err, -ERROR_REFUSED, "a server holds at most %u tenants", LIMIT_TENANTS);
    if (models > LIMIT_MODELS)
        return error_set(err, -ERROR_REFUSED,
                         "a server holds at most %u models, each counted again for every tenant it is lent to",
                         LIMIT_MODELS);
    if (grants > LIMIT_GRANTS)
        return error_set(err, -ERROR_REFUSED, "a server holds at most %u grants", LIMIT_GRANTS);
    if (adapters > LIMIT_ADAPTERS)
        return error_set(err, -ERROR_REFUSED, "a server holds at most %u adapters", LIMIT_ADAPTERS);
    return 0;
}

static int check_item(const struct registry_plan *plan, const struct registry_plan_item *item, struct error *err)
{
    if (item->kind == RESOURCE_TENANT)
        return check_tenant(plan, item, err);
    return item->kind == RESOURCE_MODEL ? check_model(plan, item, err) : check_tenanted(plan, item, err);
}

int registry_plan_check(struct registry_plan *plan, struct error *err)
{
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct registry_plan_item *item = &plan->items[i];
        int rc = check_conflict(item, err);
        if (rc >= 0)
            rc = check_immutable(item, err);
        if (rc >= 0)
            rc = check_item(plan, item, err);
        if (rc < 0)
            return rc;
    }
    return registry_lend_check(plan, err);
}
