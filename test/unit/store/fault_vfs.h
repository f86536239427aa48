/* A disk that breaks: a SQLite VFS that lies over the real one, counts every operation that changes a file, and fails
 * the n-th. It also knows what would survive a power cut: per file what was synced, and the writes since then, of which
 * any subset may have reached the disk. Syncs are not passed on: the model makes them count, not the hardware. */
#ifndef TEST_UNIT_STORE_FAULT_VFS_H
#define TEST_UNIT_STORE_FAULT_VFS_H

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum fault_mode {
    FAULT_ONCE = 0,  /* one operation fails with an I/O error, a write half done */
    FAULT_FROM,      /* it and every later one */
    FAULT_FULL,      /* one write finds the disk full, half done */
    FAULT_POWER_CUT, /* as FROM; then fault_power_cut() takes from the files what was not synced */
    FAULT_SYNC_LOST, /* one sync fails, and what it should have written never reaches the disk, though it can be read:
                        what Linux does with pages whose write-back failed */
    FAULT_MODE_COUNT
};

struct fault_write { /* since the last sync; data NULL: a truncation to `offset` */
    sqlite3_int64 offset;
    size_t size;
    char *data;
};

struct fault_image { /* what the disk holds of one file */
    char path[PATH_MAX];
    bool exists;
    char *synced;
    size_t synced_size;
    struct fault_write *writes;
    size_t n_writes;
};

enum { FAULT_IMAGES = 4 };

enum fault_operation { FAULT_WRITE, FAULT_SYNC, FAULT_OTHER };

static struct {
    sqlite3_vfs *real;
    sqlite3_vfs vfs;
    enum fault_mode mode;
    long at;    /* 0 = never */
    long count; /* operations so far */
    bool hit;
    uint64_t random;
    struct fault_image images[FAULT_IMAGES];
} fault;

struct fault_file {
    sqlite3_file base;
    struct fault_image *image; /* NULL: a file we do not model (temporary) */
    sqlite3_file *real;        /* behind this struct */
};

static inline sqlite3_file *fault_real(sqlite3_file *file)
{
    return ((struct fault_file *)file)->real;
}

static inline bool fault_now(enum fault_operation operation)
{
    fault.count++;
    bool meant = fault.mode == FAULT_FULL        ? operation == FAULT_WRITE
                 : fault.mode == FAULT_SYNC_LOST ? operation == FAULT_SYNC
                                                 : true;
    if (fault.at > 0 && fault.count == fault.at && meant)
        return fault.hit = true;
    return fault.hit && (fault.mode == FAULT_FROM || fault.mode == FAULT_POWER_CUT);
}

static inline struct fault_image *fault_image_of(const char *path)
{
    struct fault_image *free_one = NULL;
    for (size_t i = 0; path && i < FAULT_IMAGES; i++) {
        if (strcmp(fault.images[i].path, path) == 0)
            return &fault.images[i];
        if (!free_one && !fault.images[i].path[0])
            free_one = &fault.images[i];
    }
    assert(!path || free_one);
    if (free_one)
        memcpy(free_one->path, path, strlen(path) + 1);
    return free_one;
}

static inline void fault_forget_writes(struct fault_image *image)
{
    for (size_t i = 0; i < image->n_writes; i++)
        free(image->writes[i].data);
    free(image->writes);
    image->writes = NULL;
    image->n_writes = 0;
}

static inline void fault_note(struct fault_image *image, sqlite3_int64 offset, const void *data, size_t size)
{
    if (!image)
        return;
    image->writes = reallocarray(image->writes, image->n_writes + 1, sizeof *image->writes);
    struct fault_write *w = &image->writes[image->n_writes++];
    *w = (struct fault_write){.offset = offset, .size = size, .data = data ? malloc(size ? size : 1) : NULL};
    if (data)
        memcpy(w->data, data, size);
}

/* Puts one write into what the disk holds. */
static inline void fault_apply(struct fault_image *image, const struct fault_write *w)
{
    size_t end = (size_t)w->offset + w->size;
    if (end > image->synced_size || !w->data) {
        image->synced = realloc(image->synced, end ? end : 1);
        if (end > image->synced_size)
            memset(image->synced + image->synced_size, 0, end - image->synced_size);
        image->synced_size = end;
    }
    if (w->data)
        memcpy(image->synced + w->offset, w->data, w->size);
}

/* What the file holds now is on the disk. */
static inline void fault_settle(struct fault_image *image)
{
    int fd = open(image->path, O_RDONLY | O_CLOEXEC);
    struct stat status = {0};
    image->exists = fd >= 0;
    free(image->synced);
    image->synced = NULL;
    image->synced_size = 0;
    if (fd >= 0 && fstat(fd, &status) == 0 && status.st_size > 0) {
        image->synced = malloc((size_t)status.st_size);
        image->synced_size = (size_t)status.st_size;
        ssize_t got = pread(fd, image->synced, image->synced_size, 0);
        assert(got == status.st_size);
    }
    if (fd >= 0)
        close(fd);
    fault_forget_writes(image);
}

static inline int fault_close(sqlite3_file *file)
{
    return fault_real(file)->pMethods->xClose(fault_real(file));
}

static inline int fault_read(sqlite3_file *file, void *data, int size, sqlite3_int64 offset)
{
    return fault_real(file)->pMethods->xRead(fault_real(file), data, size, offset);
}

static inline int fault_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    struct fault_image *image = ((struct fault_file *)file)->image;
    bool fails = fault_now(FAULT_WRITE);
    int written = fails ? size / 2 : size;
    fault_note(image, offset, data, (size_t)written);
    int code = fault_real(file)->pMethods->xWrite(fault_real(file), data, written, offset);
    return fails ? (fault.mode == FAULT_FULL ? SQLITE_FULL : SQLITE_IOERR_WRITE) : code;
}

