/* Finds the hierarchies of this host and makes our folder in each.
 *
 * v1: each controller has a mount of its own (or shares one); our folder lies below our own group.
 * v2: one mount for all controllers that v1 does not hold. A group that holds processes cannot hand controllers down
 * ("no internal processes"), and our own group holds at least ourselves; so unless it is the real root, our folder
 * lies at the root of the mount. */
#include "isolate/isolate_cgroup.h"

#include "base/buf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define SOURCE_BYTES_MAX MIB /* a host with thousands of container mounts has some 100 KiB */

const struct cgroup_source cgroup_source_host = {"/proc/self/mountinfo", "/proc/self/cgroup"};

static const char *const controller_names[CGROUP_CONTROLLER_COUNT] = {
    [CGROUP_MEMORY] = "memory",   [CGROUP_CPU] = "cpu",       [CGROUP_PIDS] = "pids",
    [CGROUP_CPUACCT] = "cpuacct", [CGROUP_CPUSET] = "cpuset", [CGROUP_IO] = "io",
};
#define IO_NAME_V1 "blkio"

struct mount {
    struct str root, point; /* still escaped */
    int version;
    unsigned controllers; /* v1 */
    struct str options;   /* of the hierarchy: "rw,cpuset", "rw,name=systemd" */
};

static int file_load(int dir, const char *path, struct buf *ret_text)
{
    _close_ int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (;;) {
        char *space = buf_reserve(ret_text, 4096);
        if (!space)
            return -ENOMEM;
        ssize_t n = read(fd, space, 4096);
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        buf_commit(ret_text, (size_t)n);
    }
}

/* Cuts the text before the next separator off the front of *rest. */
static struct str part_next(struct str *rest, char separator)
{
    const char *end = rest->size > 0 ? memchr(rest->data, separator, rest->size) : NULL;
    struct str part = {rest->data, end ? (size_t)(end - rest->data) : rest->size};
    *rest = end ? str_skip(*rest, part.size + 1) : (struct str){0};
    return part;
}

static unsigned controllers_parse(struct str list, char separator)
{
    unsigned bits = 0;
    while (list.size > 0) {
        struct str name = part_next(&list, separator);
        for (unsigned c = 0; c < CGROUP_CONTROLLER_COUNT; c++) {
            if (str_equal(name, str_from(controller_names[c])))
                bits |= 1u << c;
        }
        if (str_equal(name, STR(IO_NAME_V1)))
            bits |= 1u << CGROUP_IO;
    }
    return bits;
}

/* proc(5): id parent major:minor root point options [optional…] - type source super-options */
static bool mount_parse(struct str line, struct mount *ret_mount)
{
    struct str fields[6];
    for (size_t i = 0; i < 6; i++)
        fields[i] = part_next(&line, ' ');
    while (line.size > 0 && !str_equal(part_next(&line, ' '), STR("-")))
        ;
    struct str type = part_next(&line, ' ');
    (void)part_next(&line, ' ');
    ret_mount->root = fields[3];
    ret_mount->point = fields[4];
    ret_mount->version = str_equal(type, STR("cgroup")) ? 1 : str_equal(type, STR("cgroup2")) ? 2 : 0;
    ret_mount->controllers = controllers_parse(line, ',');
    ret_mount->options = line;
    return ret_mount->version != 0 && ret_mount->point.size > 0;
}

/* Our own group in the hierarchy of these controllers (0: the v2 one), e.g. "/system.slice/x". Empty when unknown. */
static struct str own_group(struct str self, unsigned controllers)
{
    while (self.size > 0) {
        struct str line = part_next(&self, '\n');
        (void)part_next(&line, ':');
        struct str names = part_next(&line, ':');
        if (controllers ? (controllers_parse(names, ',') & controllers) != 0 : names.size == 0)
            return line;
    }
    return (struct str){0};
}

/* mountinfo writes blanks and backslashes as \ooo (proc(5)). */
static void append_unescaped(struct buf *b, struct str s)
{
    for (size_t i = 0; i < s.size; i++) {
        if (s.data[i] == '\\' && i + 3 < s.size) {
            buf_append_char(b, (char)((s.data[i + 1] - '0') * 64 + (s.data[i + 2] - '0') * 8 + (s.data[i + 3] - '0')));
            i += 3;
        } else {
            buf_append_char(b, s.data[i]);
        }
    }
}

/* The folder of `group` as seen through the mount, or the mount point itself when the mount does not show it (another
 * part of the hierarchy, or a group outside our cgroup namespace, which reads "/../x"). */
