/* The kernel: mounts, roots, namespaces, bpf, perf, io_uring, keyrings, modules, clocks. */
#include "escape.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What would change this process for good, or must be undone by its end, runs in a child. Where there is no child to be
 * had, in the process itself. */
static enum verdict in_child(long (*attempt)(void))
{
    pid_t pid = fork();
    int status = 0;
    if (pid < 0)
        return of_call(attempt());
    if (pid == 0)
        _exit(attempt() < 0 ? (errno < 255 ? errno : 254) : 255);
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
        errno = EFAULT; /* it was killed */
        return HELD;
    }
    errno = WEXITSTATUS(status) == 255 ? 0 : WEXITSTATUS(status);
    return errno == 0 ? ESCAPED : HELD;
}

#define IN_CHILD(name, call)                  \
    static long name##_attempt(void)          \
    {                                         \
        return (long)(call);                  \
    }                                         \
    static enum verdict name(const char *arg) \
    {                                         \
        (void)arg;                            \
        return in_child(name##_attempt);      \
    }

/* --- mount --- */

static long own_mounts(void)
{
    if (geteuid() == 0 && unshare(CLONE_NEWNS) == 0) /* outside only: the host's mounts stay as they are */
        return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    return 0;
}

IN_CHILD(mount_tmpfs, (own_mounts(), mount("tmpfs", "/tmp", "tmpfs", 0, NULL)))
IN_CHILD(mount_proc, (own_mounts(), mount("proc", "/tmp", "proc", 0, NULL)))
IN_CHILD(mount_bind, (own_mounts(), mount("/", "/tmp", NULL, MS_BIND, NULL)))
IN_CHILD(mount_writable, (own_mounts(), mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL)))
IN_CHILD(mount_away, (own_mounts(), mount("t", "/tmp", "tmpfs", 0, NULL) < 0 ? umount2("/dev", MNT_DETACH)
                                                                             : umount2("/tmp", MNT_DETACH)))
IN_CHILD(mount_open, syscall(SYS_fsopen, "tmpfs", 0))
IN_CHILD(mount_clone, syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */))

/* --- roots --- */

static long pivot(void)
{
    if (own_mounts() < 0 || mount("t", "/tmp", "tmpfs", 0, NULL) < 0)
        return syscall(SYS_pivot_root, ".", ".");
    return chdir("/tmp") < 0 ? -1 : syscall(SYS_pivot_root, ".", ".");
}

IN_CHILD(root_pivot, pivot())
IN_CHILD(root_change, chroot("/tmp"))

static long chroot_out(void)
{
    if (mkdir("/tmp/escape-chroot", 0700) < 0 && errno != EEXIST)
        return -1;
    int here = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (here < 0 || chroot("/tmp/escape-chroot") < 0 || fchdir(here) < 0)
        return -1;
    return chroot("."); /* the way out of a mere chroot */
}
IN_CHILD(root_chroot_out, chroot_out())

/* --- namespaces --- */

IN_CHILD(userns_new, unshare(CLONE_NEWUSER))
IN_CHILD(userns_mount, unshare(CLONE_NEWUSER | CLONE_NEWNS))
IN_CHILD(userns_network, unshare(CLONE_NEWUSER | CLONE_NEWNET))

static long clone_user(void)
{
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        (void)waitpid((pid_t)pid, NULL, 0);
    return pid;
}
IN_CHILD(userns_clone, clone_user())

static char join_pid[32];
static long join(int kind)
{
    char path[64];
    static const char *const names[] = {"mnt", "net", "ipc"};
    (void)snprintf(path, sizeof path, "/proc/%s/ns/%s", join_pid, names[kind]);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -1 : setns(fd, 0);
}
IN_CHILD(join_mounts, join(0))
IN_CHILD(join_network, join(1))
IN_CHILD(join_ipc, join(2))

static enum verdict ns_mounts(const char *argument)
{
    (void)snprintf(join_pid, sizeof join_pid, "%s", argument);
    return join_mounts("");
}

static enum verdict ns_network(const char *argument)
{
    (void)snprintf(join_pid, sizeof join_pid, "%s", argument);
    return join_network("");
}

static enum verdict ns_ipc(const char *argument)
{
    (void)snprintf(join_pid, sizeof join_pid, "%s", argument);
    return join_ipc("");
}

/* --- bpf, perf, io_uring --- */

static enum verdict bpf_map(const char *argument)
{
    (void)argument;
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.map_type = BPF_MAP_TYPE_ARRAY;
    attr.key_size = 4;
    attr.value_size = 4;
    attr.max_entries = 1;
    return of_call(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr));
}

static enum verdict bpf_program(const char *argument)
{
    (void)argument;
    static const struct bpf_insn program[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0},
        {.code = BPF_JMP | BPF_EXIT},
    };
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
    attr.insns = (unsigned long)program;
    attr.insn_cnt = 2;
    attr.license = (unsigned long)"GPL";
    return of_call(syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr));
}

static enum verdict perf_open(pid_t pid, int cpu)
{
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.type = PERF_TYPE_SOFTWARE;
    attr.size = sizeof attr;
    attr.config = PERF_COUNT_SW_CPU_CLOCK;
    return of_call(syscall(SYS_perf_event_open, &attr, pid, cpu, -1, 0));
}

