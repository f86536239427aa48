/* Who is it? The key's id finds its row, the hash of the whole key is compared in constant time. The tenant comes from
 * the verified key and from nowhere else.
 *
 * A connection remembers the key that it last proved: the same bytes again under the same catalog need no second hash.
 */
#include "gateway/gateway_internal.h"

#define KEY_PREFIX "bh_"
#define KEY_BYTES  (sizeof KEY_PREFIX - 1 + CATALOG_KEY_ID_BYTES + 1 + 43) /* as control makes them */

/* The one header of that name; empty with data NULL when there is none or, since nobody could say which one counts,
 * more than one. */
static struct str header_single(const struct wire_request *request, struct str name, uint32_t *ret_count)
{
    struct str value = {0};
    *ret_count = 0;
    for (uint32_t i = 0; i < request->n_headers; i++)
        if (str_equal_nocase(request->headers[i].name, name)) {
            value = request->headers[i].value;
            ++*ret_count;
        }
    return *ret_count == 1 ? value : (struct str){0};
}

/* The credential of a request: Authorization: Bearer, else X-API-Key; not two of them. */
static struct str credential(const struct wire_request *request)
{
    static const struct str scheme = {"bearer ", 7};
    uint32_t n_bearers, n_keys;
    struct str bearer = header_single(request, STR("authorization"), &n_bearers);
    struct str key = header_single(request, STR("x-api-key"), &n_keys);
    if (n_bearers + n_keys != 1)
        return (struct str){0};
    if (n_keys == 1)
        return key;
    if (bearer.size <= scheme.size || !str_equal_nocase((struct str){bearer.data, scheme.size}, scheme))
        return (struct str){0};
    return str_trim(str_skip(bearer, scheme.size));
}

static bool key_hash(struct gateway *g, struct str key, unsigned char hash[static CATALOG_DIGEST_BYTES])
{
    unsigned size = 0;
    return EVP_DigestInit_ex2(g->sha_ctx, g->sha, NULL) == 1 && EVP_DigestUpdate(g->sha_ctx, key.data, key.size) == 1 &&
           EVP_DigestFinal_ex(g->sha_ctx, hash, &size) == 1 && size == CATALOG_DIGEST_BYTES;
}

static int key_verify(struct gateway *g, struct str key, struct gateway_tenant **ret_tenant, struct error *err)
{
    unsigned char hash[CATALOG_DIGEST_BYTES];
    const struct catalog_key *row = NULL;
    if (key.size == KEY_BYTES && g->catalog)
        row = catalog_key_find(g->catalog, key.data + sizeof KEY_PREFIX - 1);
    if (row && !key_hash(g, key, hash)) /* libcrypto wants memory; nobody may take that for a revoked key */
        return error_set_default(err, ERROR_NO_MEMORY);
    if (!row || !bytes_equal_secret(hash, row->hash, sizeof hash))
        return error_set(err, ERROR_UNAUTHENTICATED, "The API key is not valid; it may have been revoked.");
    *ret_tenant = g->tenant_at[row->tenant];
    return 0;
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
                         const char **ret_key_id, struct error *err)
{
    struct str key = credential(&x->request);
    if (!key.data || key.size == 0)
        return error_set_default(err, ERROR_UNAUTHENTICATED);
    const struct gateway_connection *c = *x->connection_user;
    if (c && g->catalog && c->generation == catalog_generation(g->catalog) && c->key_bytes == key.size &&
        bytes_equal_secret(c->key, key.data, key.size)) {
        *ret_tenant = c->tenant;
        *ret_key_id = key.data + sizeof KEY_PREFIX - 1; /* what was remembered has a key's size */
        return 0;
    }
    struct gateway_tenant *tenant = NULL;
    int r = key_verify(g, key, &tenant, err);
    if (r < 0)
        return r;
    connection_remember(g, x, key, tenant);
    *ret_tenant = tenant;
    *ret_key_id = key.data + sizeof KEY_PREFIX - 1;
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
