/* Micro benchmark of what a request's key costs on its way in: the key's row by its id, the tenant behind it, one unit
 * of that tenant's rate. One line of JSON per row, for bench.py: the least and the median of many short rounds, in
 * nanoseconds of processor time.
 *
 * Every key belongs to a tenant of its own, and keys come in random order. "ns": one after another as fast as the
 * processor can overlap them. "chained": each key depends on the answer to the one before, so that every wait for
 * memory shows. Without the SHA-256 of a key that its connection has not proved before, which is a row of its own.
 *
 *   bench_keys [KEYS_MAX]      default 1000000 (needs about 700 MiB) */
#include "base/clock.h"
#include "base/memory.h"
#include "base/slab.h"
#include "catalog/catalog.h"
#include "schedule/quota.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <time.h>

enum { ROUNDS = 61, OPS = 20000, GATEWAY_TENANT_BYTES = 256, KEY_BYTES = 63 };

struct tenant { /* as the gateway's: the scheduler's part first */
    struct schedule_tenant schedule;
    struct schedule_quota *quota;
};

struct world {
    struct catalog *catalog;
    struct slab slab, quotas;
    struct tenant **tenant_at;
    char (*ids)[CATALOG_KEY_ID_BYTES];    /* of the keys, then as many of nobody */
    char sent[OPS][CATALOG_KEY_ID_BYTES]; /* those of one round, in order: in life each stands in its request */
    uint32_t n_keys;
    uint64_t now_ns;
    uint64_t n_accepted, n_unknown, n_limited;
};

static uint64_t random_state = 1;

