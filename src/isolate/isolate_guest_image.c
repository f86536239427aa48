#include "isolate/isolate_guest_image.h"

#include "base/limits.h"
#include "isolate/isolate_guest.h"
#include "isolate/isolate_root.h"
#include "isolate/isolate_runtime.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define PROGRAM      "bulkhead-guest" /* beside this program */
#define PROGRAM_OCI  "bulkhead-guest-oci"
#define IMAGE_SEALS  (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)
#define FOLDER_MODE  (S_IFDIR | 0755u)
#define PROGRAM_MODE (S_IFREG | 0755u)
#define CONSOLE_MODE (S_IFCHR | 0600u)

/* In the order in which they must be loaded. */
static const struct {
    const char *name, *folder; /* below /lib/modules/VERSION/kernel */
} modules[ISOLATE_GUEST_N_MODULES] = {
    {"virtio_ring", "drivers/virtio"},  {"virtio", "drivers/virtio"},    {"virtio_mmio", "drivers/virtio"},
    {"virtio_console", "drivers/char"}, {"virtio_blk", "drivers/block"}, {"af_alg", "crypto"},
    {"algif_hash", "crypto"},
};

/* --- finding --- */

static int self_beside(const char *name, char path[static PATH_MAX])
{
    char self[PATH_MAX];
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    if (size <= 0)
        return -ERROR_IO;
    self[size] = '\0';
    char *slash = strrchr(self, '/');
    if (!slash)
        return -ERROR_IO;
    *slash = '\0';
    int length = snprintf(path, PATH_MAX, "%s/%s", self, name);
    return length > 0 && length < PATH_MAX ? 0 : -ERROR_LIMIT;
}

/* What is not there is taken to be built into the kernel (as Debian 13 does with some of them): whether it is, the
 * probe finds out by booting it. */
static int module_open(struct isolate_guest_kernel *k, size_t i, const char *folder)
{
    static const char *const suffixes[] = {"", ".xz", ".zst", ".gz"};
    for (size_t s = 0; s < sizeof suffixes / sizeof *suffixes; s++) {
        char path[PATH_MAX];
        int length = snprintf(path, sizeof path, "%s/%s.ko%s", folder, modules[i].name, suffixes[s]);
        if (length <= 0 || (size_t)length >= sizeof path)
            return -ERROR_LIMIT;
        k->module_fds[i] = open(path, O_RDONLY | O_CLOEXEC);
        if (k->module_fds[i] < 0)
            continue;
        (void)snprintf(k->module_names[i], sizeof k->module_names[i], "%02zu-%s.ko%s", i, modules[i].name,
                       suffixes[s]); /* fits */
        return 0;
    }
    return errno == ENOENT ? 0 : -ERROR_IO;
}

static bool beside_open(struct isolate_guest_kernel *k)
{
    char folder[PATH_MAX], path[PATH_MAX + 16];
    if (self_beside("guest", folder) < 0)
        return false;
    (void)snprintf(path, sizeof path, "%s/vmlinuz", folder); /* fits */
    k->kernel_fd = open(path, O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; k->kernel_fd >= 0 && i < ISOLATE_GUEST_N_MODULES; i++)
        if (module_open(k, i, folder) < 0)
            return false;
    (void)snprintf(k->version, sizeof k->version, "guest/vmlinuz, beside bulkhead");
    return k->kernel_fd >= 0;
}

static bool boot_open(struct isolate_guest_kernel *k)
{
    DIR *boot = opendir("/boot");
    char found[sizeof k->version] = "", path[PATH_MAX];
    for (struct dirent *entry; boot && (entry = readdir(boot));)
        if (strncmp(entry->d_name, "vmlinuz-", 8) == 0 && strstr(entry->d_name, "-cloud-") &&
            strlen(entry->d_name + 8) < sizeof found && strverscmp(entry->d_name + 8, found) > 0)
            (void)snprintf(found, sizeof found, "%s", entry->d_name + 8); /* length was checked */
    if (boot)
        (void)closedir(boot);
    if (!found[0])
        return false;
    (void)snprintf(path, sizeof path, "/boot/vmlinuz-%s", found); /* fits */
    k->kernel_fd = open(path, O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; k->kernel_fd >= 0 && i < ISOLATE_GUEST_N_MODULES; i++) {
        (void)snprintf(path, sizeof path, "/lib/modules/%s/kernel/%s", found, modules[i].folder); /* fits */
        if (module_open(k, i, path) < 0)
            return false;
    }
    memcpy(k->version, found, sizeof k->version);
    return k->kernel_fd >= 0;
}

