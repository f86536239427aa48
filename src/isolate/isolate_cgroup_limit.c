/* The limits and the figures of a group: what the files are called in v1 and v2, and what goes into them. */
#include "isolate/isolate_cgroup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define CPU_QUOTA_US_MIN 1000u /* the kernel refuses less */
/* What a core weighs where more is wanted than there is, and the range: the kernel's defaults and limits. */
#define CPU_SHARES_CORE 1024u
#define CPU_SHARES_MIN  2u
#define CPU_SHARES_MAX  262144u
#define CPU_WEIGHT_CORE 100u
#define CPU_WEIGHT_MIN  1u
#define CPU_WEIGHT_MAX  10000u
/* Likewise for disks: the range that all of the kernel's schedulers take; v2's goes further. */
#define IO_WEIGHT_CORE 100u
#define IO_WEIGHT_MIN  10u
#define IO_WEIGHT_MAX  1000u

static const struct cgroup_home *home_of(const struct cgroup_tree *t, const struct cgroup_group *g, unsigned controller)
{
    for_each_home(t, g, h)
    {
        if (t->homes[h].controllers & (1u << controller))
            return &t->homes[h];
    }
    return NULL;
}

static int v1_memory(const struct cgroup_home *h, const char *group, const struct isolate_limits *limits)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%" PRIu64, limits->memory_bytes);
    int r = cgroup_file_write(h, group, "memory.limit_in_bytes", text);
    int swap = cgroup_file_write(h, group, "memory.memsw.limit_in_bytes", text); /* memory + swap: so no swap */
    if (r == -EINVAL && swap == 0) /* memory may not exceed memory + swap: raising wants the other order */
        r = cgroup_file_write(h, group, "memory.limit_in_bytes", text);
    if (r == 0 && swap == -ENOENT) /* swap is not accounted on this kernel: the next best */
        (void)cgroup_file_write(h, group, "memory.swappiness", "0");
    return r != 0 ? r : swap == -ENOENT ? 0 : swap;
}

static int v2_memory(const struct cgroup_home *h, const char *group, const struct isolate_limits *limits)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%" PRIu64, limits->memory_bytes);
    int r = cgroup_file_write(h, group, "memory.swap.max", "0");
    if (r != 0 && r != -ENOENT) /* absent: the kernel has no swap */
        return r;
    r = cgroup_file_write(h, group, "memory.oom.group", "1"); /* a worker dies whole */
    if (r != 0 && r != -ENOENT)
        return r;
    return cgroup_file_write(h, group, "memory.max", text);
}

uint64_t cgroup_cpu_quota_us(const struct isolate_limits *limits)
{
    uint64_t quota_us = (uint64_t)limits->cpu_milli * CGROUP_CPU_PERIOD_US / 1000;
    return quota_us < CPU_QUOTA_US_MIN ? CPU_QUOTA_US_MIN : quota_us;
}

/* In proportion to the cores that the worker may use. A kernel that cannot weigh groups has no such file. */
static int weight_set(const struct cgroup_home *h, const char *group, const char *file, uint64_t weight, uint64_t min,
                      uint64_t max)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%" PRIu64, weight < min ? min : weight > max ? max : weight);
    int r = cgroup_file_write(h, group, file, text);
    return r == -ENOENT ? 0 : r;
}

static int v1_cpu(const struct cgroup_home *h, const char *group, const struct isolate_limits *limits)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%u", CGROUP_CPU_PERIOD_US);
    int r = cgroup_file_write(h, group, "cpu.cfs_period_us", text);
    (void)snprintf(text, sizeof text, "%" PRIu64, cgroup_cpu_quota_us(limits));
    if (r == 0)
        r = cgroup_file_write(h, group, "cpu.cfs_quota_us", text);
    return r != 0 ? r
                  : weight_set(h, group, "cpu.shares", (uint64_t)limits->cpu_milli * CPU_SHARES_CORE / 1000,
                               CPU_SHARES_MIN, CPU_SHARES_MAX);
}

static int v2_cpu(const struct cgroup_home *h, const char *group, const struct isolate_limits *limits)
{
    char text[64];
    (void)snprintf(text, sizeof text, "%" PRIu64 " %u", cgroup_cpu_quota_us(limits), CGROUP_CPU_PERIOD_US);
    int r = cgroup_file_write(h, group, "cpu.max", text);
    return r != 0 ? r
                  : weight_set(h, group, "cpu.weight", (uint64_t)limits->cpu_milli * CPU_WEIGHT_CORE / 1000,
                               CPU_WEIGHT_MIN, CPU_WEIGHT_MAX);
}

static int any_pids(const struct cgroup_home *h, const char *group, const struct isolate_limits *limits)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%" PRIu32, limits->pids);
    return cgroup_file_write(h, group, "pids.max", text);
}

