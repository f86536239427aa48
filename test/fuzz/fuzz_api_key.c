/*
 * Whose key is it? Headers in, a tenant out, and only for a key that control has made.
 *
 * Input: requests of one connection, separated by an empty line; a request is lines of "name:value" as the wire hands
 * them over (values trimmed, no NUL, CR or LF). The catalog knows two keys of two tenants. The target decides by itself
 * whether a request shows exactly one credential that is one of these keys; gateway_authenticate must say the same,
 * also when the connection remembers a key that it has proved.
 */
#undef NDEBUG
#include "gateway/gateway_internal.h"
#include "test/unit/catalog/catalog_fixture.h"

#include <strings.h>

const struct gateway_surface *const gateway_surfaces[] = {NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_KEYS = 2, N_HEADERS_MAX = 100 };

static const char *const keys[N_KEYS] = {
    "bh_AAAAAAAAAAAAAAAA_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "bh_BBBBBBBBBBBBBBBB_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
};

static struct gateway gateway;
static struct gateway_tenant tenants[N_KEYS];
static struct gateway_tenant *tenant_at[N_KEYS] = {&tenants[0], &tenants[1]};

static void setup(void)
{
    struct catalog_builder *b = NULL;
    struct error err = {0};
    assert(catalog_builder_new(1, &b) == 0);
    gateway.sha = EVP_MD_fetch(NULL, "SHA256", NULL);
    gateway.sha_ctx = EVP_MD_CTX_new();
    assert(gateway.sha && gateway.sha_ctx);
    for (uint32_t i = 0; i < N_KEYS; i++) {
        struct catalog_tenant t = fixture_tenant(i);
        assert(catalog_add_tenant(b, &t) == (int)i);
        struct catalog_key k = {.tenant = i};
        memcpy(k.id, keys[i] + 3, sizeof k.id);
        unsigned hash_size = 0;
        assert(EVP_Digest(keys[i], strlen(keys[i]), k.hash, &hash_size, gateway.sha, NULL) == 1);
        assert(catalog_add_key(b, &k) == (int)i);
    }
    int fd = -1;
    size_t bytes = 0;
    assert(catalog_build(b, &fd, &bytes, &err) == 0);
    assert(catalog_open(fd, bytes, &gateway.catalog, &err) == 0);
    close(fd);
    catalog_builder_free(b);
    gateway.tenant_at = tenant_at;
    list_init(&gateway.connections);
}

/* --- what must come out, in other words than gateway_auth.c's --- */

static struct gateway_tenant *expected(const struct wire_header *headers, uint32_t n)
{
    struct str found = {0};
    uint32_t n_found = 0;
    bool bearer = false;
    for (uint32_t i = 0; i < n; i++) {
        bool authorization = headers[i].name.size == 13 && strncasecmp(headers[i].name.data, "authorization", 13) == 0;
        bool own = headers[i].name.size == 9 && strncasecmp(headers[i].name.data, "x-api-key", 9) == 0;
        if (authorization || own) {
            n_found++;
            found = headers[i].value;
            bearer = authorization;
        }
    }
    if (n_found != 1)
        return NULL;
    if (bearer) {
        if (found.size < 7 || strncasecmp(found.data, "bearer ", 7) != 0)
            return NULL;
        found = str_trim(str_skip(found, 7));
    }
    for (uint32_t i = 0; i < N_KEYS; i++)
        if (str_equal(found, str_from(keys[i])))
            return &tenants[i];
    return NULL;
}

static struct str line_next(struct str *rest)
{
    const char *end = rest->size > 0 ? memchr(rest->data, '\n', rest->size) : NULL;
    struct str line = {rest->data, end ? (size_t)(end - rest->data) : rest->size};
    *rest = str_skip(*rest, line.size + (end ? 1 : 0));
    return line;
}

/* One request's headers; values of their own memory, so that ASan sees a byte too far. */
static uint32_t headers_read(struct str *rest, struct wire_header headers[static N_HEADERS_MAX])
{
    uint32_t n = 0;
    for (;;) {
        struct str line = line_next(rest);
        if (line.size == 0)
            return n;
        const char *colon = memchr(line.data, ':', line.size);
        if (!colon || colon == line.data || n == N_HEADERS_MAX)
            continue;
        struct str value = str_trim(str_skip(line, (size_t)(colon - line.data) + 1));
        char *copy = malloc(value.size ? value.size : 1);
        assert(copy);
        if (value.size > 0)
            memcpy(copy, value.data, value.size);
        headers[n++] = (struct wire_header){{line.data, (size_t)(colon - line.data)}, {copy, value.size}};
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!gateway.catalog)
        setup();
    if (memchr(data, '\0', size) || memchr(data, '\r', size))
        return -1; /* wire refuses them before */
    void *connection = NULL;
    struct str rest = {(const char *)data, size};
    while (rest.size > 0) {
        struct wire_header headers[N_HEADERS_MAX];
        uint32_t n = headers_read(&rest, headers);
        struct wire_exchange x = {.request = {.headers = headers, .n_headers = n}, .connection_user = &connection};
        struct gateway_tenant *tenant = NULL;
        const char *key_id = NULL;
        struct error err = {0};
        int r = gateway_authenticate(&gateway, &x, &tenant, &key_id, &err);
        assert(r == 0 || (r == -ERROR_UNAUTHENTICATED && err.code == r && err.text[0]));
        assert(tenant == expected(headers, n));
        assert(r < 0 || memcmp(key_id, tenant == &tenants[0] ? keys[0] + 3 : keys[1] + 3, CATALOG_KEY_ID_BYTES) == 0);
        for (uint32_t i = 0; i < n; i++)
            free((void *)headers[i].value.data);
    }
    gateway_connection_closed(&gateway, connection);
    return 0;
}
