#include "isolate/isolate_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>

const char *const isolate_level_names[ISOLATE_LEVEL_COUNT] = {
    [ISOLATE_NONE] = "none",       [ISOLATE_SHARED] = "shared",       [ISOLATE_POOL] = "pool",
    [ISOLATE_PROCESS] = "process", [ISOLATE_CONTAINER] = "container", [ISOLATE_MICROVM] = "microvm",
};

const char *const isolate_runtime_names[ISOLATE_RUNTIME_COUNT] = {
    [ISOLATE_RUNTIME_ANY] = "any",     [ISOLATE_RUNTIME_RUNC] = "runc", [ISOLATE_RUNTIME_CRUN] = "crun",
    [ISOLATE_RUNTIME_RUNSC] = "runsc", [ISOLATE_RUNTIME_KATA] = "kata",
};

enum isolate_level isolate_level_from_name(struct str name)
{
    for (int level = ISOLATE_NONE + 1; level < ISOLATE_LEVEL_COUNT; level++) {
        if (str_equal(name, str_from(isolate_level_names[level])))
            return (enum isolate_level)level;
    }
    return ISOLATE_NONE;
}

int isolate_spawn_check(const struct isolate_spawn *s, bool walls, struct error *err)
{
    const char *wrong = NULL;
    if (!s->name || !s->name[0] || strlen(s->name) > LIMIT_NAME_BYTES ||
        s->name[strspn(s->name, "abcdefghijklmnopqrstuvwxyz0123456789-")] != '\0')
        wrong = "the name is not 1 to 63 of a-z, 0-9 and -";
    else if (s->program_fd < 0 || !s->argv || !s->argv[0])
        wrong = "there is no program or no argument list";
    else if (s->n_fds > ISOLATE_FDS_MAX || (s->n_fds > 0 && !s->fds))
        wrong = "there are too many descriptors";
    else if (s->limits.memory_bytes == 0 || s->limits.cpu_milli == 0 || s->limits.pids == 0)
        wrong = "a limit is 0";
    else if (s->limits.fds < 3 + s->n_fds)
        wrong = "the limit of descriptors is below the number handed over";
    else if (walls && (s->uid == 0 || s->gid == 0 || s->uid == (uid_t)-1 || s->gid == (gid_t)-1))
        wrong = "a worker never runs as root";
    for (size_t i = 0; !wrong && i < s->n_fds; i++) {
        if (s->fds[i] < 0)
            wrong = "a descriptor is absent";
    }
    return wrong ? error_set(err, ERROR_INVALID_ARGUMENT, "The worker cannot be started: %s.", wrong) : 0;
}

struct isolate_instance *isolate_instance_new(const struct isolate_spawn *spawn)
{
    struct isolate_instance *i = calloc(1, sizeof *i);
    if (!i)
        return NULL;
    i->pidfd = -1;
    i->uid = spawn->uid;
    (void)snprintf(i->name, sizeof i->name, "%s", spawn->name); /* length was checked */
    return i;
}

void isolate_instance_free(struct isolate_instance *i)
{
    if (!i)
        return;
    fd_close(&i->pidfd);
    free(i);
}

int isolate_instance_reap(struct isolate_instance *i, int *ret_status)
{
    if (!i->reaped) {
        int r = isolate_wait(i->pidfd, false, &i->status);
        if (r != 0)
            return r;
        i->reaped = true;
    }
    *ret_status = i->status;
    return 0;
}

void isolate_instance_kill(struct isolate_instance *i)
{
    if (!i->reaped)
        (void)syscall(SYS_pidfd_send_signal, i->pidfd, SIGKILL, NULL, 0); /* ESRCH: it is dead already */
}

static void memory_usage(struct isolate_instance *i)
{
    char path[64], text[128];
    (void)snprintf(path, sizeof path, "/proc/%d/statm", (int)i->pid); /* fits */
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    struct str rest = {text, fread(text, 1, sizeof text, file)};
    (void)fclose(file);
    /* "size resident shared …", in pages */
    for (int skip = 0; skip < 1; skip++) {
        const char *space = memchr(rest.data, ' ', rest.size);
        rest = space ? str_skip(rest, (size_t)(space - rest.data) + 1) : (struct str){0};
    }
    const char *end = rest.size > 0 ? memchr(rest.data, ' ', rest.size) : NULL;
    uint64_t pages;
    if (!end || str_to_u64((struct str){rest.data, (size_t)(end - rest.data)}, &pages) != 0)
        return;
    i->usage_last.memory_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    if (i->usage_last.memory_bytes > i->usage_last.memory_peak_bytes)
        i->usage_last.memory_peak_bytes = i->usage_last.memory_bytes;
}

void isolate_process_usage(struct isolate_instance *i)
{
    if (i->reaped)
        return; /* the pid may be another's by now */
    memory_usage(i);
    i->usage_last.pids = 1;
    clockid_t clock;
    struct timespec used;
    if (clock_getcpuclockid(i->pid, &clock) == 0 && clock_gettime(clock, &used) == 0)
        i->usage_last.cpu_ns = (uint64_t)used.tv_sec * UINT64_C(1000000000) + (uint64_t)used.tv_nsec;
}
