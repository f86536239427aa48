/* The positive control, as root and without walls:
 *
 *   escape list               names them all; those for a throw-away machine are marked
 *   escape NAME [ARGUMENT]    makes one attempt
 *
 * As the first program of a virtual machine it makes those that are marked, says so on the console, and ends the
 * machine. */
#include "escape.h"

#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct escape *const tables[] = {escapes_files, escapes_kernel, escapes_process, escapes_network};

static void each(int machine_only, void (*use)(const struct escape *e))
{
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        for (const struct escape *e = tables[t]; e->name; e++) {
            if (e->machine || !machine_only)
                use(e);
        }
    }
}

static void name_print(const struct escape *e)
{
    (void)printf("%s%s\n", e->name, e->machine ? " machine" : "");
}

static void attempt_print(const struct escape *e)
{
    char text[512];
    (void)escape_run(e->name, "", text, sizeof text);
    (void)printf("escape: %s %s\n", e->name, text);
    (void)fflush(stdout);
}

static _Noreturn void machine_run(void)
{
    (void)mkdir("/proc", 0755);
    (void)mkdir("/sys", 0755);
    (void)mkdir("/dev", 0755);
    (void)mkdir("/tmp", 0755);
    (void)mount("proc", "/proc", "proc", 0, NULL);
    (void)mount("sysfs", "/sys", "sysfs", 0, NULL);
    (void)mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    if (freopen("/dev/console", "w", stdout))
        each(1, attempt_print);
    (void)reboot(RB_AUTOBOOT); /* which the machine's monitor was told to take for the end */
    for (;;)
        (void)pause();
}

int main(int argc, char **argv)
{
    char text[512];
    if (getpid() == 1)
        machine_run();
    if (argc == 2 && strcmp(argv[1], "list") == 0) {
        each(0, name_print);
        return 0;
    }
    if (argc < 2 || argc > 3 || escape_run(argv[1], argc > 2 ? argv[2] : "", text, sizeof text) < 0) {
        (void)fprintf(stderr, "usage: escape list | escape NAME [ARGUMENT]\n");
        return 2;
    }
    (void)puts(text);
    return 0;
}
