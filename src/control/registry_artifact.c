/* Artifacts: files named by their SHA-256 in hex. Nothing is acknowledged before file and folder are on the disk. */
#include "registry_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/stat.h>

#define UPLOAD_NAME_BYTES (sizeof REGISTRY_UPLOAD_PREFIX + 22)
/* Of an upload so many bytes go to the disk at once: else the last of many gigabytes would keep everybody waiting. */
#define SYNC_BYTES (4 * MIB)

struct registry_upload {
    struct list _node;
    struct registry *registry; /* NULL once the registry closed before its owner */
    int fd;
    uint64_t bytes, unsynced_bytes;
    EVP_MD_CTX *sha256;
    char name[UPLOAD_NAME_BYTES];
};

void registry_hex(const uint8_t digest[static STORE_DIGEST_BYTES], char hex[static REGISTRY_HEX_BYTES + 1])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < STORE_DIGEST_BYTES; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[REGISTRY_HEX_BYTES] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int registry_hex_decode(struct str hex, uint8_t ret_digest[static STORE_DIGEST_BYTES])
{
    if (hex.size != REGISTRY_HEX_BYTES)
        return -ERROR_INVALID_ARGUMENT;
    uint8_t digest[STORE_DIGEST_BYTES];
    for (size_t i = 0; i < STORE_DIGEST_BYTES; i++) {
        int high = hex_digit(hex.data[2 * i]), low = hex_digit(hex.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return -ERROR_INVALID_ARGUMENT;
        digest[i] = (uint8_t)(high << 4 | low);
    }
    memcpy(ret_digest, digest, sizeof digest);
    return 0;
}

int registry_io_error(struct error *err, const char *what)
{
    int code = errno;
    if (code == ENOSPC || code == EDQUOT)
        return error_set(err, -ERROR_IO, "%s: the server's disk is full; free some space there and try again", what);
    return error_set(err, -ERROR_IO, "%s: %s", what, strerrordesc_np(code));
}

static bool sweep_wants(struct registry *r, struct str name, int *ret_rc, struct error *err)
{
    uint8_t digest[STORE_DIGEST_BYTES];
    if (str_starts(name, STR(REGISTRY_UPLOAD_PREFIX)) || str_starts(name, STR(REGISTRY_REMOVED_PREFIX)))
        return true;
    if (registry_hex_decode(name, digest) < 0)
        return false; /* not ours */
    bool used = true;
    *ret_rc = r->config.store->artifact_used(r->store, digest, &used, err);
    return *ret_rc >= 0 && !used;
}

int registry_artifact_sweep(struct registry *r, struct error *err)
{
    int fd = openat(r->config.artifacts_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    if (!folder) {
        int rc = registry_io_error(err, "cannot list the artifacts");
        fd_close(&fd);
        return rc;
    }
    int rc = 0;
    uint32_t removed = 0;
    struct dirent *entry;
    while (rc >= 0 && (entry = readdir(folder))) {
        if (!sweep_wants(r, str_from(entry->d_name), &rc, err))
            continue;
        if (registry_remove(r, entry->d_name) < 0)
            rc = registry_io_error(err, "cannot remove a leftover artifact");
        removed++;
    }
    (void)closedir(folder); /* nothing was written through it */
    if (removed > 0)
        log_info("artifacts_swept", "removed=%u", removed);
    return rc < 0 ? rc : 0;
}

int registry_artifact_bytes(struct registry *r, const uint8_t digest[static STORE_DIGEST_BYTES], uint64_t *ret_bytes,
                            struct error *err)
{
    char hex[REGISTRY_HEX_BYTES + 1];
    registry_hex(digest, hex);
    struct stat info;
    if (fstatat(r->config.artifacts_dir, hex, &info, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno == ENOENT)
            return error_set(err, -ERROR_NOT_FOUND, "artifact %s was not uploaded", hex);
        return registry_io_error(err, "cannot look at an artifact");
    }
    *ret_bytes = (uint64_t)info.st_size;
    return 0;
}

void registry_artifact_release(struct registry *r, const uint8_t digest[static STORE_DIGEST_BYTES])
{
    char hex[REGISTRY_HEX_BYTES + 1];
    registry_hex(digest, hex);
    struct error err = {0};
    bool used = true;
    int rc = r->config.store->artifact_used(r->store, digest, &used, &err);
    if (rc >= 0 && !used && registry_remove(r, hex) < 0)
        rc = registry_io_error(&err, "cannot remove an artifact");
    if (rc < 0)
        log_warn("artifact_kept", "digest=%s: %s", hex, error_text(&err, rc));
}

void registry_artifact_drop(struct registry *r, const uint8_t digest[static STORE_DIGEST_BYTES], uint64_t before_ns)
{
    char hex[REGISTRY_HEX_BYTES + 1];
    struct stat info;
    registry_hex(digest, hex);
    if (fstatat(r->config.artifacts_dir, hex, &info, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    /* Its name is given last, and that changes this time. */
    uint64_t stored_ns = (uint64_t)info.st_ctim.tv_sec * NS_PER_S + (uint64_t)info.st_ctim.tv_nsec;
    if (stored_ns < before_ns)
        registry_artifact_release(r, digest);
}

/* Closes and removes the unfinished file; the struct stays. */
static void upload_drop(struct registry_upload *u)
{
    if (!u->registry)
        return;
    fd_close(&u->fd);
    if (u->name[0])
        (void)!registry_remove(u->registry, u->name); /* what stays is swept at the next start */
    list_remove(&u->_node);
    u->registry->n_uploads--;
    u->registry = NULL;
}

void registry_upload_abort(struct registry_upload *u)
{
    if (!u)
        return;
    upload_drop(u);
    EVP_MD_CTX_free(u->sha256);
    free(u);
}

void registry_upload_orphan_all(struct registry *r)
{
    list_each_safe(node, &r->uploads) upload_drop(container_of(node, struct registry_upload, _node));
}

int registry_upload_begin(struct registry *r, struct registry_upload **ret_upload, struct error *err)
{
    if (r->n_uploads >= REGISTRY_UPLOADS_MAX)
        return error_set(err, -ERROR_OVERLOADED, "%u uploads are under way already; try again later",
                         REGISTRY_UPLOADS_MAX);
    struct registry_upload *u = calloc(1, sizeof *u);
    if (!u)
        return error_set_default(err, -ERROR_NO_MEMORY);
    u->fd = -1;
    u->registry = r;
    r->n_uploads++;
    list_append(&r->uploads, &u->_node);
    u->sha256 = EVP_MD_CTX_new();
    if (!u->sha256 || EVP_DigestInit_ex(u->sha256, EVP_sha256(), NULL) != 1) {
        registry_upload_abort(u);
        return error_set_default(err, -ERROR_NO_MEMORY);
    }
    char random[22 + 1];
    random_base62(random, 22);
    (void)snprintf(u->name, sizeof u->name, REGISTRY_UPLOAD_PREFIX "%s", random); /* fits by construction */
    u->fd = openat(r->config.artifacts_dir, u->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (u->fd < 0) {
        int rc = registry_io_error(err, "cannot store an artifact");
        registry_upload_abort(u);
        return rc;
    }
    *ret_upload = u;
    return 0;
}

int registry_write_all(int fd, struct str data)
{
    while (data.size > 0) {
        ssize_t n = write(fd, data.data, data.size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        data = str_skip(data, (size_t)n);
    }
    return 0;
}

int registry_upload_write(struct registry_upload *u, struct str chunk, struct error *err)
{
    if (!u->registry)
        return error_set_default(err, -ERROR_DRAINING);
    if (chunk.size > LIMIT_ARTIFACT_BYTES - u->bytes)
        return error_set(err, -ERROR_BODY_TOO_LARGE, "an artifact has at most %zu bytes", (size_t)LIMIT_ARTIFACT_BYTES);
    if (registry_write_all(u->fd, chunk) < 0)
        return registry_io_error(err, "cannot store the artifact");
    if (EVP_DigestUpdate(u->sha256, chunk.data, chunk.size) != 1)
        return error_set_default(err, -ERROR_INTERNAL);
    u->bytes += chunk.size;
    u->unsynced_bytes += chunk.size;
    if (u->unsynced_bytes < SYNC_BYTES)
        return 0;
    u->unsynced_bytes = 0;
    return fdatasync(u->fd) < 0 ? registry_io_error(err, "cannot store the artifact") : 0;
}

static int upload_keep(struct registry_upload *u, const char *hex, struct error *err)
{
    int folder = u->registry->config.artifacts_dir;
    if (fsync(u->fd) < 0)
        return registry_io_error(err, "cannot store the artifact");
    /* What has that name already is replaced, for it may be damaged. */
    _close_ int old = openat(folder, hex, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (renameat(folder, u->name, folder, hex) < 0)
        return registry_io_error(err, "cannot store the artifact");
    u->name[0] = '\0';
    registry_remove_fd(u->registry, &old);
    if (fsync(folder) < 0)
        return registry_io_error(err, "cannot store the artifact");
    return 0;
}

int registry_upload_finish(struct registry_upload *u, char ret_hex[static 65], uint64_t *ret_bytes, struct error *err)
{
    uint8_t digest[STORE_DIGEST_BYTES];
    unsigned int digest_bytes = 0;
    int rc = 0;
    if (!u->registry) {
        registry_upload_abort(u);
        return error_set_default(err, -ERROR_DRAINING);
    }
    if (u->bytes == 0)
        rc = error_set(err, -ERROR_INVALID_REQUEST, "the artifact is empty");
    else if (EVP_DigestFinal_ex(u->sha256, digest, &digest_bytes) != 1 || digest_bytes != sizeof digest)
        rc = error_set_default(err, -ERROR_INTERNAL);
    if (rc >= 0) {
        char hex[REGISTRY_HEX_BYTES + 1];
        registry_hex(digest, hex);
        rc = upload_keep(u, hex, err);
        if (rc >= 0) {
            memcpy(ret_hex, hex, sizeof hex);
            *ret_bytes = u->bytes;
        }
    }
    registry_upload_abort(u);
    return rc;
}
