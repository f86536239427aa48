/* A worker's stand-in: `child MODE [ARGUMENT…]` does one thing behind the wall and reports lines "key value…" on
 * descriptor 3. The tests of this folder spawn it through the back-ends and compare.
 *
 * In a virtual machine it is started as a worker is there: without arguments, and with the bus as descriptor 3. */
#include "bus/bus.h"
#include "isolate/isolate_follow.h"
#include "isolate/isolate_landlock.h"
#include "isolate/isolate_self.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUT           3
#define ARGUMENTS_MAX 16
#define GUEST_WAIT_MS 60000

static long number(const char *text)
{
    return strtol(text, NULL, 0);
}

/* ---- facts ---- */

static void facts_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] != '.' && number(entry->d_name) != dirfd(dir))
            dprintf(OUT, "fd %s\n", entry->d_name);
    }
    closedir(dir);
}

static void facts_network(void)
{
    FILE *file = fopen("/proc/self/net/dev", "re");
    int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char line[512];
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (!colon)
            continue;
        *colon = '\0';
        struct ifreq request = {0};
        snprintf(request.ifr_name, sizeof request.ifr_name, "%.15s", line + strspn(line, " "));
        int r = ioctl(sock, SIOCGIFFLAGS, &request);
        dprintf(OUT, "interface-%s %s\n", r == 0 && !(request.ifr_flags & IFF_UP) ? "down" : "up", request.ifr_name);
    }
    if (file)
        fclose(file);
    close(sock);
}

static void facts_limits(void)
{
    const struct {
        const char *name;
        int resource;
    } limits[] = {
        {"core", RLIMIT_CORE},   {"nofile", RLIMIT_NOFILE}, {"fsize", RLIMIT_FSIZE},       {"memlock", RLIMIT_MEMLOCK},
        {"nproc", RLIMIT_NPROC}, {"as", RLIMIT_AS},         {"msgqueue", RLIMIT_MSGQUEUE},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit limit;
        getrlimit((__rlimit_resource_t)limits[i].resource, &limit);
        dprintf(OUT, "rlimit-%s %lld %lld\n", limits[i].name, (long long)limit.rlim_cur, (long long)limit.rlim_max);
    }
}

/* Lines of /proc/self/status that are facts as they stand. */
static void facts_status(void)
{
    static const char *const wanted[] = {"CapInh", "CapPrm", "CapEff", "CapBnd",
                                         "CapAmb", "SigBlk", "SigIgn", "SigCgt"};
    FILE *file = fopen("/proc/self/status", "re");
    char line[512], value[64];
    while (file && fgets(line, sizeof line, file)) {
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
            size_t size = strlen(wanted[i]);
            if (strncmp(line, wanted[i], size) == 0 && line[size] == ':') {
                snprintf(value, sizeof value, "%.60s", line + size + 2);
                dprintf(OUT, "%s %s", wanted[i], value);
            }
        }
    }
    if (file)
        fclose(file);
}

static int mode_facts(char **arguments)
{
    (void)arguments;
    facts_descriptors(); /* before anything else opens one */
    uid_t u[3];
    gid_t g[3];
    getresuid(&u[0], &u[1], &u[2]);
    getresgid(&g[0], &g[1], &g[2]);
    dprintf(OUT, "uid %u %u %u\ngid %u %u %u\n", u[0], u[1], u[2], g[0], g[1], g[2]);
    dprintf(OUT, "groups %d\npid %d\nppid %d\n", getgroups(0, NULL), (int)getpid(), (int)getppid());
    dprintf(OUT, "session-leader %d\n", getsid(0) == getpid());
    dprintf(OUT, "no-new-privs %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0L, 0L, 0L, 0L));
    int death_signal = 0;
    prctl(PR_GET_PDEATHSIG, &death_signal, 0L, 0L, 0L);
    dprintf(OUT, "pdeathsig %d\n", death_signal);
    mode_t mask = umask(0);
    dprintf(OUT, "umask %o\n", (unsigned)mask);
    char folder[256] = "?";
    dprintf(OUT, "cwd %s\n", getcwd(folder, sizeof folder) ? folder : "?");
    for (char **variable = environ; *variable; variable++)
        dprintf(OUT, "env %s\n", *variable);
    char path[256];
    ssize_t size = readlink("/proc/self/fd/0", path, sizeof path);
    dprintf(OUT, "stdin %.*s\n", (int)size, path);
    size = readlink("/proc/self/fd/1", path, sizeof path);
    dprintf(OUT, "stdout %.*s\n", (int)size, path);
    size = readlink("/proc/self/fd/2", path, sizeof path);
    dprintf(OUT, "stderr %.*s\n", (int)size, path);
    dprintf(OUT, "keyring %ld\n", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0L));
    facts_network();
    facts_limits();
    facts_status();
    return 0;
}

