/* What is lent: Grants as rows of borrower and model, and what they demand of names, references and levels. */
#include "registry_internal.h"

static int loans_note(struct registry_loans *loans, const struct resource_grant *g)
{
    for (uint32_t i = 0; i < g->tenants.n; i++) {
        struct registry_loan *rows = memory_array_room(loans->rows, loans->n, &loans->capacity, sizeof *rows);
        if (!rows)
            return -ERROR_NO_MEMORY;
        loans->rows = rows;
        struct registry_loan *loan = &loans->rows[loans->n++];
        memcpy(loan->borrower, g->tenants.entries[i], sizeof loan->borrower);
        memcpy(loan->model, g->model, sizeof loan->model);
        memcpy(loan->lender, g->meta.tenant, sizeof loan->lender);
        memcpy(loan->grant, g->meta.name, sizeof loan->grant);
        loan->shared_batch = g->shared_batch;
    }
    return 0;
}

struct load {
    const struct registry_plan *plan;
    struct registry_loans *loans;
    struct error *err;
    int rc;
};

static int each_grant(void *ctx, const struct store_resource *stored)
{
    struct load *load = ctx;
    union registry_resource resource;
    if (load->plan && registry_plan_find(load->plan, RESOURCE_GRANT, stored->tenant, stored->name))
        return 0; /* what it will be counts */
    load->rc = registry_decode(stored, &resource, load->err);
    if (load->rc >= 0 && loans_note(load->loans, &resource.grant) < 0)
        load->rc = error_set_default(load->err, -ERROR_NO_MEMORY);
    return load->rc < 0;
}

static int compare(const void *a, const void *b)
{
    const struct registry_loan *x = a, *y = b;
    int order = strcmp(x->borrower, y->borrower);
    return order != 0 ? order : strcmp(x->model, y->model);
}

int registry_loans_load(struct registry *r, const struct registry_plan *plan, struct registry_loans *loans,
                        struct error *err)
{
    struct load load = {.plan = plan, .loans = loans, .err = err};
    int rc = r->config.store->resource_each(r->store, RESOURCE_GRANT, str_any(), str_any(), each_grant, &load, err);
    rc = rc < 0 ? rc : load.rc;
    for (uint32_t i = 0; plan && rc >= 0 && i < plan->n_items; i++)
        if (plan->items[i].kind == RESOURCE_GRANT && loans_note(loans, &plan->items[i].next.grant) < 0)
            rc = error_set_default(err, -ERROR_NO_MEMORY);
    if (rc >= 0 && loans->n > 0)
        qsort(loans->rows, loans->n, sizeof *loans->rows, compare);
    return rc < 0 ? rc : 0;
}

void registry_loans_done(struct registry_loans *loans)
{
    free(loans->rows);
}

const struct registry_loan *registry_loan_find(const struct registry_loans *loans, const char *borrower,
                                               const char *model)
{
    struct registry_loan wanted = {0};
    if (str_copy(str_from(borrower), wanted.borrower, sizeof wanted.borrower) < 0 ||
        str_copy(str_from(model), wanted.model, sizeof wanted.model) < 0 || loans->n == 0)
        return NULL;
    return bsearch(&wanted, loans->rows, loans->n, sizeof *loans->rows, compare);
}

int registry_loan_of(struct registry *r, struct str borrower, struct str model, struct registry_loan *ret_loan,
                     struct error *err)
{
    struct registry_loans loans = {0};
    char names[2][LIMIT_NAME_BYTES + 1];
    const struct registry_loan *found = NULL;
    if (str_copy(borrower, names[0], sizeof names[0]) < 0 || str_copy(model, names[1], sizeof names[1]) < 0)
        return 0;
    int rc = registry_loans_load(r, NULL, &loans, err);
    if (rc >= 0)
        found = registry_loan_find(&loans, names[0], names[1]);
    if (found)
        *ret_loan = *found;
    registry_loans_done(&loans);
    return rc < 0 ? rc : found != NULL;
}

uint32_t registry_level_lent(uint32_t level, uint32_t floor)
{
    return level > floor ? level : floor;
}

int registry_lent_uid(uint64_t uid, uint64_t borrower_uid, uint64_t *ret_uid, struct error *err)
{
    if (uid > INT32_MAX || borrower_uid > INT32_MAX)
        return error_set(err, -ERROR_LIMIT, "there are no further numbers for models that are lent");
    *ret_uid = UINT64_C(1) << 63 | uid << 32 | borrower_uid;
    return 0;
}

/* --- what refuses a change --- */

/* The tenant, or the model, as it will be: of the plan, else stored. 1, 0, or negative. */
static int planned(const struct registry_plan *plan, enum resource_kind kind, const char *tenant, const char *name,
                   union registry_resource *ret_resource, struct error *err)
{
    const struct registry_plan_item *item = registry_plan_find(plan, kind, str_from(tenant), str_from(name));
    if (!item)
        return registry_find(plan->registry, kind, str_from(tenant), str_from(name), ret_resource, NULL, err);
    *ret_resource = item->next;
    return 1;
}

