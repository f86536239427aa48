#include "schedule/schedule_internal.h"

#include "base/clock.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static bool config_valid(const struct schedule_config *config)
{
    if (config->n_devices == 0 || config->n_devices > SCHEDULE_DEVICES_MAX ||
        (uint32_t)config->policy >= SCHEDULE_POLICY_COUNT)
        return false;
    for (uint32_t i = 0; i < config->n_devices; i++) {
        const struct schedule_device_config *d = &config->devices[i];
        if (d->slots == 0 || d->slots > SCHEDULE_SLOTS_MAX || !d->name || d->name[0] == '\0' ||
            strlen(d->name) > LIMIT_NAME_BYTES)
            return false;
        for (uint32_t k = 0; k < i; k++) {
            if (strcmp(d->name, config->devices[k].name) == 0)
                return false;
        }
    }
    uint64_t sum = 0;
    for (uint32_t class = SCHEDULE_CRITICAL + 1; class < SCHEDULE_CLASS_COUNT; class ++)
        sum += config->share_permille[class];
    return sum <= 500;
}

static void device_init(struct schedule_device *d, const struct schedule_device_config *config)
{
    (void)snprintf(d->name, sizeof d->name, "%s", config->name);
    d->slots = d->slots_set = d->slots_most = config->slots;
    list_init(&d->preemptible);
    list_init(&d->blocked);
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++) {
        list_init(&d->classes[class].idle);
        d->classes[class].fair.near = schedule_fair_near;
    }
}

int schedule_new(const struct schedule_config *config, struct schedule **ret_schedule)
{
    if (!config_valid(config))
        return -ERROR_INVALID_ARGUMENT;
    struct schedule *s = calloc(1, sizeof *s);
    struct schedule_device *devices = calloc(config->n_devices, sizeof *devices);
    if (!s || !devices) {
        free(devices);
        free(s);
        return -ERROR_NO_MEMORY;
    }
    s->devices = devices;
    s->n_devices = config->n_devices;
    for (uint32_t i = 0; i < s->n_devices; i++) {
        device_init(&devices[i], &config->devices[i]);
        s->slots += devices[i].slots;
    }
    s->policy = config->policy;
    memcpy(s->share_permille, config->share_permille, sizeof s->share_permille);
    s->queue_max = config->queue_max;
    s->queue_bytes_max = config->queue_bytes_max;
    s->seed = config->seed;
    slab_init(&s->flows, sizeof(struct schedule_flow));
    slab_init(&s->lanes, sizeof(struct schedule_lane));
    slab_init(&s->actives, sizeof(struct schedule_active));
    if (schedule_heap_reserve(&s->limits, s->slots) < 0) { /* each lease takes a slot at least */
        free(devices);
        free(s);
        return -ERROR_NO_MEMORY;
    }
    *ret_schedule = s;
    return 0;
}

void schedule_free(struct schedule *s)
{
    if (!s)
        return;
    assert(s->n_tenants == 0 && s->n_leases_out == 0 && s->queued == 0 && s->n_lanes == 0 && s->n_actives == 0);
    schedule_pool_done(s);
    for (uint32_t i = 0; i < s->n_devices; i++) {
        for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
            schedule_heap_done(&s->devices[i].classes[class].fair);
    }
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
        schedule_heap_done(&s->shed[class]);
    schedule_heap_done(&s->deadlines);
    schedule_heap_done(&s->delays);
    schedule_heap_done(&s->limits);
    slab_done(&s->flows);
    slab_done(&s->lanes);
    slab_done(&s->actives);
    free(s->devices);
    free(s);
}

int schedule_device_find(const struct schedule *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_devices; i++) {
        if (strcmp(s->devices[i].name, name) == 0)
            return (int)i;
    }
    return -ERROR_NOT_FOUND;
}

void schedule_tenant_set(struct schedule *s, struct schedule_tenant *t, const struct schedule_tenant_config *config)
{
    if (!t->_targets.next) {
        list_init(&t->_targets);
        s->n_tenants++;
    }
    t->weight = config->weight ? config->weight : 1;
    t->queue_max = config->queue_max;
    t->queue_bytes_max = config->queue_bytes_max;
    t->_vtime_per_ns = (UINT64_C(1) << 32) / t->weight;
    if (t->_active) {
        schedule_flows_weigh(t);
        schedule_account_weigh(s, t->_active);
    }
}

void schedule_tenant_remove(struct schedule *s, struct schedule_tenant *t)
{
    assert(t->_targets.next && list_empty(&t->_targets) && t->queued == 0 && t->leased == 0);
    schedule_active_free(s, t);
    s->n_tenants--;
    *t = (struct schedule_tenant){0};
}

void schedule_target_set(struct schedule *s, struct schedule_target *g, struct schedule_tenant *tenant,
                         const struct schedule_target_config *config)
{
    assert(config->device < s->n_devices && config->n_preferred <= LIMIT_BATCH_PREFERRED);
    const struct schedule_device *d = &s->devices[config->device];
    if (!g->tenant) {
        g->tenant = tenant;
        g->device = config->device;
        list_init(&g->_free);
        list_init(&g->_leases);
        list_append(&tenant->_targets, &g->_in_tenant);
    }
    assert(g->tenant == tenant && g->device == config->device);
    g->slots = config->slots == 0 ? 1 : config->slots < d->slots_most ? config->slots : d->slots_most;
    g->batch_rows_max = config->batch_rows_max ? config->batch_rows_max : 1;
    g->weight = config->weight ? config->weight : 1;
    g->_vtime_per_ns = (UINT64_C(1) << 32) / g->weight;
    bool delayed = g->delay_ns > 0;
    g->delay_ns = config->delay_ns;
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT && !delayed; class ++) {
        if (g->delay_ns > 0 && g->_lanes[class])
            schedule_window_update(g->_lanes[class], NULL);
    }
    g->batch_bytes_max = config->batch_bytes_max;
    g->cancellable = config->cancellable;
    g->stepped = config->stepped;
    g->n_preferred = config->n_preferred;
    for (uint32_t i = 0; i < config->n_preferred; i++)
        g->preferred[i] = config->preferred[i];
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++) {
        if (g->_lanes[class])
            g->_lanes[class]->vtime_per_ns = g->_vtime_per_ns;
    }
    schedule_target_update(s, g);
}