static int mode_lockdown(char **arguments)
{
    (void)arguments;
    struct error err = {0};
    int r = isolate_lockdown_self(&err);
    dprintf(OUT, "lockdown %d\ndumpable %d\n", r, prctl(PR_GET_DUMPABLE, 0L, 0L, 0L, 0L));
    return 0;
}

/* ---- attacks: each prints 0 when it worked, else the errno ---- */

static int attack_tcp(char **a)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number(a[0]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? -1 : connect(fd, (struct sockaddr *)&address, sizeof address);
}

static int attack_abstract(char **a)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t size = strlen(a[1]);
    memcpy(address.sun_path + 1, a[1], size);
    return fd < 0 ? -1
                  : connect(fd, (struct sockaddr *)&address,
                            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + size));
}

static int attack_raw_socket(char **a)
{
    (void)a;
    return socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
}

static int attack_kill(char **a)
{
    return kill((pid_t)number(a[2]), 0);
}

static int attack_ptrace(char **a)
{
    pid_t pid = (pid_t)number(a[2]);
    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) != 0)
        return -1;
    return (int)ptrace(PTRACE_DETACH, pid, NULL, NULL) != 0 && errno != ESRCH ? -1 : 0; /* it was not stopped */
}

static int attack_memory(char **a)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/mem", a[2]);
    return open(path, O_RDWR | O_CLOEXEC);
}

static int attack_process_vm(char **a)
{
    char byte;
    struct iovec local = {&byte, 1}, remote = {(void *)number(a[3]), 1};
    return process_vm_readv((pid_t)number(a[2]), &local, 1, &remote, 1, 0) == 1 ? 0 : -1;
}

static int attack_file(char **a)
{
    return open(a[4], O_RDONLY | O_CLOEXEC);
}

static int attack_cgroup(char **a)
{
    return open(a[5], O_WRONLY | O_CLOEXEC);
}

static int attack_shm(char **a)
{
    return shmget((key_t)number(a[6]), 0, 0);
}

static int attack_chroot(char **a)
{
    (void)a;
    return chroot("/");
}

static int attack_setuid(char **a)
{
    (void)a;
    return setresuid(0, 0, 0);
}

static int attack_unshare(char **a)
{
    (void)a;
    return unshare(CLONE_NEWUTS);
}

static int attack_priority(char **a)
{
    (void)a;
    return setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) - 1); /* whoever tests may run at any priority */
}

static int attack_passwd(char **a)
{
    (void)a;
    return open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static int attack_processes(char **a)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/status", a[2]);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static int attack_write_root(char **a)
{
    char path[64];
    snprintf(path, sizeof path, "/%s", a[1]);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    unlink(path);
    return fd;
}

static int attack_node(char **a)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/%s", a[1]);
    int r = mknod(path, S_IFCHR | 0600, makedev(1, 3));
    unlink(path);
    return r;
}

static int attack_hostname(char **a)
{
    (void)a;
    char name[65] = "";
    gethostname(name, sizeof name - 1);
    return sethostname(name, strlen(name)); /* to what it is */
}

/* Runs what would stay in a child of its own. */
static int in_child(int (*run)(void))
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(run() >= 0 ? 0 : errno);
    int status = 0;
    waitpid(pid, &status, 0);
    errno = WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD;
    return errno == 0 ? 0 : -1;
}

static int user_namespace(void)
{
    return unshare(CLONE_NEWUSER);
}

static int attack_user_namespace(char **a)
{
    (void)a;
    return in_child(user_namespace);
}

static int own_mount(void)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return -1;
    return mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
}

static int attack_mount(char **a)
{
    (void)a;
    return in_child(own_mount);
}

