#include "isolate/isolate_host.h"

#include "base/buf.h"
#include "isolate/isolate_guest_image.h"
#include "isolate/isolate_internal.h"
#include "isolate/isolate_rootless.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444 /* the same on every architecture; Linux 5.13 */
#endif
#define LANDLOCK_VERSION_FLAG 1u /* LANDLOCK_CREATE_RULESET_VERSION */

static void fact_set(struct isolate_fact *f, bool good, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void fact_set(struct isolate_fact *f, bool good, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    f->good = good;
    (void)vsnprintf(f->text, sizeof f->text, format, args); /* cut is fine: for people */
    va_end(args);
}

/* The first line of a small file; false when it cannot be read. */
static bool line_read(const char *path, char *line, size_t capacity)
{
    FILE *file = fopen(path, "re");
    bool got = file && fgets(line, (int)capacity, file);
    if (file)
        (void)fclose(file);
    if (got)
        line[strcspn(line, "\n")] = '\0';
    return got;
}

bool isolate_program_find(const char *name, char *path, size_t capacity)
{
    static const char *const folders[] = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin",
                                          "/usr/bin",        "/sbin",          "/bin"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        int size = snprintf(path, capacity, "%s/%s", folders[i], name);
        if (size > 0 && (size_t)size < capacity && access(path, X_OK) == 0)
            return true;
    }
    return false;
}

/* Does `attempt` work? In a child, so that nothing of it stays. 0 or an errno. */
static int try_in_child(int (*attempt)(void))
{
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        return errno;
    if (pid == 0)
        _exit(attempt() == 0 ? 0 : errno > 0 && errno < 255 ? errno : 255);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static void fact_os(struct isolate_fact *f)
{
    char line[160] = "";
    FILE *file = fopen("/etc/os-release", "re");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "PRETTY_NAME=", 12) == 0) {
            char *end = strpbrk(line + 13, "\"\n");
            if (end)
                *end = '\0';
            break;
        }
    if (file)
        (void)fclose(file);
    fact_set(f, true, "%s", strncmp(line, "PRETTY_NAME=", 12) == 0 ? line + 13 : "unknown");
}

static void fact_kernel(struct isolate_fact *f)
{
    struct utsname name;
    if (uname(&name) != 0) {
        fact_set(f, false, "unknown");
        return;
    }
    bool pidfds =
        syscall(SYS_pidfd_open, getpid(), 1u << 31) < 0 && errno == EINVAL; /* ENOSYS: there is no such call */
    bool ranges = syscall(SYS_close_range, ~0u, ~0u, 1u << 31) < 0 && errno == EINVAL;
    if (pidfds && ranges)
        fact_set(f, true, "Linux %s, %s", name.release, name.machine);
    else
        fact_set(f, false, "Linux %s, %s: too old, the server needs 5.10 or newer", name.release, name.machine);
}

static void fact_user(struct isolate_fact *f)
{
    char ids[200];
    if (geteuid() == 0) {
        fact_set(f, true, "root");
        return;
    }
    bool enough = isolate_rootless_describe(ids, sizeof ids);
    fact_set(f, false,
             "a plain user (uid %u): %s%s. Root would add limits by control groups and ids of the host's own: try sudo "
             "bulkhead doctor",
             (unsigned)geteuid(), enough ? "the server runs in a user namespace, with " : "", ids);
}

static void fact_cgroups(struct isolate_fact *f)
{
    f->good = cgroup_describe(&cgroup_source_host, f->text, sizeof f->text);
}

static int user_namespace(void)
{
    return unshare(CLONE_NEWUSER);
}

static void fact_user_namespaces(struct isolate_fact *f)
{
    char most[32] = "?";
    (void)line_read("/proc/sys/user/max_user_namespaces", most, sizeof most);
    int r = try_in_child(user_namespace);
    if (r == 0)
        fact_set(f, true, "work (at most %s)", most);
    else
        fact_set(f, false,
                 "cannot be made: %s; look at the sysctls user.max_user_namespaces (here %s), "
                 "kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns",
                 strerrordesc_np(r) ? strerrordesc_np(r) : "refused", most);
}

