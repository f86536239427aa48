/* The machine monitor: found, and given its command line. Nothing of it is anybody's configuration, and no path of the
 * server is on it: everything goes by descriptor. */
#include "isolate/isolate_microvm.h"

#include "base/clock.h"
#include "isolate/isolate_guest.h"
#include "isolate/isolate_host.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

/* The machine's own use of processes: vCPUs, and a pool for reading the disk. */
#define MONITOR_PIDS 96u
#define MONITOR_FDS  96u
#define ARGV_MAX     64

/* In the monitor. */
enum { FD_KERNEL = 3, FD_IMAGE, FD_FIRMWARE, FD_CONTROL, FD_CHANNEL, FD_DISK, FD_CONSOLE, FD_END };

static const char *const module_folders[] = {"/usr/lib/x86_64-linux-gnu/qemu", "/usr/lib64/qemu", "/usr/lib/qemu"};
static const char *const firmwares[] = {"/usr/share/qemu/qboot.rom", "/usr/share/qemu/bios-microvm.bin",
                                        "/usr/share/seabios/bios-microvm.bin"};

int microvm_parts_open(struct microvm_parts *ret_parts, struct error *err)
{
    struct microvm_parts p = {.monitor_fd = -1, .module_fd = -1, .firmware_fd = -1};
    char path[128];
    int r = isolate_guest_kernel_find(&p.kernel, err);
    if (r < 0)
        return r;
    if (isolate_program_find("qemu-system-x86_64", path, sizeof path))
        p.monitor_fd = open(path, O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; p.module_fd < 0 && i < sizeof module_folders / sizeof *module_folders; i++) {
        (void)snprintf(p.module_path, sizeof p.module_path, "%s/accel-tcg-x86_64.so", module_folders[i]); /* fits */
        p.module_fd = open(p.module_path, O_RDONLY | O_CLOEXEC);
    }
    for (size_t i = 0; p.firmware_fd < 0 && i < sizeof firmwares / sizeof *firmwares; i++)
        p.firmware_fd = open(firmwares[i], O_RDONLY | O_CLOEXEC);
    if (p.monitor_fd < 0 || p.firmware_fd < 0) {
        microvm_parts_close(&p);
        return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                         "no machine monitor (QEMU) found; for level microvm: apt install qemu-system-x86");
    }
    *ret_parts = p;
    return 0;
}

void microvm_parts_close(struct microvm_parts *parts)
{
    fd_close(&parts->monitor_fd);
    fd_close(&parts->module_fd);
    fd_close(&parts->firmware_fd);
    isolate_guest_kernel_done(&parts->kernel);
}

struct command {
    const char *argv[ARGV_MAX];
    size_t n;
    char memory[32], cpus[32], append[160];
};

static void add(struct command *c, const char *argument)
{
    if (c->n < ARGV_MAX - 1)
        c->argv[c->n++] = argument;
}

static void add_pair(struct command *c, const char *option, const char *value)
{
    add(c, option);
    add(c, value);
}

static void command_devices(struct command *c)
{
    add_pair(c, "-device", "virtio-serial-device,max_ports=4");
    add_pair(c, "-chardev", "socket,id=control,fd=6");
    add_pair(c, "-device", "virtserialport,chardev=control,name=" ISOLATE_GUEST_PORT_CONTROL);
    add_pair(c, "-chardev", "socket,id=channel,fd=7");
    add_pair(c, "-device", "virtserialport,chardev=channel,name=" ISOLATE_GUEST_PORT_CHANNEL);
    add_pair(c, "-add-fd", "fd=8,set=1");
    add_pair(c, "-blockdev", "driver=file,node-name=model,filename=/dev/fdset/1,read-only=on,locking=off");
    add_pair(c, "-device", "virtio-blk-device,drive=model");
}
_Static_assert(FD_CONTROL == 6 && FD_CHANNEL == 7 && FD_DISK == 8 && FD_CONSOLE == 9, "as written above");

/* An emulated processor counts with the host's counter. Told how fast that is, the guest need not measure it against an
 * emulated timer, which fails on a busy host, and without a clock the kernel hangs. It would also compare the counter
 * with its own ticks, which a busy host delays, call it unstable and go on with the ticks alone, which stop when it is
 * idle: tsc=reliable. */
static unsigned long long clock_khz(void)
{
    static unsigned long long khz;
    if (khz > 0)
        return khz;
    uint64_t start_ns = clock_monotonic_ns(), start = __builtin_ia32_rdtsc();
    (void)poll(NULL, 0, 20);
    uint64_t end = __builtin_ia32_rdtsc(), end_ns = clock_monotonic_ns();
    khz = (unsigned long long)((unsigned __int128)(end - start) * 1000000u / (end_ns - start_ns));
    return khz;
}

