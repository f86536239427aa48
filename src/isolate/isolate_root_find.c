/* Which files a worker's root must hold: the host's own loader is asked, since it knows the caches, the paths and the
 * variants for this processor. It lists a program's or library's dependencies without running any of their code. */
#include "isolate/isolate.h"
#include "isolate/isolate_root.h"

#include "base/buf.h"
#include "base/clock.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

#define LISTING_BYTES_MAX (64 * KIB)
#define LISTING_MS        10000u
#define SEGMENTS_MAX      64u
#define VARIANTS_OF       "libggml-base.so"
#define VARIANTS_PREFIX   "libggml-cpu-"
#define LIBC_NAME         "libc.so.6" /* its folder is one where the loader looks without any cache */

static int refuse(struct error *err, const char *text)
{
    return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The worker's root could not be prepared: %s.", text);
}

/* Reads PT_INTERP. "" for a program that is linked statically, and for what is no program: executing it will tell. */
static int interpreter_read(int program_fd, char path[static PATH_MAX], struct error *err)
{
    ElfW(Ehdr) head;
    path[0] = '\0';
    if (pread(program_fd, &head, sizeof head, 0) != (ssize_t)sizeof head || memcmp(head.e_ident, ELFMAG, SELFMAG) != 0)
        return 0;
    if (head.e_phentsize != sizeof(ElfW(Phdr)) || head.e_phnum > SEGMENTS_MAX)
        return refuse(err, "the program is not in this machine's format");
    for (unsigned i = 0; i < head.e_phnum; i++) {
        ElfW(Phdr) segment;
        off_t at = (off_t)(head.e_phoff + i * sizeof segment);
        if (pread(program_fd, &segment, sizeof segment, at) != (ssize_t)sizeof segment)
            return refuse(err, "the program is cut off");
        if (segment.p_type != PT_INTERP)
            continue;
        if (segment.p_filesz < 2 || segment.p_filesz > PATH_MAX ||
            pread(program_fd, path, segment.p_filesz, (off_t)segment.p_offset) != (ssize_t)segment.p_filesz ||
            path[segment.p_filesz - 1] != '\0' || path[0] != '/')
            return refuse(err, "the program names no loader");
        return 0;
    }
    return 0;
}

static int file_add(struct isolate_root_files *files, const char *path, int fd, struct error *err)
{
    _close_ int owned = fd;
    for (size_t i = 0; i < files->n_files; i++) {
        if (strcmp(files->files[i].path, path) == 0)
            return 0;
    }
    if (files->n_files == ISOLATE_ROOT_FILES_MAX)
        return refuse(err, "the engine needs too many libraries");
    if (strlen(path) >= PATH_MAX || strstr(path, "/../"))
        return refuse(err, "a library has no usable name");
    struct isolate_root_file *file = &files->files[files->n_files++];
    (void)snprintf(file->path, sizeof file->path, "%s", path); /* length was checked */
    file->fd = take_fd(&owned);
    return 0;
}

static int path_add(struct isolate_root_files *files, const char *path, const char *host_path, struct error *err)
{
    int fd = open(host_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "A library that the engine needs cannot be opened: %m.");
    return file_add(files, path, fd, err);
}

/* Collects the output until the end of the pipe; false when it does not come or is too long. */
static bool pipe_read(int fd, struct buf *text)
{
    uint64_t deadline_ns = clock_monotonic_ns() + LISTING_MS * NS_PER_MS;
    for (;;) {
        uint64_t now_ns = clock_monotonic_ns();
        struct pollfd end = {.fd = fd, .events = POLLIN};
        int n = poll(&end, 1, now_ns >= deadline_ns ? 0 : (int)((deadline_ns - now_ns) / NS_PER_MS) + 1);
        if (n < 0 && errno == EINTR)
            continue;
        char *space = n > 0 ? buf_reserve(text, 4096) : NULL;
        ssize_t size = space ? read(fd, space, 4096) : -1;
        if (size <= 0)
            return size == 0;
        buf_commit(text, (size_t)size);
    }
}

