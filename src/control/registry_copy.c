/* Artifacts on their way into sealed memory, a slice at a time: whoever copies many gigabytes does other things
 * between. */
#include "registry_internal.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define CHUNK_BYTES (64 * KIB)
/* What a model that is put into memory leaves to everything else. */
#define MEMORY_LEFT_BYTES (64 * MIB)

_Static_assert(LIMIT_COPY_SLICE_BYTES % CHUNK_BYTES == 0, "a slice is whole chunks");

struct registry_copy {
    struct list node; /* in registry.copies */
    struct registry *registry;
    struct registry_version of;
    int from, to;
    ino_t inode; /* of `from` */
    EVP_MD_CTX *sha256;
    uint64_t copied_bytes;  /* ≤ of.artifact_bytes */
    uint64_t counted_bytes; /* of registry.copying_bytes: what it has still to take */
};

/* Memory files are never given back under pressure: one that does not fit would end processes that have done nothing.
 * What other copies have still to take counts as taken. */
static int memory_check(const struct registry *r, const struct registry_version *v, struct error *err)
{
    const struct registry_config *config = &r->config;
    uint64_t available;
    if (!config->memory_available || !config->memory_available(config->ctx, &available))
        return 0;
    available -= available < r->copying_bytes ? available : r->copying_bytes;
    if (available >= MEMORY_LEFT_BYTES && v->artifact_bytes <= available - MEMORY_LEFT_BYTES)
        return 0;
    return error_set(err, -ERROR_NO_MEMORY,
                     "%s/%s version %u takes %llu MiB of memory for its file alone, which this machine does not have "
                     "free now",
                     v->tenant, v->model, v->number, (unsigned long long)(v->artifact_bytes / MIB));
}

static int copy_open(struct registry_copy *copy, struct error *err)
{
    const struct registry_version *v = &copy->of;
    char hex[REGISTRY_HEX_BYTES + 1];
    registry_hex(v->digest, hex);
    copy->from = openat(copy->registry->config.artifacts_dir, hex, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (copy->from < 0 && errno == ENOENT)
        return error_set(err, -ERROR_IO, "the stored artifact of Model %s/%s version %u is missing", v->tenant,
                         v->model, v->number);
    struct stat info;
    if (copy->from < 0 || fstat(copy->from, &info) < 0)
        return registry_io_error(err, "cannot open an artifact");
    copy->inode = info.st_ino;
    copy->to = memfd_create("artifact", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (copy->to < 0)
        return registry_io_error(err, "cannot copy an artifact into memory");
    copy->sha256 = EVP_MD_CTX_new();
    if (!copy->sha256 || EVP_DigestInit_ex(copy->sha256, EVP_sha256(), NULL) != 1)
        return error_set_default(err, -ERROR_NO_MEMORY);
    return 0;
}

int registry_copy_begin(struct registry *r, const struct registry_version *v, struct registry_copy **ret_copy,
                        struct error *err)
{
    struct registry_copy *copy = calloc(1, sizeof *copy);
    if (!copy)
        return error_set_default(err, -ERROR_NO_MEMORY);
    *copy = (struct registry_copy){.registry = r, .of = *v, .from = -1, .to = -1};
    list_append(&r->copies, &copy->node);
    int rc = copy_open(copy, err);
    if (rc >= 0)
        rc = memory_check(r, v, err);
    if (rc < 0) {
        registry_copy_free(copy);
        return rc;
    }
    copy->counted_bytes = v->artifact_bytes;
    r->copying_bytes += copy->counted_bytes;
    *ret_copy = copy;
    return 0;
}

bool registry_copy_reads(const struct list *copy, ino_t inode)
{
    return container_of(copy, struct registry_copy, node)->inode == inode;
}

void registry_copy_free(struct registry_copy *copy)
{
    if (!copy)
        return;
    copy->registry->copying_bytes -= copy->counted_bytes;
    list_remove(&copy->node);
    fd_close(&copy->from);
    registry_remove_fd(copy->registry, &copy->to);
    EVP_MD_CTX_free(copy->sha256);
    free(copy);
}

static int damaged(const struct registry_copy *copy, struct error *err)
{
    const struct registry_version *v = &copy->of;
    return error_set(err, -ERROR_IO, "the stored artifact of Model %s/%s version %u is damaged", v->tenant, v->model,
                     v->number);
}

/* 1: a chunk was copied; 0: the file ends here. */
static int chunk_copy(struct registry_copy *copy, struct error *err)
{
    char chunk[CHUNK_BYTES];
    ssize_t n;
    do {
        n = read(copy->from, chunk, sizeof chunk);
    } while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 ? registry_io_error(err, "cannot read an artifact") : 0;
    if ((uint64_t)n > copy->of.artifact_bytes - copy->copied_bytes)
        return damaged(copy, err); /* not what was stored: no need to copy the rest */
    if (EVP_DigestUpdate(copy->sha256, chunk, (size_t)n) != 1)
        return error_set_default(err, -ERROR_INTERNAL);
    if (registry_write_all(copy->to, (struct str){chunk, (size_t)n}) < 0)
        return error_set(err, -ERROR_NO_MEMORY,
                         "%s/%s version %u was not copied into memory, of which too little is free", copy->of.tenant,
                         copy->of.model, copy->of.number);
    copy->copied_bytes += (uint64_t)n;
    copy->counted_bytes -= (uint64_t)n;
    copy->registry->copying_bytes -= (uint64_t)n;
    return 1;
}

static int copy_seal(struct registry_copy *copy, struct error *err)
{
    uint8_t digest[STORE_DIGEST_BYTES];
    unsigned int digest_bytes = 0;
    if (EVP_DigestFinal_ex(copy->sha256, digest, &digest_bytes) != 1 || digest_bytes != sizeof digest)
        return error_set_default(err, -ERROR_INTERNAL);
    if (copy->copied_bytes != copy->of.artifact_bytes || memcmp(digest, copy->of.digest, sizeof digest) != 0)
        return damaged(copy, err);
    if (fcntl(copy->to, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
        return registry_io_error(err, "cannot seal an artifact");
    return 0;
}

int registry_copy_step(struct registry_copy *copy, int *ret_fd, struct error *err)
{
    uint64_t before = copy->copied_bytes;
    int rc = 1;
    while (rc > 0 && copy->copied_bytes - before < LIMIT_COPY_SLICE_BYTES)
        rc = chunk_copy(copy, err);
    if (rc >= 0)
        memory_file_gather(copy->to, before, copy->copied_bytes - before);
    if (rc != 0)
        return rc;
    rc = copy_seal(copy, err);
    if (rc >= 0)
        *ret_fd = take_fd(&copy->to);
    return rc;
}
