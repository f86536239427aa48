#include "isolate/isolate_landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

/* Rights by bit, as the kernel numbers them (landlock(7)): headers of a distribution know only those of its day. */
enum {
    FS_EXECUTE = 0,
    FS_WRITE_FILE = 1,
    FS_READ_FILE = 2,
    FS_READ_DIR = 3,
    FS_REMOVE_FILE = 5,
    FS_MAKE_REG = 8,
    FS_MAKE_SYM = 12, /* the last one of version 1 */
    FS_REFER = 13,
    FS_TRUNCATE = 14,
    FS_IOCTL_DEV = 15,
};
#define BIT(right)      (UINT64_C(1) << (right))
#define FS_VERSION_1    (BIT(FS_MAKE_SYM + 1) - 1)
#define NET_BOTH        UINT64_C(3) /* bind and connect of TCP */
#define SCOPED_BOTH     UINT64_C(3) /* abstract unix sockets, signals */
#define VERSION_NET     4
#define VERSION_SCOPED  6
#define VERSION_REQUEST 1u /* LANDLOCK_CREATE_RULESET_VERSION */

struct ruleset { /* struct landlock_ruleset_attr of version 6 */
    uint64_t handled_fs, handled_net, scoped;
};

static const struct {
    const char *path;
    uint64_t rights;
} allowed[] = {
    {"/", BIT(FS_READ_FILE) | BIT(FS_READ_DIR)}, /* at level process: the loader's files and nothing else */
    {"/dev", BIT(FS_WRITE_FILE)},
    {"/tmp", BIT(FS_WRITE_FILE) | BIT(FS_TRUNCATE) | BIT(FS_MAKE_REG) | BIT(FS_REMOVE_FILE)},
};

int isolate_landlock_version(void)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, VERSION_REQUEST);
    return version > 0 && version < 1000 ? (int)version : 0;
}

/* All rights that this version of the kernel can take away. */
static struct ruleset ruleset_of(int version)
{
    struct ruleset r = {.handled_fs = FS_VERSION_1};
    r.handled_fs |= version >= 2 ? BIT(FS_REFER) : 0;
    r.handled_fs |= version >= 3 ? BIT(FS_TRUNCATE) : 0;
    r.handled_fs |= version >= 5 ? BIT(FS_IOCTL_DEV) : 0;
    r.handled_net = version >= VERSION_NET ? NET_BOTH : 0;
    r.scoped = version >= VERSION_SCOPED ? SCOPED_BOTH : 0;
    return r;
}

/* The kernel refuses a struct that is longer than it knows unless the rest is zero: which it is. */
static size_t ruleset_bytes(int version)
{
    if (version >= VERSION_SCOPED)
        return sizeof(struct ruleset);
    return version >= VERSION_NET ? offsetof(struct ruleset, scoped) : offsetof(struct ruleset, handled_net);
}

static int rule_add(int ruleset_fd, const char *path, uint64_t rights)
{
    _close_ int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1; /* a right on nothing */
    const struct landlock_path_beneath_attr beneath = {.allowed_access = rights, .parent_fd = fd};
    return (int)syscall(SYS_landlock_add_rule, ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0);
}

int isolate_landlock_apply(struct error *err)
{
    int version = isolate_landlock_version();
    if (version == 0)
        return 0;
    const struct ruleset ruleset = ruleset_of(version);
    _close_ int fd = (int)syscall(SYS_landlock_create_ruleset, &ruleset, ruleset_bytes(version), 0);
    if (fd < 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "Landlock refuses the worker's rules: %m.");
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        if (rule_add(fd, allowed[i].path, allowed[i].rights & ruleset.handled_fs) != 0)
            return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "Landlock refuses the rule for %s: %m.",
                             allowed[i].path);
    }
    if (syscall(SYS_landlock_restrict_self, fd, 0) != 0)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The worker could not restrict itself by Landlock: %m.");
    return 0;
}
