/* Isolation back-ends: one per level of the ladder (DESIGN §5), `fake` included.
 *
 * Lives in the supervisor, single-threaded, privileged. A back-end starts a worker behind a wall, limits it, tells its
 * use, and ends it without leaving anything (process, cgroup, mount) behind. It never speaks the channel and reads no
 * tenant byte. `probe` finds out by doing what this host can really provide; asking for more is refused with the
 * reason, never weakened.
 *
 * The calling thread must live as long as the process: a worker dies with the thread that spawned it. Needs Linux 5.10
 * (clone3, pidfds, close_range). What the steps are, and why in this order: docs/internals/isolation.md. */
#ifndef BULKHEAD_ISOLATE_ISOLATE_H
#define BULKHEAD_ISOLATE_ISOLATE_H

#include "base/error.h"
#include "base/limits.h"
#include "base/str.h"

#include <sys/types.h>

enum isolate_level { /* weakest first; the order is the contract */
                     ISOLATE_NONE = 0,
                     ISOLATE_SHARED,
                     ISOLATE_POOL,
                     ISOLATE_PROCESS,
                     ISOLATE_CONTAINER,
                     ISOLATE_MICROVM,
                     ISOLATE_LEVEL_COUNT
};
extern const char *const isolate_level_names[ISOLATE_LEVEL_COUNT];
/* ISOLATE_NONE when unknown. */
enum isolate_level isolate_level_from_name(struct str name);

/* OCI runtimes; where none is named, the first that works in this order. */
enum isolate_runtime {
    ISOLATE_RUNTIME_ANY = 0,
    ISOLATE_RUNTIME_RUNC,
    ISOLATE_RUNTIME_CRUN,
    ISOLATE_RUNTIME_RUNSC,
    ISOLATE_RUNTIME_KATA,
    ISOLATE_RUNTIME_COUNT
};
extern const char *const isolate_runtime_names[ISOLATE_RUNTIME_COUNT]; /* as in spec.isolation.runtime */

/* Descriptors handed to a worker: the channel takes 4, an engine's files the rest. */
#define ISOLATE_FDS_MAX 16

/* Where a worker finds its engine's library, at levels with a root folder of their own. */
#define ISOLATE_LIBRARY_PATH "/engine/library.so"

struct isolate_limits {
    uint64_t memory_bytes; /* > 0; swap is not given at all where it can be limited */
    uint32_t cpu_milli;    /* 1000 = one core, > 0; below 10 counts as 10, the least the kernel takes */
    uint32_t pids;         /* processes and threads, > 0 */
    uint64_t file_bytes;   /* RLIMIT_FSIZE */
    uint32_t fds;          /* RLIMIT_NOFILE */
};

/* What a program's root folder holds beside the usual: for programs of this server's own choice only. */
struct isolate_root_extra {
    const char *library_path; /* where library_fd's file is found; NULL: ISOLATE_LIBRARY_PATH */
    const char *folder;       /* an empty folder, absolute; NULL: none */
    bool kvm;                 /* /dev/kvm, open to the program's user */
};

/* The machine of a worker at level microvm. All borrowed. */
struct isolate_machine {
    int disk_fd;         /* the model, a memfd; read-only in the guest */
    uint64_t disk_bytes; /* > 0 */
    int control_fd;      /* the guest's end of a stream socket pair: its port bulkhead.control */
    int channel_fd;      /* likewise: bulkhead.channel */
};

/* The root of a container, as image/image_root.h has it; written by an ingest, so all of it is hostile. Borrowed. */
struct isolate_image {
    int fd; /* a sealed memfd */
    uint64_t bytes;
    uint8_t sha256[32]; /* of it; whoever hands it over has checked that */
};

