#include "isolate/isolate_rootfs.h"

#include "base/limits.h"
#include "base/memory.h"
#include "isolate/isolate_image.h"
#include "isolate/isolate_root.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>

#define COPY_BYTES_MAX (2 * GIB) /* one library; CUDA's largest have 1 GiB */
#define DIGEST_BYTES   32u
#define READ_BYTES     65536u
#define FILE_MODE      0555
#define FOLDER_MODE    0755
#define REMOVE_FDS     8

static const char *const mount_points[] = {"/dev", "/proc", "/tmp"};

static int refuse(struct error *err, const char *what)
{
    return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The container's root file system could not be made: %s: %m.",
                     what);
}

/* A path of the root as seen from its folder. */
static const char *relative(const char *path)
{
    return path[1] ? path + 1 : ".";
}

/* ---- building ---- */

static int entry_add(struct rootfs *root, const char *path, struct error *err)
{
    for (size_t i = root->_n_image; i < root->_n_entries; i++) { /* in an image each stands once */
        if (strcmp(root->_entries[i].path, path) == 0)
            return 0;
    }
    errno = EMLINK;
    if (root->_n_entries == LIMIT_IMAGE_FILES + ROOTFS_ENTRIES_MAX)
        return refuse(err, "too many files");
    struct rootfs_entry *entries =
        memory_array_room(root->_entries, root->_n_entries, &root->_capacity, sizeof *entries);
    if (!entries)
        return error_set_default(err, ERROR_NO_MEMORY);
    root->_entries = entries;
    char *kept = strdup(path);
    if (!kept)
        return error_set_default(err, ERROR_NO_MEMORY);
    root->_entries[root->_n_entries++] = (struct rootfs_entry){.path = kept};
    return 0;
}

static int folder_add(struct rootfs *root, int dir, const char *path, struct error *err)
{
    if (mkdirat(dir, path + 1, FOLDER_MODE) != 0 && errno != EEXIST)
        return refuse(err, "a folder");
    if (fchmodat(dir, path + 1, FOLDER_MODE, 0) != 0)
        return refuse(err, "a folder's mode");
    return entry_add(root, path, err);
}

static int parents_add(struct rootfs *root, int dir, const char *path, struct error *err)
{
    char part[PATH_MAX];
    int r = 0;
    for (const char *slash = strchr(path + 1, '/'); r == 0 && slash; slash = strchr(slash + 1, '/')) {
        memcpy(part, path, (size_t)(slash - path)); /* shorter than path, which fits */
        part[slash - path] = '\0';
        r = folder_add(root, dir, part, err);
    }
    return r;
}

static int file_add(struct rootfs *root, int dir, const char *path, int from, struct error *err)
{
    struct stat info;
    if (strlen(path) >= PATH_MAX || path[0] != '/' || fstat(from, &info) != 0 || info.st_size < 0 ||
        (uint64_t)info.st_size > COPY_BYTES_MAX) {
        errno = EFBIG;
        return refuse(err, "a file");
    }
    int r = parents_add(root, dir, path, err);
    if (r != 0)
        return r;
    _close_ int to = openat(dir, path + 1, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0700);
    if (to < 0)
        return refuse(err, "a file");
    for (off_t offset = 0; offset < info.st_size;) {
        ssize_t n = sendfile(to, from, &offset, (size_t)(info.st_size - offset));
        if (n <= 0 && !(n < 0 && errno == EINTR))
            return refuse(err, "copying a file");
    }
    if (fchmod(to, FILE_MODE) != 0)
        return refuse(err, "a file's mode");
    return entry_add(root, path, err);
}

/* Where a file of the host's goes. In an image all of them lie apart from what the image has itself. */
static const char *place_of(const struct rootfs *root, const char *path, bool loader, char *buffer, size_t capacity)
{
    if (!root->_has_image || strcmp(path, ISOLATE_LIBRARY_PATH) == 0)
        return path;
    const char *slash = strrchr(path, '/');
    (void)snprintf(buffer, capacity, "%s/%s", ROOTFS_IMAGE_LIBS, slash ? slash + 1 : path); /* shorter than PATH_MAX */
    return loader ? ROOTFS_IMAGE_LOADER : buffer;
}

