#include "ladder/ladder.h"

const char *const ladder_level_names[LADDER_LEVEL_COUNT] = {"none",    "shared",    "pool",
                                                            "process", "container", "microvm"};

const char *const ladder_part_names[LADDER_PARTS] = {
    "pidNamespace",    "netNamespace", "ipcNamespace", "mountNamespace",   "userNamespace", "utsNamespace",
    "cgroupNamespace", "ownRoot",      "limits",       "systemCallFilter", "noPrivilege",
};

const char *const ladder_topic_names[LADDER_TOPIC_COUNT] = {"faults",  "memory", "files", "network",
                                                            "cpuTime", "timing", "kernel"};
const char *const ladder_verdict_names[LADDER_VERDICT_COUNT] = {"not contained", "limited", "contained"};

#define NAMESPACES                                                                                      \
    (LADDER_PID_NS | LADDER_NET_NS | LADDER_IPC_NS | LADDER_MOUNT_NS | LADDER_USER_NS | LADDER_UTS_NS | \
     LADDER_CGROUP_NS)
#define EVERYTHING (NAMESPACES | LADDER_ROOT | LADDER_LIMITS | LADDER_SECCOMP | LADDER_NO_PRIVILEGE)

enum ladder_level ladder_level_from_name(struct str name)
{
    for (int level = LADDER_NONE + 1; level < LADDER_LEVEL_COUNT; level++)
        if (str_equal(name, str_from(ladder_level_names[level])))
            return (enum ladder_level)level;
    return LADDER_NONE;
}

uint32_t ladder_parts_meant(enum ladder_level level)
{
    return level > LADDER_NONE && level < LADDER_LEVEL_COUNT ? EVERYTHING : 0;
}

/* Rows that several levels share. */
#define CRASH "a process of its own: a crash ends this worker alone; its requests get 503, and it is started again"
#define MEMORY_LIMITED \
    "an address space of its own, and a limit without swap: beyond it this worker is killed, nothing else"
#define MEMORY_UNLIMITED                                                                                              \
    "an address space of its own, so others' memory cannot be read; but NO LIMIT: it can take all the memory of the " \
    "host"
#define FILES_OWN  "a root folder of its own, read-only, with the engine's libraries and nothing of the host"
#define FILES_USER "only its own user and no privilege: it can read whatever every user of this host may read"
#define FILES_HOST "nothing: it sees the host's files with the rights of its user"
#define NETWORK_OWN                                                                                                \
    "a network namespace of its own in which no interface is up: it reaches nothing, not even this host; its own " \
    "unix sockets aside"
#define NETWORK_HOST "nothing: it is in the host's network"
#define CPU_LIMITED \
    "a quota: never more than its cores in any 100 ms; within it, it competes with its neighbours for cores and caches"
#define CPU_UNLIMITED "NO LIMIT: it can keep every core busy; the scheduler of the kernel shares them out"
#define TIMING_SHARED \
    "nothing: it shares caches, predictors and memory bandwidth with its neighbours; only other hardware contains that"
#define KERNEL_FILTERED                                                                                           \
    "the host's kernel, behind a list of allowed system calls, without privilege: a flaw behind an allowed call " \
    "would open the host"
#define KERNEL_USER                                                                                                 \
    "only the lack of privilege: every system call of the host's kernel can be made, and a flaw in one would open " \
    "the host"

/* Levels of one worker per replica on the host's kernel. */
#define ON_HOST_KERNEL(level)                                                                          \
    {level, LADDER_FAULTS, 0, LADDER_CONTAINED, CRASH},                                                \
        {level, LADDER_MEMORY, LADDER_LIMITS, LADDER_CONTAINED, MEMORY_LIMITED},                       \
        {level, LADDER_MEMORY, 0, LADDER_LIMITED, MEMORY_UNLIMITED},                                   \
        {level, LADDER_FILES, LADDER_MOUNT_NS | LADDER_ROOT, LADDER_CONTAINED, FILES_OWN},             \
        {level, LADDER_FILES, LADDER_NO_PRIVILEGE, LADDER_LIMITED, FILES_USER},                        \
        {level, LADDER_FILES, 0, LADDER_NOT_CONTAINED, FILES_HOST},                                    \
        {level, LADDER_NETWORK, LADDER_NET_NS, LADDER_CONTAINED, NETWORK_OWN},                         \
        {level, LADDER_NETWORK, 0, LADDER_NOT_CONTAINED, NETWORK_HOST},                                \
        {level, LADDER_CPU_TIME, LADDER_LIMITS, LADDER_LIMITED, CPU_LIMITED},                          \
        {level, LADDER_CPU_TIME, 0, LADDER_NOT_CONTAINED, CPU_UNLIMITED},                              \
        {level, LADDER_TIMING, 0, LADDER_NOT_CONTAINED, TIMING_SHARED},                                \
        {level, LADDER_KERNEL, LADDER_SECCOMP | LADDER_NO_PRIVILEGE, LADDER_LIMITED, KERNEL_FILTERED}, \
    {                                                                                                  \
        level, LADDER_KERNEL, 0, LADDER_NOT_CONTAINED, KERNEL_USER                                     \
    }

