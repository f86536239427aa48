#include "isolate/isolate_facts.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

const char *const isolate_namespace_names[ISOLATE_NS_COUNT] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};

static uint64_t namespace_inode(const char *process, const char *name)
{
    char path[64];
    struct stat info;
    (void)snprintf(path, sizeof path, "/proc/%s/ns/%s", process, name); /* fits */
    return stat(path, &info) == 0 ? (uint64_t)info.st_ino : 0;
}

static bool root_differs(const char *process)
{
    char path[64];
    struct stat theirs, ours;
    (void)snprintf(path, sizeof path, "/proc/%s/root/.", process); /* fits */
    if (stat(path, &theirs) != 0 || stat("/", &ours) != 0)
        return false;
    return theirs.st_dev != ours.st_dev || theirs.st_ino != ours.st_ino;
}

/* "Seccomp:\t2" */
static bool field_of(const char *line, const char *name, const char **ret_value)
{
    size_t size = strlen(name);
    if (strncmp(line, name, size) != 0 || line[size] != ':')
        return false;
    *ret_value = line + size + 1 + strspn(line + size + 1, " \t");
    return true;
}

static bool status_read(const char *process, struct isolate_facts *f)
{
    char path[64], line[512];
    (void)snprintf(path, sizeof path, "/proc/%s/status", process); /* fits */
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    while (fgets(line, sizeof line, file)) {
        const char *value;
        /* The kernel's own numbers, one a line: nothing else can follow. */
        if (field_of(line, "Seccomp", &value))
            f->seccomp = (uint32_t)strtoul(value, NULL, 10);
        else if (field_of(line, "NoNewPrivs", &value))
            f->no_new_privs = value[0] == '1';
        else if (field_of(line, "CapEff", &value))
            f->capabilities = strtoull(value, NULL, 16);
        else if (field_of(line, "Uid", &value))
            f->uid = (uint32_t)strtoul(value, NULL, 10);
    }
    (void)fclose(file);
    return true;
}

/* Lines are "7:memory:/a/b"; the first that is ours. */
static void cgroup_read(const char *process, struct isolate_facts *f)
{
    char path[64], line[4096];
    (void)snprintf(path, sizeof path, "/proc/%s/cgroup", process); /* fits */
    FILE *file = fopen(path, "re");
    while (file && !f->cgroup[0] && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        const char *group = strchr(line, ':');
        group = group ? strchr(group + 1, ':') : NULL;
        if (group && strstr(group, "/bulkhead."))
            (void)snprintf(f->cgroup, sizeof f->cgroup, "%s", group + 1); /* cut is fine: for people */
    }
    if (file)
        (void)fclose(file);
}

bool isolate_facts_read(pid_t pid, struct isolate_facts *ret_facts)
{
    char process[16];
    struct utsname name;
    *ret_facts = (struct isolate_facts){0};
    (void)snprintf(process, sizeof process, "%d", (int)pid); /* fits */
    if (pid <= 0 || !status_read(process, ret_facts))
        return false;
    for (unsigned i = 0; i < ISOLATE_NS_COUNT; i++) {
        ret_facts->namespaces[i] = namespace_inode(process, isolate_namespace_names[i]);
        uint64_t ours = namespace_inode("self", isolate_namespace_names[i]);
        if (ret_facts->namespaces[i] != 0 && ret_facts->namespaces[i] != ours)
            ret_facts->own |= 1u << i;
    }
    ret_facts->own_root = root_differs(process);
    cgroup_read(process, ret_facts);
    if (uname(&name) == 0)
        (void)snprintf(ret_facts->kernel, sizeof ret_facts->kernel, "%.20s %.70s", name.sysname, name.release);
    return true;
}