static void command_set(struct rootfs *root, bool loader)
{
    /* Nothing of the image's is linked in: not by its cache, and a preload file it cannot have. */
    static const char *const by_loader[] = {ROOTFS_IMAGE_LOADER, "--inhibit-cache", "--library-path", ROOTFS_IMAGE_LIBS,
                                            ROOTFS_IMAGE_PROGRAM};
    _Static_assert(sizeof by_loader / sizeof *by_loader < ROOTFS_COMMAND_MAX, "a NULL fits behind it");
    if (root->_has_image && loader)
        memcpy(root->command, by_loader, sizeof by_loader);
    else
        root->command[0] = root->_has_image ? ROOTFS_IMAGE_LOADER : ROOTFS_PROGRAM;
}

static int tree_fill(struct rootfs *root, int dir, const struct rootfs_parts *parts, struct error *err)
{
    static struct isolate_root_files files; /* 256 KiB: not for the stack */
    static char buffer[PATH_MAX + sizeof ROOTFS_IMAGE_LIBS];
    files.n_files = 0;
    int r = isolate_root_files_find(parts->program_fd, parts->library_fd, ISOLATE_LIBRARY_PATH, &files, err);
    command_set(root, files.n_files > 0); /* the first one */
    for (size_t i = 0; r == 0 && i < files.n_files; i++)
        r = file_add(root, dir, place_of(root, files.files[i].path, i == 0, buffer, sizeof buffer), files.files[i].fd,
                     err);
    isolate_root_files_done(&files);
    if (r == 0)
        r = file_add(root, dir, root->command[1] ? ROOTFS_IMAGE_PROGRAM : root->command[0], parts->program_fd, err);
    for (size_t i = 0; r == 0 && i < sizeof mount_points / sizeof *mount_points; i++)
        r = folder_add(root, dir, mount_points[i], err);
    return r;
}

/* ---- an image ---- */

static struct rootfs *walked; /* nftw hands nothing through */
static struct error *walk_err;

/* Nothing but folders, files and links, none with a bit of its own; given to root, so that no worker owns any of it. */
static int walk_visit(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)type;
    mode_t kind = info->st_mode & S_IFMT;
    const char *inside = path + strlen(walked->path);
    errno = EPERM;
    if ((kind != S_IFDIR && kind != S_IFREG && kind != S_IFLNK) || (info->st_mode & 07000) != 0 ||
        (kind == S_IFREG && info->st_nlink != 1) || lchown(path, 0, 0) != 0)
        return refuse(walk_err, "its image");
    return where->level == 0 ? 0 : entry_add(walked, inside, walk_err);
}

static int image_walk(struct rootfs *root, struct error *err)
{
    walked = root;
    walk_err = err;
    int r = nftw(root->path, walk_visit, REMOVE_FDS, FTW_PHYS | FTW_MOUNT);
    return r == -1 ? refuse(err, "its image") : r;
}

/* ---- the digest ---- */

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct rootfs_entry *)a)->path, ((const struct rootfs_entry *)b)->path);
}

static void hex(const unsigned char bytes[static DIGEST_BYTES], char text[static ROOTFS_DIGEST_BYTES])
{
    for (size_t i = 0; i < DIGEST_BYTES; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]); /* fits */
}

/* SHA-256 of the file's content; of nothing for a folder. */
static bool content_digest(int fd, bool folder, char text[static ROOTFS_DIGEST_BYTES])
{
    unsigned char bytes[EVP_MAX_MD_SIZE], chunk[READ_BYTES];
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    bool good = hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1;
    for (ssize_t n = 1; good && !folder && n > 0;) {
        n = read(fd, chunk, sizeof chunk);
        good = n >= 0 && EVP_DigestUpdate(hash, chunk, (size_t)n) == 1;
    }
    good = good && EVP_DigestFinal_ex(hash, bytes, NULL) == 1;
    EVP_MD_CTX_free(hash);
    if (good)
        hex(bytes, text);
    return good;
}

