/* Inside of `bulkhead bench isolation`; only cli_bench*.c includes this.
 *
 * cli_bench.c: the command, its table. cli_bench_server.c: the private server and its admin socket. cli_bench_run.c:
 * what is measured of a level. cli_bench_host.c: facts, memory, the bare clone. cli_bench_bare.c: the bare container.
 * cli_bench_json.c and cli_bench_html.c: the report, from struct bench alone. */
#ifndef BULKHEAD_CLI_CLI_BENCH_INTERNAL_H
#define BULKHEAD_CLI_CLI_BENCH_INTERNAL_H

#include "base/clock.h"
#include "cli_internal.h"
#include "isolate/isolate_host.h"
#include "ladder/ladder.h"
#include "wire/load.h"

#include <limits.h>
#include <signal.h>
#include <sys/types.h>

#define BENCH_RUNS_MAX    1000u
#define BENCH_SECONDS_MAX 600u
#define BENCH_SAMPLES_MAX (1u << 20) /* of one measurement */
#define BENCH_CONNECTIONS 4u         /* of steady load */
#define BENCH_FLOOD       16u        /* connections of the neighbour, always with a request in flight */
#define BENCH_BUSY_MS     5u         /* what a request of the engine-bound model computes */
#define BENCH_PIDS_MAX    64u        /* processes of one replica */
#define BENCH_SILENCE_NS  (2 * LIMIT_REPLICA_START_MS * NS_PER_MS)
#define BENCH_TARGETS     8u
#define BENCH_FILE_JSON   "bulkhead-isolation.json"
#define BENCH_FILE_HTML   "bulkhead-isolation.html"
#define BENCH_KIND        "IsolationReport"
#define BENCH_JSON_BYTES  (1 * MIB)

/* Times in milliseconds. samples == 0: not measured. */
struct bench_series {
    uint64_t samples, failed;
    double min, p50, p99, max;
};

struct bench_level {
    enum ladder_level level;
    bool available; /* on this host, with its limits; else `text` says why not */
    bool wanted;    /* by --level */
    bool degraded;
    char text[512];
    char wall[512];  /* what the server says of a replica that was measured */
    char error[512]; /* why measuring it ended early; "" when it did not */
    struct bench_series cold, warm, added, bound, alone, flooded, crowded;
    struct bench_series apart_alone, apart_flooded; /* the victim on cores of its own */
    char apart_text[512];                           /* why that was not measured; "" when it was */
    struct bench_series bare;                       /* container: the runtime alone, with a replica's bundle */
    char bare_text[512];                            /* why not; "" when it was */
    double throughput, throughput_empty;            /* answers a second of the engine-bound and the empty model */
    double flood_rate, crowd_rate;                  /* the neighbour's answers a second */
    uint64_t pss_bytes, further_bytes, n_processes; /* of an idle replica; of one more */
    bool memory;                                    /* those were measured */
};

struct bench_target {
    const char *name; /* stable: "processColdStart" */
    const char *text; /* what is compared with what */
    const char *unit; /* "×" or "MiB" */
    bool at_least;    /* the limit is a lower one */
    double limit, value;
    bool measured;
    const char *missing; /* why not */
};

struct bench {
    const struct cli_call *call;
    uint32_t runs, seconds;
    const char *output; /* folder */
    /* --- the host --- */
    char began[CLOCK_TEXT_BYTES], ended[CLOCK_TEXT_BYTES];
    char cpu[128], kernel[200], os[160];
    uint32_t n_cpus, slots;
    uint64_t memory_bytes;
    double load_before[3], load_after[3];
    double steal_share; /* of the processors' time meanwhile, taken by the host of this virtual machine */
    struct isolate_fact facts[ISOLATE_FACTS_MAX];
    size_t n_facts;
    struct bench_series bare; /* clone with the namespaces of level process, exec and end of /bin/true */
    struct bench_level levels[LADDER_LEVEL_COUNT - 1];
    struct bench_target targets[BENCH_TARGETS];
    uint32_t n_targets;
    /* --- the private server --- */
    char folder[PATH_MAX / 2], admin[PATH_MAX];
    pid_t server;
    uint16_t port;
    char keys[2][160]; /* of the tenants bench_tenants */
    uint64_t *samples; /* [BENCH_SAMPLES_MAX] */
    uint32_t steps_done, steps;
    const char *doing_level, *doing;
};