struct isolate_spawn {
    const char *name;        /* unique on this server, [a-z0-9-], ≤ 63 bytes: names the cgroup */
    int program_fd;          /* the worker program, executed by descriptor; every user must be allowed to execute it */
    const char *const *argv; /* NULL-terminated */
    const int *fds;          /* [n_fds] descriptors handed over as 3, 4, …; everything else is closed at birth */
    size_t n_fds;            /* ≤ ISOLATE_FDS_MAX */
    int library_fd; /* the engine's shared library, found by the worker at ISOLATE_LIBRARY_PATH with all that it needs;
                       -1 (or 0, never a sensible library): none */
    bool proc; /* a fresh read-only /proc of its own processes; else there is none. Sanitized programs always get it:
                  they cannot run without */
    const struct isolate_root_extra *root; /* NULL: nothing more */
    const struct isolate_image *image;     /* level container: its root; NULL: one of the server's own */
    enum isolate_runtime runtime; /* level container: by which it must be run; microvm: CRUN: in a container there */
    const struct isolate_machine *machine; /* level microvm, where no descriptor can be handed over (n_fds 0); NULL
                                              elsewhere */
    int stderr_fd;                         /* the worker's stderr; -1 (or 0, never a sensible stderr) is /dev/null */
    uid_t uid;                             /* the replica's own uid and gid, from the configured range; never 0 */
    gid_t gid;
    struct isolate_limits limits;
    const struct isolate_cpus *cpus; /* the only processors that it may use, by a control group: it cannot leave them
                                        itself; refused where that cannot be had. NULL: no such group is set */
    bool filter; /* the program makes the system calls of isolate_filter.h and no others: where somebody else than the
                    program can install a filter (an OCI runtime), it does */
    bool limits_required; /* false only with --allow-unlimited: start even where a limit cannot be set */
};

struct isolate_cpus; /* isolate_cpus.h */

struct isolate_instance; /* one worker behind its wall; owned by the caller of spawn until `discard` */

struct isolate_usage {
    uint64_t memory_bytes, memory_peak_bytes;
    uint64_t cpu_ns;
    uint32_t pids;
    uint64_t oom_kills;
};

enum isolate_runtime_state { ISOLATE_RUNTIME_UNTESTED = 0, ISOLATE_RUNTIME_BROKEN, ISOLATE_RUNTIME_WORKS };

struct isolate_runtime_report {
    uint32_t state; /* enum isolate_runtime_state; BROKEN also where the host has none */
    char text[240]; /* why not, or that it works */
};

struct isolate_report { /* probe and explain */
    bool available;
    bool limits;    /* memory, cpu and pids can be limited */
    bool cpusets;   /* of probe, level process: a worker can be given processors that it cannot leave */
    bool degraded;  /* available, but less than the level is meant to be: text says what */
    uint64_t facts; /* the back-end's own: what its probe found out and its spawn goes by; see `probed` */
    pid_t pid;      /* explain: of the running worker, in the caller's pid namespace; 0 for probe */
    /* Why not and what to install or enable, what is degraded, or what the level consists of right now. */
    char text[512];
    char cpusets_text[200];                                        /* why it has no cpusets; "" when it has */
    struct isolate_runtime_report runtimes[ISOLATE_RUNTIME_COUNT]; /* probe of level container; row ANY is empty */
};

/* Booting a virtual machine under software emulation takes some 10 s here; this is for a busy, slow host. */
#define ISOLATE_PROBE_MS 120000