static uint64_t random_next(void) /* splitmix64 */
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void require(bool what)
{
    if (!what)
        abort();
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    require(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void id_random(char id[static CATALOG_KEY_ID_BYTES])
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (size_t i = 0; i < CATALOG_KEY_ID_BYTES; i++)
        id[i] = digits[random_next() % (sizeof digits - 1)];
}

static void world_init(struct world *w, uint32_t n)
{
    *w = (struct world){.n_keys = n, .now_ns = NS_PER_S};
    struct catalog_builder *b = NULL;
    require(catalog_builder_new(1, &b) == 0);
    slab_init(&w->slab, GATEWAY_TENANT_BYTES);
    slab_init(&w->quotas, sizeof(struct schedule_quota));
    size_t bytes = memory_large_size(2 * (size_t)n * CATALOG_KEY_ID_BYTES);
    w->ids = aligned_alloc(memory_large_alignment(bytes), bytes);
    w->tenant_at = memory_large_new((size_t)n * sizeof *w->tenant_at);
    require(w->ids && w->tenant_at);
    memory_large_advise(w->ids, bytes);
    for (uint32_t i = 0; i < 2 * n; i++)
        id_random(w->ids[i]);
    for (uint32_t i = 0; i < n; i++) {
        struct catalog_tenant row = {.uid = i + 1, .weight = 1, .queue_max = 16, .classes = 6};
        (void)snprintf(row.name, sizeof row.name, "tenant-%u", i);
        require(catalog_add_tenant(b, &row) >= 0);
        w->tenant_at[i] = slab_take(&w->slab);
        require(w->tenant_at[i] != NULL);
        w->tenant_at[i]->quota = slab_take(&w->quotas);
        require(w->tenant_at[i]->quota != NULL);
    }
    for (uint32_t i = 0; i < n; i++) { /* a prime times i: each tenant once, in an order unlike that in memory */
        struct catalog_key key = {.tenant = (uint32_t)(((uint64_t)i * 2654435761U) % n)};
        memcpy(key.id, w->ids[i], sizeof key.id);
        require(catalog_add_key(b, &key) >= 0);
    }
    _close_ int fd = -1;
    struct error err = {0};
    require(catalog_build(b, &fd, &bytes, &err) == 0);
    catalog_builder_free(b);
    require(catalog_open(fd, bytes, &w->catalog, &err) == 0);
}

static void world_done(struct world *w)
{
    catalog_close(w->catalog);
    slab_done(&w->slab);
    slab_done(&w->quotas);
    free(w->tenant_at);
    free(w->ids);
}

/* What gateway_authenticate and admit do for a key, but the hash; true: accepted. */
static bool admit(struct world *w, const char *id)
{
    const struct catalog_key *row = catalog_key_find(w->catalog, id);
    if (!row) {
        w->n_unknown++;
        return false;
    }
    uint64_t retry_ns;
    if (schedule_rate_take(&w->tenant_at[row->tenant]->quota->rate, w->now_ns++, &retry_ns) < 0) {
        w->n_limited++;
        return false;
    }
    w->n_accepted++;
    return true;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double measure(struct world *w, uint32_t first, bool chained, double *ret_median)
{
    uint32_t n_chained = 0;
    if (chained)
        __asm__ volatile("" : "+r"(n_chained));
    double ns[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < OPS; i++)
            memcpy(w->sent[i], w->ids[first + (uint32_t)(random_next() % w->n_keys)], sizeof w->sent[i]);
        uint32_t last = 0;
        uint64_t start_ns = cpu_ns();
        for (uint32_t i = 0; i < OPS; i++) {
            last = admit(w, w->sent[i + last]) * n_chained; /* 0, which neither compiler nor processor knows */
        }
        ns[round] = (double)(cpu_ns() - start_ns) / OPS;
    }
    qsort(ns, ROUNDS, sizeof *ns, compare);
    *ret_median = ns[ROUNDS / 2];
    return ns[0];
}

static void report(struct world *w, const char *name, uint32_t first, const uint64_t *counter)
{
    uint64_t before = *counter;
    double median, chained_median;
    double least = measure(w, first, false, &median), chained = measure(w, first, true, &chained_median);
    require(*counter - before == UINT64_C(2) * ROUNDS * OPS); /* each was answered as the row's name says */
    printf("{\"bench\": \"keys\", \"row\": \"%s\", \"keys\": %u, \"ns\": %.1f, \"ns_median\": %.1f, \"chained\": %.1f, "
           "\"chained_median\": %.1f}\n",
           name, w->n_keys, least, median, chained, chained_median);
    fflush(stdout);
}

static void rates_set(struct world *w, uint64_t per_minute)
{
    for (uint32_t i = 0; i < w->n_keys; i++) {
        struct schedule_rate *rate = &w->tenant_at[i]->quota->rate;
        uint64_t retry_ns;
        schedule_rate_set(rate, per_minute, 1);
        if (per_minute == 1) /* used up */
            require(schedule_rate_take(rate, w->now_ns, &retry_ns) == 0);
    }
}

static void bench_keys(uint32_t n)
{
    static struct world w;
    world_init(&w, n);
    rates_set(&w, 1);
    report(&w, "known key, over its rate", 0, &w.n_limited);
    report(&w, "unknown key", n, &w.n_unknown);
    for (uint32_t i = 0; i < n; i++)
        w.tenant_at[i]->quota->rate = (struct schedule_rate){0};
    rates_set(&w, UINT64_C(60) * NS_PER_S * 1000); /* looked at and moved on each time, and never used up */
    w.now_ns += 1000 * NS_PER_S;
    report(&w, "known key, accepted", 0, &w.n_accepted);
    world_done(&w);
}

static void bench_hash(void)
{
    EVP_MD *sha = EVP_MD_fetch(NULL, "SHA256", NULL);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    require(sha && context);
    unsigned char key[KEY_BYTES] = "bh_", hash[CATALOG_DIGEST_BYTES];
    double ns[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start_ns = cpu_ns();
        for (uint32_t i = 0; i < OPS; i++) {
            memcpy(key + 3, &i, sizeof i);
            require(EVP_DigestInit_ex2(context, sha, NULL) == 1 && EVP_DigestUpdate(context, key, sizeof key) == 1 &&
                    EVP_DigestFinal_ex(context, hash, NULL) == 1);
        }
        ns[round] = (double)(cpu_ns() - start_ns) / OPS;
    }
    qsort(ns, ROUNDS, sizeof *ns, compare);
    printf("{\"bench\": \"keys\", \"row\": \"SHA-256 of a key\", \"keys\": 1, \"ns\": %.1f, \"ns_median\": %.1f}\n",
           ns[0], ns[ROUNDS / 2]);
    EVP_MD_CTX_free(context);
    EVP_MD_free(sha);
}

int main(int argc, char **argv)
{
    uint64_t n_max = 1000000;
    if (argc > 2 || (argc == 2 && str_to_u64(str_from(argv[1]), &n_max) < 0) || n_max > LIMIT_KEYS) {
        fprintf(stderr, "usage: bench_keys [KEYS_MAX]\n");
        return 2;
    }
    bench_hash();
    for (uint32_t n = 1000; n <= n_max; n *= 10)
        bench_keys(n);
    return 0;
}