/* Reads one entry back, keeps what it looks like, and adds its line to the digest of the whole. */
static bool entry_digest(struct rootfs_entry *entry, int dir, EVP_MD_CTX *whole)
{
    static char line[PATH_MAX + 2 * LIMIT_IMAGE_PATH_BYTES];
    char content[LIMIT_IMAGE_PATH_BYTES + 1];
    if (fstatat(dir, relative(entry->path), &entry->seen, AT_SYMLINK_NOFOLLOW) != 0)
        return false;
    if (S_ISLNK(entry->seen.st_mode)) {
        ssize_t size = readlinkat(dir, relative(entry->path), content, sizeof content);
        int n = size <= 0 || (size_t)size == sizeof content
                    ? -1
                    : snprintf(line, sizeof line, "%o %zd %.*s %s\n", (unsigned)entry->seen.st_mode, size, (int)size,
                               content, entry->path);
        return n > 0 && (size_t)n < sizeof line && EVP_DigestUpdate(whole, line, (size_t)n) == 1;
    }
    _close_ int fd = openat(dir, relative(entry->path), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &entry->seen) != 0 || !content_digest(fd, S_ISDIR(entry->seen.st_mode), content))
        return false;
    bool folder = S_ISDIR(entry->seen.st_mode);
    int n = snprintf(line, sizeof line, "%o %lld %s %s\n", (unsigned)entry->seen.st_mode,
                     folder ? 0LL : (long long)entry->seen.st_size, content, entry->path);
    return n > 0 && (size_t)n < sizeof line && EVP_DigestUpdate(whole, line, (size_t)n) == 1;
}

/* Reads the finished tree back: one line per entry, in order of paths. */
static int tree_digest(struct rootfs *root, int dir, struct error *err)
{
    unsigned char bytes[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *whole = EVP_MD_CTX_new();
    bool good = whole && EVP_DigestInit_ex(whole, EVP_sha256(), NULL) == 1;
    qsort(root->_entries, root->_n_entries, sizeof *root->_entries, by_path);
    for (size_t i = 0; good && i < root->_n_entries; i++)
        good = entry_digest(&root->_entries[i], dir, whole);
    good = good && EVP_DigestFinal_ex(whole, bytes, NULL) == 1;
    EVP_MD_CTX_free(whole);
    if (good)
        hex(bytes, root->digest);
    return good ? 0 : refuse(err, "its digest");
}

int rootfs_build(const char *path, const struct rootfs_parts *parts, struct rootfs *ret_root, struct error *err)
{
    struct rootfs root = {._has_image = parts->image != NULL};
    (void)snprintf(root.path, sizeof root.path, "%s", path); /* callers' paths are short */
    int r = mkdir(path, FOLDER_MODE) != 0 || chmod(path, FOLDER_MODE) != 0 ? refuse(err, "its folder") : 0;
    _close_ int dir = r == 0 ? open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (r == 0 && dir < 0)
        r = refuse(err, "its folder");
    if (r == 0 && parts->image)
        r = rootfs_image_unpack(dir, parts, err);
    if (r == 0)
        r = entry_add(&root, "/", err);
    if (r == 0 && parts->image)
        r = image_walk(&root, err);
    root._n_image = root._n_entries;
    if (r == 0)
        r = tree_fill(&root, dir, parts, err);
    if (r == 0)
        r = tree_digest(&root, dir, err);
    if (r != 0) {
        rootfs_done(&root);
        return r;
    }
    *ret_root = root;
    return 0;
}

/* ---- later ---- */

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_mode == b->st_mode && a->st_uid == b->st_uid &&
           a->st_gid == b->st_gid && a->st_size == b->st_size && a->st_nlink == b->st_nlink &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

int rootfs_check(const struct rootfs *root, struct error *err)
{
    _close_ int dir = open(root->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool good = dir >= 0;
    for (size_t i = 0; good && i < root->_n_entries; i++) {
        struct stat now;
        good = fstatat(dir, relative(root->_entries[i].path), &now, AT_SYMLINK_NOFOLLOW) == 0 &&
               same(&now, &root->_entries[i].seen);
    }
    return good ? 0
                : error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                            "The container's root file system was changed after its digest was taken: restart the "
                            "server, and find out who did it.");
}

static int remove_visit(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)where;
    (void)(type == FTW_DP || type == FTW_DNR ? rmdir(path) : unlink(path)); /* as far as it can */
    return 0;
}

void rootfs_remove(const char *path)
{
    (void)nftw(path, remove_visit, REMOVE_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void rootfs_done(struct rootfs *root)
{
    if (root->path[0])
        rootfs_remove(root->path);
    for (size_t i = 0; i < root->_n_entries; i++)
        free(root->_entries[i].path);
    free(root->_entries);
    *root = (struct rootfs){0};
}