struct isolate_ops {
    const char *name;
    enum isolate_level level;
    bool machine;  /* workers run in a machine of their own: spawn takes `machine` */
    bool own_root; /* workers see a root folder of their own, with the engine's library at ISOLATE_LIBRARY_PATH */
    /* By doing: spawns a trivial child through the same path. Called after `setup`, at start and again whenever there
     * is reason to look. Runs in a forked child of the caller, which is killed when it takes longer than
     * ISOLATE_PROBE_MS; only at start, and only unless probe_slow, in the caller itself. So it must leave nothing but
     * its report: no process, group or mount, and nothing in memory that spawn needs. */
    void (*probe)(struct isolate_report *ret_report);
    /* NULL: probe runs at start. Else it runs when somebody first asks for the level, for it costs seconds of processor
     * time; this says at start, within ms, whether everything that it needs is there. */
    int (*look)(struct error *err);
    /* NULL: has none. Level microvm: can workers in its machines be run by this runtime? Looks only. */
    int (*runtime_look)(enum isolate_runtime runtime, struct error *err);
    bool probe_slow; /* probe may take longer than 200 ms */
    /* NULL: has none. From now on `probe` tries this runtime too, whose start may take seconds; ANY: all of them. */
    void (*want)(enum isolate_runtime runtime);
    /* NULL allowed. In the caller's own process, after each probe: keeps what spawn goes by (`facts`). */
    void (*probed)(const struct isolate_report *report);
    /* Does ahead of the first spawn of this program and library (-1: none) what takes some ms; what fails here will
     * fail there. NULL: there is nothing to do. */
    int (*prepare)(int program_fd, int library_fd, struct error *err);
    /* Starts the worker; returns at once after the program was executed or failed to be. On success *ret_pidfd is owned
     * by the instance (borrow it for polling). Refusals: -ERROR_ISOLATION_UNAVAILABLE with the reason in words;
     * -ERROR_INVALID_ARGUMENT for a spawn that is not valid; -ERROR_INTERNAL when the program cannot be executed.
     * Nothing is kept of `spawn`. The worker finds an empty environment (but what tests of sanitized builds
     * need there), / as its folder, default signal dispositions, /dev/null as stdin and stdout. The child dies when the
     * calling process dies. A worker killed before its program ran (memory limit too small) is a success that ends at
     * once. */
    int (*spawn)(const struct isolate_spawn *spawn, struct isolate_instance **ret_instance, int *ret_pidfd,
                 struct error *err);
    /* Changes memory_bytes, cpu_milli and pids of a running instance; file_bytes and fds stay as they were at the
     * start. Memory below what is in use is refused or, on cgroup v2, kills the worker. */
    int (*limit)(struct isolate_instance *i, const struct isolate_limits *limits, struct error *err);
    /* Moves a running instance to other processors, at once; not empty. One that was started without `cpus` of its
     * spawn may keep to fewer of them. NULL: cannot. */
    int (*cpus)(struct isolate_instance *i, const struct isolate_cpus *cpus, struct error *err);
    /* Also after death, until discard: oom_kills then tells why it died. Without cgroups: the main process only. */
    int (*usage)(struct isolate_instance *i, struct isolate_usage *ret_usage, struct error *err);
    /* SIGKILL to all of it; returns at once; idempotent. */
    void (*kill)(struct isolate_instance *i);
    /* Human facts: "process; namespaces …", pid, cgroup. */
    void (*explain)(struct isolate_instance *i, struct isolate_report *ret_report);
    /* After the pidfd became readable: reaps and says how it ended, at once. Returns the wait status through ret_status
     * (waitid si_code/si_status folded as in wait(2); of a worker in a machine only whether it ended by itself, 0, or
     * was ended by some signal, SIGKILL), or -ERROR_AGAIN if it still runs. `discard` must follow; before
     * that, whoever waits for the end can be told of it. May be called again. */
    int (*reap)(struct isolate_instance *i, int *ret_status);
    /* NULL: there is nothing that takes long. Between reap and discard, over and over until it returns 0: what discard
     * would wait for goes on meanwhile (-ERROR_AGAIN), in a process that ends within a bounded time. Discard waits for
     * what is left of it. */
    int (*tidy)(struct isolate_instance *i);
    /* As reap, and removes the cgroup and frees; with -ERROR_AGAIN nothing was freed. May block: some ms while the
     * kernel lets go of the cgroup (what stays busy is removed by a later call), and at level container, where `tidy`
     * has not returned 0, for as long as the OCI runtime takes to forget it. */
    int (*discard)(struct isolate_instance *i, int *ret_status);
    /* Once at start: removes what an earlier server of the same `scope` left behind: kills every process in its
     * cgroups, then removes them. The caller holds the lock that makes it the only server of the scope. `scope` is
     * [a-z0-9-], ≤ 63 bytes. A host without usable cgroups is no failure here: spawn then refuses, or starts without
     * limits. */
    int (*setup)(const char *scope, struct error *err);
    /* After the last discard: removes the scope's own cgroups. May block, at most some seconds. */
    void (*teardown)(void);
};

extern const struct isolate_ops isolate_process;
extern const struct isolate_ops isolate_container;
extern const struct isolate_ops isolate_microvm;
extern const struct isolate_ops isolate_fake; /* no walls: tests only (isolate_fake.h); isolate_find never returns it */

/* The back-end of a level in this build, or NULL: not built yet (refused with that reason). A level that is a policy
 * about who gets a worker, and when, stands on the walls of another: then its back-end's `level` is that other one. */
const struct isolate_ops *isolate_find(enum isolate_level level);

#endif
