/* A folder that behaves like cgroup v2 as far as our code can tell: control files appear with a new group, controllers
 * must be handed down level by level, a group with processes cannot hand down, a busy group cannot be removed.
 * Included by a test before it includes the sources under test, whose mkdirat, unlinkat and write it replaces. Rules
 * from the kernel's Documentation/admin-guide/cgroup-v2.rst. Static functions: one test program each. */
#ifndef BULKHEAD_TEST_ISOLATE_FAKE_CGROUPFS_H
#define BULKHEAD_TEST_ISOLATE_FAKE_CGROUPFS_H

#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char fake_top[128];     /* the mount point */
static int fake_mkdir_errno;   /* when set, making a group fails so */
static bool fake_root_is_real; /* the real root group may hold processes and hand down all the same */

static const struct {
    const char *controller, *file, *text;
} fake_files[] = {
    {NULL, "cgroup.procs", ""},
    {NULL, "cgroup.kill", ""},
    {NULL, "cgroup.subtree_control", ""},
    {"memory", "memory.max", "max\n"},
    {"memory", "memory.swap.max", "max\n"},
    {"memory", "memory.oom.group", "0\n"},
    {"memory", "memory.current", "4096\n"},
    {"memory", "memory.peak", "8192\n"},
    {"memory", "memory.events", "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n"},
    {"cpu", "cpu.max", "max 100000\n"},
    {"cpu", "cpu.weight", "100\n"},
    {"cpu", "cpu.stat", "usage_usec 1234\nuser_usec 1000\nsystem_usec 234\n"},
    {"cpuset", "cpuset.cpus", ""},
    {"cpuset", "cpuset.cpus.effective", "0-3\n"},
    {"io", "io.weight", "default 100\n"},
    {"io", "io.bfq.weight", "default 100\n"},
    {"blkio", "blkio.bfq.weight", "100\n"}, /* v1 */
    {"pids", "pids.max", "max\n"},
    {"pids", "pids.current", "5\n"},
};

static void fake_put(const char *folder, const char *file, const char *text)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *out = fopen(path, "we");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

/* Static storage. */
static const char *fake_get(const char *folder, const char *file)
{
    static char text[4096];
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *in = fopen(path, "re");
    if (!in)
        return NULL;
    size_t size = fread(text, 1, sizeof text - 1, in);
    text[size] = '\0';
    fclose(in);
    return text;
}

static bool fake_has(const char *folder, const char *file)
{
    return fake_get(folder, file) != NULL;
}

static bool fake_listed(const char *folder, const char *file, const char *word)
{
    const char *list = fake_get(folder, file);
    size_t size = strlen(word);
    for (; list && *list; list += strcspn(list, " \n"), list += strspn(list, " \n")) {
        if (strncmp(list, word, size) == 0 && strchr(" \n", list[size]))
            return true;
    }
    return false;
}

/* The files of a group follow from what its parent hands down. */
static void fake_populate(const char *folder, const char *controllers)
{
    fake_put(folder, "cgroup.controllers", controllers);
    for (size_t i = 0; i < sizeof fake_files / sizeof *fake_files; i++) {
        bool here = !fake_files[i].controller || fake_listed(folder, "cgroup.controllers", fake_files[i].controller);
        if (here && !fake_has(folder, fake_files[i].file))
            fake_put(folder, fake_files[i].file, fake_files[i].text);
    }
}

static void fake_populate_children(const char *folder)
{
    char controllers[256], path[PATH_MAX];
    snprintf(controllers, sizeof controllers, "%s", fake_get(folder, "cgroup.subtree_control"));
    DIR *dir = opendir(folder);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        fake_populate(path, controllers);
    }
    closedir(dir);
}

static void fake_path(int dir, const char *name, char path[static PATH_MAX])
{
    char link[64], folder[PATH_MAX / 2];
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t size = readlink(link, folder, sizeof folder - 1);
    assert_true(size > 0);
    folder[size] = '\0';
    snprintf(path, PATH_MAX, "%s%s%s", folder, name[0] ? "/" : "", name);
}