static int remount(void)
{
    if (unshare(CLONE_NEWNS) != 0)
        return -1;
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

static int attack_remount(char **a)
{
    (void)a;
    return in_child(remount);
}

static int mode_attack(char **arguments)
{
    static const struct {
        const char *name;
        int (*run)(char **arguments);
    } attacks[] = {
        {"tcp", attack_tcp},
        {"abstract", attack_abstract},
        {"raw-socket", attack_raw_socket},
        {"kill", attack_kill},
        {"ptrace", attack_ptrace},
        {"memory", attack_memory},
        {"process-vm", attack_process_vm},
        {"file", attack_file},
        {"cgroup", attack_cgroup},
        {"shm", attack_shm},
        {"chroot", attack_chroot},
        {"setuid", attack_setuid},
        {"unshare", attack_unshare},
        {"priority", attack_priority},
        {"passwd", attack_passwd},
        {"processes", attack_processes},
        {"write-root", attack_write_root},
        {"node", attack_node},
        {"hostname", attack_hostname},
        {"user-namespace", attack_user_namespace},
        {"mount", attack_mount},
        {"remount", attack_remount},
    };
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) {
        errno = 0;
        int r = attacks[i].run(arguments);
        dprintf(OUT, "attack-%s %d\n", attacks[i].name, r >= 0 ? 0 : errno);
    }
    return 0;
}

/* ---- bad neighbours ---- */

static void disposition(int number, void (*handler)(int))
{
    const struct sigaction action = {.sa_handler = handler};
    sigaction(number, &action, NULL);
}

static int pause_forever(void)
{
    while (pause() < 0)
        ;
    return 0;
}

static int mode_exit(char **arguments)
{
    return (int)number(arguments[0]);
}

static int mode_hang(char **arguments)
{
    (void)arguments;
    dprintf(OUT, "ready 1\n");
    return pause_forever();
}

/* A real fault: unlike raise(), it also ends the first process of a pid namespace. */
static int mode_fault(char **arguments)
{
    (void)arguments;
    disposition(SIGSEGV, SIG_DFL); /* sanitizers catch it and exit */
    volatile char *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *page = 1;
    return 0;
}

static int mode_abort(char **arguments)
{
    (void)arguments;
    disposition(SIGABRT, SIG_DFL);
    disposition(SIGSEGV, SIG_DFL);
    abort();
}

static int mode_memory(char **arguments)
{
    size_t bytes = (size_t)number(arguments[0]);
    volatile char *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (size_t i = 0; i < bytes; i += 4096)
        memory[i] = 1;
    dprintf(OUT, "memory-taken %zu\n", bytes);
    return 0;
}

/* Forks until it is refused; the children stay, deaf to everything that can be ignored. */
static int mode_forks(char **arguments)
{
    long n_max = number(arguments[0]), n = 0;
    while (n < n_max) {
        pid_t pid = fork();
        if (pid == 0) {
            setsid();
            pause_forever();
        }
        if (pid < 0)
            break;
        n++;
    }
    dprintf(OUT, "forks %ld\nforks-errno %d\nready 1\n", n, n < n_max ? errno : 0);
    return pause_forever();
}

static int mode_file(char **arguments)
{
    disposition(SIGXFSZ, SIG_IGN);
    int fd = memfd_create("big", MFD_CLOEXEC);
    int r = ftruncate(fd, number(arguments[0]));
    dprintf(OUT, "file %d\n", r == 0 ? 0 : errno);
    return 0;
}

