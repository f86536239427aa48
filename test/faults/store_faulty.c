/* store_sqlite, as the linker hands it out in sanitized builds (--wrap): every operation that can fail is counted first
 * and, when its turn has come, fails as after an I/O error, without having done anything. An operation that is not
 * listed here goes through uncounted. */
#include "store/store.h"
#include "test/faults/faults.h"

extern const struct store_ops real __asm__("__real_store_sqlite");
struct store_ops faulty __asm__("__wrap_store_sqlite");

#define COUNTED(name, parameters, arguments)                                        \
    static int faulty_##name parameters                                             \
    {                                                                               \
        if (faults_hit(FAULTS_STORE))                                               \
            return error_set(err, ERROR_IO, "the store failed, as the test asked"); \
        return real.name arguments;                                                 \
    }

COUNTED(open, (const char *path, struct store **ret_store, struct error *err), (path, ret_store, err))
COUNTED(begin, (struct store * s, struct error *err), (s, err))
COUNTED(revision, (struct store * s, uint64_t *ret_revision, struct error *err), (s, ret_revision, err))
COUNTED(uid_next, (struct store * s, uint64_t *ret_uid, struct error *err), (s, ret_uid, err))
COUNTED(resource_put, (struct store * s, const struct store_resource *r, struct error *err), (s, r, err))
COUNTED(resource_delete, (struct store * s, uint64_t uid, struct error *err), (s, uid, err))
COUNTED(resource_each,
        (struct store * s, uint32_t kind, struct str tenant, struct str name,
         int (*each)(void *ctx, const struct store_resource *r), void *ctx, struct error *err),
        (s, kind, tenant, name, each, ctx, err))
COUNTED(version_put, (struct store * s, const struct store_version *v, struct error *err), (s, v, err))
COUNTED(version_each,
        (struct store * s, uint64_t model_uid, int (*each)(void *ctx, const struct store_version *v), void *ctx,
         struct error *err),
        (s, model_uid, each, ctx, err))
COUNTED(version_delete_model, (struct store * s, uint64_t model_uid, struct error *err), (s, model_uid, err))
COUNTED(artifact_used,
        (struct store * s, const uint8_t digest[static STORE_DIGEST_BYTES], bool *ret_used, struct error *err),
        (s, digest, ret_used, err))
COUNTED(key_put, (struct store * s, const struct store_key *k, struct error *err), (s, k, err))
COUNTED(key_delete, (struct store * s, struct str id, bool *ret_existed, struct error *err), (s, id, ret_existed, err))
COUNTED(key_delete_tenant, (struct store * s, uint64_t tenant_uid, struct error *err), (s, tenant_uid, err))
COUNTED(key_each,
        (struct store * s, uint64_t tenant_uid, int (*each)(void *ctx, const struct store_key *k), void *ctx,
         struct error *err),
        (s, tenant_uid, each, ctx, err))

/* A failed commit has rolled back. */
static int faulty_commit(struct store *s, uint64_t *ret_revision, struct error *err)
{
    if (!faults_hit(FAULTS_STORE))
        return real.commit(s, ret_revision, err);
    real.rollback(s);
    return error_set(err, ERROR_IO, "the store failed, as the test asked");
}

__attribute__((constructor)) static void faulty_setup(void)
{
    faulty = real;
#define PUT(name) faulty.name = faulty_##name;
    PUT(open)
    PUT(begin)
    PUT(commit)
    PUT(revision)
    PUT(uid_next)
    PUT(resource_put)
    PUT(resource_delete)
    PUT(resource_each)
    PUT(version_put)
    PUT(version_each)
    PUT(version_delete_model)
    PUT(artifact_used)
    PUT(key_put)
    PUT(key_delete)
    PUT(key_delete_tenant)
    PUT(key_each)
#undef PUT
}