static void kernel_init(struct isolate_guest_kernel *k)
{
    *k = (struct isolate_guest_kernel){.kernel_fd = -1};
    for (size_t i = 0; i < ISOLATE_GUEST_N_MODULES; i++)
        k->module_fds[i] = -1;
}

int isolate_guest_kernel_find(struct isolate_guest_kernel *ret_kernel, struct error *err)
{
    struct isolate_guest_kernel k;
    kernel_init(&k);
    bool found = beside_open(&k);
    if (!found) {
        isolate_guest_kernel_done(&k);
        kernel_init(&k);
        found = boot_open(&k);
    }
    if (!found) {
        isolate_guest_kernel_done(&k);
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "no kernel for guests found; for level microvm: apt install linux-image-cloud-amd64");
    }
    *ret_kernel = k;
    return 0;
}

void isolate_guest_kernel_done(struct isolate_guest_kernel *k)
{
    fd_close(&k->kernel_fd);
    for (size_t i = 0; i < ISOLATE_GUEST_N_MODULES; i++)
        fd_close(&k->module_fds[i]);
}

/* --- the archive --- */

struct image {
    int fd;
    uint64_t bytes;
    uint32_t inode;
    int result; /* sticky */
};

static void put(struct image *m, const void *data, size_t size)
{
    const char *from = data;
    while (size > 0 && m->result == 0) {
        ssize_t n = write(m->fd, from, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            m->result = -ERROR_NO_MEMORY;
            return;
        }
        from += n;
        size -= (size_t)n;
        m->bytes += (uint64_t)n;
    }
}

static void align(struct image *m)
{
    static const char zeros[4];
    put(m, zeros, (size_t)(-m->bytes & 3));
}

/* The head of a member; its `size` bytes of content follow, then align(). */
static void member(struct image *m, const char *name, uint32_t mode, uint32_t size, dev_t device)
{
    char head[128];
    size_t name_bytes = strlen(name) + 1;
    m->inode++;
    int length = snprintf(head, sizeof head, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", m->inode,
                          mode, 0u, 0u, 1u, 0u, size, 0u, 0u, major(device), minor(device), (unsigned)name_bytes, 0u);
    put(m, head, (size_t)length);
    put(m, name, name_bytes);
    align(m);
}

