/* Level microvm: the worker in a virtual machine of its own, the machine monitor behind the wall of level process. */
#include "isolate/isolate_microvm.h"

#include "base/clock.h"
#include "isolate/isolate_guest.h"
#include "isolate/isolate_probe.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define FACT_KVM         1u
#define PROBE_KVM_MS     8000u  /* hardware takes less than one second */
#define PROBE_TCG_MS     90000u /* software took 2 s here, more on a busy host */
#define PROBE_MEMORY     (64 * MIB)
#define IMAGES_MAX       16u
#define TEXT_KVM         "microvm (hardware virtualisation, KVM)"
#define TEXT_TCG         "microvm (software emulation, slow: KVM boots no guest here)"
#define EXIT_STATUS(end) (2 * (end) + 1)

struct image {
    struct stat worker, library;
    bool container; /* the worker runs in one there */
    int fd;
    uint64_t bytes;
};

static struct {
    bool process_opened; /* by us */
    bool kvm;            /* the probe booted with it */
    bool open;
    struct microvm_parts parts;
    struct image images[IMAGES_MAX];
    size_t n_images;
} host;

static int parts_need(struct error *err)
{
    if (host.open)
        return 0;
    int r = microvm_parts_open(&host.parts, err);
    host.open = r == 0;
    return r;
}

