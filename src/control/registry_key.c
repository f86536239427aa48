/* API keys: `bh_<16 id>_<43 secret>`. The id finds the row, the hash of the whole text proves it. */
#include "registry_internal.h"

#include "base/clock.h"
#include "base/random.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdio.h>

#define KEY_SECRET_CHARS 43u

/* For people: printable, bounded, valid UTF-8; may be empty. */
static int key_name_check(struct str name, struct error *err)
{
    if (name.size > LIMIT_NAME_BYTES)
        return error_set(err, -ERROR_INVALID_NAME, "a key's name has at most %u bytes", LIMIT_NAME_BYTES);
    if (!str_is_utf8(name))
        return error_set(err, -ERROR_INVALID_NAME, "a key's name is UTF-8 text");
    for (size_t i = 0; i < name.size; i++)
        if ((unsigned char)name.data[i] < 0x20 || name.data[i] == 0x7F)
            return error_set(err, -ERROR_INVALID_NAME, "a key's name has no control characters");
    return 0;
}

static int key_insert(struct registry *r, const struct store_key *key, uint64_t *ret_revision, struct error *err)
{
    const struct store_ops *ops = r->config.store;
    int rc = ops->begin(r->store, err);
    if (rc < 0)
        return rc;
    rc = ops->key_put(r->store, key, err);
    return registry_transaction_end(r, rc, ret_revision, err);
}

int registry_key_create(struct registry *r, struct str tenant, struct str name,
                        char ret_key[static REGISTRY_KEY_BYTES + 1], struct registry_change *ret_change,
                        struct error *err)
{
    int rc = key_name_check(name, err);
    if (rc < 0)
        return rc;
    struct registry_row row;
    rc = registry_need(r, RESOURCE_TENANT, str_any(), tenant, NULL, &row, err);
    if (rc < 0)
        return rc;
    if (r->n_keys >= LIMIT_KEYS)
        return error_set(err, -ERROR_REFUSED, "a server holds at most %u keys", LIMIT_KEYS);

    char id[STORE_KEY_ID_BYTES + 1], secret[KEY_SECRET_CHARS + 1], text[REGISTRY_KEY_BYTES + 1];
    random_base62(id, STORE_KEY_ID_BYTES);
    random_base62(secret, KEY_SECRET_CHARS);
    int length = snprintf(text, sizeof text, "bh_%s_%s", id, secret);
    assert(length == REGISTRY_KEY_BYTES);
    struct store_key key = {.id = str_from(id), .tenant_uid = row.uid, .name = name, .created_ms = clock_wall_ms()};
    unsigned int hash_bytes = 0;
    uint64_t revision = 0;
    if (EVP_Digest(text, REGISTRY_KEY_BYTES, key.hash, &hash_bytes, EVP_sha256(), NULL) != 1)
        rc = error_set_default(err, -ERROR_INTERNAL);
    else
        rc = key_insert(r, &key, &revision, err);
    if (rc >= 0) {
        r->n_keys++;
        memcpy(ret_key, text, sizeof text);
        *ret_change = (struct registry_change){.generation = revision, .created = 1};
        rc = 0;
    }
    explicit_bzero(secret, sizeof secret);
    explicit_bzero(text, sizeof text);
    return rc;
}

int registry_key_revoke(struct registry *r, struct str id, struct registry_change *ret_change, struct error *err)
{
    const struct store_ops *ops = r->config.store;
    bool existed = false;
    uint64_t revision = 0;
    int rc = ops->begin(r->store, err);
    if (rc < 0)
        return rc;
    rc = ops->key_delete(r->store, id, &existed, err);
    if (rc >= 0 && !existed)
        rc = error_set(err, -ERROR_NOT_FOUND, "there is no key of this id");
    rc = registry_transaction_end(r, rc, &revision, err);
    if (rc < 0)
        return rc;
    r->n_keys--;
    *ret_change = (struct registry_change){.generation = revision, .changed = 1};
    return 0;
}