static int group_path(const struct mount *m, struct str group, char path[static PATH_MAX])
{
    _buf_ struct buf b;
    buf_init(&b, PATH_MAX - 1);
    append_unescaped(&b, m->point);
    if (str_starts(group, STR("/.."))) {
        /* the mount point */
    } else if (str_equal(m->root, STR("/"))) {
        if (!str_equal(group, STR("/")))
            buf_append_str(&b, group);
    } else if (str_starts(group, m->root) && (group.size == m->root.size || group.data[m->root.size] == '/')) {
        buf_append_str(&b, str_skip(group, m->root.size));
    }
    return str_copy((struct str){b.data, b.failed ? PATH_MAX : b.size}, path, PATH_MAX);
}

static void home_close(struct cgroup_home *h)
{
    fd_close(&h->base_fd);
    fd_close(&h->parent_fd);
}

/* Makes `base` below the folder of h->path. 0 or -errno; on failure nothing is left open. */
static int home_open(struct cgroup_home *h, const char *base)
{
    h->base_fd = -1;
    h->parent_fd = open(h->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (h->parent_fd < 0)
        return -errno;
    /* 0700: the figures of one tenant's group are no other tenant's business. */
    int r = mkdirat(h->parent_fd, base, 0700) != 0 && errno != EEXIST ? -errno : 0;
    if (r == 0)
        h->base_fd = openat(h->parent_fd, base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r == 0 && h->base_fd < 0)
        r = -errno;
    if (r != 0)
        home_close(h);
    return r;
}

/* Controllers named in a v2 file of this folder. */
static unsigned v2_controllers(int dir, const char *file)
{
    _buf_ struct buf b;
    buf_init(&b, 64 * KIB);
    if (file_load(dir, file, &b) != 0)
        return 0;
    return controllers_parse(
        str_trim((struct str){b.data, b.size > 0 && b.data[b.size - 1] == '\n' ? b.size - 1 : b.size}), ' ');
}

/* Hands the wanted controllers down to the groups below; returns those that are handed down now. */
static unsigned v2_delegate(int dir, unsigned wanted)
{
    unsigned present = v2_controllers(dir, "cgroup.subtree_control");
    for (unsigned c = 0; c < CGROUP_CONTROLLER_COUNT; c++) {
        if (!(wanted & ~present & (1u << c)))
            continue;
        char text[32];
        int size = snprintf(text, sizeof text, "+%s", controller_names[c]);
        _close_ int fd = openat(dir, "cgroup.subtree_control", O_WRONLY | O_CLOEXEC);
        if (fd >= 0)
            (void)!write(fd, text, (size_t)size); /* the file is read again below: that is the answer */
    }
    return v2_controllers(dir, "cgroup.subtree_control") & wanted;
}

/* The controllers that can be used there; without one of the needed ones it is not made: 0. */
static unsigned v2_open_at(struct cgroup_home *h, const char *base, unsigned wanted, unsigned needed)
{
    if (home_open(h, base) != 0)
        return 0;
    unsigned usable = v2_delegate(h->parent_fd, wanted & v2_controllers(h->parent_fd, "cgroup.controllers"));
    usable = v2_delegate(h->base_fd, usable);
    if (!(usable & needed)) {
        usable = 0;
        (void)unlinkat(h->parent_fd, base, AT_REMOVEDIR); /* fails only when an earlier server's groups are in it */
        home_close(h);
    }
    return usable;
}

/* v1's blkio counts on every kernel, and knows weights only with some of the disks' schedulers. */
static bool v1_weighs(int group)
{
    static const char *const files[] = {"blkio.weight", "blkio.bfq.weight"};
    return faccessat(group, files[0], F_OK, 0) == 0 || faccessat(group, files[1], F_OK, 0) == 0;
}

static bool v2_has(const char *path, unsigned wanted)
{
    _close_ int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir >= 0 && (v2_controllers(dir, "cgroup.controllers") & wanted) != 0;
}

static void v2_add(struct cgroup_tree *t, const struct mount *m, struct str self, const char **reason)
{
    struct cgroup_home *h = &t->homes[t->n_homes];
    const struct str candidates[] = {own_group(self, 0), STR("/")};
    unsigned needed = CGROUP_LIMITS & ~t->controllers, welcome = CGROUP_WELCOME & ~t->controllers;
    unsigned wanted = needed | welcome;
    if (!needed) /* then a home is worth making for that alone */
        needed = welcome;
    for (size_t i = 0; i < 2 && needed; i++) {
        const struct mount whole = {.root = STR("/"), .point = m->point};
        /* The second one is the mount's root, whatever part of the hierarchy that shows. */
        if (group_path(i == 0 ? m : &whole, candidates[i], h->path) != 0 || !v2_has(h->path, needed))
            continue;
        unsigned usable = v2_open_at(h, t->base, wanted, needed);
        if (!usable) {
            *reason =
                "the cgroup v2 group holds processes and cannot hand its controllers down, or is read-only; start "
                "the server outside of a container or in one with its own writable cgroup";
            continue;
        }
        h->version = 2;
        h->controllers = usable;
        t->controllers |= usable;
        t->n_homes++;
        return;
    }
}

static void v1_add(struct cgroup_tree *t, const struct mount *m, struct str self, const char **reason)
{
    struct cgroup_home *h = &t->homes[t->n_homes];
    unsigned controllers = m->controllers & ~t->controllers;
    if (!controllers || group_path(m, own_group(self, controllers), h->path) != 0)
        return;
    int r = home_open(h, t->base);
    if (r != 0) {
        *reason = r == -EROFS ? "the cgroup folders are mounted read-only" : "the cgroup folders cannot be written";
        return;
    }
    h->version = 1;
    if (!v1_weighs(h->base_fd))
        controllers &= ~(1u << CGROUP_IO);
    h->controllers = controllers;
    /* Such as a cpuset without processors above: of no use, and no limit. */
    if (controllers == 0 || cgroup_cpus_inherit(h, NULL) != 0) {
        (void)unlinkat(h->parent_fd, t->base, AT_REMOVEDIR); /* fails only when an earlier server's groups are in it */
        home_close(h);
        return;
    }
    t->controllers |= controllers;
    t->n_homes++;
}

static void missing_describe(struct cgroup_tree *t, const char *reason)
{
    _buf_ struct buf b;
    buf_init(&b, sizeof t->missing - 1);
    for (unsigned c = 0; c < CGROUP_CONTROLLER_COUNT; c++) {
        if (CGROUP_LIMITS & ~t->controllers & (1u << c))
            buf_format(&b, "%s%s", b.size > 0 ? ", " : "", controller_names[c]);
    }
    if (b.size > 0)
        buf_format(&b, " cannot be limited: %s", reason);
    (void)snprintf(t->missing, sizeof t->missing, "%s", buf_terminate(&b)); /* fits */
}

int cgroup_tree_open(struct cgroup_tree *t, const struct cgroup_source *source, const char *scope, struct error *err)
{
    if (!scope[0] || strlen(scope) > LIMIT_NAME_BYTES || scope[strspn(scope, "abcdefghijklmnopqrstuvwxyz0123456789-")])
        return error_set(err, ERROR_INVALID_ARGUMENT, "The server's scope is not 1 to 63 of a-z, 0-9 and -.");
    *t = (struct cgroup_tree){0};
    (void)snprintf(t->base, sizeof t->base, "bulkhead.%s", scope); /* fits */

    const char *reason = "this host has no such cgroup controllers";
    _buf_ struct buf mountinfo, self;
    buf_init(&mountinfo, SOURCE_BYTES_MAX);
    buf_init(&self, SOURCE_BYTES_MAX);
    if (file_load(AT_FDCWD, source->mountinfo, &mountinfo) != 0 || file_load(AT_FDCWD, source->self, &self) != 0)
        reason = "there is no /proc that tells of cgroups";
    /* v1 first: a controller that is mounted there is not in v2 (cgroups(7)). */
    for (int version = 1; version <= 2; version++) {
        struct str rest = {mountinfo.data, mountinfo.size};
        while (rest.size > 0 && t->n_homes < CGROUP_HOMES_MAX) {
            struct mount m;
            if (!mount_parse(part_next(&rest, '\n'), &m) || m.version != version)
                continue;
            if (version == 1)
                v1_add(t, &m, (struct str){self.data, self.size}, &reason);
            else
                v2_add(t, &m, (struct str){self.data, self.size}, &reason);
        }
    }
    missing_describe(t, reason);
    return 0;
}

/* Our own group in whatever hierarchy this is. Empty when unknown. */
static struct str own_group_other(const struct mount *m, struct str self)
{
    while (m->version == 1 && self.size > 0) {
        struct str line = part_next(&self, '\n');
        (void)part_next(&line, ':');
        struct str names = part_next(&line, ':'), options = m->options;
        while (names.size > 0 && options.size > 0) {
            if (str_equal(part_next(&options, ','), names)) /* what is mounted together is one of ours */
                return line;
        }
    }
    return m->version == 2 ? own_group(self, 0) : (struct str){0};
}

static bool hierarchy_present(const struct cgroup_tree *t, const char *path)
{
    struct stat wanted, present;
    if (stat(path, &wanted) != 0)
        return true; /* as good as: it cannot be used */
    for (size_t i = 0; i < t->n_homes; i++) {
        if (fstat(t->homes[i].parent_fd, &present) == 0 && present.st_dev == wanted.st_dev)
            return true;
    }
    return false;
}

void cgroup_tree_add_others(struct cgroup_tree *t, const struct cgroup_source *source)
{
    _buf_ struct buf mountinfo, self;
    buf_init(&mountinfo, SOURCE_BYTES_MAX);
    buf_init(&self, SOURCE_BYTES_MAX);
    if (file_load(AT_FDCWD, source->mountinfo, &mountinfo) != 0 || file_load(AT_FDCWD, source->self, &self) != 0)
        return;
    struct str rest = {mountinfo.data, mountinfo.size};
    while (rest.size > 0 && t->n_homes < CGROUP_HOMES_MAX) {
        struct mount m;
        struct cgroup_home *h = &t->homes[t->n_homes];
        if (!mount_parse(part_next(&rest, '\n'), &m))
            continue;
        struct str group = own_group_other(&m, (struct str){self.data, self.size});
        if (group.size == 0 || group_path(&m, group, h->path) != 0 || hierarchy_present(t, h->path) ||
            home_open(h, t->base) != 0)
            continue;
        h->version = m.version;
        h->controllers = 0;
        h->other = true;
        t->n_homes++;
    }
}

void cgroup_tree_close(struct cgroup_tree *t)
{
    if (t->n_homes > 0)
        (void)cgroup_tree_sweep(t, 2000); /* what stays busy is the next server's to remove */
    for (size_t i = 0; i < t->n_homes; i++) {
        (void)unlinkat(t->homes[i].parent_fd, t->base, AT_REMOVEDIR); /* likewise */
        home_close(&t->homes[i]);
    }
    t->n_homes = 0;
    t->controllers = 0;
}

/* Whether v1 weighs io cannot be seen at its root, but at any group. */
static bool v1_weighs_below(const struct mount *m)
{
    char path[PATH_MAX];
    if (group_path(m, STR("/"), path) != 0)
        return false;
    DIR *dir = opendir(path);
    bool weighs = false;
    for (struct dirent *entry; dir && !weighs && (entry = readdir(dir));) {
        _close_ int group = entry->d_type == DT_DIR && entry->d_name[0] != '.'
                                ? openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                                : -1;
        weighs = group >= 0 && v1_weighs(group);
    }
    if (dir)
        (void)closedir(dir); /* read-only: nothing to lose */
    return weighs;
}

bool cgroup_describe(const struct cgroup_source *source, char *text, size_t capacity)
{
    const unsigned told = CGROUP_LIMITS | 1u << CGROUP_IO;
    unsigned found[3] = {0};
    bool mounted[3] = {false};
    _buf_ struct buf mountinfo, words;
    buf_init(&mountinfo, SOURCE_BYTES_MAX);
    buf_init(&words, 512);
    (void)file_load(AT_FDCWD, source->mountinfo, &mountinfo); /* without it there are none */
    struct str rest = {mountinfo.data, mountinfo.size};
    while (rest.size > 0) {
        struct mount m;
        char path[PATH_MAX];
        if (!mount_parse(part_next(&rest, '\n'), &m))
            continue;
        mounted[m.version] = true;
        if (m.version == 1 && m.controllers & (1u << CGROUP_IO) && !v1_weighs_below(&m))
            m.controllers &= ~(1u << CGROUP_IO);
        found[m.version] |= m.controllers;
        if (m.version != 2 || group_path(&m, STR("/"), path) != 0)
            continue;
        _close_ int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        found[2] |= dir >= 0 ? v2_controllers(dir, "cgroup.controllers") : 0;
    }
    for (int version = 1; version <= 2; version++) {
        if (mounted[version])
            buf_format(&words, "%sv%d:", words.size > 0 ? "; " : "", version);
        for (unsigned c = 0, n = 0; mounted[version] && c < CGROUP_CONTROLLER_COUNT; c++)
            if (found[version] & told & (1u << c))
                buf_format(&words, "%s %s", n++ > 0 ? "," : "", controller_names[c]);
        if (mounted[version] && !(found[version] & told))
            buf_append_text(&words, " no controllers for limits");
    }
    unsigned lacking = CGROUP_LIMITS & ~(found[1] | found[2]);
    if (words.size == 0)
        buf_append_text(&words, "none mounted");
    if (!((found[1] | found[2]) & (1u << CGROUP_IO)))
        buf_append_text(&words, "; disk io cannot be weighed");
    if (lacking)
        buf_append_text(&words, "; memory, cpu and pids cannot all be limited: mount cgroup v2 at /sys/fs/cgroup");
    (void)snprintf(text, capacity, "%s", buf_terminate(&words)); /* cut is fine: for people */
    return lacking == 0;
}
