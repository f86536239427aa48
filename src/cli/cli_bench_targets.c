/* What the levels are meant to cost, as ratios within one run, beside what they did. */
#include "cli_bench_internal.h"

const struct bench_level *bench_level_of(const struct bench *b, enum ladder_level level)
{
    return &b->levels[level - 1];
}

const char *bench_figure(double value, char text[static BENCH_FIGURE_BYTES])
{
    char digits[BENCH_FIGURE_BYTES];
    if (value < 999.5 || value >= 1e15) {
        (void)snprintf(text, BENCH_FIGURE_BYTES, "%.3g", value); /* fits, as below */
        return text;
    }
    size_t n = (size_t)snprintf(digits, sizeof digits, "%.0f", value), used = 0;
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            text[used++] = ',';
        text[used++] = digits[i];
    }
    text[used] = '\0';
    return text;
}

double bench_ratio(double value, double base)
{
    return value > 0 && base > 0 ? value / base : 0;
}

bool bench_target_met(const struct bench_target *target)
{
    return target->at_least ? target->value >= target->limit : target->value <= target->limit;
}

/* Then figures say more about the host's other work than about the levels. */
bool bench_busy_host(const struct bench *b)
{
    return b->load_before[0] > 0.5 * b->n_cpus || b->steal_share > 0.05;
}

/* Why a level has no figure. */
static const char *why_not(const struct bench_level *l, const char *partly)
{
    return !l->wanted ? "not asked for with --level" : !l->available ? "the level is not available here" : partly;
}

static void add(struct bench *b, struct bench_target target)
{
    target.measured = target.value > 0;
    b->targets[b->n_targets++] = target;
}

void bench_targets(struct bench *b)
{
    const struct bench_level *shared = bench_level_of(b, LADDER_SHARED), *pool = bench_level_of(b, LADDER_POOL),
                             *process = bench_level_of(b, LADDER_PROCESS),
                             *container = bench_level_of(b, LADDER_CONTAINER);
    const char *failed = "its measurement failed", *no_shared = why_not(shared, failed);
    b->n_targets = 0;
    add(b, (struct bench_target){.name = "processThroughput",
                                 .text = "throughput of process / of shared",
                                 .unit = "×",
                                 .at_least = true,
                                 .limit = 0.97,
                                 .value = bench_ratio(process->throughput, shared->throughput),
                                 .missing = shared->throughput > 0 ? why_not(process, failed) : no_shared});
    add(b, (struct bench_target){.name = "containerThroughput",
                                 .text = "throughput of container / of shared",
                                 .unit = "×",
                                 .at_least = true,
                                 .limit = 0.97,
                                 .value = bench_ratio(container->throughput, shared->throughput),
                                 .missing = shared->throughput > 0 ? why_not(container, failed) : no_shared});
    add(b, (struct bench_target){.name = "processColdStart",
                                 .text = "cold start p50 of process / of a bare clone with its namespaces and exec",
                                 .unit = "×",
                                 .limit = 3,
                                 .value = bench_ratio(process->cold.p50, b->bare.p50),
                                 .missing = b->bare.samples > 0 ? why_not(process, failed)
                                                                : "this host does not make a bare clone"});
    add(b, (struct bench_target){.name = "poolColdStart",
                                 .text = "cold start p50 of pool / of process",
                                 .unit = "×",
                                 .limit = 0.3,
                                 .value = bench_ratio(pool->cold.p50, process->cold.p50),
                                 .missing = pool->cold.samples > 0 ? why_not(process, failed) : why_not(pool, failed)});
    add(b,
        (struct bench_target){.name = "containerColdStart",
                              .text = "cold start p50 of container / of the bare runtime's run of the same bundle",
                              .unit = "×",
                              .limit = 1.15,
                              .value = bench_ratio(container->cold.p50, container->bare.p50),
                              .missing = container->bare_text[0] ? container->bare_text : why_not(container, failed)});
    add(b, (struct bench_target){.name = "processFurtherMemory",
                                 .text = "PSS of one more idle replica of process, engine identity",
                                 .unit = "MiB",
                                 .limit = 4,
                                 .value = (double)process->further_bytes / (double)MIB,
                                 .missing = why_not(process, failed)});
    add(b, (struct bench_target){.name = "neighbourShares",
                                 .text = "p99 beside a flooding neighbour / alone, process, cores shared",
                                 .unit = "×",
                                 .limit = 1.5,
                                 .value = bench_ratio(process->flooded.p99, process->alone.p99),
                                 .missing = why_not(process, failed)});
    add(b, (struct bench_target){.name = "neighbourApart",
                                 .text = "p99 beside a flooding neighbour / alone, process, on cores of its own",
                                 .unit = "×",
                                 .limit = 1.15,
                                 .value = bench_ratio(process->apart_flooded.p99, process->apart_alone.p99),
                                 .missing = process->apart_text[0] ? process->apart_text : why_not(process, failed)});
}
