/* The host in figures: facts, load, memory of a replica, and a clone with nothing around it. */
#include "cli_bench_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#define FILE_BYTES_MAX (16 * KIB)

/* The file's first bytes, NUL-terminated; false when it cannot be read. For /proc: one read is enough. */
static bool file_text(const char *path, char *text, size_t capacity)
{
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, text, capacity - 1) : -1;
    text[got > 0 ? got : 0] = '\0';
    return got > 0;
}

/* The number behind a name at the beginning of a line. */
static bool line_number(const char *text, const char *name, uint64_t *ret_value)
{
    const char *at = strstr(text, name);
    if (!at)
        return false;
    at += strlen(name);
    at += strspn(at, " \t:");
    return str_to_u64((struct str){at, strspn(at, "0123456789")}, ret_value) == 0;
}

static void cpu_name(char *name, size_t capacity)
{
    char text[FILE_BYTES_MAX];
    const char *at = file_text("/proc/cpuinfo", text, sizeof text) ? strstr(text, "model name") : NULL;
    const char *colon = at ? strchr(at, ':') : NULL;
    struct str value = str_from("unknown");
    if (colon)
        value = str_trim((struct str){colon + 1, strcspn(colon + 1, "\n")});
    (void)snprintf(name, capacity, STR_FORMAT, STR_ARG(value)); /* cut is fine: for people */
}

/* Jiffies of all processors so far: all of them, and those that the host of this machine took. */
static void jiffies(uint64_t *ret_all, uint64_t *ret_steal)
{
    char text[1024];
    *ret_all = *ret_steal = 0;
    if (!file_text("/proc/stat", text, sizeof text))
        return;
    const char *at = text + strcspn(text, " ");
    for (int i = 0; i < 8; i++) { /* user nice system idle iowait irq softirq steal */
        uint64_t value = 0;
        at += strspn(at, " ");
        size_t digits = strspn(at, "0123456789");
        if (str_to_u64((struct str){at, digits}, &value) < 0)
            return;
        at += digits;
        *ret_all += value;
        *ret_steal = i == 7 ? value : 0;
    }
}

static uint64_t all_before, steal_before;

void bench_host_identify(struct bench *b)
{
    struct utsname name;
    struct sysinfo info;
    cpu_name(b->cpu, sizeof b->cpu);
    if (uname(&name) == 0)
        (void)snprintf(b->kernel, sizeof b->kernel, "%s %s, %s", name.sysname, name.release,
                       name.machine); /* cut: fine */
    if (sysinfo(&info) == 0)
        b->memory_bytes = (uint64_t)info.totalram * info.mem_unit;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    b->n_cpus = cpus > 0 ? (uint32_t)cpus : 1;
}

void bench_host_begin(struct bench *b)
{
    bench_host_identify(b);
    b->n_facts = isolate_host_facts(b->facts);
    for (size_t i = 0; i < b->n_facts; i++)
        if (strcmp(b->facts[i].name, "os") == 0)
            (void)snprintf(b->os, sizeof b->os, "%.150s", b->facts[i].text); /* cut is fine: for people */
    if (getloadavg(b->load_before, 3) != 3)
        memset(b->load_before, 0, sizeof b->load_before);
    jiffies(&all_before, &steal_before);
    clock_wall_text(clock_wall_ms(), b->began);
}

void bench_host_end(struct bench *b)
{
    uint64_t all, steal;
    if (getloadavg(b->load_after, 3) != 3)
        memset(b->load_after, 0, sizeof b->load_after);
    jiffies(&all, &steal);
    b->steal_share = all > all_before ? (double)(steal - steal_before) / (double)(all - all_before) : 0;
    clock_wall_text(clock_wall_ms(), b->ended);
}

/* --- memory of a replica --- */

struct family {
    pid_t pids[BENCH_PIDS_MAX];
    uint32_t n;
};

static bool is_of(const struct family *f, pid_t pid)
{
    for (uint32_t i = 0; i < f->n; i++)
        if (f->pids[i] == pid)
            return true;
    return false;
}

static pid_t parent_of(pid_t pid)
{
    char path[64], text[1024];
    uint64_t parent = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid); /* fits */
    const char *at = file_text(path, text, sizeof text) ? strrchr(text, ')') : NULL;
    /* ") S 123 …": its name may hold anything, so the last bracket counts */
    if (!at || strlen(at) < 5 || str_to_u64((struct str){at + 4, strspn(at + 4, "0123456789")}, &parent) < 0)
        return 0;
    return parent <= INT_MAX ? (pid_t)parent : 0;
}

/* Adds the children of those that are in it; true when there was one. */
static bool family_grow(struct family *f)
{
    bool grown = false;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc)) && f->n < BENCH_PIDS_MAX;) {
        uint64_t pid;
        if (str_to_u64(str_from(entry->d_name), &pid) < 0 || pid > INT_MAX || is_of(f, (pid_t)pid))
            continue;
        pid_t parent = parent_of((pid_t)pid);
        if (parent > 0 && is_of(f, parent)) {
            f->pids[f->n++] = (pid_t)pid;
            grown = true;
        }
    }
    if (proc)
        (void)closedir(proc); /* was only read */
    return grown;
}

bool bench_memory(pid_t pid, uint64_t *ret_bytes, uint64_t *ret_processes)
{
    struct family family = {.pids = {pid}, .n = 1};
    *ret_bytes = *ret_processes = 0;
    if (pid <= 0)
        return false;
    while (family_grow(&family))
        ;
    for (uint32_t i = 0; i < family.n; i++) {
        char path[64], text[FILE_BYTES_MAX];
        uint64_t kib;
        (void)snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)family.pids[i]); /* fits */
        if (!file_text(path, text, sizeof text) || !line_number(text, "\nPss:", &kib))
            return false;
        *ret_bytes += kib * KIB;
    }
    *ret_processes = family.n;
    return true;
}

/* --- a clone with nothing around it --- */

static int clone_once(uint64_t *ret_ns, struct error *err)
{
    const unsigned long flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC |
                                CLONE_NEWUTS | CLONE_NEWCGROUP | SIGCHLD;
    uint64_t begin_ns = clock_monotonic_ns();
    pid_t pid = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, NULL); /* as fork, for want of a wrapper */
    if (pid < 0)
        return error_set(err, ERROR_IO, "this host does not clone with namespaces: %s", strerrordesc_np(errno));
    if (pid == 0) {
        execl("/bin/true", "true", NULL);
        _exit(127);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    *ret_ns = clock_monotonic_ns() - begin_ns;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : error_set(err, ERROR_IO, "/bin/true cannot be executed");
}

int bench_bare_run(struct bench *b, struct error *err)
{
    int r = 0;
    size_t n = 0;
    (void)fflush(NULL);
    for (; r >= 0 && n < b->runs && !bench_stop; n++) {
        bench_progress(b, "bare clones", 1);
        r = clone_once(&b->samples[n], err);
        if (r < 0)
            break;
    }
    bench_series_of(b->samples, n, 0, &b->bare);
    return bench_stop ? error_set(err, ERROR_CANCELLED, "stopped by a signal") : r;
}
