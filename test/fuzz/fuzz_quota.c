/* Rows of what was used, from a hostile control: a gateway takes them, and no quota then blocks for longer than its
 * window or breaks. The input is the rows; what any fuzzer would find at once (a tenant that exists) is put right. */
#undef NDEBUG
#include "bus/bus.h"
#include "bus/quota.h"
#include "gateway/gateway_internal.h"

#include "../unit/catalog/catalog_fixture.h"

const struct gateway_surface *const gateway_surfaces[] = {NULL};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_TENANTS = 2, N_ROWS_MAX = 64 };
#define DAY_NS (UINT64_C(86400) * 1000000000)

static struct gateway g;
static struct gateway_tenant tenants[N_TENANTS];

static void setup(void)
{
    struct catalog_builder *b = NULL;
    struct error err = {0};
    int code = catalog_builder_new(1, &b);
    struct catalog_quota q = {.requests_per_minute = 60, .burst = 1, .compute_s_per_hour = 1, .compute_s_per_day = 1};
    assert(code == 0 && catalog_add_quota(b, &q) == 0);
    map_init(&g.tenants, N_TENANTS * 2);
    for (uint32_t i = 0; i < N_TENANTS; i++) {
        struct catalog_tenant t = fixture_tenant(i);
        t.quota = t.key_quota = 1;
        code = catalog_add_tenant(b, &t);
        assert(code == (int)i);
        tenants[i] = (struct gateway_tenant){.uid = i + 1, .index = i, .generation = 1};
        code = map_put(&g.tenants, i + 1, &tenants[i]);
        assert(code == 0);
    }
    int fd = -1;
    size_t bytes = 0;
    code = catalog_build(b, &fd, &bytes, &err);
    assert(code == 0);
    code = catalog_open(fd, bytes, &g.catalog, &err);
    assert(code == 0);
    close(fd);
    catalog_builder_free(b);
    gateway_quotas_init(&g);
}

/* An hour's and a day's window are over after a day, whatever the rows said. */
static void look_at(struct gateway_quota *q)
{
    struct schedule_quota_ticket t = {0};
    struct schedule_quota_refusal refusal = {0};
    struct schedule_quota_time now = gateway_quota_time();
    int code = schedule_quota_enter(&q->schedule, &t, now, &refusal);
    if (code < 0) {
        assert(refusal.retry_ns > 0 && refusal.retry_ns <= DAY_NS);
        now.now_ns += refusal.retry_ns;
        now.wall_ns += refusal.retry_ns;
        code = schedule_quota_enter(&q->schedule, &t, now, &refusal);
        assert(code == 0);
    }
    schedule_quota_settle(&q->schedule, &t, SCHEDULE_COMPUTE, 1, now);
    schedule_quota_leave(&q->schedule, &t, now);
    assert(schedule_quota_window(&q->schedule, SCHEDULE_COMPUTE_DAY, now).reset_ns <= DAY_NS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool done;
    if (!done)
        setup();
    done = true;
    struct bus_quota rows[N_ROWS_MAX];
    struct bus_quotas body = {.n = (uint32_t)(size / sizeof rows[0]), .last = 1};
    if (body.n > N_ROWS_MAX)
        return -1;
    memcpy(rows, data, body.n * sizeof rows[0]);
    for (uint32_t i = 0; i < body.n; i++)
        rows[i].tenant_uid %= N_TENANTS + 2; /* none, both, and one that is gone */
    int fd = -1;
    int code = bus_memfd("quotas", rows, body.n * sizeof rows[0], &fd);
    assert(code == 0);
    g.quotas.restored = false;
    gateway_quotas_stored(&g, &body, fd);
    assert(g.quotas.restored);
    body.n++; /* more than there is: nothing is read */
    g.quotas.restored = false;
    gateway_quotas_stored(&g, &body, fd);
    close(fd);
    list_each(node, &g.quotas.all) look_at(container_of(node, struct gateway_quota, in_all));
    for (uint32_t i = 0; i < N_TENANTS; i++)
        gateway_quotas_forget(&g, &tenants[i]);
    assert(g.quotas.n == 0 && g.quotas.keys.count == 0);
    return 0;
}