enum bench_tenant { BENCH_VICTIM = 0, BENCH_NEIGHBOUR };
extern const char *const bench_tenants[2];
extern volatile sig_atomic_t bench_stop;

/* What a model of the bench is applied with. */
struct bench_model {
    enum bench_tenant tenant;
    const char *name;
    bool busy; /* engine-bound */
    enum ladder_level level;
    uint32_t replicas_min, replicas_max;
    uint32_t idle_ms; /* 0: never */
    bool dedicated;   /* on cores of its own */
};

/* All return CLI_DONE, or complain and return CLI_REFUSED; where `err` stands it takes the text instead. */

/* --- cli_bench_server.c --- */

/* Starts it and waits until it serves and has tested its levels; makes tenants and keys, uploads the models. What it
 * has begun bench_server_stop ends, also after a failure. */
must_check int bench_server_start(struct bench *b, struct error *err);
void bench_server_stop(struct bench *b);
must_check int bench_admin(struct bench *b, const char *method, const char *target, struct str body,
                           struct cli_answer *ret_answer, struct error *err);
must_check int bench_model_apply(struct bench *b, const struct bench_model *model, struct error *err);
must_check int bench_model_delete(struct bench *b, enum bench_tenant tenant, const char *name, struct error *err);
/* Waits until `n` replicas of the model are ready and it has no others, or with 0 until it has none at all. ret_pids[n]
 * and ret_wall (512 bytes) may be NULL. A replica of another level than asked is an error. */
must_check int bench_replicas_wait(struct bench *b, const struct bench_model *model, uint32_t n, pid_t *ret_pids,
                                   char *ret_wall, struct error *err);
/* Waits until the server has no process but its roles: nothing of a replica's end goes on any more. */
must_check int bench_rest_wait(struct bench *b, struct error *err);

/* --- cli_bench_run.c --- */

/* Fills the level; a failure is kept in its `error` and is no failure of the command, but a signal is
 * (-ERROR_CANCELLED). */
must_check int bench_level_run(struct bench *b, struct bench_level *level);
/* Sorts. */
void bench_series_of(uint64_t *samples_ns, size_t n, uint64_t failed, struct bench_series *ret_series);
/* The steps that a level takes, for the progress bar. */
uint32_t bench_level_steps(const struct bench *b);
void bench_progress(struct bench *b, const char *doing, uint32_t steps);

/* --- cli_bench_host.c --- */

/* cpu, kernel, n_cpus, memory_bytes: what tells this host from another kind. */
void bench_host_identify(struct bench *b);
void bench_host_begin(struct bench *b);
void bench_host_end(struct bench *b);
must_check int bench_bare_run(struct bench *b, struct error *err);
/* PSS of the process and all its descendants; false when one cannot be read. */
bool bench_memory(pid_t pid, uint64_t *ret_bytes, uint64_t *ret_processes);

/* --- cli_bench_targets.c --- */

void bench_targets(struct bench *b);
/* A figure for people: three digits, and all of those before the point: "0.417", "55.8", "3,030". Returns `text`. */
#define BENCH_FIGURE_BYTES 32
const char *bench_figure(double value, char text[static BENCH_FIGURE_BYTES]);
/* p99 ratio of two series; 0 when one was not measured. */
double bench_ratio(double value, double base);
bool bench_busy_host(const struct bench *b);
const struct bench_level *bench_level_of(const struct bench *b, enum ladder_level level);
bool bench_target_met(const struct bench_target *target);

/* --- cli_bench_bare.c --- */

/* The server's OCI runtime alone, with the bundle of a replica. */
struct bench_bare {
    bool open;
    char runtime[PATH_MAX];
    char state[PATH_MAX], bundle[PATH_MAX], log[PATH_MAX], pid[PATH_MAX], config[PATH_MAX];
    int mounts; /* the server's mount namespace */
};
/* Takes over the bundle of a replica of level container, which is running with level->wall. What cannot be done here
 * stands in level->bare_text; bench_bare_once then does nothing. */
void bench_bare_open(struct bench *b, struct bench_level *level, struct bench_bare *ret_bare);
/* One run, into ret_ns; false when there was none. Nothing of it is left. */
bool bench_bare_once(struct bench_level *level, struct bench_bare *bare, uint64_t *ret_ns);
void bench_bare_close(struct bench_bare *bare);

/* --- cli_bench_json.c, cli_bench_html.c --- */

void bench_json(const struct bench *b, struct buf *json);
void bench_html(const struct bench *b, struct buf *html);

#endif