/* Writes to /tmp until it is full, then makes files until there are no more; looks whether anything there can run. */
static int mode_tmp(char **arguments)
{
    (void)arguments;
    static char block[65536];
    size_t bytes = 0, files = 0;
    int fd = open("/tmp/big", O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    for (ssize_t n; (n = write(fd, block, sizeof block)) > 0;)
        bytes += (size_t)n;
    dprintf(OUT, "tmp-bytes %zu\ntmp-bytes-errno %d\n", bytes, errno);
    char *const argv[] = {(char *)"big", NULL};
    execve("/tmp/big", argv, argv + 1);
    dprintf(OUT, "tmp-exec %d\n", errno);
    if (ftruncate(fd, 0) != 0)
        dprintf(OUT, "tmp-truncate %d\n", errno);
    for (int i = 0; i < 100000; i++, files++) {
        char path[64];
        snprintf(path, sizeof path, "/tmp/%d", i);
        int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (file < 0)
            break;
        close(file);
    }
    dprintf(OUT, "tmp-files %zu\ntmp-files-errno %d\n", files, errno);
    return 0;
}

/* What Landlock alone takes away: tried before and after. */
static void landlock_tries(const char *when)
{
    int fd = open("/tmp/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    int folder = mkdir("/tmp/folder", 0700) == 0 ? 0 : errno;
    rmdir("/tmp/folder");
    struct sockaddr_un path = {.sun_family = AF_UNIX, .sun_path = "/tmp/socket"};
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int bound = bind(sock, (struct sockaddr *)&path, sizeof path) == 0 ? 0 : errno;
    unlink("/tmp/socket");
    struct sockaddr_in in = {.sin_family = AF_INET};
    int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int port = bind(tcp, (struct sockaddr *)&in, sizeof in) == 0 ? 0 : errno;
    dprintf(OUT, "%s-file %d\n%s-null %d\n%s-folder %d\n%s-socket %d\n%s-port %d\n", when, fd < 0, when, null < 0, when,
            folder, when, bound, when, port);
    close(tcp);
    close(sock);
    close(null);
    close(fd);
}

static int mode_landlock(char **arguments)
{
    (void)arguments;
    struct error err = {0};
    dprintf(OUT, "landlock-version %d\n", isolate_landlock_version());
    landlock_tries("before");
    if (isolate_landlock_apply(&err) != 0)
        dprintf(OUT, "landlock-error %s\n", err.text);
    landlock_tries("after");
    return 0;
}

static int mode_spin(char **arguments)
{
    (void)arguments;
    struct rusage used;
    do
        getrusage(RUSAGE_SELF, &used);
    while (used.ru_utime.tv_sec * 1000000 + used.ru_utime.tv_usec + used.ru_stime.tv_sec * 1000000 +
               used.ru_stime.tv_usec <
           50000);
    return 0;
}

/* As a worker in a guest: its model holds the arguments, a line each, and its channel's stream takes the report. How
 * many there are, with the program's name; 0: it was started as something else. */
static int guest_arguments(char *arguments[static ARGUMENTS_MAX])
{
    static char text[4096];
    struct bus_message m;
    int n = 0;
    if (bus_wait(OUT, BUS_WORKER, BUS_SUPERVISOR, GUEST_WAIT_MS, &m) != 1 || m.type != BUS_WORKER_CONFIG)
        return 0;
    ssize_t size = pread(m.fds[0], text, sizeof text - 1, 0);
    bus_message_done(&m);
    arguments[n++] = (char *)"child";
    char *rest = NULL;
    for (char *word = size > 0 ? strtok_r(text, "\n", &rest) : NULL; word && n < ARGUMENTS_MAX;
         word = strtok_r(NULL, "\n", &rest))
        arguments[n++] = word;
    if (bus_wait(OUT, BUS_WORKER, BUS_SUPERVISOR, GUEST_WAIT_MS, &m) != 1 || m.type != BUS_CHANNEL_STREAM_GUEST)
        return 0;
    if (dup2(m.fds[0], OUT) < 0 || fcntl(OUT, F_SETFL, O_RDWR) < 0) /* nobody polls here */
        return 0;
    bus_message_done(&m);
    return n;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int n_arguments;
        int (*run)(char **arguments);
    } modes[] = {
        {"facts", 0, mode_facts},       {"lockdown", 0, mode_lockdown}, {"attack", 7, mode_attack},
        {"exit", 1, mode_exit},         {"hang", 0, mode_hang},         {"abort", 0, mode_abort},
        {"fault", 0, mode_fault},       {"memory", 1, mode_memory},     {"forks", 1, mode_forks},
        {"file", 1, mode_file},         {"spin", 0, mode_spin},         {"tmp", 0, mode_tmp},
        {"landlock", 0, mode_landlock},
    };
    char *arguments[ARGUMENTS_MAX];
    if (isolate_follow(&argc, &argv) != 0)
        return 98;
    if (argc == 1 && (argc = guest_arguments(arguments)) > 0)
        argv = arguments;
    for (size_t i = 0; argc > 1 && i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(argv[1], modes[i].name) == 0 && argc == 2 + modes[i].n_arguments)
            return modes[i].run(argv + 2);
    }
    dprintf(OUT, "usage 1\n");
    return 99;
}
