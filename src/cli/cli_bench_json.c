/* The report as JSON; `bulkhead advise` reads the levels of it. */
#include "cli_bench_internal.h"

#include <math.h>

static void append_text(struct buf *json, const char *name, const char *text)
{
    buf_format(json, ",\"%s\":", name);
    buf_append_json(json, str_from(text));
}

static void append_number(struct buf *json, const char *name, double value)
{
    if (isfinite(value))
        buf_format(json, ",\"%s\":%.6g", name, value);
    else
        buf_format(json, ",\"%s\":null", name);
}

/* Left out when nothing was measured. */
static void append_series(struct buf *json, const char *name, const struct bench_series *s)
{
    if (s->samples == 0)
        return;
    buf_format(json, ",\"%s\":{\"samples\":%llu,\"failed\":%llu", name, (unsigned long long)s->samples,
               (unsigned long long)s->failed);
    append_number(json, "min", s->min);
    append_number(json, "p50", s->p50);
    append_number(json, "p99", s->p99);
    append_number(json, "max", s->max);
    buf_append_char(json, '}');
}

static void append_positive(struct buf *json, const char *name, double value)
{
    if (value > 0)
        append_number(json, name, value);
}

static void append_neighbour(struct buf *json, const struct bench_level *l)
{
    if (l->alone.samples == 0)
        return;
    buf_format(json, ",\"neighbour\":{\"connections\":%u", BENCH_FLOOD);
    append_series(json, "aloneMs", &l->alone);
    append_series(json, "floodedMs", &l->flooded);
    append_positive(json, "floodRequestsPerSecond", l->flood_rate);
    append_positive(json, "p99Inflation", bench_ratio(l->flooded.p99, l->alone.p99));
    append_series(json, "allSlotsFloodedMs", &l->crowded);
    append_positive(json, "allSlotsFloodRequestsPerSecond", l->crowd_rate);
    append_positive(json, "allSlotsP99Inflation", bench_ratio(l->crowded.p99, l->alone.p99));
    append_series(json, "ownCoresAloneMs", &l->apart_alone);
    append_series(json, "ownCoresFloodedMs", &l->apart_flooded);
    append_positive(json, "ownCoresP99Inflation", bench_ratio(l->apart_flooded.p99, l->apart_alone.p99));
    if (l->apart_text[0])
        append_text(json, "ownCoresMissing", l->apart_text);
    buf_append_char(json, '}');
}

static void append_ratios(struct buf *json, const struct bench_level *l, const struct bench_level *base)
{
    _buf_ struct buf part;
    buf_init(&part, 4 * KIB);
    append_positive(&part, "coldStartP50", bench_ratio(l->cold.p50, base->cold.p50));
    append_positive(&part, "warmStartP50", bench_ratio(l->warm.p50, base->warm.p50));
    append_positive(&part, "addedLatencyP50", bench_ratio(l->added.p50, base->added.p50));
    append_positive(&part, "throughput", bench_ratio(l->throughput, base->throughput));
    append_positive(&part, "emptyThroughput", bench_ratio(l->throughput_empty, base->throughput_empty));
    append_positive(&part, "pss", bench_ratio((double)l->pss_bytes, (double)base->pss_bytes));
    if (part.size > 0) /* without the comma at its beginning */
        buf_format(json, ",\"toProcess\":{%.*s}", (int)part.size - 1, part.data + 1);
}

