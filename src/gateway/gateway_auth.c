/* Who is it? The key's id finds its row, the hash of the whole key is compared in constant time. The tenant comes from
 * the verified key and from nowhere else.
 *
 * A connection remembers the key that it last proved: the same bytes again under the same catalog need no second hash.
 */
#include "gateway/gateway_internal.h"

#define KEY_PREFIX "bh_"
#define KEY_BYTES  (sizeof KEY_PREFIX - 1 + CATALOG_KEY_ID_BYTES + 1 + 43) /* as control makes them */

/* The credential of a request: Authorization: Bearer, else X-API-Key. */
static struct str credential(const struct wire_request *request)
{
    struct str value = wire_header_find(request, STR("authorization"));
    if (value.data) {
        static const struct str scheme = {"bearer ", 7};
        if (value.size > scheme.size && str_equal_nocase((struct str){value.data, scheme.size}, scheme))
            return str_trim(str_skip(value, scheme.size));
        return (struct str){0};
    }
    return wire_header_find(request, STR("x-api-key"));
}

static bool key_hash(struct gateway *g, struct str key, unsigned char hash[static CATALOG_DIGEST_BYTES])
{
    unsigned size = 0;
    return EVP_DigestInit_ex2(g->sha_ctx, g->sha, NULL) == 1 && EVP_DigestUpdate(g->sha_ctx, key.data, key.size) == 1 &&
           EVP_DigestFinal_ex(g->sha_ctx, hash, &size) == 1 && size == CATALOG_DIGEST_BYTES;
}

static struct gateway_tenant *key_verify(struct gateway *g, struct str key)
{
    if (key.size != KEY_BYTES || !g->catalog)
        return NULL;
    const struct catalog_key *row = catalog_key_find(g->catalog, key.data + sizeof KEY_PREFIX - 1);
    unsigned char hash[CATALOG_DIGEST_BYTES];
    if (!row || !key_hash(g, key, hash) || !bytes_equal_secret(hash, row->hash, sizeof hash))
        return NULL;
    return g->tenant_at[row->tenant];
}

static void connection_remember(struct gateway *g, struct wire_exchange *x, struct str key,
                                struct gateway_tenant *tenant)
{
    struct gateway_connection *c = *x->connection_user;
    if (!c) {
        c = calloc(1, sizeof *c);
        if (!c)
            return; /* only costs the hash again */
        c->handle = x->connection_user;
        list_append(&g->connections, &c->node);
        *x->connection_user = c;
    }
    memcpy(c->key, key.data, key.size);
    c->key_bytes = key.size;
    c->tenant = tenant;
    c->generation = catalog_generation(g->catalog);
}

int gateway_authenticate(struct gateway *g, struct wire_exchange *x, struct gateway_tenant **ret_tenant,
                         struct error *err)
{
    struct str key = credential(&x->request);
    if (!key.data || key.size == 0)
        return error_set_default(err, ERROR_UNAUTHENTICATED);
    const struct gateway_connection *c = *x->connection_user;
    if (c && g->catalog && c->generation == catalog_generation(g->catalog) && c->key_bytes == key.size &&
        bytes_equal_secret(c->key, key.data, key.size)) {
        *ret_tenant = c->tenant;
        return 0;
    }
    struct gateway_tenant *tenant = key_verify(g, key);
    if (!tenant)
        return error_set(err, ERROR_UNAUTHENTICATED, "The API key is not valid; it may have been revoked.");
    connection_remember(g, x, key, tenant);
    *ret_tenant = tenant;
    return 0;
}

void gateway_connection_closed(void *ctx, void *connection)
{
    struct gateway_connection *c = connection;
    (void)ctx;
    if (!c)
        return;
    list_remove(&c->node);
    OPENSSL_cleanse(c->key, sizeof c->key);
    free(c);
}