static enum verdict perf_self(const char *argument)
{
    (void)argument;
    return perf_open(0, -1);
}

static enum verdict perf_machine(const char *argument)
{
    (void)argument;
    return perf_open(-1, 0);
}

static enum verdict io_uring_new(const char *argument)
{
    (void)argument;
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    return of_call(syscall(SYS_io_uring_setup, 4, &params));
}

static enum verdict io_uring_polled(const char *argument)
{
    (void)argument;
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    params.flags = IORING_SETUP_SQPOLL; /* a kernel thread that works for us */
    return of_call(syscall(SYS_io_uring_setup, 4, &params));
}

/* --- keyrings --- */

static enum verdict keyring_add(const char *argument)
{
    (void)argument;
    return of_call(syscall(SYS_add_key, "user", "bulkhead-escape", "x", 1, KEY_SPEC_PROCESS_KEYRING));
}

static enum verdict keyring_session(const char *argument)
{
    (void)argument;
    return of_call(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 1));
}

static enum verdict keyring_request(const char *argument)
{
    (void)argument; /* the test, as root, has put it into the keyring of user 0 */
    long ring = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 1);
    if (ring < 0)
        return HELD;
    return of_call(syscall(SYS_keyctl, KEYCTL_DESCRIBE, ring, NULL, 0));
}

/* --- the rest of the machine --- */

static enum verdict kernel_log(const char *argument)
{
    (void)argument;
    char text[64];
    return of_call(klogctl(3, text, sizeof text));
}

static enum verdict kernel_clock(const char *argument)
{
    (void)argument;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) < 0)
        return NOTHING;
    return of_call(syscall(SYS_clock_settime, CLOCK_REALTIME, &now)); /* to what it is, but for a microsecond */
}

static enum verdict kernel_clock_speed(const char *argument)
{
    (void)argument;
    struct timex t;
    memset(&t, 0, sizeof t);
    if (adjtimex(&t) < 0)
        return HELD;
    t.modes = ADJ_TICK; /* the tick it has */
    return of_call(adjtimex(&t));
}

static enum verdict kernel_ports(const char *argument)
{
    (void)argument;
    return of_call(ioperm(0x80, 1, 1));
}

IN_CHILD(kernel_hostname, (unshare(CLONE_NEWUTS), sethostname("escape", 6)))

static enum verdict kernel_module(const char *argument)
{
    (void)argument;
    /* Not a module: whoever may load one is told so (ENOEXEC), others are refused before it is looked at. */
    static char garbage[4096];
    if (syscall(SYS_init_module, garbage, sizeof garbage, "") == 0 || errno == ENOEXEC) {
        errno = 0;
        return ESCAPED;
    }
    return HELD;
}

static enum verdict kernel_reboot(const char *argument)
{
    (void)argument;
    return of_call(syscall(SYS_reboot, 0xfee1dead, 672274793, 0, NULL)); /* Ctrl-Alt-Del off: no reboot itself */
}

static enum verdict kernel_kexec(const char *argument)
{
    (void)argument;
    return of_call(syscall(SYS_kexec_load, 0, 0, NULL, 0)); /* unloads what is not loaded */
}

static enum verdict kernel_faults(const char *argument)
{
    (void)argument;
    return of_call(syscall(SYS_userfaultfd, O_CLOEXEC));
}

static enum verdict kernel_fanotify(const char *argument)
{
    (void)argument;
    return of_call(syscall(SYS_fanotify_init, 0, O_RDONLY));
}

const struct escape escapes_kernel[] = {
    {"mount.tmpfs", mount_tmpfs, 0},
    {"mount.proc", mount_proc, 0},
    {"mount.bind", mount_bind, 0},
    {"mount.writable", mount_writable, 0},
    {"mount.away", mount_away, 0},
    {"mount.open", mount_open, 0},
    {"mount.clone", mount_clone, 0},
    {"pivot_root.pivot", root_pivot, 0},
    {"pivot_root.chroot", root_change, 0},
    {"pivot_root.chroot-out", root_chroot_out, 0},
    {"userns.new", userns_new, 0},
    {"userns.mount", userns_mount, 0},
    {"userns.network", userns_network, 0},
    {"userns.clone", userns_clone, 0},
    {"userns.join-mounts", ns_mounts, 0},
    {"userns.join-network", ns_network, 0},
    {"userns.join-ipc", ns_ipc, 0},
    {"bpf.map", bpf_map, 0},
    {"bpf.program", bpf_program, 0},
    {"perf.self", perf_self, 0},
    {"perf.machine", perf_machine, 0},
    {"io_uring.new", io_uring_new, 0},
    {"io_uring.polled", io_uring_polled, 0},
    {"keyrings.add", keyring_add, 0},
    {"keyrings.user", keyring_session, 0},
    {"keyrings.read", keyring_request, 0},
    {"kernel.log", kernel_log, 0},
    {"kernel.clock", kernel_clock, 0},
    {"kernel.clock-speed", kernel_clock_speed, 0},
    {"kernel.ports", kernel_ports, 1},
    {"kernel.hostname", kernel_hostname, 0},
    {"kernel.module", kernel_module, 1},
    {"kernel.reboot", kernel_reboot, 1},
    {"kernel.kexec", kernel_kexec, 1},
    {"kernel.faults", kernel_faults, 0},
    {"kernel.fanotify", kernel_fanotify, 0},
    {0},
};