static void append_level(const struct bench *b, const struct bench_level *l, struct buf *json)
{
    const char *state = !l->wanted ? "skipped" : !l->available ? "unavailable" : l->error[0] ? "failed" : "measured";
    buf_format(json, "{\"name\":\"%s\",\"state\":\"%s\",\"degraded\":%s", ladder_level_names[l->level], state,
               l->degraded ? "true" : "false");
    append_text(json, "text", l->text);
    if (l->wall[0])
        append_text(json, "wall", l->wall);
    if (l->error[0])
        append_text(json, "error", l->error);
    append_series(json, "coldStartMs", &l->cold);
    append_series(json, "bareRuntimeMs", &l->bare);
    if (l->bare_text[0])
        append_text(json, "bareRuntimeMissing", l->bare_text);
    append_series(json, "warmStartMs", &l->warm);
    append_series(json, "addedLatencyMs", &l->added);
    append_series(json, "boundLatencyMs", &l->bound);
    append_positive(json, "requestsPerSecond", l->throughput);
    append_positive(json, "emptyRequestsPerSecond", l->throughput_empty);
    if (l->memory)
        buf_format(json, ",\"idleMemory\":{\"pssBytes\":%llu,\"furtherPssBytes\":%llu,\"processes\":%llu}",
                   (unsigned long long)l->pss_bytes, (unsigned long long)l->further_bytes,
                   (unsigned long long)l->n_processes);
    append_neighbour(json, l);
    append_ratios(json, l, bench_level_of(b, LADDER_PROCESS));
    buf_append_char(json, '}');
}

static void append_host(const struct bench *b, struct buf *json)
{
    buf_format(json, ",\"host\":{\"cpus\":%u,\"memoryBytes\":%llu", b->n_cpus, (unsigned long long)b->memory_bytes);
    append_text(json, "cpu", b->cpu);
    append_text(json, "kernel", b->kernel);
    append_text(json, "os", b->os);
    buf_format(json, ",\"slots\":%u,\"loadBefore\":[%.2f,%.2f,%.2f],\"loadAfter\":[%.2f,%.2f,%.2f],\"busy\":%s",
               b->slots, b->load_before[0], b->load_before[1], b->load_before[2], b->load_after[0], b->load_after[1],
               b->load_after[2], bench_busy_host(b) ? "true" : "false");
    append_number(json, "stealShare", b->steal_share);
    buf_append_text(json, ",\"facts\":[");
    for (size_t i = 0; i < b->n_facts; i++) {
        buf_format(json, "%s{\"name\":\"%s\",\"good\":%s", i > 0 ? "," : "", b->facts[i].name,
                   b->facts[i].good ? "true" : "false");
        append_text(json, "text", b->facts[i].text);
        buf_append_char(json, '}');
    }
    buf_append_text(json, "]}");
}

static void append_target(const struct bench_target *t, struct buf *json)
{
    buf_format(json, "{\"name\":\"%s\"", t->name);
    append_text(json, "text", t->text);
    append_text(json, "unit", t->unit);
    append_number(json, t->at_least ? "atLeast" : "atMost", t->limit);
    if (t->measured) {
        append_number(json, "value", t->value);
        append_text(json, "state", bench_target_met(t) ? "met" : "missed");
    } else {
        append_text(json, "state", "not measured");
        append_text(json, "why", t->missing);
    }
    buf_append_char(json, '}');
}

void bench_json(const struct bench *b, struct buf *json)
{
    buf_append_text(json, "{\"apiVersion\":\"" RESOURCE_API_VERSION "\",\"kind\":\"" BENCH_KIND "\"");
    append_text(json, "version", BULKHEAD_VERSION);
    append_text(json, "began", b->began);
    append_text(json, "ended", b->ended);
    buf_format(json,
               ",\"settings\":{\"runs\":%u,\"seconds\":%u,\"connections\":%u,\"floodConnections\":%u,\"busyMs\":%u,"
               "\"engine\":\"identity\"}",
               b->runs, b->seconds, BENCH_CONNECTIONS, BENCH_FLOOD, BENCH_BUSY_MS);
    append_host(b, json);
    append_series(json, "bareCloneMs", &b->bare);
    buf_append_text(json, ",\"levels\":[");
    for (size_t i = 0; i < LADDER_LEVEL_COUNT - 1; i++) {
        buf_append_text(json, i > 0 ? "," : "");
        append_level(b, &b->levels[i], json);
    }
    buf_append_text(json, "],\"targets\":[");
    for (uint32_t i = 0; i < b->n_targets; i++) {
        buf_append_text(json, i > 0 ? "," : "");
        append_target(&b->targets[i], json);
    }
    buf_append_text(json, "]}");
}
