/* A folder that a model names as its source: packed into one file without a name, always to the same bytes. */
#include "base/bundle.h"
#include "cli_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEPTH_MAX  16u
#define COPY_BYTES (256 * KIB)

struct folder {
    int fd;
    struct bundle_file *files; /* [LIMIT_FOLDER_FILES] */
    size_t n_files;
    char *why; /* [CLI_FOLDER_WHY_BYTES] */
};

static int refuse(struct folder *f, const char *name, const char *what)
{
    (void)snprintf(f->why, CLI_FOLDER_WHY_BYTES, "%s%s%s", name, name[0] ? ": " : "", what); /* a longer text is cut */
    return -ERROR_REFUSED;
}

/* Below the folder and by no link, whatever happens to it meanwhile. */
static int open_inside(const struct folder *f, const char *name, uint64_t flags)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, f->fd, name, &how, sizeof how);
}

static int take_file(struct folder *f, const char *name, const struct stat *info)
{
    if (!bundle_name_valid(str_from(name)))
        return refuse(f, name, "a file in a folder needs a name of UTF-8 without control characters");
    if (f->n_files == LIMIT_FOLDER_FILES)
        return refuse(f, "", "more files than a folder may hold, 1024");
    struct bundle_file *file = &f->files[f->n_files++];
    *file = (struct bundle_file){.size = (uint64_t)info->st_size};
    return str_copy(str_from(name), file->name, sizeof file->name) < 0 ? -ERROR_REFUSED : 0; /* it is valid: fits */
}

static int walk(struct folder *f, const char *name, unsigned depth);

static int take_entry(struct folder *f, const char *name, unsigned depth)
{
    struct stat info;
    _close_ int fd = open_inside(f, name, 0);
    if (fd < 0 && errno == ELOOP)
        return refuse(f, name, "a symbolic link; put the file itself there");
    if (fd < 0 && errno == ENXIO)
        return refuse(f, name, "neither a file nor a folder");
    if (fd < 0 || fstat(fd, &info) < 0)
        return refuse(f, name, strerrordesc_np(errno));
    if (S_ISDIR(info.st_mode))
        return depth == DEPTH_MAX ? refuse(f, name, "folders in folders too deeply") : walk(f, name, depth + 1);
    return S_ISREG(info.st_mode) ? take_file(f, name, &info) : refuse(f, name, "neither a file nor a folder");
}

/* All in the folder of that name; "" is the whole one. */
static int walk(struct folder *f, const char *name, unsigned depth)
{
    int fd = open_inside(f, name[0] ? name : ".", O_DIRECTORY);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        int r = refuse(f, name, strerrordesc_np(errno));
        fd_close(&fd);
        return r;
    }
    int r = 0;
    struct dirent *entry;
    while (r >= 0 && (entry = readdir(dir))) {
        char path[LIMIT_FOLDER_NAME_BYTES + 2];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int length = snprintf(path, sizeof path, "%s%s%s", name, name[0] ? "/" : "", entry->d_name);
        r = length < 0 || (size_t)length > LIMIT_FOLDER_NAME_BYTES
                ? refuse(f, entry->d_name, "with its folders a name of more than 255 bytes")
                : take_entry(f, path, depth);
    }
    (void)closedir(dir); /* nothing was written through it */
    return r;
}

static int write_at(int fd, const char *data, size_t size, uint64_t offset)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(fd, data + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        done += (size_t)n;
    }
    return 0;
}

static int copy_file(struct folder *f, const struct bundle_file *file, int to)
{
    _free_ char *chunk = malloc(COPY_BYTES);
    _close_ int from = open_inside(f, file->name, 0);
    if (!chunk || from < 0)
        return refuse(f, file->name, chunk ? strerrordesc_np(errno) : "out of memory");
    for (uint64_t done = 0; done < file->size;) {
        uint64_t left = file->size - done;
        ssize_t n = read(from, chunk, left < COPY_BYTES ? (size_t)left : COPY_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return refuse(f, file->name, strerrordesc_np(errno));
        if (n == 0)
            return refuse(f, file->name, "it became shorter while it was read");
        if (write_at(to, chunk, (size_t)n, file->offset + done) < 0)
            return refuse(f, "", "the packed folder cannot be written to the folder of temporary files (TMPDIR)");
        done += (uint64_t)n;
    }
    return 0;
}

static int pack(struct folder *f, int *ret_fd, uint64_t *ret_bytes)
{
    _buf_ struct buf head;
    buf_init(&head, MIB);
    uint64_t bytes = 0;
    int r = walk(f, "", 0);
    if (r < 0)
        return r;
    if (f->n_files == 0)
        return refuse(f, "", "the folder is empty");
    r = bundle_layout(f->files, f->n_files, &head, &bytes);
    if (r < 0)
        return refuse(f, "", r == -ERROR_LIMIT ? "more than the 1 TiB that an artifact may have" : "out of memory");
    const char *temporary = getenv("TMPDIR");
    _close_ int fd = open(temporary && temporary[0] ? temporary : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 || write_at(fd, head.data, head.size, 0) < 0)
        return refuse(f, "", "the packed folder cannot be written to the folder of temporary files (TMPDIR)");
    for (size_t i = 0; r >= 0 && i < f->n_files; i++)
        r = copy_file(f, &f->files[i], fd);
    if (r < 0)
        return r;
    *ret_bytes = bytes;
    *ret_fd = take_fd(&fd);
    return 0;
}

int cli_folder_pack(int folder, int *ret_fd, uint64_t *ret_bytes, char why[static CLI_FOLDER_WHY_BYTES])
{
    struct folder f = {.fd = folder, .files = calloc(LIMIT_FOLDER_FILES, sizeof *f.files), .why = why};
    int r = f.files ? pack(&f, ret_fd, ret_bytes) : refuse(&f, "", "out of memory");
    free(f.files);
    return r;
}
