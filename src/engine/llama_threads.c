/* How many threads a decode call has. llama.cpp's threads wait for each other after every operation, hundreds of times
 * a call, and they wait by looking: where the host has not a core for each of them at the same time, one spins for its
 * whole slice of a core until another gets one, and a step that takes milliseconds takes seconds, in the end longer
 * than a lease may. Fewer threads are faster then, and one never waits.
 *
 * So the processor time of a call's threads is held against its duration, 20 ms at a time: threads that all run,
 * working or spinning, use as much as there are of them. Where half of one is missing for 100 ms longer than not, there
 * are only as many as ran, for a while; a call in which that happens does not end before it has lost 250 ms, and is
 * then given up and done again. Another program that ends within 100 ms, or a single slice of it, changes nothing. */
#include "engine/llama_internal.h"

#include "base/clock.h"

#define WINDOW_NS   (20 * NS_PER_MS)  /* of decode calls, before anything is concluded */
#define FEWER_NS    (100 * NS_PER_MS) /* of windows without a thread, less those with all */
#define GIVE_UP_NS  (250 * NS_PER_MS) /* the same for a running call; p->give_up_ns */
#define LOOK_CALLS  16u               /* operations between two looks at the clock */
#define HOLD_NS_MIN (NS_PER_S / 2)    /* before more are tried again; doubled where that fails */
#define HOLD_NS_MAX (16 * NS_PER_S)

/* What ran of n threads, in halves of one, rounded down. */
static uint64_t halves(uint64_t wall_ns, uint64_t cpu_ns)
{
    return wall_ns > 0 ? 2 * cpu_ns / wall_ns : 0;
}

/* Adds the running call's time up to now to the window. True: the window was full; it has been judged, and begins anew.
 */
static bool look(struct llama_pace *p, uint64_t now_ns)
{
    uint64_t now_cpu_ns = clock_process_ns();
    p->wall_ns += now_ns - p->begin_ns;
    p->cpu_ns += now_cpu_ns - p->begin_cpu_ns;
    p->begin_ns = now_ns;
    p->begin_cpu_ns = now_cpu_ns;
    if (p->wall_ns < WINDOW_NS)
        return false;
    p->ran = (uint32_t)halves(p->wall_ns, p->cpu_ns);
    if (p->ran < 2 * p->n - 1)
        p->missing_ns += p->wall_ns;
    else
        p->missing_ns -= p->missing_ns < p->wall_ns ? p->missing_ns : p->wall_ns;
    p->wall_ns = p->cpu_ns = 0;
    return true;
}

static bool on_operation(void *data)
{
    struct llama *l = data;
    struct llama_pace *p = &l->pace;
    if (p->n < 2 || !l->cacheable || ++p->n_operations % LOOK_CALLS != 0)
        return false;
    p->given_up = p->given_up || (look(p, clock_monotonic_ns()) && p->missing_ns >= p->give_up_ns);
    return p->given_up;
}

void llama_pace_init(struct llama *l, struct llama_context *context)
{
    if (l->pace.n == 0)
        l->pace = (struct llama_pace){.n = l->n_threads, .hold_ns = HOLD_NS_MIN, .give_up_ns = GIVE_UP_NS};
    if (l->n_threads > 1)
        l->api->llama_set_abort_callback(context, on_operation, l);
}

static void threads_set(struct llama *l, uint32_t n)
{
    struct llama_pace *p = &l->pace;
    p->wall_ns = p->cpu_ns = p->missing_ns = 0;
    p->n = n;
}

static void fewer(struct llama *l, uint64_t now_ns)
{
    struct llama_pace *p = &l->pace;
    uint32_t ran = p->ran / 2;
    p->until_ns = now_ns + p->hold_ns;
    p->hold_ns = 2 * p->hold_ns < HOLD_NS_MAX ? 2 * p->hold_ns : HOLD_NS_MAX;
    threads_set(l, ran < 1 ? 1 : ran < p->n ? ran : p->n - 1);
}

static void conclude(struct llama *l, uint64_t now_ns)
{
    struct llama_pace *p = &l->pace;
    bool judged = look(p, now_ns);
    if (p->given_up || p->missing_ns >= FEWER_NS)
        fewer(l, now_ns);
    else if (judged && p->missing_ns == 0 && p->n == l->n_threads)
        p->hold_ns = HOLD_NS_MIN;
}

static int compute(const struct llama *l, struct llama_context *context, struct llama_batch batch, bool encode)
{
    return encode ? l->api->llama_encode(context, batch) : l->api->llama_decode(context, batch);
}

bool llama_pace_decode(struct llama *l, struct llama_context *context, struct llama_batch batch, bool encode,
                       int *ret_status)
{
    struct llama_pace *p = &l->pace;
    if (l->n_threads < 2) {
        *ret_status = compute(l, context, batch, encode);
        return true;
    }
    p->begin_ns = clock_monotonic_ns();
    if (p->n < l->n_threads && p->begin_ns >= p->until_ns)
        threads_set(l, l->n_threads);
    l->api->llama_set_n_threads(context, (int32_t)p->n, (int32_t)p->n);
    p->begin_cpu_ns = clock_process_ns();
    p->given_up = false;
    *ret_status = compute(l, context, batch, encode);
    if (p->n > 1)
        conclude(l, clock_monotonic_ns());
    return !p->given_up || *ret_status == 0;
}

int llama_pace_decode_once(struct llama *l, struct llama_context *context, struct llama_batch batch)
{
    uint32_t n = l->pace.n;
    l->pace.n = 1;
    l->api->llama_set_n_threads(context, 1, 1);
    int status = l->api->llama_decode(context, batch);
    l->api->llama_set_n_threads(context, (int32_t)n, (int32_t)n);
    l->pace.n = n;
    return status;
}