/* As the processors are weighed, so that no worker starves the others at the disks. Which of the files is there, and
 * what comes of it, is for the disk's scheduler to say: io.weight is the kernel's cost model, the others BFQ and CFQ.
 */
static int any_io(const struct cgroup_home *h, const char *group, const struct isolate_limits *limits)
{
    static const char *const files[2][2] = {{"blkio.weight", "blkio.bfq.weight"}, {"io.weight", "io.bfq.weight"}};
    uint64_t weight = (uint64_t)limits->cpu_milli * IO_WEIGHT_CORE / 1000;
    int r = weight_set(h, group, files[h->version - 1][0], weight, IO_WEIGHT_MIN, IO_WEIGHT_MAX);
    return r != 0 ? r : weight_set(h, group, files[h->version - 1][1], weight, IO_WEIGHT_MIN, IO_WEIGHT_MAX);
}

int cgroup_group_limit(const struct cgroup_tree *t, const struct cgroup_group *g, const struct isolate_limits *limits,
                       bool required, struct error *err)
{
    static const struct {
        enum cgroup_controller controller;
        const char *name;
        int (*set[2])(const struct cgroup_home *h, const char *group, const struct isolate_limits *limits);
    } setters[] = {
        {CGROUP_MEMORY, "memory", {v1_memory, v2_memory}},
        {CGROUP_CPU, "cpu", {v1_cpu, v2_cpu}},
        {CGROUP_PIDS, "pids", {any_pids, any_pids}},
        {CGROUP_IO, "io", {any_io, any_io}},
    };
    int result = 0;
    for (size_t i = 0; i < sizeof setters / sizeof *setters; i++) {
        const struct cgroup_home *h = home_of(t, g, setters[i].controller);
        int r = h ? setters[i].set[h->version - 1](h, g->name, limits) : -ENODEV;
        if (r == 0 || (!h && (CGROUP_WELCOME & (1u << setters[i].controller))))
            continue;
        errno = -r;
        if (h)
            result = error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The %s limit could not be set: %m.", setters[i].name);
        else
            result = error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The limits cannot be set: %s.", t->missing);
        if (required)
            break;
    }
    return result;
}

/* The number that stands alone in the file, or behind `key` and a blank. Untouched when there is none. */
static void number_read(const struct cgroup_home *h, const char *group, const char *file, const char *key,
                        uint64_t *number)
{
    char text[4096];
    int size = cgroup_file_read(h, group, file, text, sizeof text);
    struct str rest = {text, size > 0 ? (size_t)size : 0};
    while (rest.size > 0) {
        const char *end = memchr(rest.data, '\n', rest.size);
        struct str line = {rest.data, end ? (size_t)(end - rest.data) : rest.size};
        rest = str_skip(rest, line.size + (end ? 1 : 0));
        size_t key_size = key ? strlen(key) : 0;
        if (key && (!str_starts(line, str_from(key)) || line.size <= key_size || line.data[key_size] != ' '))
            continue;
        uint64_t value;
        if (str_to_u64(key ? str_skip(line, key_size + 1) : line, &value) == 0)
            *number = value;
        return;
    }
}

void cgroup_group_usage(const struct cgroup_tree *t, const struct cgroup_group *g, struct isolate_usage *usage)
{
    uint64_t pids = usage->pids, cpu_us = 0;
    for_each_home(t, g, i)
    {
        const struct cgroup_home *h = &t->homes[i];
        bool v2 = h->version == 2;
        if (h->controllers & (1u << CGROUP_MEMORY)) {
            number_read(h, g->name, v2 ? "memory.current" : "memory.usage_in_bytes", NULL, &usage->memory_bytes);
            number_read(h, g->name, v2 ? "memory.peak" : "memory.max_usage_in_bytes", NULL, &usage->memory_peak_bytes);
            number_read(h, g->name, v2 ? "memory.events" : "memory.oom_control", "oom_kill", &usage->oom_kills);
        }
        if (h->controllers & (1u << CGROUP_PIDS))
            number_read(h, g->name, "pids.current", NULL, &pids);
        if (h->controllers & (1u << CGROUP_CPUACCT))
            number_read(h, g->name, "cpuacct.usage", NULL, &usage->cpu_ns);
        if (v2 && h->controllers & (1u << CGROUP_CPU))
            number_read(h, g->name, "cpu.stat", "usage_usec", &cpu_us);
    }
    if (cpu_us > 0)
        usage->cpu_ns = cpu_us * 1000;
    usage->pids = pids > UINT32_MAX ? UINT32_MAX : (uint32_t)pids;
    if (usage->memory_peak_bytes < usage->memory_bytes) /* memory.peak came with Linux 5.19 */
        usage->memory_peak_bytes = usage->memory_bytes;
}