/* The folders above a path. The same one may come again: the kernel's unpacker takes it as it is. */
static void folders(struct image *m, const char *path)
{
    char part[PATH_MAX];
    (void)snprintf(part, sizeof part, "%s", path); /* paths of a root are below PATH_MAX */
    for (char *slash = strchr(part, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        member(m, part, FOLDER_MODE, 0, 0);
        *slash = '/';
    }
}

/* `path` is absolute in the guest. */
static void file(struct image *m, const char *path, int fd)
{
    static char piece[256 * KIB];
    struct stat st;
    if (m->result == 0 && (fstat(fd, &st) != 0 || st.st_size <= 0 || st.st_size > (off_t)GIB))
        m->result = -ERROR_IO;
    if (m->result != 0)
        return;
    folders(m, path + 1);
    member(m, path + 1, PROGRAM_MODE, (uint32_t)st.st_size, 0);
    for (off_t done = 0; done < st.st_size && m->result == 0;) {
        size_t want = (size_t)(st.st_size - done) < sizeof piece ? (size_t)(st.st_size - done) : sizeof piece;
        ssize_t n = pread(fd, piece, want, done);
        if (n <= 0) {
            m->result = -ERROR_IO;
            return;
        }
        put(m, piece, (size_t)n);
        done += n;
    }
    align(m);
}

static void modules_put(struct image *m, const struct isolate_guest_kernel *k)
{
    for (size_t i = 0; i < ISOLATE_GUEST_N_MODULES; i++) {
        char path[96];
        if (k->module_fds[i] < 0)
            continue;                                                                       /* built into the kernel */
        (void)snprintf(path, sizeof path, ISOLATE_GUEST_MODULES "/%s", k->module_names[i]); /* fits */
        file(m, path, k->module_fds[i]);
    }
}

/* The worker and what it and its engine need, each where it is on this host; likewise init and runtime of one that runs
 * in a container. What several need stands once. */
static int programs_put(struct image *m, const struct isolate_guest_parts *parts, int init_fd, struct error *err)
{
    _free_ struct isolate_root_files *files = calloc(1, sizeof *files);
    if (!files)
        return error_set_default(err, ERROR_NO_MEMORY);
    int r = isolate_root_files_find(parts->worker_fd, parts->library_fd, ISOLATE_GUEST_LIBRARY, files, err);
    if (r == 0 && parts->runtime_fd >= 0)
        r = isolate_root_files_find(init_fd, -1, NULL, files, err);
    if (r == 0 && parts->runtime_fd >= 0)
        r = isolate_root_files_find(parts->runtime_fd, -1, NULL, files, err);
    for (size_t i = 0; r == 0 && i < files->n_files; i++)
        file(m, files->files[i].path, files->files[i].fd);
    isolate_root_files_done(files);
    if (r == 0)
        file(m, ISOLATE_GUEST_WORKER, parts->worker_fd);
    if (r == 0 && parts->runtime_fd >= 0)
        file(m, ISOLATE_GUEST_RUNTIME, parts->runtime_fd);
    return r;
}

int isolate_guest_runtime_open(int *ret_fd, struct error *err)
{
    char path[PATH_MAX];
    struct runtime runtime;
    runtime_find(ISOLATE_RUNTIME_CRUN, &runtime);
    int fd = runtime.path[0] ? open(runtime.path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "this host has no program crun to put into a guest: apt install crun");
    if (self_beside(PROGRAM_OCI, path) < 0 || access(path, X_OK) != 0) {
        (void)close(fd); /* nothing was written */
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "the program " PROGRAM_OCI " is not beside bulkhead; build it with `make build`");
    }
    *ret_fd = fd;
    return 0;
}

int isolate_guest_image_build(const struct isolate_guest_kernel *kernel, const struct isolate_guest_parts *parts,
                              int *ret_fd, uint64_t *ret_bytes, struct error *err)
{
    char path[PATH_MAX];
    const char *program = parts->runtime_fd >= 0 ? PROGRAM_OCI : PROGRAM;
    _close_ int init = self_beside(program, path) < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (init < 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "the program %s is not beside bulkhead; build it with `make build`", program);
    _close_ int fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct image m = {.fd = fd, .result = fd < 0 ? -ERROR_NO_MEMORY : 0};
    member(&m, "dev", FOLDER_MODE, 0, 0);
    member(&m, "dev/console", CONSOLE_MODE, 0, makedev(5, 1)); /* the kernel opens it for process 1 */
    file(&m, ISOLATE_GUEST_INIT, init);
    modules_put(&m, kernel);
    int r = parts->worker_fd >= 0 ? programs_put(&m, parts, init, err) : 0;
    member(&m, "TRAILER!!!", 0, 0, 0);
    if (r == 0 && m.result == 0 && fcntl(fd, F_ADD_SEALS, IMAGE_SEALS) != 0)
        m.result = -ERROR_IO;
    if (r == 0 && m.result != 0)
        r = error_set(err, m.result, "the guest's memory file system cannot be put together: %m");
    if (r != 0)
        return r;
    *ret_bytes = m.bytes;
    *ret_fd = take_fd(&fd);
    return 0;
}
