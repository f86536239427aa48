/* What a tenant can name as a model, as the catalog has it: nothing is made of a row that is only listed. */
#include "gateway/gateway_internal.h"

static struct gateway_card card_of_model(const struct gateway_request *r, const struct catalog_model *m)
{
    return (struct gateway_card){.name = str_from(m->name),
                                 .owner = m->lender ? (struct str){0} : str_from(r->tenant->name),
                                 .created_s = catalog_version_at(r->gateway->catalog, m->version_first)->created_s};
}

static struct gateway_card card_of_adapter(const struct gateway_request *r, const struct catalog_adapter *a)
{
    return (struct gateway_card){
        .name = str_from(a->name), .owner = str_from(r->tenant->name), .created_s = a->created_s};
}

void gateway_cards_each(struct gateway_request *r, void (*each)(void *ctx, const struct gateway_card *card), void *ctx)
{
    const struct catalog *c = r->gateway->catalog;
    uint32_t first, n;
    if (!gateway_tenant_present(r->gateway, r->tenant))
        return;
    catalog_models_of(c, r->tenant->index, &first, &n);
    for (uint32_t i = 0; i < n; i++) {
        struct gateway_card card = card_of_model(r, catalog_model_at(c, first + i));
        each(ctx, &card);
    }
    catalog_adapters_of(c, r->tenant->index, &first, &n);
    for (uint32_t i = 0; i < n; i++) {
        struct gateway_card card = card_of_adapter(r, catalog_adapter_at(c, first + i));
        each(ctx, &card);
    }
}

int gateway_card_find(struct gateway_request *r, struct str name, struct gateway_card *ret_card, struct error *err)
{
    const struct gateway *g = r->gateway;
    const struct catalog_model *m =
        gateway_tenant_present(g, r->tenant) ? catalog_model_find(g->catalog, r->tenant->index, name) : NULL;
    const struct catalog_adapter *a = m ? NULL : gateway_adapter_row(g, r->tenant, name);
    if (!m && !a)
        return error_set_default(err, ERROR_MODEL_NOT_FOUND);
    *ret_card = m ? card_of_model(r, m) : card_of_adapter(r, a);
    return 0;
}