const struct ladder_row ladder_rows[] = {
    {LADDER_SHARED, LADDER_FAULTS, 0, LADDER_LIMITED,
     "a worker shared with other tenants' models or requests: when it crashes, each request in it is tried once more, "
     "alone, other than streams that have begun"},
    {LADDER_SHARED, LADDER_MEMORY, LADDER_LIMITS, LADDER_NOT_CONTAINED,
     "one address space with other tenants' models: a flaw in the engine or in one model can read the others; only "
     "all of them together are limited"},
    {LADDER_SHARED, LADDER_MEMORY, 0, LADDER_NOT_CONTAINED,
     "one address space with other tenants' models, and NO LIMIT: together they can take all the memory of the host"},
    {LADDER_SHARED, LADDER_FILES, LADDER_MOUNT_NS | LADDER_ROOT, LADDER_LIMITED,
     "nothing of the host, but the same root folder as the other tenants' models in this worker"},
    {LADDER_SHARED, LADDER_FILES, 0, LADDER_NOT_CONTAINED, FILES_HOST},
    {LADDER_SHARED, LADDER_NETWORK, LADDER_NET_NS, LADDER_CONTAINED, NETWORK_OWN},
    {LADDER_SHARED, LADDER_NETWORK, 0, LADDER_NOT_CONTAINED, NETWORK_HOST},
    {LADDER_SHARED, LADDER_CPU_TIME, 0, LADDER_LIMITED,
     "leases of the scheduler, measured by the gateway: a tenant that takes too long pays, and may cost the worker"},
    {LADDER_SHARED, LADDER_TIMING, 0, LADDER_NOT_CONTAINED, TIMING_SHARED},
    {LADDER_SHARED, LADDER_KERNEL, LADDER_SECCOMP | LADDER_NO_PRIVILEGE, LADDER_LIMITED, KERNEL_FILTERED},
    {LADDER_SHARED, LADDER_KERNEL, 0, LADDER_NOT_CONTAINED, KERNEL_USER},

    ON_HOST_KERNEL(LADDER_POOL),
    ON_HOST_KERNEL(LADDER_PROCESS),
    ON_HOST_KERNEL(LADDER_CONTAINER),

    {LADDER_MICROVM, LADDER_FAULTS, 0, LADDER_CONTAINED,
     "a virtual machine of its own: a crash, even of the guest's kernel, ends this machine alone"},
    {LADDER_MICROVM, LADDER_MEMORY, LADDER_LIMITS, LADDER_CONTAINED,
     "the memory of a virtual machine, given at its start, and a limit on the whole machine from outside"},
    {LADDER_MICROVM, LADDER_MEMORY, 0, LADDER_CONTAINED,
     "the memory of a virtual machine, given at its start; NO LIMIT on what QEMU itself takes"},
    {LADDER_MICROVM, LADDER_FILES, 0, LADDER_CONTAINED,
     "a guest that sees no folder of the host: its programs are in its memory, the model on a read-only disk"},
    {LADDER_MICROVM, LADDER_NETWORK, 0, LADDER_CONTAINED, "a virtual machine without a network device"},
    {LADDER_MICROVM, LADDER_CPU_TIME, LADDER_LIMITS, LADDER_LIMITED, CPU_LIMITED},
    {LADDER_MICROVM, LADDER_CPU_TIME, 0, LADDER_NOT_CONTAINED, CPU_UNLIMITED},
    {LADDER_MICROVM, LADDER_TIMING, 0, LADDER_NOT_CONTAINED, TIMING_SHARED},
    {LADDER_MICROVM, LADDER_KERNEL, LADDER_NO_PRIVILEGE, LADDER_CONTAINED,
     "a kernel of its own: a flaw in it stays in the guest; who gets out of QEMU is a user without privilege"},
    {LADDER_MICROVM, LADDER_KERNEL, 0, LADDER_LIMITED,
     "a kernel of its own; but who gets out of QEMU has privileges on the host"},
    {.by = NULL},
};

const struct ladder_row *ladder_judge(enum ladder_level level, enum ladder_topic topic, uint32_t parts)
{
    for (const struct ladder_row *row = ladder_rows; row->by; row++)
        if (row->level == level && row->topic == topic && (row->needs & parts) == row->needs)
            return row;
    return NULL;
}