/* Can `model` run for this borrower? */
static int check_level(const struct registry_plan *plan, const struct registry_plan_item *item,
                       const struct registry_loan *loan, const struct resource_model *model, struct error *err)
{
    const struct registry_config *config = &plan->registry->config;
    union registry_resource borrower;
    struct error reason = {0};
    int rc = planned(plan, RESOURCE_TENANT, "", loan->borrower, &borrower, err);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return error_set(err, -ERROR_INVALID_RESOURCE, "%s: spec.tenants: there is no Tenant %s", item->title,
                         loan->borrower);
    uint32_t level = registry_level_lent(model->isolation_level, borrower.tenant.isolation_minimum);
    if (level == model->isolation_level)
        return 0; /* which was checked with the model */
    if (model->isolation_image[0])
        return error_set(err, -ERROR_REFUSED,
                         "%s: Tenant %s demands level \"%s\", but Model %s/%s runs in an image of its own, at level "
                         "\"%s\"",
                         item->title, loan->borrower, registry_level_name(level), loan->lender, loan->model,
                         registry_level_name(model->isolation_level));
    rc = config->level_refusal(config->ctx, registry_level_rank(level), &reason);
    if (rc >= 0)
        rc = config->runtime_refusal(config->ctx, registry_level_rank(level), model->isolation_runtime, &reason);
    if (rc < 0)
        return error_set(err, rc, "%s: Tenant %s demands level \"%s\" for Model %s/%s, which %s%s", item->title,
                         loan->borrower, registry_level_name(level), loan->lender, loan->model,
                         rc == -ERROR_AGAIN ? "" : "is not available: ", error_text(&reason, rc));
    return 0;
}

/* One borrower of a Grant. */
static int check_borrower(const struct registry_plan *plan, const struct registry_plan_item *item,
                          const struct registry_loan *loan, const struct resource_model *model, struct error *err)
{
    union registry_resource other;
    const struct registry_loans *loans = plan->loans;
    int rc = check_level(plan, item, loan, model, err);
    if (rc < 0)
        return rc;
    rc = planned(plan, RESOURCE_MODEL, loan->borrower, loan->model, &other, err);
    if (rc > 0)
        return error_set(err, -ERROR_CONFLICT, "%s: spec.tenants: Tenant %s has a Model of its own of the name %s",
                         item->title, loan->borrower, loan->model);
    if (rc < 0)
        return rc;
    const struct registry_loan *l = registry_loan_find(loans, loan->borrower, loan->model);
    while (l > loans->rows && compare(l - 1, loan) == 0) /* several are beside each other */
        l--;
    for (; l < loans->rows + loans->n && compare(l, loan) == 0; l++)
        if ((strcmp(l->grant, loan->grant) != 0 || strcmp(l->lender, loan->lender) != 0))
            return error_set(err, -ERROR_CONFLICT,
                             "%s: spec.tenants: Tenant %s is lent a model %s already, by Grant %s/%s", item->title,
                             loan->borrower, loan->model, l->lender, l->grant);
    return 0;
}

static int check_grant(const struct registry_plan *plan, const struct registry_plan_item *item, struct error *err)
{
    const struct resource_grant *grant = &item->next.grant;
    const struct registry_config *config = &plan->registry->config;
    union registry_resource model;
    int rc = planned(plan, RESOURCE_MODEL, grant->meta.tenant, grant->model, &model, err);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return error_set(err, -ERROR_INVALID_RESOURCE, "%s: spec.model: Tenant %s has no Model %s", item->title,
                         grant->meta.tenant, grant->model);
    if (!config->engine_lends(config->ctx, str_from(model.model.engine)))
        return error_set(err, -ERROR_REFUSED,
                         "%s: spec.model: Model %s/%s is of engine \"%s\"; only language models (engine llama) can be "
                         "lent",
                         item->title, grant->meta.tenant, grant->model, model.model.engine);
    for (uint32_t i = 0; rc >= 0 && i < grant->tenants.n; i++) {
        const struct registry_loan *loan = registry_loan_find(plan->loans, grant->tenants.entries[i], grant->model);
        struct registry_loan own = *loan; /* it is there; of two, it may be the other one */
        memcpy(own.lender, grant->meta.tenant, sizeof own.lender);
        memcpy(own.grant, grant->meta.name, sizeof own.grant);
        rc = check_borrower(plan, item, &own, &model.model, err);
    }
    return rc;
}