/* The folder that a file lies in; "" when nobody can tell. */
static void beside(int file_fd, char folder[static PATH_MAX])
{
    char link[32];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", file_fd); /* fits any int */
    ssize_t size = readlink(link, folder, PATH_MAX - 1);
    folder[size > 0 ? size : 0] = '\0';
    char *slash = strrchr(folder, '/');
    folder[slash ? slash - folder : 0] = '\0';
}

/* stdout is the pipe, descriptor 3 the file; no environment, so no LD_ variable of ours counts. The loader takes
 * $ORIGIN of a file given by descriptor for the descriptor's folder, so where its libraries lie is said again. */
static pid_t loader_spawn(const char *loader, const char *folder, int file_fd, int out_fd)
{
    char *const argv[] = {(char *)"ld.so",  (char *)"--library-path",  (char *)(uintptr_t)folder,
                          (char *)"--list", (char *)"/proc/self/fd/3", NULL};
    char *const environment[] = {NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t all, none;
    pid_t pid = -1;
    (void)sigfillset(&all);
    (void)sigemptyset(&none);
    if (posix_spawn_file_actions_init(&actions) != 0)
        return -1;
    if (posix_spawnattr_init(&attributes) != 0) {
        (void)posix_spawn_file_actions_destroy(&actions);
        return -1;
    }
    int r = posix_spawn_file_actions_adddup2(&actions, out_fd, 1);
    r = r ? r : posix_spawn_file_actions_adddup2(&actions, file_fd, 3);
    r = r ? r : posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    r = r ? r : posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    r = r ? r : posix_spawnattr_setsigdefault(&attributes, &all);
    r = r ? r : posix_spawnattr_setsigmask(&attributes, &none);
    r = r ? r : posix_spawn(&pid, loader, &actions, &attributes, argv, environment);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return r == 0 ? pid : -1;
}

static int listing_read(const char *loader, int file_fd, struct buf *text, struct error *err)
{
    int ends[2], status = -1;
    char folder[PATH_MAX];
    beside(file_fd, folder);
    /* Above 3, so that placing the file there overwrites neither. */
    if (pipe2(ends, O_CLOEXEC) != 0)
        return refuse(err, "there is no descriptor left");
    _close_ int in = ends[0], out = fcntl(ends[1], F_DUPFD_CLOEXEC, 4), file = fcntl(file_fd, F_DUPFD_CLOEXEC, 4);
    fd_close(&ends[1]);
    if (out < 0 || file < 0)
        return refuse(err, "there is no descriptor left");
    pid_t pid = loader_spawn(loader, folder, file, out);
    fd_close(&out);
    if (pid < 0)
        return refuse(err, "the host's loader cannot be executed");
    bool complete = pipe_read(in, text) && !text->failed;
    if (!complete)
        (void)kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!complete || status != 0)
        return refuse(err, "the host's loader cannot tell which libraries the engine needs; try `ldd` on its library");
    return 0;
}

/* "\tNAME => PATH (0x…)". Lines without => are the loader itself and what the kernel brings. */
static bool line_parse(struct str line, struct str *ret_name, struct str *ret_path)
{
    static const char arrow[] = " => ";
    const char *middle = memmem(line.data, line.size, arrow, sizeof arrow - 1);
    if (!middle)
        return false;
    *ret_name = str_trim((struct str){line.data, (size_t)(middle - line.data)});
    struct str rest = str_skip(line, (size_t)(middle - line.data) + sizeof arrow - 1);
    const char *end = memrchr(rest.data, '(', rest.size);
    *ret_path = str_trim((struct str){rest.data, end ? (size_t)(end - rest.data) : rest.size});
    return true;
}

static struct str line_next(struct str *rest)
{
    const char *end = memchr(rest->data, '\n', rest->size);
    struct str line = {rest->data, end ? (size_t)(end - rest->data) : rest->size};
    *rest = str_skip(*rest, line.size + (end ? 1 : 0));
    return line;
}

/* The folder that all libraries go to: the one that the C library comes from. "/lib" without one. */
static void folder_find(struct str listing, char folder[static PATH_MAX])
{
    (void)snprintf(folder, PATH_MAX, "/lib");
    while (listing.size > 0) {
        struct str name, path;
        if (!line_parse(line_next(&listing), &name, &path) || !str_equal(name, str_from(LIBC_NAME)))
            continue;
        const char *slash = memrchr(path.data, '/', path.size);
        struct str above = {path.data, slash ? (size_t)(slash - path.data) : 0};
        if (above.size > 0 && str_copy(above, folder, PATH_MAX) == 0)
            return;
    }
}