static void fact_landlock(struct isolate_fact *f)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION_FLAG);
    if (version > 0)
        fact_set(f, true, "ABI %ld", version);
    else if (errno == EOPNOTSUPP)
        fact_set(f, false, "in the kernel, but switched off: add landlock to the boot option lsm=");
    else
        fact_set(f, false, "not in this kernel; Debian 12 and newer have it");
}

static void fact_seccomp(struct isolate_fact *f)
{
    uint32_t action = SECCOMP_RET_ERRNO;
    bool filters = syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
    fact_set(f, filters, "%s",
             filters ? "filters work" : "this kernel has no system call filters (CONFIG_SECCOMP_FILTER)");
}

static void fact_kvm(struct isolate_fact *f)
{
    _close_ int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        fact_set(f, false, "%s; a virtual machine then runs in software, many times slower",
                 errno == ENOENT ? "there is no /dev/kvm: virtualisation is off in the firmware, or this is a virtual "
                                   "machine without nested virtualisation"
                 : errno == EACCES ? "/dev/kvm may not be opened: join the group kvm"
                                   : "/dev/kvm cannot be opened");
        return;
    }
    int vm = ioctl(fd, KVM_CREATE_VM, 0);
    if (vm >= 0)
        (void)close(vm);
    fact_set(f, vm >= 0, "%s",
             vm >= 0 ? "opens, and makes a machine (whether a guest boots, level microvm tells)"
                     : "/dev/kvm opens, but makes no machine");
}

static void append_program(struct buf *b, const char *name)
{
    char path[128];
    if (isolate_program_find(name, path, sizeof path))
        buf_format(b, "%s%s", b->size > 0 ? ", " : "", path);
}

static void fact_runtimes(struct isolate_fact *f)
{
    static const char *const names[] = {"crun", "runc", "runsc", "kata-runtime"};
    _buf_ struct buf b;
    buf_init(&b, sizeof f->text - 1);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        append_program(&b, names[i]);
    fact_set(f, b.size > 0, "%s", b.size > 0 ? buf_terminate(&b) : "none found; for level container: apt install runc");
}

static void fact_qemu(struct isolate_fact *f)
{
    struct utsname name = {0};
    char program[sizeof name.machine + 32], path[160];
    (void)uname(&name); /* fails only for a bad address */
    (void)snprintf(program, sizeof program, "qemu-system-%s", name.machine);
    if (isolate_program_find(program, path, sizeof path))
        fact_set(f, true, "%s", path);
    else
        fact_set(f, false, "%s not found; for level microvm: apt install qemu-system-x86", program);
}

/* Debian's kernel for virtual machines, which level microvm boots. */
static void fact_guest_kernel(struct isolate_fact *f)
{
    struct isolate_guest_kernel kernel;
    struct error err = {0};
    if (isolate_guest_kernel_find(&kernel, &err) < 0) {
        fact_set(f, false, "%s", err.text);
        return;
    }
    fact_set(f, true, "%s", kernel.version);
    isolate_guest_kernel_done(&kernel);
}

static void fact_cpus(struct isolate_fact *f)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    fact_set(f, n > 0, "%ld", n);
}

static void fact_memory(struct isolate_fact *f)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    fact_set(f, pages > 0, "%llu MiB", (unsigned long long)pages * (unsigned long long)size / MIB);
}

size_t isolate_host_facts(struct isolate_fact *ret_facts)
{
    static const struct {
        const char *name;
        void (*find)(struct isolate_fact *f);
    } rows[] = {
        {"os", fact_os},
        {"kernel", fact_kernel},
        {"user", fact_user},
        {"cpus", fact_cpus},
        {"memory", fact_memory},
        {"cgroups", fact_cgroups},
        {"userNamespaces", fact_user_namespaces},
        {"landlock", fact_landlock},
        {"seccomp", fact_seccomp},
        {"runtimes", fact_runtimes},
        {"kvm", fact_kvm},
        {"qemu", fact_qemu},
        {"guestKernel", fact_guest_kernel},
    };
    _Static_assert(sizeof rows / sizeof rows[0] <= ISOLATE_FACTS_MAX, "all facts fit");
    size_t n = sizeof rows / sizeof rows[0];
    for (size_t i = 0; i < n; i++) {
        ret_facts[i] = (struct isolate_fact){.name = rows[i].name};
        rows[i].find(&ret_facts[i]);
    }
    return n;
}
