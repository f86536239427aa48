/* Brings the machine up, and down. */
#include "guest/guest_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PORT_WAIT_MS 5000
#define PORTS        "/sys/class/virtio-ports"

/* The memory file system that the kernel unpacks into cannot be pivoted away from, as the worker's wall wants to do: a
 * second mount of it, put over the first, can. */
static int root_cover(void)
{
    if ((mkdir("/root", 0700) != 0 && errno != EEXIST) || mount("/", "/root", NULL, MS_BIND, NULL) != 0 ||
        chdir("/root") != 0)
        return -1;
    if (mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0)
        return -1;
    return chdir("/");
}

static int file_systems_mount(struct error *err)
{
    static const struct {
        const char *type, *path, *options;
        unsigned long flags;
    } rows[] = {
        {"devtmpfs", "/dev", "mode=0755", MS_NOSUID | MS_NOEXEC},
        {"proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
        {"sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
        {"tmpfs", "/tmp", "size=1m,mode=0755", MS_NOSUID | MS_NODEV | MS_NOEXEC},
        {"cgroup2", "/sys/fs/cgroup", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
    };
    if (root_cover() != 0 || (mkdir("/run", 0755) != 0 && errno != EEXIST))
        return error_set(err, ERROR_IO, "the root cannot be covered: %m");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if ((mkdir(rows[i].path, 0755) != 0 && errno != EEXIST) ||
            mount(rows[i].type, rows[i].path, rows[i].type, rows[i].flags, rows[i].options) != 0)
            return error_set(err, ERROR_IO, "%s cannot be mounted: %m", rows[i].path);
    }
    return 0;
}

static int module_load(int folder, const char *name, struct error *err)
{
    _close_ int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    size_t size = strlen(name);
    /* Compressed ones the kernel unpacks itself, where it can. */
    int flags = size > 3 && strcmp(name + size - 3, ".ko") == 0 ? 0 : MODULE_INIT_COMPRESSED_FILE;
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", flags) != 0 && errno != EEXIST))
        return error_set(err, ERROR_UNSUPPORTED, "module %s cannot be loaded: %m", name);
    return 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int modules_load(struct error *err)
{
    struct dirent **names;
    _close_ int folder = open(ISOLATE_GUEST_MODULES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int n = scandir(ISOLATE_GUEST_MODULES, &names, visible, by_name);
    if (folder < 0 || n < 0)
        return error_set(err, ERROR_IO, "there are no modules: %m");
    int r = 0;
    for (int i = 0; i < n; i++) {
        if (r == 0)
            r = module_load(folder, names[i]->d_name, err);
        free(names[i]);
    }
    free(names);
    return r;
}

int guest_boot(struct error *err)
{
    int r = file_systems_mount(err);
    return r < 0 ? r : modules_load(err);
}

static bool port_has_name(const char *port, const char *name)
{
    char path[320], text[64] = "";
    (void)snprintf(path, sizeof path, PORTS "/%s/name", port); /* fits */
    _close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n <= 0)
        return false;
    text[strcspn(text, "\n")] = '\0';
    return strcmp(text, name) == 0;
}

static int port_find(const char *name, int flags)
{
    DIR *folder = opendir(PORTS);
    int fd = -1;
    for (struct dirent *entry; folder && fd < 0 && (entry = readdir(folder));) {
        char path[320];
        if (entry->d_name[0] == '.' || !port_has_name(entry->d_name, name))
            continue;
        (void)snprintf(path, sizeof path, "/dev/%s", entry->d_name); /* fits */
        fd = open(path, flags | O_CLOEXEC);
    }
    if (folder)
        (void)closedir(folder);
    return fd;
}

int guest_port_open(const char *name, int flags, int *ret_fd, struct error *err)
{
    for (int waited_ms = 0; waited_ms < PORT_WAIT_MS; waited_ms += 5) {
        int fd = port_find(name, flags);
        if (fd >= 0) {
            *ret_fd = fd;
            return 0;
        }
        (void)poll(NULL, 0, 5);
    }
    return error_set(err, ERROR_IO, "the port %s does not appear", name);
}

bool guest_option(const char *option)
{
    char text[2048];
    _close_ int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n <= 0)
        return false;
    text[n] = '\0';
    char *rest = NULL;
    for (char *word = strtok_r(text, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest))
        if (strcmp(word, option) == 0)
            return true;
    return false;
}

_Noreturn void guest_end(enum isolate_guest_end how)
{
    if (ioperm(ISOLATE_GUEST_EXIT_PORT, 1, 1) == 0)
        outb((unsigned char)how, ISOLATE_GUEST_EXIT_PORT);
    (void)reboot(RB_POWER_OFF); /* a machine without that port */
    for (;;)
        (void)poll(NULL, 0, -1);
}
