/* What a version has done since the gateway began. Allocated with the first inference request: a version that nobody
 * asks costs a pointer. The figures of batch sizes grow with the sizes seen, at most one for each possible size. */
#include "gateway/gateway_internal.h"

#include "base/clock.h"

/* Figures are not worth failing a request for: NULL when there is no memory. */
static struct gateway_version_stats *stats_of(struct gateway_version *v)
{
    if (!v->stats)
        v->stats = calloc(1, sizeof *v->stats);
    return v->stats;
}

static void count(struct gateway_duration *d, uint64_t ns)
{
    d->count++;
    d->ns += ns;
}

static void compute_add(struct gateway_compute *sum, const uint64_t took_ns[static GATEWAY_PHASES])
{
    count(&sum->input, took_ns[GATEWAY_PHASE_INPUT]);
    count(&sum->infer, took_ns[GATEWAY_PHASE_INFER]);
    count(&sum->output, took_ns[GATEWAY_PHASE_OUTPUT]);
}

/* The figures of leases with that many rows, in ascending order of rows. */
static struct gateway_batch_stats *batch_of(struct gateway_version_stats *stats, uint32_t rows)
{
    uint32_t at = stats->n_batches;
    while (at > 0 && stats->batches[at - 1].rows >= rows)
        at--;
    if (at < stats->n_batches && stats->batches[at].rows == rows)
        return &stats->batches[at];
    if (stats->n_batches > LIMIT_BATCH_ITEMS) /* 0 to LIMIT_BATCH_ITEMS rows, each once: the limit was changed */
        return NULL;
    struct gateway_batch_stats *grown = realloc(stats->batches, (stats->n_batches + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    stats->batches = grown;
    memmove(&grown[at + 1], &grown[at], (stats->n_batches - at) * sizeof *grown);
    grown[at] = (struct gateway_batch_stats){.rows = rows};
    stats->n_batches++;
    return &grown[at];
}

void gateway_stats_lease(struct gateway_replica *replica, uint64_t now_ns, uint64_t infer_ns)
{
    uint64_t *took_ns = replica->took_ns;
    uint64_t rest_ns = now_ns - replica->sent_ns;
    took_ns[GATEWAY_PHASE_INPUT] = replica->sent_ns - replica->started_ns;
    took_ns[GATEWAY_PHASE_INFER] = infer_ns < rest_ns ? infer_ns : rest_ns; /* the worker's word, as far as it can be */
    took_ns[GATEWAY_PHASE_OUTPUT] = rest_ns - took_ns[GATEWAY_PHASE_INFER];
    struct gateway_version_stats *stats = stats_of(replica->version);
    if (!stats)
        return;
    stats->executions++;
    stats->last_inference_ms = clock_wall_ms();
    struct gateway_batch_stats *batch = batch_of(stats, replica->rows);
    if (batch)
        compute_add(&batch->compute, took_ns);
}

/* Counts a request that succeeds now, whose work began at `begun_ns`. NULL: no figures of its version. */
static struct gateway_version_stats *succeeded(struct gateway_request *r, uint64_t begun_ns)
{
    struct gateway_version_stats *stats = stats_of(r->version);
    uint64_t took_ns = uv_hrtime() - r->arrival_ns;
    uint64_t waited_ns = begun_ns > r->arrival_ns ? begun_ns - r->arrival_ns : 0;
    gateway_metrics_took(r, took_ns);
    gateway_metrics_waited(r, waited_ns);
    if (!stats)
        return NULL;
    count(&stats->success, took_ns);
    count(&stats->queue, waited_ns);
    return stats;
}

void gateway_stats_success(struct gateway_request *r, const struct gateway_replica *replica)
{
    struct gateway_version_stats *stats = succeeded(r, replica->started_ns);
    if (!stats)
        return;
    stats->inferences += r->rows;
    compute_add(&stats->compute, replica->took_ns);
}

void gateway_stats_generated(struct gateway_request *r)
{
    struct gateway_version_stats *stats = succeeded(r, r->begun_ns);
    if (!stats)
        return;
    stats->inferences += r->n_generations;
    stats->last_inference_ms = clock_wall_ms();
}

void gateway_stats_failure(struct gateway_request *r)
{
    struct gateway_version_stats *stats = stats_of(r->version);
    uint64_t took_ns = uv_hrtime() - r->arrival_ns;
    /* What is refused at once would hide, among the durations, how long the others take. */
    if (r->state == GATEWAY_REQUEST_QUEUED || r->state == GATEWAY_REQUEST_LEASED ||
        r->state == GATEWAY_REQUEST_GENERATING)
        gateway_metrics_took(r, took_ns);
    if (stats)
        count(&stats->failure, took_ns);
}

void gateway_stats_free(struct gateway_version *v)
{
    if (v->stats)
        free(v->stats->batches);
    free(v->stats);
    v->stats = NULL;
}

const struct gateway_version_stats *gateway_version_stats(const struct gateway_version *v)
{
    static const struct gateway_version_stats none;
    return v->stats ? v->stats : &none;
}