static int fake_mkdirat(int dir, const char *name, mode_t mode)
{
    if (fake_mkdir_errno) {
        errno = fake_mkdir_errno;
        return -1;
    }
    if (mkdirat(dir, name, mode) != 0)
        return -1;
    char parent[PATH_MAX], path[PATH_MAX], controllers[256];
    fake_path(dir, "", parent);
    fake_path(dir, name, path);
    snprintf(controllers, sizeof controllers, "%s", fake_get(parent, "cgroup.subtree_control"));
    fake_populate(path, controllers);
    return 0;
}

static int fake_unlinkat(int dir, const char *name, int flags)
{
    char path[PATH_MAX];
    fake_path(dir, name, path);
    const char *procs = fake_get(path, "cgroup.procs");
    DIR *inside = opendir(path);
    if (!inside)
        return -1;
    bool busy = procs && procs[0];
    for (struct dirent *entry; (entry = readdir(inside));)
        busy |= entry->d_type == DT_DIR && entry->d_name[0] != '.';
    rewinddir(inside);
    for (struct dirent *entry; !busy && (entry = readdir(inside));) {
        if (entry->d_type == DT_REG)
            unlinkat(dirfd(inside), entry->d_name, 0);
    }
    closedir(inside);
    if (busy) {
        errno = EBUSY;
        return -1;
    }
    return unlinkat(dir, name, flags);
}

static ssize_t fake_delegate(const char *folder, const char *text)
{
    char list[256], more[300];
    const char *procs = fake_get(folder, "cgroup.procs");
    if (procs[0] && !(fake_root_is_real && strcmp(folder, fake_top) == 0)) {
        errno = EBUSY;
        return -1;
    }
    if (text[0] != '+' || !fake_listed(folder, "cgroup.controllers", text + 1)) {
        errno = ENOENT;
        return -1;
    }
    snprintf(list, sizeof list, "%s", fake_get(folder, "cgroup.subtree_control"));
    list[strcspn(list, "\n")] = '\0';
    snprintf(more, sizeof more, "%s%s%s\n", list, list[0] ? " " : "", text + 1);
    fake_put(folder, "cgroup.subtree_control", more);
    fake_populate_children(folder);
    return (ssize_t)strlen(text);
}

static ssize_t fake_write(int fd, const void *data, size_t size)
{
    char path[PATH_MAX], text[256];
    fake_path(fd, "", path);
    char *file = strrchr(path, '/');
    *file++ = '\0';
    snprintf(text, sizeof text, "%.*s", (int)size, (const char *)data);
    if (strcmp(file, "cgroup.subtree_control") == 0)
        return fake_delegate(path, text);
    if (strcmp(file, "cgroup.kill") == 0)
        fake_put(path, "cgroup.procs", "");
    if (ftruncate(fd, 0) != 0)
        return -1;
    return write(fd, data, size);
}

/* An empty tree with these controllers at its root, and the two files that describe it. */
static void fake_tree_make(const char *controllers)
{
    fake_mkdir_errno = 0;
    fake_root_is_real = true;
    snprintf(fake_top, sizeof fake_top, "/tmp/bulkhead-cgroupfs-XXXXXX");
    assert_non_null(mkdtemp(fake_top));
    fake_populate(fake_top, controllers);
    fake_put(fake_top, "cgroup.procs", "1\n");
}

static void fake_group_make(const char *path, const char *procs)
{
    char folder[PATH_MAX], parent[PATH_MAX];
    snprintf(folder, sizeof folder, "%s%s", fake_top, path);
    snprintf(parent, sizeof parent, "%s", folder);
    *strrchr(parent, '/') = '\0';
    assert_int_equal(mkdir(folder, 0755), 0);
    char controllers[256];
    snprintf(controllers, sizeof controllers, "%s", fake_get(parent, "cgroup.subtree_control"));
    fake_populate(folder, controllers);
    fake_put(folder, "cgroup.procs", procs);
}

static void fake_remove(const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char path[PATH_MAX];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_type == DT_DIR)
            fake_remove(path);
        else
            unlink(path);
    }
    closedir(dir);
    assert_int_equal(rmdir(folder), 0);
}

#endif