static inline int fault_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    if (fault_now(FAULT_OTHER))
        return SQLITE_IOERR_TRUNCATE;
    fault_note(((struct fault_file *)file)->image, size, NULL, 0);
    return fault_real(file)->pMethods->xTruncate(fault_real(file), size);
}

static inline int fault_sync(sqlite3_file *file, int flags)
{
    (void)flags;
    struct fault_image *image = ((struct fault_file *)file)->image;
    bool fails = fault_now(FAULT_SYNC);
    for (size_t i = 0; image && !fails && i < image->n_writes; i++)
        fault_apply(image, &image->writes[i]);
    if (image && (!fails || fault.mode == FAULT_SYNC_LOST))
        fault_forget_writes(image);
    return fails ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}

static inline int fault_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return fault_real(file)->pMethods->xFileSize(fault_real(file), size);
}

static inline int fault_lock(sqlite3_file *file, int lock)
{
    return fault_real(file)->pMethods->xLock(fault_real(file), lock);
}

static inline int fault_unlock(sqlite3_file *file, int lock)
{
    return fault_real(file)->pMethods->xUnlock(fault_real(file), lock);
}

static inline int fault_check_lock(sqlite3_file *file, int *reserved)
{
    return fault_real(file)->pMethods->xCheckReservedLock(fault_real(file), reserved);
}

static inline int fault_control(sqlite3_file *file, int op, void *arg)
{
    return fault_real(file)->pMethods->xFileControl(fault_real(file), op, arg);
}

static inline int fault_sector(sqlite3_file *file)
{
    return fault_real(file)->pMethods->xSectorSize(fault_real(file));
}

static inline int fault_device(sqlite3_file *file)
{
    return fault_real(file)->pMethods->xDeviceCharacteristics(fault_real(file));
}

/* Version 1: no shared memory and no mapping, so a store that wanted either would not open at all. */
static const sqlite3_io_methods fault_methods = {
    .iVersion = 1,
    .xClose = fault_close,
    .xRead = fault_read,
    .xWrite = fault_write,
    .xTruncate = fault_truncate,
    .xSync = fault_sync,
    .xFileSize = fault_size,
    .xLock = fault_lock,
    .xUnlock = fault_unlock,
    .xCheckReservedLock = fault_check_lock,
    .xFileControl = fault_control,
    .xSectorSize = fault_sector,
    .xDeviceCharacteristics = fault_device,
};

static inline int fault_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
    (void)vfs;
    struct fault_file *f = (struct fault_file *)file;
    file->pMethods = NULL;
    if (fault_now(FAULT_OTHER))
        return SQLITE_CANTOPEN;
    bool is_new = name && access(name, F_OK) != 0;
    f->real = (sqlite3_file *)(f + 1);
    int code = fault.real->xOpen(fault.real, name, f->real, flags, ret_flags);
    if (code != SQLITE_OK)
        return code;
    f->image = fault_image_of(name);
    if (f->image && (is_new || !f->image->exists))
        fault_settle(f->image); /* what was there before us is on the disk; so is a new, empty file */
    file->pMethods = &fault_methods;
    return SQLITE_OK;
}

static inline int fault_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs;
    if (fault_now(FAULT_OTHER))
        return SQLITE_IOERR_DELETE;
    int code = fault.real->xDelete(fault.real, name, sync);
    fault_settle(fault_image_of(name));
    return code;
}

/* Becomes the default VFS. Once per process, after the first store was opened (which registers ours). */
static inline void fault_register(void)
{
    fault.real = sqlite3_vfs_find(NULL);
    fault.vfs = *fault.real;
    fault.vfs.zName = "fault";
    fault.vfs.pNext = NULL;
    fault.vfs.szOsFile = (int)sizeof(struct fault_file) + fault.real->szOsFile;
    fault.vfs.xOpen = fault_open;
    fault.vfs.xDelete = fault_delete;
    int code = sqlite3_vfs_register(&fault.vfs, 1);
    assert(code == SQLITE_OK);
}

static inline void fault_forget(void)
{
    for (size_t i = 0; i < FAULT_IMAGES; i++) {
        fault_forget_writes(&fault.images[i]);
        free(fault.images[i].synced);
        memset(&fault.images[i], 0, sizeof fault.images[i]);
    }
}

/* Starts counting anew; the at-th operation fails (0: none). */
static inline void fault_arm(enum fault_mode mode, long at, uint64_t seed)
{
    fault_forget();
    fault.mode = mode;
    fault.at = at;
    fault.count = 0;
    fault.hit = false;
    fault.random = seed;
}

static inline uint64_t fault_random(void)
{
    fault.random = fault.random * 6364136223846793005u + 1442695040888963407u;
    return fault.random >> 33;
}

/* No further failure; what the disk holds stays known. */
static inline void fault_disarm(void)
{
    fault.at = 0;
    fault.hit = false;
}

/* With every file closed: makes each hold what was synced and a random part of what was not. */
static inline void fault_power_cut(void)
{
    for (size_t i = 0; i < FAULT_IMAGES; i++) {
        struct fault_image *image = &fault.images[i];
        if (!image->path[0] || !image->exists)
            continue;
        uint64_t all = fault_random() % 4; /* 0: none of it, 1: all of it, else a subset */
        for (size_t w = 0; w < image->n_writes; w++)
            if (all == 1 || (all > 1 && fault_random() % 2))
                fault_apply(image, &image->writes[w]);
        fault_forget_writes(image);
        int fd = open(image->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert(fd >= 0);
        ssize_t n = pwrite(fd, image->synced ? image->synced : "", image->synced_size, 0);
        assert(n == (ssize_t)image->synced_size);
        close(fd);
    }
}

#endif