static int microvm_look(struct error *err)
{
    struct microvm_parts parts;
    if (host.open)
        return 0;
    int r = microvm_parts_open(&parts, err);
    if (r == 0)
        microvm_parts_close(&parts);
    return r;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* The image of this worker and library, built when it is asked for first. */
static int image_get(int worker_fd, int library_fd, bool container, const struct image **ret_image, struct error *err)
{
    struct image image = {.container = container, .fd = -1};
    if ((worker_fd >= 0 && fstat(worker_fd, &image.worker) != 0) ||
        (library_fd >= 0 && fstat(library_fd, &image.library) != 0))
        return error_set(err, ERROR_INVALID_ARGUMENT, "The worker cannot be started: its program cannot be read: %m.");
    for (size_t i = 0; i < host.n_images; i++) {
        if (same_file(&host.images[i].worker, &image.worker) && same_file(&host.images[i].library, &image.library) &&
            host.images[i].container == container) {
            *ret_image = &host.images[i];
            return 0;
        }
    }
    if (host.n_images == IMAGES_MAX)
        return error_set(err, ERROR_LIMIT, "The worker cannot be started: there are too many engines.");
    _close_ int runtime = -1;
    int r = container ? isolate_guest_runtime_open(&runtime, err) : 0;
    const struct isolate_guest_parts parts = {.worker_fd = worker_fd, .library_fd = library_fd, .runtime_fd = runtime};
    if (r == 0)
        r = isolate_guest_image_build(&host.parts.kernel, &parts, &image.fd, &image.bytes, err);
    if (r != 0)
        return r;
    host.images[host.n_images] = image;
    *ret_image = &host.images[host.n_images++];
    return 0;
}

static int microvm_setup(const char *scope, struct error *err)
{
    if (isolate_process_ready())
        return 0;
    int r = isolate_process.setup(scope, err);
    host.process_opened = r == 0;
    return r;
}

static void microvm_teardown(void)
{
    for (size_t i = 0; i < host.n_images; i++)
        fd_close(&host.images[i].fd);
    host.n_images = 0;
    if (host.open)
        microvm_parts_close(&host.parts);
    host.open = false;
    if (host.process_opened)
        isolate_process.teardown();
    host.process_opened = false;
}

static int microvm_prepare(int program_fd, int library_fd, struct error *err)
{
    const struct image *image;
    int r = parts_need(err);
    return r < 0 ? r : image_get(program_fd, library_fd, false, &image, err);
}

/* What the host's own control groups are does not matter to a runtime that runs in a guest: it is only put there. */
static int microvm_runtime_look(enum isolate_runtime runtime, struct error *err)
{
    _close_ int fd = -1;
    return runtime == ISOLATE_RUNTIME_CRUN
               ? isolate_guest_runtime_open(&fd, err)
               : error_set(err, ERROR_ISOLATION_UNAVAILABLE, "the OCI runtime in a guest is crun, no other");
}

static int spawn_check(const struct isolate_spawn *spawn, struct error *err)
{
    int r = isolate_spawn_check(spawn, true, err);
    if (r != 0)
        return r;
    const struct isolate_machine *m = spawn->machine;
    if (!m || m->disk_fd < 0 || m->disk_bytes == 0 || m->control_fd < 0 || m->channel_fd < 0)
        return error_set(err, ERROR_INVALID_ARGUMENT, "The worker cannot be started: its machine lacks a part.");
    if (spawn->runtime != ISOLATE_RUNTIME_ANY && (r = microvm_runtime_look(spawn->runtime, err)) < 0)
        return r;
    if (spawn->n_fds > 0)
        return error_set(err, ERROR_INVALID_ARGUMENT,
                         "The worker cannot be started: no descriptor can be handed into a machine.");
    return 0;
}

static int microvm_spawn(const struct isolate_spawn *spawn, struct isolate_instance **ret_instance, int *ret_pidfd,
                         struct error *err)
{
    const struct image *image;
    int r = spawn_check(spawn, err);
    if (r == 0)
        r = parts_need(err);
    if (r == 0)
        r = image_get(spawn->program_fd, spawn->library_fd > 0 ? spawn->library_fd : -1,
                      spawn->runtime != ISOLATE_RUNTIME_ANY, &image, err);
    if (r != 0)
        return r;
    return microvm_run(&host.parts, spawn, image->fd, image->bytes, host.kvm, ret_instance, ret_pidfd, err);
}

/* From outside only: the worker's own limit inside the guest stays as it was at the start, and the machine keeps its
 * number of processors. */
static int microvm_limit(struct isolate_instance *i, const struct isolate_limits *limits, struct error *err)
{
    struct isolate_limits outside = *limits;
    if (limits->memory_bytes == 0 || limits->pids == 0) /* what the machine has on top would hide it */
        return error_set(err, ERROR_INVALID_ARGUMENT, "The limits cannot be changed: a limit is 0.");
    if (__builtin_add_overflow(limits->memory_bytes, i->memory_extra, &outside.memory_bytes))
        return error_set(err, ERROR_INVALID_ARGUMENT, "The limits cannot be changed: they are out of range.");
    outside.pids = limits->pids > 96 ? limits->pids : 96; /* the monitor's threads, not the worker's */
    return isolate_process.limit(i, &outside, err);
}

/* The monitor, whose threads are the machine's processors. */
static int microvm_cpus(struct isolate_instance *i, const struct isolate_cpus *cpus, struct error *err)
{
    return isolate_process.cpus(i, cpus, err);
}

/* A guest whose worker exceeded its limit says so with its last word. */
static bool out_of_memory(struct isolate_instance *i)
{
    siginfo_t info = {0};
    if (i->reaped)
        return WIFEXITED(i->status) && WEXITSTATUS(i->status) == EXIT_STATUS(ISOLATE_GUEST_OUT_OF_MEMORY);
    return waitid((idtype_t)P_PIDFD, (id_t)i->pidfd, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0 &&
           info.si_code == CLD_EXITED && info.si_status == EXIT_STATUS(ISOLATE_GUEST_OUT_OF_MEMORY);
}

static int microvm_usage(struct isolate_instance *i, struct isolate_usage *ret_usage, struct error *err)
{
    int r = isolate_process.usage(i, ret_usage, err);
    if (r == 0 && out_of_memory(i))
        ret_usage->oom_kills++;
    return r;
}

static void microvm_explain(struct isolate_instance *i, struct isolate_report *ret_report)
{
    struct isolate_report wall;
    isolate_process.explain(i, &wall);
    *ret_report = wall;
    ret_report->degraded = !host.kvm;
    (void)snprintf(ret_report->text, sizeof ret_report->text, "%s%s; behind %.360s", /* cut: for people */
                   host.kvm ? TEXT_KVM : TEXT_TCG, i->nested ? "; in the guest a container (crun)" : "", wall.text);
}

/* The monitor's status tells how the worker in the guest ended; what is said is the worker's, where it is known. */
static int worker_status(int status)
{
    if (!WIFEXITED(status))
        return status;
    if (WEXITSTATUS(status) == EXIT_STATUS(ISOLATE_GUEST_ENDED))
        return 0;
    bool killed = WEXITSTATUS(status) == EXIT_STATUS(ISOLATE_GUEST_KILLED) ||
                  WEXITSTATUS(status) == EXIT_STATUS(ISOLATE_GUEST_OUT_OF_MEMORY);
    return killed ? SIGKILL : status;
}

static int microvm_reap(struct isolate_instance *i, int *ret_status)
{
    int status, r = isolate_process.reap(i, &status);
    if (r == 0)
        *ret_status = worker_status(status);
    return r;
}

static int microvm_discard(struct isolate_instance *i, int *ret_status)
{
    int status, r = isolate_process.discard(i, &status);
    if (r == 0)
        *ret_status = worker_status(status);
    return r;
}

/* --- probe --- */

/* Waits for the machine's end: 0 when it came up and said so. */
static int probe_wait(struct isolate_instance *i, int pidfd, unsigned limit_ms, struct error *err)
{
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    uint64_t start_ns = clock_monotonic_ns();
    int n, status = 0;
    do {
        n = poll(&end, 1, (int)limit_ms);
    } while (n < 0 && errno == EINTR);
    bool late = n == 0;
    if (late)
        isolate_process.kill(i);
    while (isolate_process.discard(i, &status) == -ERROR_AGAIN)
        (void)poll(&end, 1, 1000);
    if (late)
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "a guest did not boot within %u s", limit_ms / 1000);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_STATUS(ISOLATE_GUEST_PROBED))
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "a guest did not boot: its machine ended with %s %d",
                         WIFEXITED(status) ? "status" : "signal",
                         WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    return (int)((clock_monotonic_ns() - start_ns) / NS_PER_MS);
}