static int listing_add(struct str listing, const char *folder, struct isolate_root_files *files, struct error *err)
{
    while (listing.size > 0) {
        struct str name, path;
        char host_path[PATH_MAX], root_path[PATH_MAX + 256];
        if (!line_parse(line_next(&listing), &name, &path))
            continue;
        const char *slash = name.size > 0 ? memrchr(name.data, '/', name.size) : NULL;
        if (slash) /* the loader under its own path; it is there already */
            continue;
        if (path.size == 0 || path.data[0] != '/' || str_copy(path, host_path, sizeof host_path) != 0)
            return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                             "The engine needs the library %.*s, which this host does not have: install it, or make "
                             "it known to ldconfig.",
                             (int)(name.size < 100 ? name.size : 100), name.data);
        (void)snprintf(root_path, sizeof root_path, "%s/%.*s", folder, (int)(name.size < 250 ? name.size : 250),
                       name.data);
        int r = path_add(files, root_path, host_path, err);
        if (r != 0)
            return r;
    }
    return 0;
}

/* ggml opens the variant of its kernels for the processor by name, so no loader lists them: all of them come along,
 * from beside the library that they belong to. */
static int variants_add(struct str listing, const char *folder, struct isolate_root_files *files, struct error *err)
{
    char here[PATH_MAX] = "", path[PATH_MAX + 256], root_path[PATH_MAX + 256];
    while (listing.size > 0) {
        struct str name, where;
        if (line_parse(line_next(&listing), &name, &where) && str_equal(name, STR(VARIANTS_OF)) &&
            str_copy(where, here, sizeof here) == 0)
            break;
    }
    char *slash = strrchr(here, '/');
    if (!slash)
        return 0;
    *slash = '\0';
    DIR *entries = opendir(here);
    if (!entries)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The folder of engines cannot be read: %m.");
    int r = 0;
    for (const struct dirent *entry; r == 0 && (entry = readdir(entries)) != NULL;) {
        size_t size = strlen(entry->d_name);
        if (strncmp(entry->d_name, VARIANTS_PREFIX, sizeof VARIANTS_PREFIX - 1) != 0 || size < 3 ||
            strcmp(entry->d_name + size - 3, ".so") != 0)
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", here, entry->d_name);
        (void)snprintf(root_path, sizeof root_path, "%s/%s", folder, entry->d_name);
        r = path_add(files, root_path, path, err);
    }
    (void)closedir(entries);
    return r;
}

int isolate_root_files_find(int program_fd, int library_fd, const char *library_path, struct isolate_root_files *files,
                            struct error *err)
{
    char loader[PATH_MAX], folder[PATH_MAX];
    int r = interpreter_read(program_fd, loader, err);
    if (r != 0 || !loader[0])
        return r; /* a static program cannot load a library */
    _buf_ struct buf program_list, library_list;
    buf_init(&program_list, LISTING_BYTES_MAX);
    buf_init(&library_list, LISTING_BYTES_MAX);
    r = path_add(files, loader, loader, err);
    if (r == 0)
        r = listing_read(loader, program_fd, &program_list, err);
    if (r == 0 && library_fd >= 0)
        r = listing_read(loader, library_fd, &library_list, err);
    if (r != 0)
        return r;
    folder_find((struct str){program_list.data, program_list.size}, folder);
    r = listing_add((struct str){program_list.data, program_list.size}, folder, files, err);
    if (r == 0)
        r = listing_add((struct str){library_list.data, library_list.size}, folder, files, err);
    if (r == 0)
        r = variants_add((struct str){library_list.data, library_list.size}, folder, files, err);
    if (r == 0 && library_fd >= 0)
        r = file_add(files, library_path, fcntl(library_fd, F_DUPFD_CLOEXEC, 3), err);
    return r;
}

void isolate_root_files_done(struct isolate_root_files *files)
{
    for (size_t i = 0; i < files->n_files; i++)
        fd_close(&files->files[i].fd);
    files->n_files = 0;
}
