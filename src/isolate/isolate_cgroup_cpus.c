/* Which processors a group may use: controller cpuset, v1 and v2. */
#include "isolate/isolate_cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

static int file_copy(int from_dir, const struct cgroup_home *h, const char *group, const char *file)
{
    char text[ISOLATE_CPUS_TEXT];
    _close_ int fd = openat(from_dir, file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t size = read(fd, text, sizeof text - 1);
    if (size < 0)
        return -errno;
    text[size] = '\0';
    return size > 1 ? cgroup_file_write(h, group, file, text) : -ENOSPC; /* as the kernel says of a join */
}

int cgroup_cpus_inherit(const struct cgroup_home *h, const char *group)
{
    if (h->version != 1 || !(h->controllers & (1u << CGROUP_CPUSET)))
        return 0;
    int from = group ? h->base_fd : h->parent_fd;
    const char *name = group ? group : ".";
    /* The folder above balances load over all of them. Where it says so too, each start and end would have the kernel
     * work its scheduling domains out anew. */
    (void)cgroup_file_write(h, name, "cpuset.sched_load_balance", "0"); /* dearer without, nothing else */
    int r = file_copy(from, h, name, "cpuset.mems");
    return r == 0 ? file_copy(from, h, name, "cpuset.cpus") : r;
}

static int cpus_read(const struct cgroup_home *h, const char *group, const char *file, struct isolate_cpus *ret_set)
{
    char text[ISOLATE_CPUS_TEXT];
    int size = cgroup_file_read(h, group, file, text, sizeof text);
    if (size < 0)
        return size;
    return isolate_cpus_parse((struct str){text, (size_t)size}, ret_set) == 0 ? 0 : -EINVAL;
}

int cgroup_group_cpus(const struct cgroup_tree *t, const struct cgroup_group *g, const struct isolate_cpus *cpus,
                      struct error *err)
{
    char text[ISOLATE_CPUS_TEXT];
    isolate_cpus_text(cpus, text, sizeof text);
    for_each_home(t, g, i)
    {
        const struct cgroup_home *h = &t->homes[i];
        struct isolate_cpus got = {0};
        if (!(h->controllers & (1u << CGROUP_CPUSET)))
            continue;
        int r = cgroup_file_write(h, g->name, "cpuset.cpus", text);
        if (r == 0)
            r = cpus_read(h, g->name, h->version == 2 ? "cpuset.cpus.effective" : "cpuset.effective_cpus", &got);
        errno = -r;
        if (r < 0)
            return error_set(err, ERROR_ISOLATION_UNAVAILABLE, "The processors %.100s could not be set: %m.", text);
        if (!isolate_cpus_within(&got, cpus) || !isolate_cpus_within(cpus, &got)) {
            char had[128];
            isolate_cpus_text(&got, had, sizeof had);
            return error_set(err, ERROR_ISOLATION_UNAVAILABLE,
                             "The processors %.100s could not be set: the kernel gives %.100s instead.", text,
                             had[0] ? had : "none");
        }
        return 0;
    }
    return error_set(
        err, ERROR_ISOLATION_UNAVAILABLE,
        "Processors cannot be set apart: this host has no cgroup controller cpuset that the server may use.");
}