/* Boots a guest that ends as soon as it is up. Milliseconds that it took, or an error. */
static int probe_boot(const struct image *image, bool kvm, bool limits_required, struct error *err)
{
    static const char *const argv[] = {NULL};
    _close_ int disk = memfd_create("probe", MFD_CLOEXEC);
    int control[2], channel[2];
    if (disk < 0 || ftruncate(disk, 4096) != 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) != 0)
        return error_set(err, ERROR_IO, "no descriptors for a guest: %m");
    /* our ends are only held; clang does not take that for a use */
    _close_ int control_ours __attribute__((unused)) = control[0], control_theirs = control[1];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) != 0)
        return error_set(err, ERROR_IO, "no descriptors for a guest: %m");
    _close_ int channel_ours __attribute__((unused)) = channel[0], channel_theirs = channel[1];
    const struct isolate_machine machine = {
        .disk_fd = disk, .disk_bytes = 4096, .control_fd = control_theirs, .channel_fd = channel_theirs};
    const struct isolate_spawn spawn = {
        .name = kvm ? "probe-kvm" : "probe-microvm",
        .argv = argv,
        .machine = &machine,
        .stderr_fd = -1,
        .uid = ISOLATE_PROBE_UID,
        .gid = ISOLATE_PROBE_UID,
        .limits = {.memory_bytes = PROBE_MEMORY, .cpu_milli = 1000, .pids = 16, .fds = 64},
        .limits_required = limits_required,
    };
    struct isolate_instance *i;
    int pidfd;
    int r = microvm_run(&host.parts, &spawn, image->fd, image->bytes, kvm, &i, &pidfd, err);
    return r < 0 ? r : probe_wait(i, pidfd, kvm ? PROBE_KVM_MS : PROBE_TCG_MS, err);
}

static void probe_with(bool limits_required, struct isolate_report *report, struct error *err)
{
    const struct image *image;
    *report = (struct isolate_report){0};
    int r = parts_need(err);
    if (r == 0)
        r = image_get(-1, -1, false, &image, err);
    if (r != 0)
        return;
    int ms = access("/dev/kvm", F_OK) == 0 ? probe_boot(image, true, limits_required, NULL) : -ERROR_UNSUPPORTED;
    bool kvm = ms >= 0;
    if (!kvm)
        ms = probe_boot(image, false, limits_required, err);
    if (ms < 0)
        return;
    *report = (struct isolate_report){
        .available = true, .limits = limits_required, .degraded = !kvm, .facts = kvm ? FACT_KVM : 0};
    (void)snprintf(report->text, sizeof report->text, "%s; kernel %s; a guest booted in %d ms", /* fits */
                   kvm ? TEXT_KVM : TEXT_TCG, host.parts.kernel.version, ms);
}

static void microvm_probe(struct isolate_report *ret_report)
{
    struct error err = {0};
    if (geteuid() != 0) {
        *ret_report = (struct isolate_report){.text = "needs root: start the server with sudo."};
        return;
    }
    probe_with(true, ret_report, &err);
    if (ret_report->available)
        return;
    char why[sizeof err.text];
    (void)snprintf(why, sizeof why, "%s", err.text); /* same size */
    struct isolate_report process;
    isolate_process.probe(&process);
    if (process.available && !process.limits) {
        probe_with(false, ret_report, &err);
        if (ret_report->available) {
            size_t size = strlen(ret_report->text);
            (void)snprintf(ret_report->text + size, sizeof ret_report->text - size, "; NO LIMITS: %.200s", why);
            return;
        }
    }
    (void)snprintf(ret_report->text, sizeof ret_report->text, "%s", why); /* same size */
}

static void microvm_probed(const struct isolate_report *report)
{
    host.kvm = report->available && (report->facts & FACT_KVM);
}

const struct isolate_ops isolate_microvm = {
    .name = "microvm",
    .level = ISOLATE_MICROVM,
    .machine = true,
    .own_root = true,
    .probe = microvm_probe,
    .probe_slow = true,
    .look = microvm_look,
    .runtime_look = microvm_runtime_look,
    .probed = microvm_probed,
    .prepare = microvm_prepare,
    .spawn = microvm_spawn,
    .limit = microvm_limit,
    .cpus = microvm_cpus,
    .usage = microvm_usage,
    .kill = isolate_instance_kill,
    .explain = microvm_explain,
    .reap = microvm_reap,
    .discard = microvm_discard,
    .setup = microvm_setup,
    .teardown = microvm_teardown,
};
