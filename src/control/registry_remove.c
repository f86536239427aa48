/* Files that nobody names any more, and memory that nobody uses, are freed a slice at a time: a file system frees what
 * belongs to a file of many gigabytes in one go, for as long as that takes, when its last name and descriptor go. */
#include "registry_internal.h"

#include "base/random.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#define SUFFIX_CHARACTERS  22
#define REMOVED_NAME_BYTES (sizeof REGISTRY_REMOVED_PREFIX + SUFFIX_CHARACTERS)

/*   NAMED (fd < 0) ──opened, its name is gone──► OPEN (fd ≥ 0) ──shorter and shorter──► gone
 * Who ends in between leaves a name, which the sweep of the next start finds, or nothing. */
struct removal {
    struct list node;
    int fd;
    uint64_t bytes; /* while OPEN: what is left of it */
    ino_t inode;
    char name[NAME_MAX + 1]; /* while NAMED */
};

_Static_assert(REMOVED_NAME_BYTES <= NAME_MAX + 1, "a name of ours fits");

static struct removal *removal_new(struct registry *r, const char *name, int fd)
{
    struct removal *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->fd = fd;
    (void)snprintf(m->name, sizeof m->name, "%s", name); /* a name of a folder's entry */
    list_append(&r->removals, &m->node);
    return m;
}

static void removal_free(struct removal *m)
{
    list_remove(&m->node);
    fd_close(&m->fd);
    free(m);
}

static int unlink_now(const struct registry *r, const char *name)
{
    return unlinkat(r->config.artifacts_dir, name, 0) < 0 && errno != ENOENT ? -1 : 0;
}

static bool starts_with(const char *name, const char *prefix)
{
    return str_starts(str_from(name), str_from(prefix));
}

int registry_remove(struct registry *r, const char *name)
{
    int folder = r->config.artifacts_dir;
    struct stat info;
    char aside[REMOVED_NAME_BYTES], random[SUFFIX_CHARACTERS + 1];
    if (fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -1;
    if (!S_ISREG(info.st_mode) || info.st_size <= (off_t)LIMIT_REMOVE_SLICE_BYTES)
        return unlink_now(r, name);
    if (!starts_with(name, REGISTRY_UPLOAD_PREFIX) && !starts_with(name, REGISTRY_REMOVED_PREFIX)) {
        /* Its name is free at once, for the same content may be uploaded again before its turn comes. */
        random_base62(random, SUFFIX_CHARACTERS);
        (void)snprintf(aside, sizeof aside, REGISTRY_REMOVED_PREFIX "%s", random); /* fits by construction */
        if (renameat(folder, name, folder, aside) < 0)
            return errno == ENOENT ? 0 : unlink_now(r, name);
        name = aside;
    }
    return removal_new(r, name, -1) ? 0 : unlink_now(r, name);
}

/* 1: it is to be freed in slices. 0: it is small, or has another name. */
static int removal_look(struct removal *m)
{
    struct stat info;
    if (fstat(m->fd, &info) < 0 || info.st_nlink > 0 || info.st_size <= (off_t)LIMIT_REMOVE_SLICE_BYTES)
        return 0;
    m->bytes = (uint64_t)info.st_size;
    m->inode = info.st_ino;
    return 1;
}

void registry_remove_fd(struct registry *r, int *fd)
{
    if (*fd < 0)
        return;
    struct removal *m = removal_new(r, "", take_fd(fd));
    if (m && !removal_look(m))
        removal_free(m);
}

/* Its name goes first, so that whatever comes then nothing of it stays. 1: it is open now. */
static int removal_open(struct registry *r, struct removal *m)
{
    m->fd = openat(r->config.artifacts_dir, m->name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (unlink_now(r, m->name) < 0)
        return 0; /* the next start's sweep tries again */
    return m->fd >= 0 && removal_look(m);
}

/* A copy that is under way reads on to its end. */
static bool is_read(const struct registry *r, const struct removal *m)
{
    for (const struct list *node = r->copies.next; node != &r->copies; node = node->next)
        if (registry_copy_reads(node, m->inode))
            return true;
    return false;
}

bool registry_removing(const struct registry *r)
{
    return !list_empty(&r->removals);
}

void registry_remove_step(struct registry *r)
{
    assert(registry_removing(r));
    struct removal *m = container_of(r->removals.next, struct removal, node);
    if (m->fd < 0 && !removal_open(r, m)) {
        removal_free(m);
        return;
    }
    if (is_read(r, m)) { /* behind the others */
        list_remove(&m->node);
        list_append(&r->removals, &m->node);
        return;
    }
    m->bytes -= m->bytes < LIMIT_REMOVE_SLICE_BYTES ? m->bytes : LIMIT_REMOVE_SLICE_BYTES;
    if (ftruncate(m->fd, (off_t)m->bytes) < 0 || m->bytes == 0)
        removal_free(m);
}

void registry_removals_end(struct registry *r)
{
    list_each_safe(node, &r->removals) removal_free(container_of(node, struct removal, node));
}