static void command_make(struct command *c, uint64_t memory_mib, uint32_t cpus, bool kvm, bool probe, bool console)
{
    *c = (struct command){.n = 0};
    add(c, "bulkhead-machine"); /* its name in lists of processes */
    add_pair(c, "-nodefaults", "-no-user-config");
    add_pair(c, "-display", "none");
    add(c, "-no-reboot");
    add_pair(c, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    add_pair(c, "-machine",
             console ? "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=on,x-option-roms=off"
                     : "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=off,x-option-roms=off");
    add_pair(c, "-accel", kvm ? "kvm" : "tcg,tb-size=64");
    add_pair(c, "-cpu", kvm ? "host" : "max");
    (void)snprintf(c->memory, sizeof c->memory, "size=%lluM", (unsigned long long)memory_mib); /* fits */
    add_pair(c, "-m", c->memory);
    /* Before its version 8.1, QEMU emulates memory barriers only where there may be more than one processor; but they
     * also stand between the guest and its devices, which QEMU serves in another thread. Without them a guest misses
     * an interrupt of its ports or its disk now and then, and stands still for ever. */
    (void)snprintf(c->cpus, sizeof c->cpus, "%u%s", cpus, !kvm && cpus == 1 ? ",maxcpus=2" : ""); /* fits */
    add_pair(c, "-smp", c->cpus);
    add_pair(c, "-bios", "/proc/self/fd/5");
    add_pair(c, "-kernel", "/proc/self/fd/3");
    add_pair(c, "-initrd", "/proc/self/fd/4");
    (void)snprintf(c->append, sizeof c->append, "quiet panic=-1 reboot=t%s%s", console ? " console=ttyS0" : "",
                   probe ? " " ISOLATE_GUEST_PROBE_OPTION : ""); /* fits */
    size_t size = strlen(c->append);
    if (!kvm)
        (void)snprintf(c->append + size, sizeof c->append - size, " tsc=reliable tsc_early_khz=%llu",
                       clock_khz()); /* fits */
    add_pair(c, "-append", c->append);
    add_pair(c, "-device", "isa-debug-exit,iobase=0xf4,iosize=1");
    if (console) {
        add_pair(c, "-add-fd", "fd=9,set=2");
        add_pair(c, "-chardev", "file,id=console,path=/dev/fdset/2,append=on");
        add_pair(c, "-serial", "chardev:console");
    }
    command_devices(c);
}
_Static_assert(FD_KERNEL == 3 && FD_IMAGE == 4 && FD_FIRMWARE == 5 && ISOLATE_GUEST_EXIT_PORT == 0xF4,
               "as written above");

/* The memory of the machine: what the worker may use, and what lies in it beside. While it boots, the packed and the
 * unpacked image are both there, and nothing else is. */
static uint64_t memory_mib(uint64_t limit, uint64_t disk_bytes, uint64_t image_bytes)
{
    uint64_t running = LIMIT_MICROVM_KERNEL_BYTES + limit + disk_bytes + image_bytes;
    uint64_t booting = LIMIT_MICROVM_KERNEL_BYTES + 2 * image_bytes;
    return ((running > booting ? running : booting) + MIB - 1) / MIB;
}

int microvm_run(const struct microvm_parts *parts, const struct isolate_spawn *spawn, int image_fd,
                uint64_t image_bytes, bool kvm, struct isolate_instance **ret_instance, int *ret_pidfd,
                struct error *err)
{
    const struct isolate_machine *machine = spawn->machine;
    bool container = spawn->runtime != ISOLATE_RUNTIME_ANY;
    uint64_t more = container ? image_bytes + LIMIT_MICROVM_RUNTIME_BYTES : 0; /* its root is a copy */
    uint64_t mib = memory_mib(spawn->limits.memory_bytes + more, machine->disk_bytes, image_bytes);
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", machine->disk_fd); /* fits */
    _close_ int disk = open(path, O_RDONLY | O_CLOEXEC); /* the monitor opens what it may only read no other way */
    if (disk < 0)
        return error_set(err, ERROR_IO, "The disk of the machine cannot be opened: %m.");
    const int fds[FD_END - FD_KERNEL] = {parts->kernel.kernel_fd, image_fd, parts->firmware_fd, machine->control_fd,
                                         machine->channel_fd,     disk,     spawn->stderr_fd};
    bool console = spawn->stderr_fd > 0 && (fcntl(spawn->stderr_fd, F_GETFL) & O_ACCMODE) == O_WRONLY;
    struct command command;
    command_make(&command, mib, (spawn->limits.cpu_milli + 999) / 1000, kvm, !spawn->argv[0], console);
    /* It looks for its modules from its own folder on: /usr/bin/../lib/… */
    const struct isolate_root_extra extra = {.library_path = parts->module_path, .folder = "/usr/bin", .kvm = kvm};
    struct isolate_spawn monitor = *spawn;
    monitor.program_fd = parts->monitor_fd;
    monitor.library_fd = parts->module_fd;
    monitor.root = &extra;
    monitor.proc = true; /* it opens its own descriptors there */
    monitor.argv = command.argv;
    monitor.fds = fds;
    monitor.n_fds = console ? FD_END - FD_KERNEL : FD_CONSOLE - FD_KERNEL;
    monitor.limits.memory_bytes = mib * MIB + LIMIT_MICROVM_MONITOR_BYTES;
    monitor.limits.pids = MONITOR_PIDS;
    monitor.limits.fds = MONITOR_FDS;
    int r = isolate_process.spawn(&monitor, ret_instance, ret_pidfd, err);
    if (r == 0)
        (*ret_instance)->nested = container;
    if (r == 0)
        (*ret_instance)->memory_extra = monitor.limits.memory_bytes - spawn->limits.memory_bytes;
    return r;
}