void schedule_target_remove(struct schedule *s, struct schedule_target *g)
{
    assert(g->tenant && g->queued == 0 && g->replicas == 0 && !list_linked(&g->_blocked));
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++)
        schedule_lane_free(s, g->_lanes[class]);
    list_remove(&g->_in_tenant);
    *g = (struct schedule_target){0};
}

/* Spreads what is known to others (splitmix64's finaliser). */
static uint32_t treap_priority(const struct schedule *s, uint64_t sequence)
{
    uint64_t z = sequence ^ s->seed;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(z ^ (z >> 31));
}

int schedule_submit(struct schedule *s, struct schedule_request *r, uint64_t now_ns, uint64_t *ret_retry_ns)
{
    struct schedule_target *g = r->target;
    assert(g && g->tenant && r->rows > 0 && !r->lease && !list_linked(&r->_sorted.link) &&
           (uint32_t)r->priority < SCHEDULE_CLASS_COUNT);
    schedule_time_advance(s, now_ns);
    uint64_t retry_ns = 0;
    int rc = schedule_admit(s, r, &retry_ns);
    if (rc == 0)
        rc = schedule_flow_reserve(s, r);
    if (rc < 0) {
        if (ret_retry_ns)
            *ret_retry_ns = retry_ns;
        return rc;
    }
    r->arrival_ns = s->now_ns;
    r->requeued = false;
    r->_sorted.tie = s->sequence++;
    r->_sorted.priority = treap_priority(s, r->_sorted.tie);
    s->n_deadlines += r->deadline_ns != 0;
    schedule_queue_append(s, r);
    schedule_lane_update(s, g->_lanes[schedule_request_class(s, r)]);
    return 0;
}

void schedule_request_take(struct schedule *s, struct schedule_request *r)
{
    struct schedule_lane *lane = r->target->_lanes[schedule_request_class(s, r)];
    schedule_queue_remove(s, r);
    schedule_window_update(lane, r);
    s->n_deadlines -= r->deadline_ns != 0;
    schedule_lane_update(s, lane);
}

bool schedule_cancel(struct schedule *s, struct schedule_request *r)
{
    if (!list_linked(&r->_sorted.link))
        return false;
    schedule_request_take(s, r);
    return true;
}

struct schedule_request *schedule_expire(struct schedule *s, uint64_t now_ns)
{
    schedule_time_advance(s, now_ns);
    uint64_t deadline_ns;
    uint32_t *handle = schedule_heap_peek(&s->deadlines, &deadline_ns);
    if (!handle || deadline_ns > s->now_ns)
        return NULL;
    struct schedule_request *r = container_of(handle, struct schedule_request, _deadline);
    schedule_request_take(s, r);
    return r;
}

struct schedule_request *schedule_target_flush(struct schedule *s, struct schedule_target *g)
{
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++) {
        struct schedule_lane *lane = g->_lanes[class];
        if (!lane || lane->queued == 0)
            continue;
        struct schedule_request *r = schedule_lane_head(lane);
        schedule_request_take(s, r);
        return r;
    }
    return NULL;
}

static uint64_t first_of(const struct schedule_heap *h, uint64_t time_ns)
{
    uint64_t first_ns;
    return schedule_heap_peek(h, &first_ns) && first_ns < time_ns ? first_ns : time_ns;
}

uint64_t schedule_wakeup(const struct schedule *s)
{
    uint64_t wakeup_ns = s->lease_missing ? schedule_time_add(s->now_ns, NS_PER_MS) : UINT64_MAX;
    wakeup_ns = first_of(&s->deadlines, wakeup_ns);
    wakeup_ns = first_of(&s->delays, wakeup_ns);
    return first_of(&s->limits, wakeup_ns);
}

void schedule_stats(const struct schedule *s, struct schedule_stats *ret_stats)
{
    *ret_stats = (struct schedule_stats){
        .slots = s->slots,
        .queued = s->queued,
        .queued_bytes = s->queued_bytes,
        .leases = s->leases,
        .requests = s->requests,
        .busy_ns = s->busy_ns,
        .preempted = s->preempted,
        .shed = s->n_shed,
    };
    for (uint32_t i = 0; i < s->n_devices; i++)
        ret_stats->slots_used += s->devices[i].slots_used;
}

void schedule_device_stats(const struct schedule *s, uint32_t device, struct schedule_device_stats *ret_stats)
{
    assert(device < s->n_devices);
    const struct schedule_device *d = &s->devices[device];
    *ret_stats = (struct schedule_device_stats){
        .name = d->name,
        .slots = d->slots,
        .slots_used = d->slots_used,
        .wall_ns = s->now_ns - s->begin_ns,
        .tenants_ns = d->tenants_ns,
        .system_ns = d->system_ns,
        .running_ns = d->slots_used * s->now_ns - d->started_sum_ns,
        .idle_ns = d->idle_ns + (d->slots - d->slots_used) * (s->now_ns - d->since_ns),
    };
    for (uint32_t class = 0; class < SCHEDULE_CLASS_COUNT; class ++) {
        ret_stats->queued[class] = d->classes[class].queued;
        ret_stats->vtime[class] = (uint64_t)(d->classes[class].vtime >> 32);
    }
}