static int check_model(const struct registry_plan *plan, const struct registry_plan_item *item, struct error *err)
{
    const struct resource_model *model = &item->next.model;
    const struct registry_config *config = &plan->registry->config;
    const struct registry_loan *loan = registry_loan_find(plan->loans, model->meta.tenant, model->meta.name);
    if (loan)
        return error_set(err, -ERROR_CONFLICT, "%s: Tenant %s is lent a model of this name, by Grant %s/%s",
                         item->title, model->meta.tenant, loan->lender, loan->grant);
    for (loan = plan->loans->rows; loan < plan->loans->rows + plan->loans->n; loan++) {
        if (strcmp(loan->lender, model->meta.tenant) != 0 || strcmp(loan->model, model->meta.name) != 0)
            continue;
        if (!config->engine_lends(config->ctx, str_from(model->engine)))
            return error_set(err, -ERROR_REFUSED,
                             "%s: spec.engine: it is lent by Grant %s/%s, and only language models (engine llama) can "
                             "be",
                             item->title, loan->lender, loan->grant);
        int rc = check_level(plan, item, loan, model, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* A tenant whose floor rises: what is lent to it must be there at that level. */
static int check_tenant(const struct registry_plan *plan, const struct registry_plan_item *item, struct error *err)
{
    const struct resource_tenant *tenant = &item->next.tenant;
    if (!item->exists || tenant->isolation_minimum <= item->present.tenant.isolation_minimum)
        return 0;
    for (const struct registry_loan *l = plan->loans->rows; l < plan->loans->rows + plan->loans->n; l++) {
        union registry_resource model;
        if (strcmp(l->borrower, tenant->meta.name) != 0)
            continue;
        int rc = planned(plan, RESOURCE_MODEL, l->lender, l->model, &model, err);
        if (rc > 0)
            rc = check_level(plan, item, l, &model.model, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int registry_lend_check(struct registry_plan *plan, struct error *err)
{
    struct registry_loans loans = {0};
    int rc = registry_loans_load(plan->registry, plan, &loans, err);
    plan->loans = &loans;
    for (uint32_t i = 0; rc >= 0 && i < plan->n_items; i++) {
        const struct registry_plan_item *item = &plan->items[i];
        if (item->kind == RESOURCE_MODEL)
            rc = check_model(plan, item, err);
        else if (item->kind == RESOURCE_GRANT)
            rc = check_grant(plan, item, err);
        else if (item->kind == RESOURCE_TENANT)
            rc = check_tenant(plan, item, err);
    }
    if (rc >= 0)
        rc = registry_adapters_check(plan, err);
    if (rc >= 0)
        rc = registry_counts_check(plan, err);
    plan->loans = NULL;
    registry_loans_done(&loans);
    return rc;
}

/* --- deleting --- */

struct rests {
    struct str tenant, name; /* of what is to be deleted */
    struct error *err;
    int rc;
};

static int grant_lends(void *ctx, const struct store_resource *stored)
{
    struct rests *rests = ctx;
    union registry_resource resource;
    rests->rc = registry_decode(stored, &resource, rests->err);
    if (rests->rc >= 0 && str_equal(rests->name, str_from(resource.grant.model)))
        rests->rc = error_set(rests->err, -ERROR_CONFLICT,
                              "Model " STR_FORMAT "/" STR_FORMAT " is lent to others by Grant %s/%s; delete that first",
                              STR_ARG(rests->tenant), STR_ARG(rests->name), resource.meta.tenant, resource.meta.name);
    return rests->rc < 0;
}

int registry_lend_check_delete_model(struct registry *r, struct str tenant, struct str name, struct error *err)
{
    struct rests rests = {tenant, name, err, 0};
    int rc = r->config.store->resource_each(r->store, RESOURCE_GRANT, tenant, str_any(), grant_lends, &rests, err);
    return rc < 0 ? rc : rests.rc;
}

static int grant_names(void *ctx, const struct store_resource *stored)
{
    struct rests *rests = ctx;
    union registry_resource resource;
    rests->rc = registry_decode(stored, &resource, rests->err);
    for (uint32_t i = 0; rests->rc >= 0 && i < resource.grant.tenants.n; i++)
        if (str_equal(rests->name, str_from(resource.grant.tenants.entries[i])))
            rests->rc =
                error_set(rests->err, -ERROR_CONFLICT,
                          "Tenant " STR_FORMAT " is lent a model by Grant %s/%s; take it out of there first, so "
                          "that no later tenant of this name is lent it",
                          STR_ARG(rests->name), resource.meta.tenant, resource.meta.name);
    return rests->rc < 0;
}

int registry_lend_check_delete_tenant(struct registry *r, struct str name, struct error *err)
{
    struct rests rests = {str_any(), name, err, 0};
    int rc = r->config.store->resource_each(r->store, RESOURCE_GRANT, str_any(), str_any(), grant_names, &rests, err);
    return rc < 0 ? rc : rests.rc;
}
